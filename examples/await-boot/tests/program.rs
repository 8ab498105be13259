//! The built program: its arguments, its demo, and a real libvirtd.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

use virevent_testkit::servers::{Deed, Guest, Libvirtd};

fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_await-boot"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The exit status and the last line of standard error, where the command's own lines come first.
fn failure(output: &Output) -> (i32, String) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().unwrap_or_default();
    (output.status.code().unwrap(), last.into())
}

#[test]
fn wrong_arguments_exit_with_2_and_say_what_to_give() {
    let table: [(&[&str], &str); 6] = [
        (&["fake:", "web"], "no command"),
        (&["fake:", "web", "--"], "no command"),
        (&["fake:", "--", "true"], "one URI and one domain"),
        (&["foo:", "web", "--", "true"], "use one of qemu:"),
        (&["--timeout", "soon", "fake:", "web", "--", "true"], "--timeout"),
        (&["--retries", "fake:", "web", "--", "true"], "--retries"),
    ];
    for (arguments, expected) in table {
        let output = program(arguments);
        let (status, line) = failure(&output);
        assert_eq!(status, 2, "{line}");
        assert!(line.starts_with("await-boot: ") && line.contains(expected), "{line}");
        assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}

#[test]
fn an_unreachable_hypervisor_exits_with_1() {
    let uri = "test:///default?socket=/nonexistent/sock";
    let (status, line) = failure(&program(&[uri, "web", "--", "true"]));
    assert_eq!(status, 1, "{line}");
    assert!(line.contains("/nonexistent/sock"), "{line}");
}

#[test]
fn a_command_that_cannot_be_run_exits_with_3() {
    let (status, line) = failure(&program(&["fake:", "other", "--", "/nonexistent/command"]));
    assert_eq!(status, 3);
    let expected = "await-boot: the command failed: \"/nonexistent/command\": No such file";
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn the_demo_shows_each_outcome() {
    let output = program(&[]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for expected in [
        "status 0: web[1] is running (booted)",
        "status 4: web[1] is not running: stopped (failed)",
        "status 5: web is not running at the deadline of 2s: it is shutoff",
        "status 1: web is not known to be running at the deadline of 2s: ",
        "status 3: the command failed: no such domain",
    ] {
        assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libvirtd"]
async fn a_real_domain_starts_fails_and_is_never_started() {
    let daemon = Libvirtd::start().await.unwrap();
    let uri = daemon.uri(daemon.qemu());
    let virsh = daemon.virsh(daemon.qemu());
    for name in ["web", "broken"] {
        let xml = daemon.furnish(&Guest::idle(name)).unwrap();
        let xml = xml.replace("broken.img", "no-such-file.img");
        virsh.define(&xml).await.unwrap();
    }
    let start = |name: &str| program(&[&uri, name, "--", "virsh", "-q", "-c", &uri, "start", name]);

    let output = start("web");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.ends_with("web[1] is running (booted)\n"), "{stdout}");
    // It runs already: the command, which would fail, is not run.
    assert_eq!(start("web").status.code(), Some(0));

    let output = start("broken");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("no-such-file.img"), "virsh's own message: {stderr}");
    let line = "await-boot: the command failed: \"virsh\": exit status: 1";
    assert_eq!(failure(&output), (3, line.into()));

    let output = program(&["--timeout", "1", &uri, "broken", "--", "true"]);
    let line = "await-boot: broken is not running at the deadline of 1s: it is shutoff";
    let (status, said) = failure(&output);
    assert_eq!(status, 5, "{said}");
    assert!(said.starts_with(line), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libvirtd"]
async fn a_real_guest_that_powers_off_ends_the_wait_for_it() {
    let daemon = Libvirtd::start().await.unwrap();
    let uri = daemon.uri(daemon.qemu());
    let xml = daemon.furnish(&Guest::after(1, "web", Deed::PowerOff)).unwrap();
    daemon.virsh(daemon.qemu()).define(&xml).await.unwrap();
    let command = format!("virsh -q -c '{uri}' start web && exec sleep 600");
    let (status, line) = failure(&program(&[&uri, "web", "--", "sh", "-c", &command]));
    assert_eq!(status, 4, "{line}");
    assert_eq!(line, "await-boot: web[1] has stopped (shutdown), while the command still ran");
}
