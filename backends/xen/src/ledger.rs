//! Which `@releaseDomain` was of a domain that shut down and is still there.
//!
//! The event says that a domain shut down, crashed or ended, and not which. One that ended is known by
//! then or found by the look that follows. An event that no ending explains is of a domain that shut
//! down, or of nothing: some daemons send it again while any domain is shut down, and any may send it for
//! nothing. So it is believed only of a single domain that was asked to shut down.

use std::time::Duration;

use tokio::time::Instant;

/// Books events against what they turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// `@releaseDomain` that came and were not explained yet.
    released: u32,
    /// Domains that were seen to have ended, each of which has an event, earlier or later.
    ended: u32,
    /// `@introduceDomain` that came.
    introduced: u32,
    /// Domains that were seen to be new.
    appeared: u32,
    last: Option<Instant>,
}

/// After that much quiet an event does not belong to what was seen before it.
const QUIET: Duration = Duration::from_secs(5);

impl Ledger {
    fn touch(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now - last > QUIET) {
            // An introduction of a domain that was not seen, for it has no place, is never explained by
            // time: it may end at any.
            let introduced = self.introduced.saturating_sub(self.appeared);
            *self = Self { introduced, ..Self::default() };
        }
        self.last = Some(now);
    }

    pub(crate) fn released(&mut self, now: Instant) {
        self.touch(now);
        self.released = self.released.saturating_add(1);
    }

    pub(crate) fn introduced(&mut self, now: Instant) {
        self.touch(now);
        self.introduced = self.introduced.saturating_add(1);
    }

    pub(crate) fn ended(&mut self, now: Instant) {
        self.touch(now);
        self.ended = self.ended.saturating_add(1);
    }

    pub(crate) fn appeared(&mut self, now: Instant) {
        self.touch(now);
        self.appeared = self.appeared.saturating_add(1);
    }

    /// Whether there is anything to settle.
    pub(crate) fn is_open(&self) -> bool {
        self.released > 0
    }

    /// After a whole look: how many of the events nothing explains. As long as there is, or may be, a
    /// domain of which only its introduction was heard, all may be of that one.
    pub(crate) fn settle(&mut self) -> u32 {
        let by_ended = self.released.min(self.ended);
        self.ended -= by_ended;
        let left = std::mem::take(&mut self.released) - by_ended;
        if self.introduced > self.appeared { 0 } else { left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Books what the letters say, `.` for a look; the numbers that remain unexplained.
    fn unexplained(story: &str) -> Vec<u32> {
        let (mut ledger, mut now, mut found) = (Ledger::default(), Instant::now(), Vec::new());
        for letter in story.chars() {
            match letter {
                'r' => ledger.released(now),
                'i' => ledger.introduced(now),
                'e' => ledger.ended(now),
                'a' => ledger.appeared(now),
                '.' if ledger.is_open() => found.push(ledger.settle()),
                '_' => now += 2 * QUIET,
                _ => {}
            }
        }
        found
    }

    #[test]
    fn an_event_without_an_ending_is_of_a_domain_that_shut_down() {
        assert_eq!(unexplained("r."), [1]);
        assert_eq!(unexplained("r.r."), [1, 1]);
        assert_eq!(unexplained("ia.r."), [1]);
    }

    #[test]
    fn an_ending_explains_its_event_whichever_is_seen_first() {
        assert_eq!(unexplained("re."), [0]);
        assert_eq!(unexplained("e.r."), [0]);
        // Two ended, and the second event comes after the look that found both.
        assert_eq!(unexplained("ree.r."), [0, 0]);
        assert_eq!(unexplained("ree.r.r."), [0, 0, 1]);
    }

    #[test]
    fn a_domain_that_is_not_seen_may_be_the_one_at_any_time_until_it_is_seen() {
        assert_eq!(unexplained("ir."), [0]);
        assert_eq!(unexplained("i.r.r.__r."), [0, 0, 0]);
        assert_eq!(unexplained("i.r.a.r."), [0, 1]);
    }

    #[test]
    fn what_was_seen_long_ago_explains_nothing() {
        assert_eq!(unexplained("ee._r."), [1]);
    }
}
