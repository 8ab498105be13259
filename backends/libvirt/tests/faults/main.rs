//! Faults of a libvirtd, each in a test: it leads to a clear error, or to a gap and a recovery;
//! never to a panic, a hang, a wrong state, or memory that grows.
//!
//! The daemon is the testkit's fake on a real socket, so that time is real, too: deadlines are
//! short where a test waits for one, and long everywhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authentication;
mod bytes;
mod calls;
mod chaos;
mod handshake;
mod timing;
mod typed;
mod verification;

use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{
    DomainEvent, DomainStore, Error, EventSource, EventStream, FaultKind, GapKind, Options,
};
use virevent_libvirt::Libvirt;
use virevent_testkit::Host;
use virevent_testkit::assert::{check_store, next_within, until_synced};
use virevent_testkit::fakes::libvirtd::FakeLibvirtd;

/// Far longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn client(daemon: &FakeLibvirtd) -> Libvirt {
    let quick = Reconnect::local().base(Duration::from_millis(1)).max(Duration::from_millis(20));
    Libvirt::new(&daemon.uri()).unwrap().reconnect(quick.seed(1))
}

/// A client with short deadlines, for tests of them.
fn hasty_client(daemon: &FakeLibvirtd) -> Driver {
    let short = Duration::from_millis(200);
    client(daemon).call_timeout(short).connect_timeout(short).keepalive(short / 4, 3).source()
}

/// A daemon with a running domain `web`, and a stream that is synced with it.
async fn synced_stream() -> (FakeLibvirtd, EventStream) {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().define("web").unwrap();
    daemon.host().start("web").unwrap();
    let source = client(&daemon).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (daemon, events)
}

/// The error of a subscription, and the line that people see.
async fn subscribe_error(source: &Driver) -> (Error, String) {
    let outcome = tokio::time::timeout(PATIENCE, source.subscribe_with(Options::default())).await;
    let error = outcome.expect("subscribe does not return").unwrap_err();
    let line = error.to_line();
    (error, line)
}

/// The fault of the gap that is the next event.
async fn next_gap(events: &mut EventStream) -> FaultKind {
    match next_within(events, PATIENCE).await.unwrap() {
        DomainEvent::Gap(gap) => match gap.kind {
            GapKind::Disconnected { fault, .. } => fault.kind(),
            other => panic!("expected an outage, but got {other:?}"),
        },
        event => panic!("expected a gap, but got: {event}"),
    }
}

/// Asserts that the stream becomes synced and delivers a change on the host.
async fn assert_recovers(events: &mut EventStream, host: &Host) {
    until_synced(events).await.unwrap();
    assert_delivers(events, host).await;
}

/// Asserts that the stream delivers a change on the host as its next event.
async fn assert_delivers(events: &mut EventStream, host: &Host) {
    host.create("probe").unwrap();
    let event = next_within(events, PATIENCE).await.unwrap();
    assert!(event.to_string().starts_with("probe["), "{event}");
    host.stop("probe").unwrap();
    let event = next_within(events, PATIENCE).await.unwrap();
    assert!(event.to_string().contains("stopped (destroyed)"), "{event}");
}

/// Asserts that a new stream lists the host's domains as they are, and delivers a change.
async fn assert_new_stream_is_true(source: &Driver, host: &Host) {
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let store = DomainStore::new();
    store.extend(&until_synced(&mut events).await.unwrap());
    check_store(&store, &host.domains()).unwrap();
    assert_delivers(&mut events, host).await;
}
