//! Register, list, merge: what to deliver when the list is there.
//!
//! Events that come between the registration and the list are held. The list was taken at some moment
//! in between, so for each domain a first part of its held events is contained in the list and the rest
//! happened after it. The merge is this:
//!
//! 1. The *place* of the list among a domain's held events is the first at which it fits between the
//!    event before it and the event after it ([`place`]); the end, if it fits nowhere.
//! 2. The events before that place go through the same rules as events do at any time ([`observe`]),
//!    over what was known.
//! 3. Where the result differs from the list, the difference is inferred.
//! 4. The events after the place go through the same rules, over the list.
//!
//! Subscribers that knew the domains get all of it, in this order; the others get the list itself in
//! place of steps 2 and 3. The order of what is inferred in step 3: first the domains that are gone, then
//! the others, each by name.

#[cfg(test)]
mod tests;

mod place;

use std::time::SystemTime;

use self::place::contained;
use super::Listed;
use super::inference::Inference;
use super::observe::{Trust, is_half_started, observe_one};
use super::roster::{ByKey, Entry, Key, Roster};
use super::scopes::Scopes;
use super::sync_buffer::SyncBuffer;
use crate::{Domain, DomainEvent, Origin, PausedReason, ShutoffReason, State};

/// What to deliver of a list.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// How what was known became what the list says: held events that the list contains, and what must
    /// have happened besides.
    pub(super) difference: Vec<DomainEvent>,
    /// The domains as they were when the list was taken, by name.
    pub(super) listed: Vec<Entry>,
    /// What the list does not contain.
    pub(super) observed: Vec<DomainEvent>,
    /// How many events were held that could not be kept.
    pub(super) missed: u64,
    /// Domains to be looked at again.
    pub(super) doubted: Vec<(Key, Domain)>,
}

/// Makes the roster what the list and the held events say, and says what to deliver of it. `is_known` says
/// that somebody was told of what the roster holds.
pub(super) fn merge(
    roster: &mut Roster,
    list: Vec<Listed>,
    buffer: &mut SyncBuffer,
    unreachable: &Scopes,
    is_known: bool,
    now: SystemTime,
) -> Merged {
    let mut merged = Merged::default();
    roster.forget_ended();
    let (held, missed) = buffer.take_events();
    merged.missed = missed;

    let mut listed: ByKey<Entry> = ByKey::default();
    for entry in list {
        let key = roster.key(&entry.domain);
        // A server that lists a domain twice is not believed twice.
        listed.entry(key).or_insert_with(|| Entry::listed(entry));
    }
    let contained = contained(roster, &listed, &held);

    let mut doubted = Vec::new();
    let mut later = Vec::new();
    for (event, is_contained) in held.into_iter().zip(contained) {
        if !is_contained {
            later.push(event);
        } else if is_known {
            take(roster, event, now, &mut merged.difference, &mut doubted);
        }
    }
    let inferred = relist(roster, listed, unreachable, is_known, now, &mut doubted);
    if is_known {
        merged.difference.extend(inferred);
    }
    roster.is_whole = true;
    merged.listed = roster.selected(|_| true).into_iter().cloned().collect();
    for event in later {
        take(roster, event, now, &mut merged.observed, &mut doubted);
    }
    let mut levels = Inference::new(Origin::Observed, now);
    for (domain, level) in buffer.take_levels() {
        match level {
            Ok(state) => levels.level(roster, domain, state),
            Err(cause) => levels.gone_level(roster, &domain, cause),
        }
    }
    merged.observed.append(&mut levels.events);
    merged.doubted = doubted;
    merged
}

/// The same for a list that came so late that the events were delivered without it. They are held as well:
/// what follows from the list and from those that it does not contain is true, and where something else is
/// believed, the difference is inferred.
pub(super) fn merge_late(
    roster: &mut Roster,
    list: Vec<Listed>,
    buffer: &mut SyncBuffer,
    unreachable: &Scopes,
    now: SystemTime,
) -> Merged {
    let mut doubted = Vec::new();
    let mut listed: ByKey<Entry> = ByKey::default();
    for entry in list {
        let key = roster.key(&entry.domain);
        listed.entry(key).or_insert_with(|| Entry::listed(entry));
    }
    // How many events were given up does not matter: all have been delivered.
    let (held, _) = buffer.take_events();
    let contained = contained(roster, &listed, &held);
    // Only now: it has a place for each host that was listed.
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
        match level {
            Ok(state) => levels.level(&mut actual, domain, state),
            Err(cause) => levels.gone_level(&mut actual, &domain, cause),
        }
    }
    let entries = actual.keys().filter_map(|key| Some((key, actual.get(key)?.clone()))).collect();
    let difference = relist(roster, entries, unreachable, true, now, &mut doubted);
    roster.is_whole = true;
    let listed = roster.selected(|_| true).into_iter().cloned().collect();
    Merged { difference, listed, doubted, ..Merged::default() }
}

