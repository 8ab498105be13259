//! What the driver counts for metrics (feature `metrics`; nothing without it).

use std::time::Duration;

use crate::DomainEvent;

/// A call whose answer the driver awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// A registration or deregistration.
    Register,
    /// A list of all domains.
    List,
    /// A look at one domain.
    Look,
}

#[cfg(not(feature = "metrics"))]
#[derive(Debug, Default)]
pub(super) struct Recorder;

#[cfg(not(feature = "metrics"))]
impl Recorder {
    pub(super) fn events(&self, _: &[DomainEvent]) {}

    pub(super) fn answered(&self, _: Call, _: Duration) {}

    pub(super) fn statistics(&self) -> crate::Statistics {
        crate::Statistics::default()
    }
}

#[cfg(feature = "metrics")]
pub(super) use self::counting::Recorder;

#[cfg(feature = "metrics")]
mod counting {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Call, DomainEvent, Duration};
    use crate::statistics::BOUNDS;
    use crate::{CallTimes, Kind, Origin, Statistics};

    const CALLS: [&str; 3] = ["register", "list", "look"];
    const ORIGINS: [Origin; 3] = [Origin::Observed, Origin::Inferred, Origin::Replayed];

    #[derive(Debug)]
    pub(in crate::driver) struct Recorder {
        /// By kind, in the order of [`Kind::TYPED`] and then all others, and by origin.
        events: Vec<[AtomicU64; ORIGINS.len()]>,
        calls: [Times; CALLS.len()],
    }

    #[derive(Debug, Default)]
    struct Times {
        /// In microseconds.
        sum: AtomicU64,
        /// How many took no longer than each bound; the last one: longer than all.
        counts: [AtomicU64; BOUNDS.len() + 1],
    }

    impl Default for Recorder {
        fn default() -> Self {
            let kinds = Kind::TYPED.len() + 1;
            let events = std::iter::repeat_with(Default::default).take(kinds).collect();
            Self { events, calls: Default::default() }
        }
    }

    impl Recorder {
        pub(in crate::driver) fn events(&self, events: &[DomainEvent]) {
            for event in events {
                let (Some(kind), Some(origin)) = (place(event), event.origin()) else { continue };
                let origin = ORIGINS.iter().position(|one| *one == origin).unwrap_or_default();
                self.events[kind][origin].fetch_add(1, Ordering::Relaxed);
            }
        }

        pub(in crate::driver) fn answered(&self, call: Call, took: Duration) {
            let times = &self.calls[call as usize];
            let within = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
            times.counts[within.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            times.sum.fetch_add(micros, Ordering::Relaxed);
        }

        pub(in crate::driver) fn statistics(&self) -> Statistics {
            let kinds = Kind::TYPED.iter().chain([&Kind::Other]);
            let mut events = Vec::new();
            for (kind, counts) in kinds.zip(&self.events) {
                for (origin, count) in ORIGINS.into_iter().zip(counts) {
                    events.push((kind.clone(), origin, count.load(Ordering::Relaxed)));
                }
            }
            let calls = CALLS.into_iter().zip(&self.calls).map(|(call, times)| CallTimes {
                call,
                sum: Duration::from_micros(times.sum.load(Ordering::Relaxed)),
                counts: times.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            });
            Statistics { events, calls: calls.collect() }
        }
    }

    /// The place of an event's kind.
    fn place(event: &DomainEvent) -> Option<usize> {
        match event {
            DomainEvent::Lifecycle(_) => Some(0),
            DomainEvent::Reboot(_) => Some(1),
            DomainEvent::Notice(notice) => {
                let kind = notice.kind();
                Kind::TYPED.iter().position(|one| *one == kind)
            }
            DomainEvent::Other(_) => Some(Kind::TYPED.len()),
            DomainEvent::Synced(_) | DomainEvent::Gap(_) => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_first_two_kinds_have_the_places_that_events_count_at() {
            assert_eq!(Kind::TYPED[..2], [Kind::Lifecycle, Kind::Reboot]);
        }
    }
}
