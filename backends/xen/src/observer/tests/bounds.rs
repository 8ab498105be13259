//! The bounds of an observer's memory while no reply comes.

use super::*;
use crate::wire::{Header, packet};

/// An observer and its store, without a driver. The batch has what it reports.
pub(super) struct ObserverHarness {
    pub(super) store: MemoryStore,
    pub(super) observer: Observer,
    pub(super) batch: Batch,
    decoder: Decoder,
    reversed: bool,
}

impl ObserverHarness {
    pub(super) fn synced(domains: u16) -> Self {
        let harness = Harness::default();
        harness.fill(domains);
        let store = std::mem::take(&mut *harness.store.lock().unwrap());
        Self::of(store, false)
    }

    /// With `reversed`, of all queued packets the newest is read first.
    pub(super) fn of(store: MemoryStore, reversed: bool) -> Self {
        let observer = Observer::new("h".into(), false, false, PreviousRuns::default());
        let mut harness = Self {
            reversed,
            store,
            observer,
            batch: Batch::new("xenstore:", "h"),
            decoder: Decoder::of_replies(),
        };
        harness.observer.set_interest(&[Kind::Lifecycle].into_iter().collect(), 1);
        harness.observer.request_list(2);
        harness.serve();
        assert_eq!(harness.observer.state(), "live");
        // Setting the watch fires an event like that of an introduction. The lists that follow it are read here.
        while let Some(at) = harness.observer.deadline(TIMEOUT) {
            harness.observer.ring(at, TIMEOUT).unwrap();
            harness.serve();
        }
        harness
    }

    /// Lets the store answer, and the observer ask, until there is nothing more to ask.
    pub(super) fn serve(&mut self) {
        loop {
            self.write();
            while self.store.serve() {}
            if self.reversed {
                self.store.outbox.make_contiguous().reverse();
            }
            let mut is_done = true;
            while let Some(bytes) = self.store.give() {
                is_done = false;
                self.read(&bytes);
            }
            if is_done {
                return;
            }
        }
    }

    /// Lets the observer send its requests.
    pub(super) fn write(&mut self) {
        // The first pump may end a stage, and the second begins the next.
        self.observer.pump(Instant::now(), &mut self.batch);
        self.observer.pump(Instant::now(), &mut self.batch);
        let unwritten = self.observer.pipeline.unwritten();
        self.store.take(unwritten);
        let bytes = unwritten.len();
        self.observer.pipeline.wrote(bytes);
    }

    /// Lets the observer read these bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.decoder.push(bytes)..];
            while let Some(packet) = self.decoder.next_packet().unwrap() {
                self.observer.receive(&packet, Instant::now(), &mut self.batch).unwrap();
            }
        }
    }
}

#[test]
fn events_take_no_memory_while_requests_are_unanswered() {
    let mut harness = ObserverHarness::synced(200);
    for round in 0..20_000_u32 {
        let domid = round % 200 + 1;
        let mut bytes = Vec::new();
        for (letter, node) in [("v", "vm"), ("n", "name"), ("s", "control/shutdown")] {
            let path = format!("/local/domain/{domid}/{node}\0");
            let token = format!("{letter}{domid}\0");
            let pieces = [path.as_bytes(), token.as_bytes()];
            packet(&mut bytes, &Header::watch_event(), &pieces).unwrap();
        }
        harness.read(&bytes);
        harness.write();
    }
    assert_eq!(harness.store.inbox.len(), 64, "as many requests as may be pending");
    let waiting = harness.observer.domains.queued();
    assert!(waiting <= 400, "{waiting} entries for 200 domains");
    harness.serve();
    assert_eq!(harness.observer.domains.queued(), 0);
}
