//! What a reader that was too slow must still get.
//!
//! Of each domain, in the order they came: the newest ending; the newest start after the last stop;
//! the newest change of run state after that; the newest definition; the newest after which the domain
//! was gone; the newest that knows whether it persists; and the newest of all. So a table that is folded
//! from what is kept equals one that is folded from everything, whatever it held before.
//!
//! Of the markers the newest break and the newest sync of each source, the newer of the two for each
//! part of one, and the newest reset of each scope.

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use crate::event::ScopeKey;
use crate::{Break, Change, Domain, DomainEvent, Gap, Lifecycle, Scope, State};

/// What was already kept of a domain, looking from the newest event back.
#[derive(Default)]
struct Kept {
    stopped: bool,
    ending: bool,
    started: bool,
    run_state: bool,
    definition: bool,
    existing: bool,
    gone: bool,
    persistence: bool,
    any: bool,
}

impl Kept {
    /// Whether `event` still matters, given everything newer.
    fn keeps(&mut self, event: &Lifecycle) -> bool {
        let is_newest = !self.any;
        let is_newest_end = event.is_gone() && !self.gone;
        let is_newest_to_know = event.persistent.is_some() && !self.persistence;
        self.any = true;
        self.gone |= event.is_gone();
        self.persistence |= event.persistent.is_some();
        self.keeps_change(event.change) || is_newest || is_newest_end || is_newest_to_know
    }

    fn keeps_change(&mut self, change: Change) -> bool {
        let first = |seen: &mut bool| !std::mem::replace(seen, true);
        match change {
            Change::Stopped(_) => {
                self.stopped = true;
                first(&mut self.ending)
            }
            // A guest that loaded its crash kernel goes on.
            Change::Crashed(_) if State::after(change).is_none() => false,
            Change::Crashed(_) => !self.stopped && first(&mut self.ending),
            Change::Started(_) => !self.stopped && first(&mut self.started),
            Change::Suspended(_)
            | Change::Resumed(_)
            | Change::ShuttingDown(_)
            | Change::PmSuspended(_) => {
                !self.ending && !self.started && !self.existing && first(&mut self.run_state)
            }
            Change::Defined(_) | Change::Undefined(_) => first(&mut self.definition),
            Change::Existing(_) => !self.stopped && !self.started && first(&mut self.existing),
            Change::Unknown { .. } => false,
        }
    }
}

/// A sort of marker, of which the newest in each scope is kept.
#[derive(PartialEq, Eq, Hash)]
enum Marker {
    Break,
    Synced,
    Reset,
}

/// Drops what does not matter any more; returns how many happenings that were.
pub(super) fn compact(events: &mut VecDeque<DomainEvent>) -> u64 {
    let mut keep = vec![false; events.len()];
    let mut domains: HashMap<(Uuid, &str, &str), Kept, foldhash::fast::RandomState> =
        HashMap::default();
    let mut markers: HashSet<(ScopeKey, Marker)> = HashSet::new();
    let mut newest = |scope: &Scope, marker| markers.insert((scope.key(), marker));
    for (event, keep) in events.iter().zip(&mut keep).rev() {
        *keep = match event {
            DomainEvent::Lifecycle(event) => {
                domains.entry(key(&event.domain)).or_default().keeps(event)
            }
            DomainEvent::Reboot(_) | DomainEvent::Other(_) => false,
            // Of a part, which may be one of many, only the newer of the two says how it is.
            DomainEvent::Synced(synced) if synced.scope.is_source() => {
                newest(&synced.scope, Marker::Synced)
            }
            DomainEvent::Synced(synced) => newest(&synced.scope, Marker::Break),
            DomainEvent::Gap(Gap { scope, kind }) => match kind {
                Break::Disconnected { .. } => newest(scope, Marker::Break),
                Break::Lagged { anew: true, .. } => newest(scope, Marker::Reset),
                Break::Lagged { anew: false, .. } => false,
            },
        };
    }
    let mut dropped = 0;
    let mut keep = keep.into_iter();
    events.retain(|event| {
        let keep = keep.next().unwrap_or(true);
        if !keep {
            dropped += stands_for(event);
        }
        keep
    });
    dropped
}

