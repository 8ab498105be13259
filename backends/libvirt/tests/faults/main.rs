//! What a libvirtd can do wrong, each in a test: it ends in a clear error, or in a gap and a recovery;
//! never in a panic, a hang, a wrong state, or memory that grows.
//!
//! The daemon is the testkit's fake on a real socket, so that time is real too: deadlines are set
//! short where a test waits for one, and are long everywhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bytes;
mod calls;
mod chaos;
mod handshake;
mod timing;
mod verification;

use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{DomainEvent, Error, EventSource, EventStream, FaultKind, GapKind, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::Host;
use virevent_testkit::assert::{Fold, next_within, until_synced};
use virevent_testkit::libvirtd::FakeLibvirtd;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn client(daemon: &FakeLibvirtd) -> Libvirt {
    let quick = Reconnect::local().base(Duration::from_millis(1)).max(Duration::from_millis(20));
    Libvirt::new(&daemon.uri()).unwrap().reconnect(quick.seed(1))
}

/// A client that waits for nothing: for the tests of a deadline.
fn hasty_client(daemon: &FakeLibvirtd) -> Driver {
    let short = Duration::from_millis(200);
    client(daemon).call_timeout(short).connect_timeout(short).keepalive(short / 4, 3).source()
}

/// A daemon with a running domain `web`, and a stream that is synced with it.
async fn watched() -> (FakeLibvirtd, EventStream) {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().define("web").unwrap();
    daemon.host().start("web").unwrap();
    let source = client(&daemon).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (daemon, events)
}

/// Why a subscription fails, as a line for people.
async fn refusal(source: &Driver) -> (Error, String) {
    let outcome = tokio::time::timeout(PATIENCE, source.subscribe_with(Options::default())).await;
    let error = outcome.expect("subscribing hangs").unwrap_err();
    let line = error.to_line();
    (error, line)
}

/// The kind of the gap that comes next.
async fn gap(events: &mut EventStream) -> FaultKind {
    match next_within(events, PATIENCE).await.unwrap() {
        DomainEvent::Gap(gap) => match gap.kind {
            GapKind::Disconnected { fault } => fault.kind(),
            other => panic!("expected an outage, but got {other:?}"),
        },
        event => panic!("expected a gap, but got: {event}"),
    }
}

/// That the stream is whole again, and goes on: a change on the host is told.
async fn recovers(events: &mut EventStream, host: &Host) {
    until_synced(events).await.unwrap();
    goes_on(events, host).await;
}

/// That the stream goes on: a change on the host is the next that is told.
async fn goes_on(events: &mut EventStream, host: &Host) {
    host.create("probe").unwrap();
    let event = next_within(events, PATIENCE).await.unwrap();
    assert!(event.to_string().starts_with("probe["), "{event}");
    host.stop("probe").unwrap();
    let event = next_within(events, PATIENCE).await.unwrap();
    assert!(event.to_string().contains("stopped (destroyed)"), "{event}");
}

/// That a new stream says how the host is, and goes on.
async fn tells_the_truth(source: &Driver, host: &Host) {
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let mut fold = Fold::default();
    fold.extend(&until_synced(&mut events).await.unwrap());
    fold.check(&host.domains()).unwrap();
    goes_on(&mut events, host).await;
}
