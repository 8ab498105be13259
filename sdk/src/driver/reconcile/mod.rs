//! Reconciliation after a registration: what to deliver when the list comes.
//!
//! The driver holds the events that come between the registration and the list. The server took the
//! list at some moment in between, so for each domain the list contains a first part of the held
//! events, and the rest happened after it. The merge is this:
//!
//! 1. The *place* of the list among a domain's held events is the first at which it fits between
//!    the event before it and the event after it ([`place`]); the end, if it fits nowhere.
//! 2. The events before that place go through the rules for any event
//!    ([`observe`](super::observe)), over what was known.
//! 3. The difference between the result and the list is inferred.
//! 4. The events after the place go through the same rules, over the list.
//!
//! Subscribers that knew the domains get all of it, in this order; the others get the list itself
//! in place of steps 2 and 3. The order within step 3: first the domains that are gone, then the
//! others, each by name.

#[cfg(test)]
mod tests;

mod place;

use std::time::SystemTime;

use self::place::contained;
use super::Listed;
use super::entry::Entry;
use super::hosts::{ByKey, Key};
use super::inference::Inference;
use super::observe::{Trust, is_half_started, observe_one};
use super::roster::Roster;
use super::scopes::Scopes;
use super::sync_buffer::SyncBuffer;
use crate::{Domain, DomainEvent, Origin, PausedReason, ShutoffReason, State};

/// What to deliver when the list comes.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// How what was known became what the list says: held events that the list contains, and
    /// inferred ones.
    pub(super) difference: Vec<DomainEvent>,
    /// The domains as they were when the list was taken, by name.
    pub(super) listed: Vec<Entry>,
    /// The held events that the list does not contain.
    pub(super) observed: Vec<DomainEvent>,
    /// The number of held events that were dropped.
    pub(super) missed: u64,
    /// The domains to look at again.
    pub(super) doubted: Vec<(Key, Domain)>,
}

/// Applies the list and the held events to the roster, and returns what to deliver. `is_known`:
/// a subscriber knows what the roster holds.
pub(super) fn merge(
    roster: &mut Roster,
    list: Vec<Listed>,
    buffer: &mut SyncBuffer,
    unreachable: &Scopes,
    is_known: bool,
    now: SystemTime,
) -> Merged {
    let mut merged = Merged::default();
    // Marks of the last connection are of no use: libvirtd starts its ids over when it restarts,
    // and a mark would make a new run look over.
    roster.forget_ended();
    let (held, missed) = buffer.take_events();
    merged.missed = missed;

    let listed = roster.by_key(list);
    // Before anything is applied: the place of the list depends on the events and the list, not on
    // what was believed.
    let contained = contained(roster, &listed, &held);

    let mut doubted = Vec::new();
    let mut later = Vec::new();
    for (event, is_contained) in held.into_iter().zip(contained) {
        if !is_contained {
            later.push(event);
        // Where no stream knows the domains, the list alone says how they are, and what led there
        // is of no interest.
        } else if is_known {
            take(roster, event, now, &mut merged.difference, &mut doubted);
        }
    }
    let inferred = relist(roster, listed, unreachable, is_known, now, &mut doubted);
    if is_known {
        merged.difference.extend(inferred);
    }
    roster.is_whole = true;
    // Between the two halves of the held events: `Existing` shows the domains as the list does, and
    // later events follow it.
    merged.listed = roster.selected(|_| true).into_iter().cloned().collect();
    for event in later {
        take(roster, event, now, &mut merged.observed, &mut doubted);
    }
    // Levels come last: a session reports them from its own view, which is newer than the list.
    let mut levels = Inference::new(Origin::Observed, now);
    for (domain, level) in buffer.take_levels() {
        levels.level(roster, domain, level);
    }
    merged.observed.append(&mut levels.events);
    merged.doubted = doubted;
    merged
}

