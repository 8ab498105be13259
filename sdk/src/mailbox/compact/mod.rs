//! Compaction: which events a reader that was too slow must still get.
//!
//! Of each domain, in their order: the newest ending; the newest start after the last stop; the
//! newest change of run state after that; the newest definition; the newest event after which the
//! domain was gone; the newest that knows whether the domain persists; and the newest of all. So a
//! table folded from the kept events equals one folded from all events, whatever it held before.
//!
//! Of the markers: the newest `Disconnected` and the newest `Synced` of each source and each host,
//! the newer of the two for each domain, and the newest reset of each scope.

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use crate::event::ScopeKey;
use crate::{Change, Domain, DomainEvent, Gap, GapKind, Lifecycle, Scope, State, Synced};

/// What is kept of a domain already, going from the newest event back.
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
        // The newest event of all has the domain's present name, run and persistence, whatever it
        // says.
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
            // Everything older is of a run that is over, so only the definition and the ending
            // still matter.
            Change::Stopped(_) => {
                self.stopped = true;
                first(&mut self.ending)
            }
            // A guest that runs its crash kernel has not ended.
            Change::Crashed(_) if State::after(change).is_none() => false,
            Change::Crashed(_) => !self.stopped && first(&mut self.ending),
            change if change.begins_run() => !self.stopped && first(&mut self.started),
            // Also a wakeup: without the start of its run it would be a start out of nothing.
            Change::Started(_)
            | Change::Suspended(_)
            | Change::Resumed(_)
            | Change::ShuttingDown(_)
            | Change::PmSuspended(_) => {
                !self.ending && !self.started && !self.existing && first(&mut self.run_state)
            }
            // Definitions do not depend on runs: a stop in between does not outdate them.
            Change::Defined(_) | Change::Undefined(_) => first(&mut self.definition),
            Change::Existing(_) => !self.stopped && !self.started && first(&mut self.existing),
            // A change of an unknown number says nothing that a table could hold.
            Change::Unknown { .. } => false,
        }
    }
}

/// The kind of a marker, of which the newest in each scope is kept.
#[derive(PartialEq, Eq, Hash)]
enum Marker {
    Disconnected,
    Synced,
    Reset,
}

/// Drops the events that do not matter any more; returns how many.
pub(super) fn compact(events: &mut VecDeque<DomainEvent>) -> u64 {
    let mut keep = vec![false; events.len()];
    let mut domains: HashMap<(Uuid, &str, &str), Kept, foldhash::fast::RandomState> =
        HashMap::default();
    let mut markers: HashSet<(ScopeKey, Marker)> = HashSet::new();
    let mut newest = |scope: &Scope, marker| markers.insert((scope.key(), marker));
    // Backwards: whether an event matters depends only on what is newer.
    for (event, keep) in events.iter().zip(&mut keep).rev() {
        *keep = match event {
            DomainEvent::Lifecycle(event) => {
                domains.entry(key(&event.domain)).or_default().keeps(event)
            }
            // They change no state, so no table needs them.
            DomainEvent::Reboot(_) | DomainEvent::Notice(_) | DomainEvent::Other(_) => false,
            // There may be many domains, so one marker each: the newer one says how the domain is.
            // The Synced of a wider scope ended the gaps of its domains, too.
            DomainEvent::Synced(Synced { scope: scope @ Scope::Domain(_), .. }) => {
                newest(scope, Marker::Disconnected)
            }
            DomainEvent::Synced(Synced { scope, .. }) => newest(scope, Marker::Synced),
            DomainEvent::Gap(Gap { scope, kind }) => match kind {
                GapKind::Disconnected { .. } => newest(scope, Marker::Disconnected),
                GapKind::Lagged { reset: true, .. } | GapKind::Removed => {
                    newest(scope, Marker::Reset)
                }
                GapKind::Lagged { reset: false, .. } => false,
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

/// How many events an event stands for: a relay's own `Lagged` stands for those that it missed.
pub(super) fn stands_for(event: &DomainEvent) -> u64 {
    match event {
        DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, .. }, .. }) => *missed,
        event => u64::from(event.is_happening()),
    }
}

fn key(domain: &Domain) -> (Uuid, &str, &str) {
    (domain.uuid(), domain.host(), domain.source())
}
