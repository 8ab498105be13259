//! The built program: its arguments, its hook, and a real QEMU.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crash_hook::{Cause, Hook};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use virevent::{Domain, Uuid};
use virevent_testkit::servers::{Guest, Libvirtd, QemuConfig};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crash-hook"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn web() -> Domain {
    Domain::new("qmp:/run/web", "host", Uuid::from_u128(7), "web", Some(1))
}

/// A command that appends a line to the file, and fails until it has `tries` lines.
fn failing_until(tries: usize, file: &Path) -> Hook {
    let script = format!(
        "echo \"$VIREVENT_NAME $VIREVENT_CAUSE $VIREVENT_SOURCE\" >> {0}; \
         test $(wc -l < {0}) -ge {tries}",
        file.display()
    );
    Hook::new(["sh", "-c", &script].map(Into::into).to_vec())
}

/// A hook that appends the name and the cause to the file, as arguments.
fn appending(file: &Path) -> [String; 4] {
    let script = format!("echo \"$VIREVENT_NAME $VIREVENT_CAUSE\" >> {}", file.display());
    ["--".into(), "sh".into(), "-c".into(), script]
}

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn a_hook_that_fails_is_tried_again_and_no_more_than_told() {
    let home = TempDir::new().unwrap();
    for (needed, tries, expected) in [(1, 5, 1), (3, 5, 3), (9, 2, 2)] {
        let file = home.path().join(format!("{needed}"));
        let hook = failing_until(needed, &file).tries(tries).pause(Duration::from_millis(1));
        hook.run(web(), Cause::Failed).await;
        assert_eq!(lines(&file), vec!["web failed qmp:/run/web"; expected]);
    }
}

#[tokio::test]
async fn a_hook_that_hangs_is_killed() {
    let hook = Hook::new(["sleep", "600"].map(Into::into).to_vec());
    let since = Instant::now();
    hook.tries(1).deadline(Duration::from_millis(50)).run(web(), Cause::Crashed).await;
    assert!(since.elapsed() < Duration::from_secs(60));
}

#[test]
fn wrong_arguments_exit_with_2_and_say_what_to_give() {
    let table: [(&[&str], &str); 5] = [
        (&["--", "true"], "no URI"),
        (&["fake:"], "no command"),
        (&["foo:", "--", "true"], "use one of qemu:"),
        (&["--tries", "0", "fake:", "--", "true"], "give 1 or more"),
        (&["--retries", "fake:", "--", "true"], "--retries"),
    ];
    for (arguments, expected) in table {
        let output = program(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("crash-hook: ") && stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// Waits until the file has a line.
fn until_written(child: &mut Child, file: &Path) {
    let since = Instant::now();
    while lines(file).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the program has ended");
        assert!(since.elapsed() < Duration::from_secs(20), "no hook has run");
        sleep(Duration::from_millis(10));
    }
}

/// Waits until the program has logged that it knows so many domains of the directory.
fn until_synced(child: &mut Child, domains: usize) {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let expected = format!("domains={domains}");
    let is_synced =
        |line: &String| line.contains("synced source=qmp-dir") && line.ends_with(&expected);
    assert!(stderr.lines().map_while(Result::ok).any(|line| is_synced(&line)), "never synced");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs qemu"]
async fn a_killed_qemu_runs_the_hook_and_one_that_quits_does_not() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("hooks");
    let start = async |name: &str| {
        let socket = home.path().join(format!("{name}.sock"));
        QemuConfig::default().name(name).socket(&socket).running().start().await.unwrap()
    };
    let mut quits = start("quits").await;
    let web = start("web").await;
    let uri = format!("qmp-dir:{}", home.path().display());
    let mut child = program(&[&uri]).args(appending(&file)).stderr(Stdio::piped()).spawn().unwrap();
    until_synced(&mut child, 2);
    quits.signal("TERM");
    quits.wait().await.unwrap();
    web.signal("KILL");
    until_written(&mut child, &file);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(lines(&file), ["web failed"]);
}

/// Waits until the program keeps this of a domain.
fn until_kept(state: &Path, expected: &str) {
    let since = Instant::now();
    while !fs::read_to_string(state).unwrap_or_default().contains(expected) {
        assert!(since.elapsed() < Duration::from_secs(20), "{expected} is not kept");
        sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libvirtd"]
async fn a_crash_while_the_program_is_replaced_runs_the_hook() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    for name in ["db", "web"] {
        virsh.define(&daemon.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
        virsh.run(&["start", name]).await.unwrap();
    }
    let home = TempDir::new().unwrap();
    let file = home.path().join("hooks");
    let state = home.path().join("state");
    let uri = daemon.uri(daemon.qemu());
    let start = || {
        let mut command = program(&["--state", state.to_str().unwrap(), &uri]);
        command.args(appending(&file)).stderr(Stdio::null()).spawn().unwrap()
    };

    let mut child = start();
    until_kept(&state, "\"certain\":true");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(daemon.kill_guest("web"));
    virsh.until_state("web", "shut off").await.unwrap();
    virsh.run(&["destroy", "db"]).await.unwrap();

    let mut child = start();
    until_written(&mut child, &file);
    until_kept(&state, "\"reason\":\"crashed\"");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut child = start();
    sleep(Duration::from_secs(2));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(lines(&file), ["web crashed"], "once");
}

#[test]
fn a_state_file_of_another_kind_exits_with_1_and_one_line() {
    let home = TempDir::new().unwrap();
    let state = home.path().join("state");
    fs::write(&state, "{}").unwrap();
    let output = program(&["--state", state.to_str().unwrap(), "fake:", "--", "true"]).output();
    let output = output.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("missing field `known`") && stderr.lines().count() == 1, "{stderr}");
}
