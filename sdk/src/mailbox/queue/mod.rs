//! A bounded queue of events that compacts like a log keyed by domain.
//!
//! ```text
//!             capacity, or its bytes            SLACK more events to keep, or twice its bytes
//!  push ──────────┼──────────────────────────────────────┼───────────────▶
//!    append       │ compact: keep what final states need │ stale: keep nothing, count;
//!                 │ and count the rest as missed         │ the reader requests a reset
//! ```
//!
//! `Existing` events never make a queue stale. There is one for each domain of the roster, which
//! has a bound of its own; and a reset consists of them, so it would cause the next one.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use super::compact::{compact, stands_for};
use super::weight::weight;
use crate::{Change, DomainEvent, Gap, GapKind, Scope};

/// The number of events that a queue keeps beyond its capacity where final states need them.
pub(crate) const SLACK: usize = 65_536;

/// The size of a queue of the default capacity, in bytes, at which it compacts, and which the
/// compacted queue may have. 1,024 lifecycle events take 8.1 MiB if all names of domains and hosts
/// have 4 KiB, the longest that a driver keeps: names alone never compact a queue within its
/// capacity.
const BYTES: usize = 16 << 20;

/// What a larger capacity adds for each event: more than an event with usual names weighs.
const BYTES_PER_EVENT: usize = 256;

#[derive(Debug)]
pub(crate) struct Queue {
    source: Arc<str>,
    /// The number of events kept beyond the capacity where final states need them.
    slack: usize,
    capacity: usize,
    events: VecDeque<DomainEvent>,
    /// The weight of all events.
    bytes: usize,
    /// Beyond this length, or these bytes, the next push compacts. Each is at least twice what the
    /// last compaction kept, so that the cost of a push does not depend on the length.
    max_events: usize,
    max_bytes: usize,
    missed: u64,
    stale: bool,
    /// Everything that exists follows.
    is_reset: bool,
}

impl Queue {
    pub(crate) fn new(source: Arc<str>, capacity: usize) -> Self {
        Self {
            source,
            slack: SLACK,
            capacity,
            events: VecDeque::new(),
            bytes: 0,
            max_events: capacity,
            max_bytes: byte_capacity(capacity),
            missed: 0,
            stale: false,
            is_reset: false,
        }
    }

    pub(super) fn source(&self) -> &Arc<str> {
        &self.source
    }

    pub(crate) fn push(&mut self, event: DomainEvent) {
        let weight = weight(&event);
        let is_full = self.events.len() >= self.max_events || self.bytes + weight > self.max_bytes;
        if is_full && !self.stale {
            self.make_room();
        }
        if self.stale {
            self.missed += stands_for(&event);
            return;
        }
        self.bytes += weight;
        self.events.push_back(event);
    }

    fn make_room(&mut self) {
        self.missed += compact(&mut self.events);
        // Not counted against the bounds: see above, a reset would cause the next one.
        let mut existing = 0;
        let mut existing_bytes = 0;
        self.bytes = 0;
        for event in &self.events {
            let weight = weight(event);
            self.bytes += weight;
            if matches!(event.change(), Some(Change::Existing(_))) {
                existing += 1;
                existing_bytes += weight;
            }
        }
        let needed = self.events.len() - existing;
        let needed_bytes = self.bytes - existing_bytes;
        let capacity_bytes = byte_capacity(self.capacity);
        if needed > self.capacity.saturating_add(self.slack) || needed_bytes > capacity_bytes {
            self.missed += self.events.iter().map(stands_for).sum::<u64>();
            self.events = VecDeque::new();
            self.bytes = 0;
            self.stale = true;
        }
        self.max_events = self.capacity.max(2 * self.events.len());
        self.max_bytes = capacity_bytes.max(2 * self.bytes);
    }

    /// Sets how many events are kept beyond the capacity.
    pub(crate) fn set_slack(&mut self, slack: usize) {
        self.slack = slack;
    }

    /// Makes room for the events that follow at once, so that they do not compact the queue.
    pub(crate) fn expect(&mut self, expected: usize) {
        self.max_events = self.max_events.max(self.events.len().saturating_add(expected));
    }

    /// Counts events that were dropped before they came here.
    pub(crate) fn add_missed(&mut self, missed: u64) {
        self.missed += missed;
    }

    /// Moves all events into `out`, which is empty, after a marker that says how many were missed.
    pub(crate) fn take(&mut self, out: &mut VecDeque<DomainEvent>) {
        let reset = std::mem::take(&mut self.is_reset);
        let missed = self.drain(out);
        if missed > 0 {
            let kind = GapKind::lagged(missed, reset);
            out.push_front(Gap::new(Scope::Source(Arc::clone(&self.source)), kind).into());
        }
    }

    /// Moves all events into `out`, which is empty; returns how many were missed.
    pub(crate) fn drain(&mut self, out: &mut VecDeque<DomainEvent>) -> u64 {
        // Under the lock, so no event is moved: the reader works on its own queue afterwards.
        std::mem::swap(&mut self.events, out);
        self.bytes = 0;
        self.max_events = self.capacity;
        self.max_bytes = byte_capacity(self.capacity);
        // Give back what a burst allocated.
        if self.events.capacity() > self.capacity.max(1024).saturating_mul(4) {
            self.events.shrink_to(self.capacity);
        }
        std::mem::take(&mut self.missed)
    }

    /// Takes the queue back into use after it went stale: everything that exists is pushed next, in
    /// `expected` events.
    pub(crate) fn reset(&mut self, expected: usize) {
        self.stale = false;
        // Without a loss there is no `Lagged` to carry the mark: it was taken already, in an
        // outage.
        self.is_reset |= self.missed > 0;
        self.max_events = self.capacity.max(expected.saturating_mul(2));
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && (self.missed == 0 || self.stale)
    }

    /// Whether all events were dropped, because more had to be kept than fits.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// How many events were dropped since the last take.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    /// Empties the queue; the caller drops the events outside the lock.
    pub(crate) fn clear(&mut self) -> VecDeque<DomainEvent> {
        std::mem::replace(self, Self::new(Arc::clone(&self.source), self.capacity)).events
    }
}

/// The size in bytes that goes with a capacity in events.
fn byte_capacity(capacity: usize) -> usize {
    capacity.saturating_mul(BYTES_PER_EVENT).max(BYTES)
}