/// The same for a list that came after its deadline, when the held events and later ones had been
/// delivered without it. The list and the held events that it does not contain say how the domains
/// are; the difference to what is believed is inferred.
pub(super) fn merge_late(
    roster: &mut Roster,
    list: Vec<Listed>,
    buffer: &mut SyncBuffer,
    unreachable: &Scopes,
    now: SystemTime,
) -> Merged {
    let mut doubted = Vec::new();
    let listed = roster.by_key(list);
    // All events have been delivered, also those that the buffer dropped.
    let (held, _) = buffer.take_events();
    let contained = contained(roster, &listed, &held);
    // Only now: by the list, the roster has a number for each host.
    let mut actual = roster.like();
    for (key, entry) in listed {
        if let Some(found) = confirmed(roster.get(key), entry) {
            actual.insert(key, found);
        }
    }
    actual.is_whole = true;
    let later = held.into_iter().zip(contained).filter(|(_, is_contained)| !is_contained);
    for (event, _) in later {
        take(&mut actual, event, now, &mut Vec::new(), &mut doubted);
    }
    let mut levels = Inference::new(Origin::Observed, now);
    for (domain, level) in buffer.take_levels() {
        levels.level(&mut actual, domain, level);
    }
    let entries = actual.keys().filter_map(|key| Some((key, actual.get(key)?.clone()))).collect();
    let difference = relist(roster, entries, unreachable, true, now, &mut doubted);
    roster.is_whole = true;
    let listed = roster.selected(|_| true).into_iter().cloned().collect();
    Merged { difference, listed, doubted, ..Merged::default() }
}

/// Applies the rules for any event to a held event.
fn take(
    roster: &mut Roster,
    mut event: DomainEvent,
    now: SystemTime,
    out: &mut Vec<DomainEvent>,
    doubted: &mut Vec<(Key, Domain)>,
) {
    // A reboot of a run that has ended by now: its place among the inferred events is not known,
    // and it changes no state.
    if let DomainEvent::Reboot(reboot) = &event {
        let key = roster.key(&reboot.domain);
        if roster.get(key).and_then(|entry| entry.domain.id()) != reboot.domain.id() {
            return;
        }
    }
    let mut before = Inference::new(Origin::Inferred, now);
    let mut note_trust = |key, event: &DomainEvent, trust| match trust {
        Trust::Doubted => doubted.extend(event.domain().map(|domain| (key, domain.clone()))),
        // The start that was missing came: the doubt that its resume raised is settled.
        Trust::Restored => doubted.retain(|(doubted, _)| *doubted != key),
        Trust::Unchanged => {}
    };
    let is_delivered = observe_one(roster, &mut event, &mut before, &mut note_trust);
    out.append(&mut before.events);
    out.extend(is_delivered.then_some(event));
}

/// Makes the list the new roster, and infers what must have happened since the old one.
fn relist(
    roster: &mut Roster,
    listed: ByKey<Entry>,
    unreachable: &Scopes,
    is_known: bool,
    now: SystemTime,
    doubted: &mut Vec<(Key, Domain)>,
) -> Vec<DomainEvent> {
    let mut inference = Inference::new(Origin::Inferred, now);
    for (key, entry) in roster.compared_with(listed, unreachable) {
        // libvirt lists a start as paused (starting_up) while its hooks run, and sends nothing if
        // it fails.
        let may_still_fail =
            |entry: &&Entry| is_half_started(entry.state) && entry.domain.is_active();
        if let Some(entry) = entry.as_ref().filter(may_still_fail) {
            doubted.push((key, entry.domain.clone()));
        }
        // Streams that know the domains get nothing that may turn out false; others are shown the
        // list as it is.
        let found = match entry {
            Some(entry) if is_known => confirmed(roster.get(key), entry),
            entry => entry,
        };
        inference.correct(roster, key, found);
    }
    inference.events
}

/// What may be inferred of a listed domain. A start that is under way may fail without an event, so
/// an unknown run does not count until its start is complete.
pub(super) fn confirmed(known: Option<&Entry>, listed: Entry) -> Option<Entry> {
    let is_known_run = known.is_some_and(|known| known.domain.id() == listed.domain.id());
    if is_known_run || !listed.domain.is_active() || !is_half_started(listed.state) {
        return Some(listed);
    }
    without_run(&listed)
}

/// A listed domain as the events before the list show it. A start that is under way has sent no
/// event yet, except that of a guest that migrates in, whose `started` comes first.
fn as_events_know_it(listed: Entry) -> Option<Entry> {
    match listed.state {
        State::Paused(PausedReason::StartingUp) => without_run(&listed),
        _ => Some(listed),
    }
}

/// The domain without its run, if it exists without one.
pub(super) fn without_run(entry: &Entry) -> Option<Entry> {
    let domain = entry.domain.with_id(None);
    let state = State::Shutoff(ShutoffReason::Unspecified);
    (entry.persistent != Some(false)).then_some(Entry { domain, state, ..entry.clone() })
}
