//! A daemon that is down, has as many clients as it accepts, or hangs.

use std::time::Instant;

use virevent::{Error, Fault, FaultKind, GapKind};
use virevent_testkit::servers::{Config, Libvirtd};

use super::*;

async fn subscribe_error(uri: &str) -> (Error, String) {
    let error = client(uri).subscribe_with(Options::default()).await.unwrap_err();
    let line = error.to_line();
    (error, line)
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_that_is_down_is_a_clear_error() {
    let mut daemon = Libvirtd::start().await.unwrap();
    daemon.kill9().await;
    let (_, line) = subscribe_error(&daemon.uri(TEST)).await;
    assert!(line.contains("no process listens"), "{line}");
    daemon.start_again().await.unwrap();
    daemon.terminate().await;
    let (_, line) = subscribe_error(&daemon.uri(TEST)).await;
    assert!(line.contains("start libvirtd"), "{line}");
}

/// libvirtd does not answer a client beyond the limit until another one leaves.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_at_max_clients_is_a_clear_error() {
    let daemon = Libvirtd::start_with(Config::default().max_clients(1)).await.unwrap();
    let first = client(&daemon.uri(TEST));
    let events = first.subscribe_with(Options::default()).await.unwrap();
    let uri = daemon.uri(TEST);
    let second = Libvirt::new(&uri).unwrap().connect_timeout(Duration::from_secs(1)).source();
    let error = second.subscribe_with(Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("max_clients"), "{error}");
    drop(events);
    first.shutdown().await;
    second.subscribe_with(Options::default()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_hypervisor_without_a_driver_is_a_refusal() {
    let daemon = Libvirtd::start().await.unwrap();
    let (error, line) = subscribe_error(&daemon.uri("vmware:///session")).await;
    assert!(error.is_refusal() && line.contains("check the URI"), "{line}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_that_hangs_is_a_gap_and_a_recovery() {
    let daemon = Libvirtd::start().await.unwrap();
    let uri = daemon.uri(TEST);
    let source = Libvirt::new(&uri).unwrap().keepalive(Duration::from_millis(200), 4).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let since = Instant::now();
    daemon.freeze();
    let gap = next_within(&mut events, PATIENCE).await.unwrap();
    let fault = match &gap {
        DomainEvent::Gap(gap) => match &gap.kind {
            GapKind::Disconnected { fault, .. } => Some(fault),
            _ => None,
        },
        _ => None,
    };
    assert_eq!(fault.map(Fault::kind), Some(FaultKind::Timeout), "{gap}");
    assert!(since.elapsed() < Duration::from_secs(5), "after {:?}", since.elapsed());
    daemon.thaw();
    until_synced(&mut events).await.unwrap();
    daemon.virsh(TEST).run(&["suspend", "test"]).await.unwrap();
    lines_until(&mut events, |line| line == "test[1] suspended (paused)").await;
}
