//! Whether a paused guest is migrating away, and how often to ask.
//!
//! ```text
//!   paused ──query-migrate: active──▶ migrating ──▶ finish-migrate ──▶ postmigrate
//! ```
//!
//! A migration ends in the run state `postmigrate`, and while QEMU's migration capability `events`
//! is off only the run state says so. A running guest sends `STOP` during its migration; one that
//! is paused already sends nothing, and is asked at intervals that grow with the time for which it
//! has been paused, or has migrated.
//!
//! The manager may have QEMU quit at the moment in which the migration completes, and after
//! `SHUTDOWN` QEMU answers nothing. So a migration that was under way at the last answer counts as
//! completed if all that remained can have been sent since. A QEMU that quits earlier was
//! destroyed.

use std::time::Duration;

use tokio::time::Instant;

use crate::peer::answers::MigrationInfo;

/// The intervals between two questions while a guest is paused: the shortest and the longest.
const PAUSED: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The intervals between two questions while a guest migrates.
const MIGRATING: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// The fastest network, in bytes a second: 100 Gbit/s.
const MAX_BANDWIDTH: f64 = 12.5e9;

/// What is known of the migration of a guest.
#[derive(Debug, Default)]
pub(super) struct MigrationTracker {
    paused_since: Option<Instant>,
    migrating_since: Option<Instant>,
    /// How many bytes remained to be sent at the last answer, and when that was.
    remained: Option<(u64, Instant)>,
}

impl MigrationTracker {
    /// Processes a run state. Returns when to ask again; `None` if the regular interval is soon
    /// enough.
    pub(super) fn observe_status(&mut self, status: &str, now: Instant) -> Option<Instant> {
        match status {
            "paused" | "io-error" | "watchdog" | "internal-error" | "debug" | "guest-panicked" => {}
            "finish-migrate" => drop(self.migrating_since.get_or_insert(now)),
            _ => {
                *self = Self::default();
                return None;
            }
        }
        let paused_since = *self.paused_since.get_or_insert(now);
        // A share of the time that has passed: the relative delay of an answer stays the same, and
        // a guest that is paused for days is asked once a second.
        let (since, share, (least, most)) = match self.migrating_since {
            Some(migrating_since) => (migrating_since, 16, MIGRATING),
            None => (paused_since, 8, PAUSED),
        };
        Some(now + ((now - since) / share).clamp(least, most))
    }

    /// Processes an answer to `query-migrate`.
    pub(super) fn observe_migration(&mut self, migration: &MigrationInfo<'_>, now: Instant) {
        // `MigrationStatus` of QEMU's `qapi/migration.json`.
        self.remained = match migration.status {
            Some("setup" | "active" | "pre-switchover" | "device" | "wait-unplug") => {
                self.migrating_since.get_or_insert(now);
                // Absent before it has begun to send, as in `setup`: the guest cannot have left
                // then.
                migration.ram.as_ref().map(|ram| (ram.remaining, now))
            }
            // An earlier one may be that by which the guest came here.
            Some("completed") if self.migrating_since.is_some() => Some((0, now)),
            _ => {
                self.migrating_since = None;
                None
            }
        };
    }

    /// Whether a guest that was migrating at the last answer may have left since.
    pub(super) fn may_have_left(&self, now: Instant) -> bool {
        self.remained.is_some_and(|(bytes, at)| {
            let least = Duration::from_secs_f64(bytes as f64 / MAX_BANDWIDTH);
            now - at >= least
        })
    }

    /// Whether to ask for the migration as well as the run state.
    pub(super) fn is_possible(&self) -> bool {
        self.paused_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::answers::MigrationRam;

    fn migration(status: Option<&'static str>, remaining: Option<u64>) -> MigrationInfo<'static> {
        MigrationInfo { status, ram: remaining.map(|remaining| MigrationRam { remaining }) }
    }

    #[test]
    fn a_guest_has_left_if_the_rest_can_have_been_sent() {
        let now = Instant::now();
        let mut departure = MigrationTracker::default();
        departure.observe_status("paused", now);
        departure.observe_migration(&migration(Some("active"), Some(1_250_000_000)), now);
        assert!(!departure.may_have_left(now + Duration::from_millis(99)));
        assert!(departure.may_have_left(now + Duration::from_millis(101)));
        departure.observe_migration(&migration(Some("completed"), None), now);
        assert!(departure.may_have_left(now));
        departure.observe_migration(&migration(None, None), now);
        departure.observe_migration(&migration(Some("completed"), None), now);
        assert!(!departure.may_have_left(now), "the guest came by that migration");
        for status in [Some("cancelled"), Some("failed"), None] {
            departure.observe_migration(&migration(Some("active"), Some(0)), now);
            assert!(departure.may_have_left(now));
            departure.observe_migration(&migration(status, None), now);
            assert!(!departure.may_have_left(now), "{status:?}");
        }
        departure.observe_migration(&migration(Some("active"), Some(0)), now);
        departure.observe_status("running", now);
        assert!(!departure.may_have_left(now));
    }

    #[test]
    fn a_guest_that_has_sent_nothing_yet_has_not_left() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut departure = MigrationTracker::default();
        departure.observe_status("paused", now);
        for status in ["setup", "wait-unplug", "active"] {
            departure.observe_migration(&migration(Some(status), None), now);
            assert!(!departure.may_have_left(later), "{status}");
        }
        departure.observe_migration(&migration(Some("active"), Some(1)), now);
        assert!(departure.may_have_left(later));
    }

    #[test]
    fn a_paused_guest_is_asked_at_growing_intervals() {
        let start = Instant::now();
        let mut now = start;
        let mut departure = MigrationTracker::default();
        let mut questions = 0;
        while now - start < Duration::from_secs(60) {
            now = departure.observe_status("paused", now).unwrap();
            questions += 1;
        }
        assert!(questions < 150, "{questions} in a minute");
        departure.observe_migration(&migration(Some("active"), Some(1)), now);
        let next = departure.observe_status("paused", now).unwrap();
        assert!(next - now <= Duration::from_millis(1));
        assert_eq!(departure.observe_status("postmigrate", now), None);
        assert_eq!(departure.observe_status("running", now), None);
    }
}
