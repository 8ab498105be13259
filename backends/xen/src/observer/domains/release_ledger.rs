//! The accounts of `@releaseDomain`: which of them were of a domain that shut down and still exists.
//!
//! The event says that a domain shut down, crashed or ended, and does not name it. A domain that ended is known by
//! then, or is found by the sweep that follows. An event that no ending explains is of a domain that shut down, or of
//! none: oxenstored repeats the event while any domain is shut down. So it is believed only of a single domain that
//! was asked to shut down.

use std::time::Duration;

use tokio::time::Instant;

/// After so long without an event or a change, an event does not belong to what was seen before it.
const QUIET: Duration = Duration::from_secs(5);

/// Counts events, and the endings and starts that explain them.
#[derive(Debug, Default)]
pub(crate) struct ReleaseLedger {
    /// `@releaseDomain` events that are not explained yet.
    released: u32,
    /// Domains that were found to have ended. Each has an event, before or after.
    ended: u32,
    /// `@introduceDomain` events.
    introduced: u32,
    /// Domains that were found to be introduced.
    appeared: u32,
    last: Option<Instant>,
}

impl ReleaseLedger {
    fn touch(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now - last > QUIET) {
            // Unmatched introductions are kept: that domain has no directory, and may end at any time.
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

    /// Whether an event is to be explained.
    pub(crate) fn is_open(&self) -> bool {
        self.released > 0
    }

    /// The number of events that nothing explains, once all domains are examined. While a domain may exist of which
    /// only the introduction is known, all of them may be of that one: the number is then zero.
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

    /// Books what each letter stands for, settles at `.` and is quiet at `_`. Returns the results.
    fn unexplained(letters: &str) -> Vec<u32> {
        let mut ledger = ReleaseLedger::default();
        let mut now = Instant::now();
        let mut found = Vec::new();
        for letter in letters.chars() {
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
    fn a_release_without_an_ending_stays_unexplained() {
        assert_eq!(unexplained("r."), [1]);
        assert_eq!(unexplained("r.r."), [1, 1]);
        assert_eq!(unexplained("ia.r."), [1]);
    }

    #[test]
    fn an_ending_explains_a_release_before_or_after_it() {
        assert_eq!(unexplained("re."), [0]);
        assert_eq!(unexplained("e.r."), [0]);
        // Two domains ended, and the second event comes after the sweep that found both.
        assert_eq!(unexplained("ree.r."), [0, 0]);
        assert_eq!(unexplained("ree.r.r."), [0, 0, 1]);
    }

    #[test]
    fn an_unseen_domain_explains_every_release() {
        assert_eq!(unexplained("ir."), [0]);
        assert_eq!(unexplained("i.r.r.__r."), [0, 0, 0]);
        assert_eq!(unexplained("i.r.a.r."), [0, 1]);
    }

    #[test]
    fn an_ending_long_before_a_release_explains_nothing() {
        assert_eq!(unexplained("ee._r."), [1]);
    }
}
