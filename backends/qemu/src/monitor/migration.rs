//! Whether a guest that does not run is on its way to another host: how often to look.
//!
//! ```text
//!   paused ──query-migrate: active──▶ moving ──▶ finish-migrate ──▶ postmigrate
//! ```
//!
//! A migration ends in the run state `postmigrate`, and where QEMU's migration capability `events` is off
//! nothing but the run state says so. A guest that runs says `STOP` on its way; one that is paused already
//! says nothing at all, and is looked at by intervals that grow with the time for which it has been
//! paused, or has been moving.
//!
//! The manager may tell QEMU to quit in the very moment in which the migration is completed, and after
//! `SHUTDOWN` QEMU answers nothing. So a migration that was under way at the last look counts as completed
//! if all that remained can have been sent since: a QEMU that is told to quit earlier was destroyed.

use std::time::Duration;

use tokio::time::Instant;

use crate::peer::answers::MigrationInfo;

/// The intervals between two looks at a guest that is paused.
const PAUSED: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The intervals between two looks at a guest that is moving.
const MOVING: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// No network carries more, in bytes a second: 100 Gbit/s.
const FASTEST: f64 = 12.5e9;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct MigrationTracker {
    paused_since: Option<Instant>,
    moving_since: Option<Instant>,
    /// What remained to be sent at the last look, in bytes, and when that was.
    remained: Option<(u64, Instant)>,
}

impl MigrationTracker {
    /// QEMU is in this run state. When to look again, unless any later time is as good.
    pub(super) fn observe_status(&mut self, status: &str, now: Instant) -> Option<Instant> {
        match status {
            "paused" | "io-error" | "watchdog" | "internal-error" | "debug" | "guest-panicked" => {}
            "finish-migrate" => drop(self.moving_since.get_or_insert(now)),
            _ => {
                *self = Self::default();
                return None;
            }
        }
        let paused_since = *self.paused_since.get_or_insert(now);
        let (since, share, (least, most)) = match self.moving_since {
            Some(moving_since) => (moving_since, 16, MOVING),
            None => (paused_since, 8, PAUSED),
        };
        Some(now + ((now - since) / share).clamp(least, most))
    }

    /// QEMU tells of its migration, of which there may have been none.
    pub(super) fn observe_migration(&mut self, migration: &MigrationInfo<'_>, now: Instant) {
        // `MigrationStatus` of QEMU's `qapi/migration.json`.
        self.remained = match migration.status {
            Some("setup" | "active" | "pre-switchover" | "device" | "wait-unplug") => {
                self.moving_since.get_or_insert(now);
                // Unknown before it has begun to send, as in `setup`: it cannot have left then.
                migration.ram.as_ref().map(|ram| (ram.remaining, now))
            }
            // Not one of the past, by which the guest has come.
            Some("completed") if self.moving_since.is_some() => Some((0, now)),
            _ => {
                self.moving_since = None;
                None
            }
        };
    }

    /// Whether a guest that was moving at the last look may have left since.
    pub(super) fn may_have_left(&self, now: Instant) -> bool {
        self.remained.is_some_and(|(bytes, at)| {
            let least = Duration::from_secs_f64(bytes as f64 / FASTEST);
            now - at >= least
        })
    }

    /// Whether it is to be asked, beside the run state, whether the guest is moving.
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
    fn a_guest_has_left_only_if_what_remained_can_have_been_sent() {
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
        assert!(!departure.may_have_left(now), "it has come, and not left");
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
    fn a_paused_guest_is_looked_at_more_and_more_seldom() {
        let start = Instant::now();
        let mut now = start;
        let mut departure = MigrationTracker::default();
        let mut looks = 0;
        while now - start < Duration::from_secs(60) {
            now = departure.observe_status("paused", now).unwrap();
            looks += 1;
        }
        assert!(looks < 150, "{looks} in a minute");
        departure.observe_migration(&migration(Some("active"), Some(1)), now);
        let next = departure.observe_status("paused", now).unwrap();
        assert!(next - now <= Duration::from_millis(1));
        assert_eq!(departure.observe_status("postmigrate", now), None);
        assert_eq!(departure.observe_status("running", now), None);
    }
}
