//! A directory of fake QEMUs: how their sockets appear and vanish, and what is delivered.
//!
//! The QEMUs are the testkit's fakes on real sockets, so that time is real too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chaos;
mod listing;
mod sockets;
mod trouble;
mod whole;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use virevent::{EventSource, EventStream, Options};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::{self, next_within, until_synced};
use virevent_testkit::fakes::qemu::FakeQemu;

/// Far longer than anything here takes, and shorter than the interval of scans without a
/// notification: a change that is only found by such a scan fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than any change takes that is notified.
const SILENCE: Duration = Duration::from_millis(300);

/// A directory `d` in a temporary one.
struct TestDirectory(TempDir);

impl TestDirectory {
    fn absent() -> Self {
        Self(tempfile::Builder::new().prefix("vd").tempdir().unwrap())
    }

    fn new() -> Self {
        let directory = Self::absent();
        directory.make("");
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        let directory = self.0.path().join("d");
        if name.is_empty() { directory } else { directory.join(name) }
    }

    fn make(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
    }

    fn uri(&self) -> String {
        format!("qmp-dir:{}", self.path("").display())
    }

    /// A running QEMU, whose socket is `NAME.sock`.
    fn qemu(&self, name: &str) -> FakeQemu {
        FakeQemu::at(&self.path(&format!("{name}.sock")), name).unwrap()
    }

    /// A stream, and what it delivered until it was synced.
    async fn watch(&self) -> (EventStream, Vec<String>) {
        watch(&QmpDir::new(&self.uri()).unwrap().source()).await
    }
}

async fn watch(source: &dyn EventSource) -> (EventStream, Vec<String>) {
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let mut delivered: Vec<_> =
        until_synced(&mut events).await.unwrap().iter().map(in_short).collect();
    delivered.sort();
    (events, delivered)
}

/// An event without the id of its run, and without the source.
fn in_short(event: &virevent::DomainEvent) -> String {
    let line = assert::in_short(event);
    let line = line.split(" on qmp-dir").next().unwrap_or_default();
    match event.domain() {
        Some(_) => line.to_owned(),
        None => line.split(" qmp-dir").next().unwrap_or_default().to_owned(),
    }
}

async fn next(events: &mut EventStream) -> String {
    in_short(&next_within(events, PATIENCE).await.unwrap())
}

/// The next `count` events, sorted: the order between members is not defined.
async fn some(events: &mut EventStream, count: usize) -> Vec<String> {
    let mut delivered = Vec::new();
    for _ in 0..count {
        delivered.push(next(events).await);
    }
    delivered.sort();
    delivered
}

/// Asserts that the stream goes on: a pause is the next event.
async fn goes_on(qemu: &FakeQemu, name: &str, events: &mut EventStream) {
    qemu.stop();
    assert_eq!(next(events).await, format!("{name} suspended (paused)"));
    qemu.cont();
    assert_eq!(next(events).await, format!("{name} resumed (unpaused)"));
}
