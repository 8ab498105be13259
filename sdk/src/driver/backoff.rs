//! The backoff: how long to wait before a reconnect.

use std::time::Duration;

/// How a source reconnects: full-jitter exponential backoff. By value:
/// `Reconnect::local().max(Duration::from_secs(2))`.
///
/// Each wait is drawn evenly from zero to a limit, so that the clients of a server that restarts do
/// not all reconnect at once. The limit is `base`, then all that was waited so far, and at most
/// `max`: it doubles at most, and no source that returns after two seconds stays unreachable for more
/// than two further ones.
#[derive(Clone, Debug)]
pub struct Reconnect {
    base: Duration,
    max: Duration,
    seed: Option<u64>,
}

impl Reconnect {
    /// For a server on the same host: from 100 ms to 5 s.
    #[must_use]
    pub fn local() -> Self {
        Self { base: Duration::from_millis(100), max: Duration::from_secs(5), seed: None }
    }

    /// For a server elsewhere: from 100 ms to 30 s.
    #[must_use]
    pub fn remote() -> Self {
        Self { max: Duration::from_secs(30), ..Self::local() }
    }

    /// For a member of a fleet that refuses: from 1 s to a minute.
    pub(crate) fn of_member() -> Self {
        Self { base: Duration::from_secs(1), max: Duration::from_secs(60), ..Self::local() }
    }

    /// The upper limit of the first wait.
    #[must_use]
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// The upper limit of every wait, at most a day.
    #[must_use]
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max.min(LONGEST);
        self
    }

    /// Makes the waits the same in every run of a test.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The seed, where there is one.
    pub(super) fn seeded(&self) -> Option<u64> {
        self.seed
    }
}

/// The longest wait.
// Also keeps `Instant + wait` from overflowing, whatever a program sets.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub(crate) struct Backoff {
    config: Reconnect,
    /// The sum of all waits since it started over.
    waited: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(config: Reconnect) -> Self {
        let random = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self { config, waited: Duration::ZERO, random }
    }

    pub(crate) fn next(&mut self) -> Duration {
        // Not a limit that doubles with each attempt: of 1,000 sources that draw, some draw little
        // again and again, and would soon have a limit far beyond the outage.
        let most = self.waited.max(self.config.base).min(self.config.max);
        let wait = most.mul_f64(self.random.f64());
        self.waited = self.waited.saturating_add(wait);
        wait
    }

    pub(crate) fn reset(&mut self) {
        self.waited = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_jittered_and_grow_to_the_limit_and_never_beyond() {
        let mut backoff = Backoff::new(Reconnect::local().seed(1));
        let waits: Vec<_> = (0..2000).map(|_| backoff.next()).collect();
        assert!(waits[0] <= Duration::from_millis(100));
        assert!(waits[3] <= Duration::from_millis(800));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(4900)));
        assert!(waits[100..].iter().any(|wait| *wait < Duration::from_millis(100)));
    }

    #[test]
    fn no_wait_is_longer_than_the_outage_so_far() {
        for seed in 0..1000 {
            let mut backoff = Backoff::new(Reconnect::remote().seed(seed));
            let mut waited = Duration::ZERO;
            while waited < Duration::from_secs(30) {
                let wait = backoff.next();
                assert!(
                    wait <= waited.max(Duration::from_millis(100)),
                    "{wait:?} after {waited:?}"
                );
                waited += wait;
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Reconnect::remote().seed(seed));
            (0..9).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_eq!(waits(4), waits(4));
        assert_ne!(waits(4), waits(5));
    }

    #[test]
    fn a_remote_server_is_given_more_time_than_a_local_one() {
        let longest = |reconnect: Reconnect| {
            let mut backoff = Backoff::new(reconnect.seed(1));
            (0..2000).map(|_| backoff.next()).max().unwrap().as_secs()
        };
        assert_eq!(longest(Reconnect::local()), 4);
        assert_eq!(longest(Reconnect::remote()), 29);
        let day = 24 * 60 * 60;
        let endless = Reconnect::local().base(Duration::MAX).max(Duration::MAX);
        assert!((day - 600..=day).contains(&longest(endless)), "no wait is longer than a day");
    }

    #[test]
    fn a_seed_can_be_read_back() {
        assert_eq!(Reconnect::local().seed(7).seeded(), Some(7));
        assert_eq!(Reconnect::local().seeded(), None);
    }
}
