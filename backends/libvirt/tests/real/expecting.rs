//! What is expected of starts: complete, in pause, refused, and failed without an event.

use virevent::{EventSourceExt, StopCause, WaitError};
use virevent_testkit::servers::{Config, Guest, Hook, Libvirtd};

use super::*;

/// A start that sends nothing is told by its deadline alone.
const SHORT: Duration = Duration::from_secs(4);

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn each_outcome_of_a_start_is_what_an_expectation_says() {
    let daemon = Libvirtd::start_with(Config::default().hook(true)).await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    let source = client(&daemon.uri(daemon.qemu()));

    let mut web = source.expect("web").await.unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
    let (run, _) = web.running(PATIENCE).await.unwrap();
    assert_eq!(run.id(), Some(1));
    assert!(daemon.kill_guest("web"));
    let (ended, cause) = web.stopped(PATIENCE).await.unwrap();
    assert_eq!(ended, run);
    assert_eq!(cause, StopCause::Failed);

    virsh.run(&["start", "--paused", "web"]).await.unwrap();
    let error = web.running(SHORT).await.unwrap_err().to_string();
    assert!(error.starts_with("web is not running at the deadline of 4s: it is paused"), "{error}");
    virsh.run(&["resume", "web"]).await.unwrap();
    web.running(PATIENCE).await.unwrap();
    virsh.run(&["destroy", "web"]).await.unwrap();
    let (_, cause) = web.stopped(PATIENCE).await.unwrap();
    assert_eq!(cause, StopCause::Destroyed);

    // libvirt sends resumed, and then nothing: the driver looks.
    daemon.set_hook("web", "started", Hook::Refuse).unwrap();
    virsh.run(&["start", "web"]).await.unwrap_err();
    let error = web.running(PATIENCE).await.unwrap_err();
    assert!(matches!(error, WaitError::Stopped { cause: StopCause::Failed, .. }), "{error:?}");

    // It sends nothing at all.
    daemon.set_hook("web", "started", Hook::Pass).unwrap();
    daemon.set_hook("web", "prepare", Hook::Refuse).unwrap();
    virsh.run(&["start", "web"]).await.unwrap_err();
    let error = web.running(SHORT).await.unwrap_err();
    assert!(matches!(error, WaitError::Deadline { state: Some(_), .. }), "{error:?}");
    assert!(error.to_string().contains("at the deadline of 4s: it is shutoff"), "{error}");
}

/// libvirt's test driver sends started alone for a start.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_start_of_the_test_driver_is_a_run() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(TEST);
    // The driver forgets its domains when its last client leaves: connect before the definition.
    let mut web = client(&daemon.uri(TEST)).expect("web").await.unwrap();
    virsh.define(&test_domain("web")).await.unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
    web.running(PATIENCE).await.unwrap();
    virsh.run(&["shutdown", "web"]).await.unwrap();
    let (_, cause) = web.stopped(PATIENCE).await.unwrap();
    assert_eq!(cause, StopCause::Shutdown);
}
