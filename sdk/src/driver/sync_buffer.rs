//! The buffer of events between the registration and the list.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::batch::Level;
use crate::event::ScopeKey;
use crate::mailbox::Queue;
use crate::{Domain, DomainEvent};

/// The number of events that are held. Beyond it they are compacted like a mailbox.
const MAX_EVENTS: usize = 65_536;

/// The size of all levels that are held, in bytes. Beyond it the driver requests another list.
const MAX_LEVEL_BYTES: usize = 64 << 20;

/// The size of a level without the domain's name.
const LEVEL_BYTES: usize = 256;

/// Holds events between the registration and the list.
#[derive(Debug)]
pub(super) struct SyncBuffer {
    source: Arc<str>,
    queue: Queue,
    /// The number of events that were dropped.
    missed: u64,
    /// The newest level of each domain.
    levels: Vec<HeldLevel>,
    /// The index of a domain in `levels`.
    places: HashMap<ScopeKey, usize>,
    level_bytes: usize,
}

/// The newest level of a domain.
#[derive(Debug)]
struct HeldLevel {
    domain: Domain,
    level: Level,
    /// Levels of other runs came before it.
    has_earlier_runs: bool,
}

impl SyncBuffer {
    pub(super) fn new(source: Arc<str>) -> Self {
        let queue = Queue::new(Arc::clone(&source), MAX_EVENTS);
        Self {
            source,
            queue,
            missed: 0,
            levels: Vec::new(),
            places: HashMap::new(),
            level_bytes: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(Arc::clone(&self.source));
    }

    pub(super) fn event(&mut self, event: DomainEvent) {
        self.queue.push(event);
    }

    pub(super) fn level(&mut self, domain: Domain, level: Level) {
        // Another list is requested in any case, so nothing that is held is of use.
        if self.is_stale() {
            return;
        }
        // Levels say how a domain is, so the newest is enough, and a busy domain costs no more than
        // an idle one.
        let place = *self.places.entry(ScopeKey::of(&domain)).or_insert(self.levels.len());
        match self.levels.get_mut(place) {
            Some(known) => {
                known.has_earlier_runs |= known.domain.id() != domain.id();
                known.domain = domain;
                known.level = level;
            }
            None => {
                self.level_bytes += LEVEL_BYTES + domain.name().len();
                self.levels.push(HeldLevel { domain, level, has_earlier_runs: false });
            }
        }
    }

    /// Whether events had to be dropped, so that only another list shows the domains' states.
    pub(super) fn is_stale(&self) -> bool {
        self.queue.is_stale() || self.level_bytes > MAX_LEVEL_BYTES
    }

    /// Drops what came so far, and counts it as missed.
    pub(super) fn drop_all(&mut self) {
        let missed = self.missed + self.queue.missed();
        self.clear();
        // The reader is delivered this count with the next list's events: nothing is lost without a
        // gap.
        self.missed = missed;
    }

    /// Takes the events, and the number of events that were dropped.
    pub(super) fn take_events(&mut self) -> (VecDeque<DomainEvent>, u64) {
        let mut events = VecDeque::new();
        let missed = self.queue.drain(&mut events) + std::mem::take(&mut self.missed);
        (events, missed)
    }

    /// Takes the newest level of each domain.
    pub(super) fn take_levels(&mut self) -> Vec<(Domain, Level)> {
        self.places.clear();
        self.level_bytes = 0;
        let newest = |held: HeldLevel| match held.level {
            // The list may show a run before the last one: it has ended as well.
            Level::Gone(_) if held.has_earlier_runs => (held.domain.with_id(None), held.level),
            _ => (held.domain, held.level),
        };
        std::mem::take(&mut self.levels).into_iter().map(newest).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{RunningReason, State, StopCause};

    #[test]
    fn levels_are_bounded_in_bytes_and_each_domain_counts_once() {
        // As many domains as fit take all of the bound.
        const NAME: usize = 4096 - LEVEL_BYTES;
        let name = "n".repeat(NAME);
        let mut buffer = SyncBuffer::new("s:".into());
        let mut say = |number: usize| {
            let domain = Domain::new("s:", "h", Uuid::from_u128(number as u128), &name, Some(1));
            buffer.level(domain, Level::Is(State::Running(RunningReason::Booted)));
            buffer.is_stale()
        };
        let most = MAX_LEVEL_BYTES / (LEVEL_BYTES + NAME);
        for number in 0..most {
            assert!(!say(number) && !say(number), "{number}");
        }
        assert!(say(most));
        assert!(say(most + 1));
        assert_eq!(buffer.take_levels().len(), most + 1, "more is not kept");
        assert!(!buffer.is_stale());
        let web = Domain::new("s:", "h", Uuid::from_u128(0), "web", None);
        buffer.level(web, Level::Gone(StopCause::Failed));
        assert_eq!(buffer.take_levels().len(), 1);
    }
}
