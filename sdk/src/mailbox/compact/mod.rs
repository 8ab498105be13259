//! What a reader that was too slow must still get.
//!
//! Of each domain, in the order they came: the newest ending; the newest start after the last stop;
//! the newest change of run state after that; the newest definition; the newest after which the domain
//! was gone; the newest that knows whether it persists; and the newest of all. So a table that is folded
//! from what is kept equals one that is folded from everything, whatever it held before.
//!
//! Of the markers the newest break and the newest sync of each source and each host, the newer of the
//! two for each domain, and the newest reset of each scope.

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use crate::event::ScopeKey;
use crate::{Change, Domain, DomainEvent, Gap, GapKind, Lifecycle, Scope, State, Synced};

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
    GapKind,
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
            // Of one domain, which may be one of many, the newer of the two says how it is. A wider
            // scope's Synced ended the gaps of its parts, too.
            DomainEvent::Synced(Synced { scope: scope @ Scope::Domain(_), .. }) => {
                newest(scope, Marker::GapKind)
            }
            DomainEvent::Synced(Synced { scope, .. }) => newest(scope, Marker::Synced),
            DomainEvent::Gap(Gap { scope, kind }) => match kind {
                GapKind::Disconnected { .. } => newest(scope, Marker::GapKind),
                GapKind::Lagged { reset: true, .. } => newest(scope, Marker::Reset),
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

/// How many happenings an event stands for: a relay's own `Lagged` for those that it missed.
pub(super) fn stands_for(event: &DomainEvent) -> u64 {
    match event {
        DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, .. }, .. }) => *missed,
        event => u64::from(event.is_happening()),
    }
}

fn key(domain: &Domain) -> (Uuid, &str, &str) {
    (domain.uuid(), domain.host(), domain.source())
}
