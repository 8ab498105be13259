//! Tests of the crate's guarantees: a test's name states its guarantee, `docs/guarantees.md` lists
//! them.
//!
//! They are kept by the driver for every backend, so they are tested once, on the fake hypervisor;
//! the conformance suite of the testkit then tests the backends.

#![allow(clippy::unwrap_used, clippy::panic)]

mod cancelling;
mod gate;
mod outages;
mod registrations;
mod scripted;
mod slow_readers;
mod streams;
mod syncing;
mod waits;

use std::time::Duration;

use virevent::{DomainEvent, EventSourceExt, EventStream};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::{expect_sequence, until_synced};

/// A fake with a running domain, `web`, and a stream of it that is synced.
async fn synced() -> (FakeHypervisor, EventStream) {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let mut events = fake.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    (fake, events)
}

async fn delivered(events: &mut EventStream, expected: &[&str]) {
    expect_sequence(events, expected).await.unwrap();
}

fn lines(events: &[DomainEvent]) -> Vec<String> {
    events.iter().map(ToString::to_string).collect()
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
