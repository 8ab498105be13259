//! The liveness of the server: keepalives, and deadlines that are put off once.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// How long a deadline is put off when there was something to read at its time.
// Enough to read what the kernel holds for a process that was stopped, and short, since a dead
// server lives on by it.
const READ_TIME: Duration = Duration::from_secs(1);

/// Whether the server of one connection still answers.
///
/// ```text
///             interval of silence        interval       ...  count times
///   heard ─────────────────────▶ ping 1 ──────────▶ ping 2 ─────────────▶ drop the connection
///     ▲                            │                   │
///     └────────── any read ────────┴───────────────────┘
/// ```
#[derive(Debug)]
pub(super) struct Liveness {
    interval: Option<Duration>,
    count: u32,
    /// When the last read brought something.
    heard: Instant,
    /// The same, or when the last ping was sent.
    last: Instant,
    /// The number of pings since the last read. `None`: the protocol has no ping.
    pings: Option<u32>,
    /// A ping was tried, which shows whether the protocol has one.
    is_probed: bool,
    /// A deadline that passed, and until when it is put off.
    put_off: Option<(Instant, Instant)>,
}

impl Liveness {
    pub(super) fn new(interval: Option<Duration>, count: u32, now: Instant) -> Self {
        Self {
            interval,
            count,
            heard: now,
            last: now,
            pings: Some(0),
            is_probed: false,
            put_off: None,
        }
    }

    /// Something was read.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.last = now;
        // Any read counts, not only a pong: libvirtd counts its clients' messages the same way
        // (seen on 9.0).
        self.pings = self.pings.map(|_| 0);
    }

    /// Whether pings are known to find out that the server is dead, so that a call without an
    /// answer need not mean that.
    pub(super) fn has_keepalive(&self) -> bool {
        self.is_probed && self.interval.is_some() && self.pings.is_some()
    }

    /// When to ping next, or to find the server silent.
    pub(super) fn next_ping(&self) -> Option<Instant> {
        self.pings.and_then(|_| self.last.checked_add(self.interval?))
    }

    pub(super) fn is_ping_due(&self, now: Instant) -> bool {
        self.next_ping().is_some_and(|due| due <= now)
    }

    /// Pings the server, if the protocol has a ping.
    pub(super) fn ping(&mut self, now: Instant, send: impl FnOnce() -> bool) {
        let number = self.pings.unwrap_or(0) + 1;
        self.last = now;
        self.is_probed = true;
        self.pings = send().then_some(number);
    }

    /// Finds out whether the protocol has a ping.
    pub(super) fn probe(&mut self, send: impl FnOnce() -> bool) {
        if !self.is_probed {
            self.is_probed = true;
            self.pings = self.pings.filter(|_| send());
        }
    }

    /// The error of a server that has not even answered pings.
    pub(super) fn silence(&self, now: Instant) -> Option<Error> {
        // One interval after the last ping: a pong needs time as well.
        let is_silent = self.pings? >= self.count && self.is_ping_due(now);
        // Rounded to a tenth of a second, for people.
        let after = Duration::from_millis((now - self.heard).as_millis() as u64 / 100 * 100);
        is_silent.then(|| Error::timeout("a keepalive", after))
    }

    /// Puts a deadline off, because there was something to read at its time.
    pub(super) fn put_off(&mut self, deadline: Instant, now: Instant) {
        self.put_off = Some((deadline, now + READ_TIME));
    }

    /// Whether the deadline was put off, now or earlier.
    pub(super) fn was_put_off(&self, deadline: Instant) -> bool {
        self.put_off.is_some_and(|(known, _)| known == deadline)
    }

    /// The deadline, or until when it is put off.
    pub(super) fn effective(&self, deadline: Instant) -> Instant {
        match self.put_off {
            Some((known, until)) if known == deadline => until,
            _ => deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn a_server_is_silent_one_interval_after_the_last_ping() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Some(INTERVAL), 2, start);
        for number in 1..=2 {
            let now = start + INTERVAL * number;
            assert!(liveness.is_ping_due(now) && liveness.silence(now).is_none());
            liveness.ping(now, || true);
        }
        assert!(liveness.silence(start + INTERVAL * 3 - Duration::from_millis(1)).is_none());
        let error = liveness.silence(start + INTERVAL * 3).unwrap();
        assert!(error.to_string().contains("a keepalive within 15s"), "{error}");
    }

    #[test]
    fn a_read_resets_the_pings() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Some(INTERVAL), 1, start);
        liveness.ping(start + INTERVAL, || true);
        liveness.heard(start + INTERVAL);
        assert!(liveness.silence(start + INTERVAL * 2).is_none());
        assert_eq!(liveness.next_ping(), Some(start + INTERVAL * 2));
    }

    #[test]
    fn a_protocol_without_ping_is_never_silent() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Some(INTERVAL), 1, start);
        assert!(!liveness.has_keepalive(), "not known before the first ping");
        liveness.probe(|| false);
        assert!(!liveness.has_keepalive());
        assert!(liveness.next_ping().is_none());
        assert!(liveness.silence(start + INTERVAL * 100).is_none());
    }

    #[test]
    fn a_deadline_is_put_off_by_a_second() {
        let start = Instant::now();
        let later = start + INTERVAL;
        let mut liveness = Liveness::new(None, 1, start);
        liveness.put_off(start, start);
        assert!(liveness.was_put_off(start) && !liveness.was_put_off(later));
        assert_eq!(liveness.effective(start), start + READ_TIME);
        assert_eq!(liveness.effective(later), later);
    }
}
