//! The place of a list among the held events of a domain: after how many of them it was taken.
//!
//! What an event says fixes some of what a list can say right before it and right after it: its
//! name and persistence by definitions, its run and state by what happens to runs. A place fits
//! when the list's entry agrees with both neighbours of each kind.

use std::collections::VecDeque;

use super::as_events_know_it;
use crate::driver::entry::Entry;
use crate::driver::hosts::ByKey;
use crate::driver::roster::Roster;
use crate::{Change, DefineCause, DomainEvent, Lifecycle, State, UndefineCause};

/// For each held event, whether the list contains it.
pub(super) fn contained(
    roster: &mut Roster,
    listed: &ByKey<Entry>,
    held: &VecDeque<DomainEvent>,
) -> Vec<bool> {
    let mut held_by_domain: ByKey<Vec<(usize, &Lifecycle)>> = ByKey::default();
    for (index, event) in held.iter().enumerate() {
        if let DomainEvent::Lifecycle(event) = event {
            held_by_domain.entry(roster.key(&event.domain)).or_default().push((index, event));
        }
    }
    // The last event of each domain that the list contains.
    let mut until: ByKey<usize> = ByKey::default();
    for (key, held) in held_by_domain {
        let entry = listed.get(&key).cloned().and_then(as_events_know_it);
        let events: Vec<_> = held.iter().map(|(_, event)| *event).collect();
        let place = place(&events, entry.as_ref());
        if let Some((index, _)) = place.checked_sub(1).and_then(|last| held.get(last)) {
            until.insert(key, *index);
        }
    }
    let is_contained = |(index, event): (usize, &DomainEvent)| {
        // An event without a domain is in no list.
        let Some(domain) = event.domain() else { return false };
        until.get(&roster.key(domain)).is_some_and(|until| index <= *until)
    };
    held.iter().enumerate().map(is_contained).collect()
}

/// After how many of a domain's held events the list was taken.
pub(super) fn place(events: &[&Lifecycle], listed: Option<&Entry>) -> usize {
    let definitions = neighbours(events, is_definition);
    let runs = neighbours(events, is_of_run);
    let starts = starts(events);
    // The list was taken after the start of the run that it shows.
    let run = listed.and_then(|entry| entry.domain.id());
    let begins_listed = |at: &usize| starts[*at] && events[*at].domain.id() == run;
    let earliest = run.and_then(|_| (0..events.len()).rfind(begins_listed)).unwrap_or(0);
    let fits = |place: &usize| {
        let (before, after) = definitions[*place];
        let (run_before, run_after) = runs[*place];
        before.is_none_or(|at| is_defined_after(events[at], listed))
            && after.is_none_or(|at| may_be_defined(events[at], listed))
            && run_before.is_none_or(|at| is_run_after(events[at], listed))
            && run_after.is_none_or(|at| may_run_on(events[at], starts[at], listed))
    };
    // The earliest of several places: an event behind it is delivered, at worst as a repetition
    // that the rules drop; an event before it is lost to streams that only get the list.
    (earliest..=events.len()).find(fits).unwrap_or(events.len())
}

/// For each place, the last wanted event before it and the first after it.
fn neighbours(
    events: &[&Lifecycle],
    is_wanted: fn(Change) -> bool,
) -> Vec<(Option<usize>, Option<usize>)> {
    let mut places = vec![(None, None); events.len() + 1];
    for at in 0..events.len() {
        let is_last = is_wanted(events[at].change);
        places[at + 1].0 = if is_last { Some(at) } else { places[at].0 };
    }
    for at in (0..events.len()).rev() {
        let is_next = is_wanted(events[at].change);
        places[at].1 = if is_next { Some(at) } else { places[at + 1].1 };
    }
    places
}

/// Which events begin a run: a start, and what libvirt sends before it, a resume.
fn starts(events: &[&Lifecycle]) -> Vec<bool> {
    let mut starts = vec![false; events.len()];
    let mut next: Option<usize> = None;
    // Backwards, since what follows a resume decides whether it begins a run.
    for (at, event) in events.iter().enumerate().rev() {
        if !is_of_run(event.change) {
            continue;
        }
        let leads_to_start = matches!(event.change, Change::Resumed(_))
            && next.is_some_and(|next| {
                events[next].change.begins_run() && events[next].domain.id() == event.domain.id()
            });
        starts[at] = event.change.begins_run() || leads_to_start;
        next = Some(at);
    }
    starts
}

fn is_definition(change: Change) -> bool {
    matches!(change, Change::Defined(_) | Change::Undefined(_))
}

fn is_of_run(change: Change) -> bool {
    !is_definition(change) && !matches!(change, Change::Existing(_) | Change::Unknown { .. })
}

/// Whether a domain is listed as it must be right after its definition was changed.
fn is_defined_after(event: &Lifecycle, listed: Option<&Entry>) -> bool {
    match event.change {
        Change::Defined(_) => listed.is_some_and(|entry| {
            entry.persistent != Some(false) && entry.domain.name() == event.domain.name()
        }),
        // An undefine says nothing here: a define that follows it is the next neighbour, and it
        // does not fit before a list that shows it.
        _ => true,
    }
}

/// Whether a domain is listed as it may be right before its definition changes.
fn may_be_defined(event: &Lifecycle, listed: Option<&Entry>) -> bool {
    let has_name = |entry: &Entry| entry.domain.name() == event.domain.name();
    match event.change {
        Change::Defined(DefineCause::Added) => {
            listed.is_none_or(|entry| entry.persistent != Some(true))
        }
        Change::Defined(DefineCause::Renamed) => listed.is_none_or(|entry| !has_name(entry)),
        Change::Defined(DefineCause::Updated) => {
            listed.is_some_and(|entry| entry.persistent != Some(false))
        }
        Change::Undefined(UndefineCause::Renamed) => listed.is_some_and(has_name),
        Change::Undefined(_) => listed.is_some_and(|entry| entry.persistent != Some(false)),
        _ => true,
    }
}

/// Whether a domain is listed as it must be right after something happened to its run.
fn is_run_after(event: &Lifecycle, listed: Option<&Entry>) -> bool {
    let active = listed.filter(|entry| entry.domain.is_active());
    if matches!(event.change, Change::Stopped(_)) {
        return active.is_none();
    }
    let after = State::after(event.change);
    active.is_some_and(|entry| {
        is_same_run(event, entry) && after.is_none_or(|state| state.is_same(entry.state))
    })
}

/// Whether a domain is listed as it may be right before something happens to its run.
fn may_run_on(event: &Lifecycle, is_start: bool, listed: Option<&Entry>) -> bool {
    match listed.filter(|entry| entry.domain.is_active()) {
        Some(active) => {
            let is_there_already =
                State::after(event.change).is_some_and(|s| s.is_same(active.state));
            !is_start && !is_there_already && is_same_run(event, active)
        }
        None => is_start,
    }
}

fn is_same_run(event: &Lifecycle, entry: &Entry) -> bool {
    event.domain.id().is_none() || event.domain.id() == entry.domain.id()
}
