//! What a QEMU can do wrong, a test each: it ends in an error with advice, or in a gap and a
//! resync; never in a panic, a hang, or a wrong state.
//!
//! The QEMU is the testkit's fake on a real socket, so that time is real too: deadlines are short
//! where a test waits for one, and long everywhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod causes;
mod lines;
mod notices;
mod outages;
mod refusals;
mod silent;

use std::time::Duration;

use virevent::{DomainEvent, EventSource, EventStream, FaultKind, Gap, GapKind, Kind, Options};
use virevent_qemu::Qmp;
use virevent_testkit::assert::{in_short, next_within, until_synced};
use virevent_testkit::fakes::qemu::FakeQemu;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const SHORT: Duration = Duration::from_millis(200);

fn client(qemu: &FakeQemu) -> Qmp {
    Qmp::new(&qemu.uri()).unwrap().look_every(Duration::from_millis(10))
}

fn all() -> Options {
    Options::default().kind(Kind::Lifecycle).kind(Kind::Reboot).kind(Kind::Other)
}

/// A running `web`, and a stream that is synced with it.
async fn watched() -> (FakeQemu, EventStream) {
    // The socket of a fake belongs to the test, so its process is not watched: a run has ended when
    // the connection is refused.
    let qemu = FakeQemu::start("web").unwrap();
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (qemu, events)
}

async fn next(events: &mut EventStream) -> String {
    in_short(&next_within(events, PATIENCE).await.unwrap())
}

/// The kind of the gap that comes next.
async fn gap(events: &mut EventStream) -> FaultKind {
    match next_within(events, PATIENCE).await.unwrap() {
        DomainEvent::Gap(Gap { kind: GapKind::Disconnected { fault, .. }, .. }) => fault.kind(),
        event => panic!("expected a gap, but got: {event}"),
    }
}

/// Asserts that the stream goes on: a pause is the next event.
async fn goes_on(qemu: &FakeQemu, events: &mut EventStream) {
    qemu.stop();
    assert_eq!(next(events).await, "web suspended (paused)");
}

/// The error of a first subscription.
async fn refusal(qemu: &FakeQemu) -> String {
    let source = client(qemu).greeting_timeout(SHORT).source();
    let outcome = tokio::time::timeout(PATIENCE, source.subscribe_with(Options::default())).await;
    outcome.expect("subscribing hangs").unwrap_err().to_line()
}
