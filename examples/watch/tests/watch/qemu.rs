//! The program against real QEMUs without a daemon.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;

use virevent_testkit::servers::{Qemu, QemuConfig};

use super::run::{Run, run, start};

fn watch(qemu: &Qemu, args: &[&str]) -> Run {
    let mut run = start(&[args, &["--json", &qemu.uri()]].concat());
    run.until_synced();
    run
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn what_is_done_to_a_machine_is_printed_in_order_with_its_causes() {
    let mut qemu = QemuConfig::default().name("web").start().await.unwrap();
    let mut run = watch(&qemu, &["--count", "6"]);
    let reboot = format!("web[{}] rebooted", qemu.pid().unwrap());
    for (command, told) in [
        ("cont", "resumed unpaused"),
        ("stop", "suspended paused"),
        ("cont", "resumed unpaused"),
        ("system_reset", &reboot),
        ("system_powerdown", ""),
    ] {
        qemu.run(command).await.unwrap();
        // Each is waited for: the cause of a pause is asked for, before the next command.
        if !told.is_empty() {
            assert_eq!(run.next(), told);
        }
    }
    qemu.run("quit").await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.told(), ["shutting_down host", "stopped destroyed"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_button_that_is_pressed_is_printed_to_who_asks_for_it() {
    let mut qemu = QemuConfig::default().name("web").running().start().await.unwrap();
    let run = watch(&qemu, &["--only", "lifecycle,reboot,other", "--count", "1"]);
    let told = format!("web[{}] event POWERDOWN {{}}", qemu.pid().unwrap());
    qemu.run("system_powerdown").await.unwrap();
    assert_eq!(run.end().told(), [told]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_killed_qemu_has_failed_and_the_next_at_its_socket_is_started() {
    let first = QemuConfig::default().running().start().await.unwrap();
    let run = watch(&first, &["--count", "2"]);
    first.signal("KILL");
    let _second = QemuConfig::default().socket(first.socket()).running().start().await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.told(), ["stopped failed", "started booted"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_monitor_that_another_client_holds_is_a_clear_error_until_it_lets_go() {
    let qemu = QemuConfig::default().running().start().await.unwrap();
    let mut holder = BufReader::new(UnixStream::connect(qemu.socket()).unwrap());
    holder.read_line(&mut String::new()).unwrap();
    run(&["--json", &qemu.uri()]).assert_failed(1, "another client holds this monitor");
    drop(holder);
    let _it_is_ours = watch(&qemu, &[]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn who_waits_is_told_of_the_gap_and_goes_on_when_the_monitor_is_let_go() {
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
    assert_eq!(outcome.told(), ["suspended paused"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn who_waits_may_be_there_before_its_qemu() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("vm.sock");
    let mut run = start(&["--json", "--wait", &format!("qmp:{}", socket.display())]);
    assert_eq!(run.next(), "gap");
    let _qemu = QemuConfig::default().socket(&socket).running().start().await.unwrap();
    assert_eq!(run.next(), "existing ");
    assert_eq!(run.next(), "synced");
}
