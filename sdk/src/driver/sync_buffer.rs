//! What comes while a list is under way, until the list is there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::event::ScopeKey;
use crate::mailbox::Queue;
use crate::{Domain, DomainEvent, State, StopCause};

/// How many events are held while a list is under way. Beyond it they are compacted like a mailbox.
const HELD: usize = 65_536;

/// How many bytes the domains of a level-triggered hypervisor may take, of each of which the newest word is
/// held. Beyond it another list is asked for.
const LEVELS: usize = 64 << 20;

/// What a domain takes beside its name.
const LEVEL: usize = 256;

/// What came while a list was under way.
#[derive(Debug)]
pub(super) struct SyncBuffer {
    source: Arc<str>,
    queue: Queue,
    /// Events that were given up.
    missed: u64,
    /// The newest word of a level-triggered hypervisor on each domain.
    levels: Vec<Level>,
    /// Where in `levels` a domain is.
    places: HashMap<ScopeKey, usize>,
    /// What they take.
    level_bytes: usize,
}

/// The newest word on a domain.
#[derive(Debug)]
struct Level {
    domain: Domain,
    level: Result<State, StopCause>,
    /// Words on other runs came before it.
    several_runs: bool,
}

impl SyncBuffer {
    pub(super) fn new(source: Arc<str>) -> Self {
        let queue = Queue::new(Arc::clone(&source), HELD);
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

    pub(super) fn level(&mut self, domain: Domain, level: Result<State, StopCause>) {
        if self.is_stale() {
            return;
        }
        let place = *self.places.entry(ScopeKey::of(&domain)).or_insert(self.levels.len());
        match self.levels.get_mut(place) {
            Some(known) => {
                known.several_runs |= known.domain.id() != domain.id();
                known.domain = domain;
                known.level = level;
            }
            None => {
                self.level_bytes += LEVEL + domain.name().len();
                self.levels.push(Level { domain, level, several_runs: false });
            }
        }
    }

    /// Whether so much came that only another list can tell the truth.
    pub(super) fn is_stale(&self) -> bool {
        self.queue.is_stale() || self.level_bytes > LEVELS
    }

    /// Gives up what came so far, but for how much it was.
    pub(super) fn give_up(&mut self) {
        let missed = self.missed + self.queue.missed();
        self.clear();
        self.missed = missed;
    }

    /// The events, and how many more there were.
    pub(super) fn take_events(&mut self) -> (VecDeque<DomainEvent>, u64) {
        let mut events = VecDeque::new();
        let missed = self.queue.drain(&mut events) + std::mem::take(&mut self.missed);
        (events, missed)
    }

    /// The words on domains, each domain's newest.
    pub(super) fn take_levels(&mut self) -> Vec<(Domain, Result<State, StopCause>)> {
        self.places.clear();
        self.level_bytes = 0;
        let newest = |held: Level| match held.level {
            // The list may have a run before the one that ended, which is over as well.
            Err(_) if held.several_runs => (held.domain.with_id(None), held.level),
            _ => (held.domain, held.level),
        };
        std::mem::take(&mut self.levels).into_iter().map(newest).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::RunningReason;

    #[test]
    fn levels_are_bounded_in_bytes_and_each_domain_counts_once() {
        // As many domains as fit take all of the bound.
        const NAME: usize = 4096 - LEVEL;
        let name = "n".repeat(NAME);
        let mut buffer = SyncBuffer::new("s:".into());
        let mut say = |number: usize| {
            let domain = Domain::new("s:", "h", Uuid::from_u128(number as u128), &name, Some(1));
            buffer.level(domain, Ok(State::Running(RunningReason::Booted)));
            buffer.is_stale()
        };
        let most = LEVELS / (LEVEL + NAME);
        for number in 0..most {
            assert!(!say(number) && !say(number), "{number}");
        }
        assert!(say(most));
        assert!(say(most + 1));
        assert_eq!(buffer.take_levels().len(), most + 1, "more is not kept");
        assert!(!buffer.is_stale());
        buffer
            .level(Domain::new("s:", "h", Uuid::from_u128(0), "web", None), Err(StopCause::Failed));
        assert_eq!(buffer.take_levels().len(), 1);
    }
}