/// How many happenings an event stands for: a relay's own `Lagged` for those that it missed.
pub(super) fn stands_for(event: &DomainEvent) -> u64 {
    match event {
        DomainEvent::Gap(Gap { kind: Break::Lagged { missed, .. }, .. }) => *missed,
        event => u64::from(event.is_happening()),
    }
}

fn key(domain: &Domain) -> (Uuid, &str, &str) {
    (domain.uuid(), domain.host(), domain.source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CrashCause, DefineCause, Lifecycle, Reboot, ResumeCause, RunningReason, ShutdownCause,
        StartCause, StopCause, SuspendCause, UndefineCause,
    };

    const STARTED: Change = Change::Started(StartCause::Booted);
    const STOPPED: Change = Change::Stopped(StopCause::Shutdown);
    const SUSPENDED: Change = Change::Suspended(SuspendCause::Paused);
    const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);
    const CRASHED: Change = Change::Crashed(CrashCause::Panicked);
    const SHUTTING_DOWN: Change = Change::ShuttingDown(ShutdownCause::Guest);
    const DEFINED: Change = Change::Defined(DefineCause::Added);
    const UNDEFINED: Change = Change::Undefined(UndefineCause::Removed);
    const EXISTING: Change = Change::Existing(State::Running(RunningReason::Booted));

    fn kept(changes: &[Change]) -> Vec<Change> {
        let mut events: VecDeque<DomainEvent> = changes
            .iter()
            .map(|&change| {
                let domain = Domain::new("s:", "h", Uuid::from_u128(1), "d", Some(1));
                let at = std::time::SystemTime::UNIX_EPOCH;
                Lifecycle::new(domain, change, at).into()
            })
            .collect();
        compact(&mut events);
        events.iter().filter_map(DomainEvent::change).collect()
    }

    #[test]
    fn of_many_runs_the_last_ending_and_what_came_after_it_is_kept() {
        assert_eq!(
            kept(&[STARTED, STOPPED, STARTED, STOPPED, STARTED, SUSPENDED, RESUMED]),
            [STOPPED, STARTED, RESUMED]
        );
        assert_eq!(kept(&[STARTED, SUSPENDED, STOPPED]), [STOPPED]);
        assert_eq!(kept(&[STARTED, SHUTTING_DOWN]), [STARTED, SHUTTING_DOWN]);
    }

    #[test]
    fn a_crash_is_an_ending_until_the_stop_that_follows_it() {
        assert_eq!(kept(&[STARTED, CRASHED]), [STARTED, CRASHED]);
        assert_eq!(kept(&[STARTED, CRASHED, STOPPED]), [STOPPED]);
        assert_eq!(kept(&[STARTED, SUSPENDED, CRASHED, RESUMED]), [STARTED, CRASHED, RESUMED]);
    }

    #[test]
    fn a_guest_in_its_crash_kernel_has_not_ended() {
        let crashloaded = Change::Crashed(CrashCause::Crashloaded);
        assert_eq!(
            kept(&[EXISTING, SUSPENDED, crashloaded, DEFINED]),
            [EXISTING, SUSPENDED, DEFINED]
        );
    }

    #[test]
    fn of_definitions_the_newest_is_kept() {
        assert_eq!(
            kept(&[DEFINED, STARTED, UNDEFINED, DEFINED, STOPPED, UNDEFINED]),
            [STOPPED, UNDEFINED]
        );
    }

    #[test]
    fn an_existing_domain_is_kept_until_a_newer_run_tells_as_much() {
        assert_eq!(kept(&[EXISTING, SUSPENDED]), [EXISTING, SUSPENDED]);
        assert_eq!(kept(&[EXISTING, UNDEFINED]), [EXISTING, UNDEFINED]);
        assert_eq!(kept(&[EXISTING, STOPPED, STARTED]), [STOPPED, STARTED]);
    }

    #[test]
    fn what_does_not_change_the_state_is_dropped_and_counted() {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "d", Some(1));
        let at = std::time::SystemTime::UNIX_EPOCH;
        let reboot = Reboot::new(domain, at);
        let mut events: VecDeque<DomainEvent> = vec![reboot.clone().into(), reboot.into()].into();
        assert_eq!(compact(&mut events), 2);
        assert!(events.is_empty());
    }
}
