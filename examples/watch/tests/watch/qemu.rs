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
    let run = watch(&qemu, &["--count", "6"]);
    for command in ["cont", "stop", "cont", "system_reset", "system_powerdown", "quit"] {
        qemu.run(command).await.unwrap();
        if command == "stop" {
            // Only the run state tells why: it is asked for.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let pid = qemu.pid();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let reboot = format!("web[{}] rebooted", pid.unwrap());
    assert_eq!(
        outcome.told(),
        [
            "resumed unpaused",
            "suspended paused",
            "resumed unpaused",
            &reboot,
            "shutting_down host",
            "stopped destroyed",
        ]
    );
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
