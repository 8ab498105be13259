//! The program over ssh to a real sshd, with a real libvirtd behind it.

use rustix::process::Signal;
use virevent_testkit::servers::{Libvirtd, Sshd, Tap};

use super::run::{run, start};

#[tokio::test]
#[ignore = "needs sshd"]
async fn the_stream_over_ssh_survives_kills_of_daemon_and_sshd() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let mut sshd = Sshd::beside(&daemon).await.unwrap();
    let uri = sshd.uri("test:///default");
    let mut watch = start(&["--json", &uri]);
    watch.until_synced();
    daemon.virsh("test:///default").run(&["suspend", "test"]).await.unwrap();
    assert_eq!(watch.next(), "suspended paused");

    daemon.kill9().await;
    assert_eq!(watch.next(), "gap");
    daemon.start_again().await.unwrap();
    watch.until_synced();

    sshd.kill().await;
    assert_eq!(watch.next(), "gap");
    sshd.start_again(&daemon).await.unwrap();
    watch.until_synced();

    watch.signal(Signal::INT);
    let outcome = watch.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
}

/// ssh must not get the signal that a terminal sends to all programs in its foreground.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs sshd"]
async fn ctrl_c_closes_the_subscription_through_ssh() {
    let daemon = Libvirtd::start().await.unwrap();
    let sshd = Sshd::beside(&daemon).await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    let uri = format!("{}&socket={}", sshd.uri("test:///default"), tap.socket().display());
    let mut watch = start(&["--json", &uri]);
    watch.until_synced();
    let registrations = tap.seen().registrations;
    watch.signal_group(Signal::INT);
    let outcome = watch.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert!(registrations > 0);
    assert_eq!(tap.seen().deregistrations, registrations);
}

#[tokio::test]
#[ignore = "needs sshd"]
async fn a_refusal_of_ssh_is_one_line() {
    let daemon = Libvirtd::start().await.unwrap();
    let sshd = Sshd::beside(&daemon).await.unwrap();
    let uri = sshd.uri_with("test:///default", &sshd.command(), &sshd.foreign_key());
    run(&[&uri]).assert_failed(1, "Permission denied (publickey).");
}