/// Takes one held event by the rules for any event.
fn take(
    roster: &mut Roster,
    mut event: DomainEvent,
    now: SystemTime,
    out: &mut Vec<DomainEvent>,
    doubted: &mut Vec<(Key, Domain)>,
) {
    // Of a run that is over by the list: its place in the story is not known, and it changes no state.
    if let DomainEvent::Reboot(reboot) = &event {
        let key = roster.key(&reboot.domain);
        if roster.get(key).and_then(|entry| entry.domain.id()) != reboot.domain.id() {
            return;
        }
    }
    let mut before = Inference::new(Origin::Inferred, now);
    let mut judged = |key, event: &DomainEvent, trust| match trust {
        Trust::Doubted => doubted.extend(event.domain().map(|domain| (key, domain.clone()))),
        Trust::Restored => doubted.retain(|(doubted, _)| *doubted != key),
        Trust::Unchanged => {}
    };
    let is_delivered = observe_one(roster, &mut event, &mut before, &mut judged);
    out.append(&mut before.events);
    out.extend(is_delivered.then_some(event));
}

/// Makes the list the new roster; infers what must have happened since the old one.
fn relist(
    roster: &mut Roster,
    listed: ByKey<Entry>,
    unreachable: &Scopes,
    is_known: bool,
    now: SystemTime,
    doubted: &mut Vec<(Key, Domain)>,
) -> Vec<DomainEvent> {
    let mut inference = Inference::new(Origin::Inferred, now);
    // Of what is out of reach the list says nothing.
    let is_missing = |entry: &Entry| !unreachable.contains(&entry.domain);
    let mut missing: Vec<(Key, Box<str>)> = roster
        .keys()
        .filter(|key| !listed.contains_key(key))
        .filter_map(|key| roster.get(key).map(|entry| (key, entry)))
        .filter(|(_, entry)| is_missing(entry))
        .map(|(key, entry)| (key, entry.domain.name().into()))
        .collect();
    missing.sort_by(|(_, one), (_, other)| one.cmp(other));
    for (key, _) in missing {
        inference.correct(roster, key, None);
    }
    let mut entries: Vec<(Key, Entry)> = listed.into_iter().collect();
    entries.sort_by(|(_, one), (_, other)| one.domain.name().cmp(other.domain.name()));
    for (key, entry) in entries {
        if is_half_started(entry.state) && entry.domain.is_active() {
            doubted.push((key, entry.domain.clone()));
        }
        let found = if is_known { confirmed(roster.get(key), entry) } else { Some(entry) };
        inference.correct(roster, key, found);
    }
    inference.events
}

/// What of a listed domain may be inferred: a start that is still under way may fail without a word, so a
/// run that is not known yet does not count until it is through.
pub(super) fn confirmed(known: Option<&Entry>, listed: Entry) -> Option<Entry> {
    let is_known_run = known.is_some_and(|known| known.domain.id() == listed.domain.id());
    if is_known_run || !listed.domain.is_active() || !is_half_started(listed.state) {
        return Some(listed);
    }
    without_run(&listed)
}

/// A listed domain as events have it that came before the list: a start that is under way has not been
/// heard of, but for a guest that migrates in, whose start comes first.
fn as_events_know_it(listed: Entry) -> Option<Entry> {
    match listed.state {
        State::Paused(PausedReason::StartingUp) => without_run(&listed),
        _ => Some(listed),
    }
}

/// The domain without the run that it is in, if it exists then.
fn without_run(entry: &Entry) -> Option<Entry> {
    let domain = entry.domain.with_id(None);
    let state = State::Shutoff(ShutoffReason::Unspecified);
    (entry.persistent != Some(false)).then_some(Entry { domain, state, ..entry.clone() })
}
