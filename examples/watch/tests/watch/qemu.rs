//! The program against real QEMUs without a daemon.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;

use virevent_testkit::servers::{Guest, Qemu, QemuConfig};

use super::run::{Run, run, start};

fn watch(qemu: &Qemu, args: &[&str]) -> Run {
    let mut run = start(&[args, &["--json", &qemu.uri()]].concat());
    run.until_synced();
    run
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn changes_by_qmp_commands_are_printed_in_order() {
    let mut qemu = QemuConfig::default().name("web").start().await.unwrap();
    let mut run = watch(&qemu, &["--count", "6"]);
    let reboot = format!("web[{}] rebooted", qemu.pid().unwrap());
    for (command, expected) in [
        ("cont", "resumed unpaused"),
        ("stop", "suspended paused"),
        ("cont", "resumed unpaused"),
        ("system_reset", &reboot),
        ("system_powerdown", ""),
    ] {
        qemu.run(command).await.unwrap();
        // Waits for each event: before the next command the source queries the cause of a pause.
        if !expected.is_empty() {
            assert_eq!(run.next(), expected);
        }
    }
    qemu.run("quit").await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.in_short(), ["shutting_down host", "stopped destroyed"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn an_untyped_event_is_printed_if_asked_for() {
    let mut qemu = QemuConfig::default().name("web").running().start().await.unwrap();
    let run = watch(&qemu, &["--only", "lifecycle,reboot,other", "--count", "1"]);
    let expected = format!("web[{}] event POWERDOWN {{}}", qemu.pid().unwrap());
    qemu.run("system_powerdown").await.unwrap();
    assert_eq!(run.end().in_short(), [expected]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_typed_event_is_printed_if_asked_for() {
    let cd = ["-drive", "if=none,id=cd,media=cdrom", "-device", "ide-cd,id=cd0,drive=cd,bus=ide.1"];
    let guest = QemuConfig::default().name("web").guest(Guest::idle("web"));
    let mut qemu = guest.args(&cd).start().await.unwrap();
    let watching = watch(&qemu, &["--only", "tray-change", "--count", "2"]);
    qemu.run_with("blockdev-open-tray", r#"{"id": "cd0", "force": true}"#).await.unwrap();
    qemu.run_with("blockdev-close-tray", r#"{"id": "cd0"}"#).await.unwrap();
    let outcome = watching.end();
    let open = r#""kind":"tray_change","data":{"alias":"cd0","reason":"open"}"#;
    assert!(outcome.stdout.contains(open), "{}", outcome.stdout);
    let id = qemu.pid().unwrap();
    let both = ["open", "close"].map(|reason| format!("web[{id}] tray-change cd0: {reason}"));
    assert_eq!(outcome.in_short(), both);
    let error = "rtc-change, which is the type of that event";
    run(&["--only", "other:RTC_CHANGE", &qemu.uri()]).assert_failed(2, error);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_killed_qemu_is_stopped_and_its_successor_started() {
    let first = QemuConfig::default().running().start().await.unwrap();
    let run = watch(&first, &["--count", "2"]);
    first.signal("KILL");
    let _second = QemuConfig::default().socket(first.socket()).running().start().await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.in_short(), ["stopped failed", "started booted"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_monitor_held_by_another_client_is_an_error() {
    let qemu = QemuConfig::default().running().start().await.unwrap();
    let mut holder = BufReader::new(UnixStream::connect(qemu.socket()).unwrap());
    holder.read_line(&mut String::new()).unwrap();
    run(&["--json", &qemu.uri()]).assert_failed(1, "another client holds this monitor");
    drop(holder);
    let _watching = watch(&qemu, &[]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn wait_prints_a_gap_until_the_monitor_is_free() {
    let mut qemu = QemuConfig::default().name("web").running().start().await.unwrap();
    let mut holder = BufReader::new(UnixStream::connect(qemu.socket()).unwrap());
    holder.read_line(&mut String::new()).unwrap();
    let mut run = start(&["--json", "--wait", "--count", "1", &qemu.uri()]);
    assert_eq!(run.next(), "gap");
    drop(holder);
    assert_eq!(run.next(), "existing ");
    assert_eq!(run.next(), "synced");
    qemu.run("stop").await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.in_short(), ["suspended paused"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn wait_may_start_before_qemu() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("vm.sock");
    let mut run = start(&["--json", "--wait", &format!("qmp:{}", socket.display())]);
    assert_eq!(run.next(), "gap");
    let _qemu = QemuConfig::default().socket(&socket).running().start().await.unwrap();
    assert_eq!(run.next(), "existing ");
    assert_eq!(run.next(), "synced");
}
