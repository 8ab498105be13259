//! A bounded queue of events that compacts like a log keyed by domain.
//!
//! ```text
//!             capacity                          capacity + SLACK events that must be kept
//!  push ──────────┼──────────────────────────────────────┼───────────────▶
//!    append       │ compact: keep what the truth needs   │ stale: keep nothing, count;
//!                 │ and count the rest as missed         │ the reader asks to be told anew
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::compact::compact;
use crate::{Break, Change, DomainEvent, Gap, Scope};

/// How many events a queue holds beyond its capacity where the truth needs them.
pub(crate) const SLACK: usize = 65_536;

/// How many bytes of data of untyped events a queue holds before it is compacted.
const BYTES: usize = 16 << 20;

#[derive(Debug)]
pub(crate) struct Queue {
    source: Arc<str>,
    /// How many events are kept beyond the capacity where the truth needs them.
    slack: usize,
    capacity: usize,
    /// At this length the next push compacts. At least twice what the last compaction kept, so that
    /// a push costs a constant however long the queue.
    threshold: usize,
    events: VecDeque<DomainEvent>,
    bytes: usize,
    missed: u64,
    stale: bool,
    /// What follows is the whole truth told anew.
    anew: bool,
}

impl Queue {
    pub(crate) fn new(source: Arc<str>, capacity: usize) -> Self {
        Self {
            source,
            slack: SLACK,
            capacity,
            threshold: capacity,
            events: VecDeque::new(),
            bytes: 0,
            missed: 0,
            stale: false,
            anew: false,
        }
    }

    pub(crate) fn push(&mut self, event: DomainEvent) {
        if self.stale {
            self.missed += u64::from(event.is_happening());
            return;
        }
        let weight = if let DomainEvent::Other(event) = &event { event.weight() } else { 0 };
        if self.events.len() >= self.threshold || self.bytes + weight > BYTES {
            self.make_room();
            if self.stale {
                return self.push(event);
            }
        }
        self.bytes += weight;
        self.events.push_back(event);
    }

    fn make_room(&mut self) {
        self.missed += compact(&mut self.events);
        // Nothing that has data is kept.
        self.bytes = 0;
        let kept = self.events.len();
        let is_existing =
            |event: &&DomainEvent| matches!(event.change(), Some(Change::Existing(_)));
        let existing = self.events.iter().filter(is_existing).count();
        if kept - existing > self.capacity.saturating_add(self.slack) {
            self.missed += self.events.iter().filter(|event| event.is_happening()).count() as u64;
            self.events = VecDeque::new();
            self.stale = true;
        }
        self.threshold = self.capacity.max(2 * kept);
    }

    /// Sets how many events are kept beyond the capacity.
    pub(crate) fn set_slack(&mut self, slack: usize) {
        self.slack = slack;
    }

    /// Counts events that were dropped before they came here.
    pub(crate) fn add_missed(&mut self, missed: u64) {
        self.missed += missed;
    }

    /// Moves everything into `out`, which is empty, with the word of what was missed before it.
    pub(crate) fn take(&mut self, out: &mut VecDeque<DomainEvent>) {
        let anew = std::mem::take(&mut self.anew);
        let missed = self.drain(out);
        if missed > 0 {
            let kind = Break::Lagged { missed, anew };
            out.push_front(Gap::new(Scope::Source(Arc::clone(&self.source)), kind).into());
        }
    }

    /// Moves all events into `out`, which is empty; returns how many were missed before them.
    pub(crate) fn drain(&mut self, out: &mut VecDeque<DomainEvent>) -> u64 {
        std::mem::swap(&mut self.events, out);
        self.threshold = self.capacity;
        self.bytes = 0;
        // What a burst allocated is not kept for ever.
        if self.events.capacity() > self.capacity.max(1024).saturating_mul(4) {
            self.events.shrink_to(self.capacity);
        }
        std::mem::take(&mut self.missed)
    }

    /// Takes everything back into use after the queue went stale: what is pushed next is the truth
    /// told anew.
    pub(crate) fn renew(&mut self, expected: usize) {
        self.stale = false;
        self.anew |= self.missed > 0;
        self.threshold = self.capacity.max(expected.saturating_mul(2));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && (self.missed == 0 || self.stale)
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(Arc::clone(&self.source), self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Domain, EventData, Lifecycle, RawEvent, ResumeCause, StartCause, StopCause};

    fn event(domain: u128, id: u32, change: Change) -> DomainEvent {
        let domain = Domain::new("s:", "h", Uuid::from_u128(domain), "d", Some(id));
        let at = std::time::SystemTime::UNIX_EPOCH;
        Lifecycle::new(domain, change, at).into()
    }

    fn drain(queue: &mut Queue) -> Vec<DomainEvent> {
        let mut out = VecDeque::new();
        queue.take(&mut out);
        out.into()
    }

    #[test]
    fn missed_counts_exactly_what_was_dropped() {
        let mut queue = Queue::new("s".into(), 16);
        for id in 0..1000 {
            queue.push(event(1, id, Change::Started(StartCause::Booted)));
            queue.push(event(1, id, Change::Stopped(StopCause::Shutdown)));
        }
        let told = drain(&mut queue);
        let DomainEvent::Gap(Gap { kind: Break::Lagged { missed, anew: false }, .. }) = told[0]
        else {
            panic!("{:?}", told[0])
        };
        assert_eq!(missed as usize + told.len() - 1, 2000);
        assert!(told.len() <= 17, "{}", told.len());
        assert_eq!(told.last(), Some(&event(1, 999, Change::Stopped(StopCause::Shutdown))));
    }

    #[test]
    fn a_queue_that_must_keep_more_than_the_slack_goes_stale_and_only_counts() {
        let mut queue = Queue::new("s".into(), 1);
        let total = 2 * SLACK as u128 + 10;
        for uuid in 0..total {
            queue.push(event(uuid, 1, Change::Stopped(StopCause::Shutdown)));
        }
        assert!(queue.is_stale() && queue.is_empty());
        queue.renew(1);
        queue.push(event(7, 9, Change::Resumed(ResumeCause::Unpaused)));
        let told = drain(&mut queue);
        assert_eq!(told.len(), 2);
        let missed = Break::Lagged { missed: total as u64, anew: true };
        assert!(matches!(&told[0], DomainEvent::Gap(gap) if gap.kind == missed), "{:?}", told[0]);
    }

    #[test]
    fn the_data_of_untyped_events_is_bounded_too() {
        let mut queue = Queue::new("s".into(), 1024);
        let data = || EventData::Bytes(vec![0; BYTES / 4].into());
        let at = std::time::SystemTime::UNIX_EPOCH;
        for _ in 0..21 {
            queue.push(RawEvent::new("s:", None, "8".into(), data(), at).into());
            assert!(queue.events.len() <= 4);
        }
        let told = drain(&mut queue);
        let missed = Break::Lagged { missed: 22 - told.len() as u64, anew: false };
        assert!(matches!(&told[0], DomainEvent::Gap(gap) if gap.kind == missed), "{}", told[0]);
    }

    #[test]
    fn what_a_burst_allocated_is_given_back() {
        let mut queue = Queue::new("s".into(), 8);
        for uuid in 0..50_000 {
            queue.push(event(uuid, 1, Change::Stopped(StopCause::Shutdown)));
        }
        drop(drain(&mut queue));
        drop(drain(&mut queue));
        assert!(queue.events.capacity() <= 4 * 1024);
    }
}
