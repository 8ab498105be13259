//! Where among the held events of a domain a list was taken.
//!
//! What an event says fixes some of what a list can say right before it and right after it: its name and
//! persistence by definitions, its run and state by what happens to runs. A place fits when the list's entry
//! agrees with both neighbours of each sort.

use std::collections::VecDeque;

use super::super::observe::begins_run;
use super::super::roster::{ByKey, Entry, Roster};
use super::as_events_know_it;
use crate::{Change, DefineCause, DomainEvent, Lifecycle, State, UndefineCause};

/// For each held event, whether the list contains it.
pub(super) fn contained(
    roster: &mut Roster,
    listed: &ByKey<Entry>,
    held: &VecDeque<DomainEvent>,
) -> Vec<bool> {
    let mut stories: ByKey<Vec<(usize, &Lifecycle)>> = ByKey::default();
    for (index, event) in held.iter().enumerate() {
        if let DomainEvent::Lifecycle(event) = event {
            stories.entry(roster.key(&event.domain)).or_default().push((index, event));
        }
    }
    // Up to which event the story of each domain is in the list.
    let mut until: ByKey<usize> = ByKey::default();
    for (key, story) in stories {
        let entry = listed.get(&key).cloned().and_then(as_events_know_it);
        let events: Vec<_> = story.iter().map(|(_, event)| *event).collect();
        let place = place(&events, entry.as_ref());
        if let Some((index, _)) = place.checked_sub(1).and_then(|last| story.get(last)) {
            until.insert(key, *index);
        }
    }
    let is_contained = |(index, event): (usize, &DomainEvent)| {
        let Some(domain) = event.domain() else { return false };
        until.get(&roster.key(domain)).is_some_and(|until| index <= *until)
    };
    held.iter().enumerate().map(is_contained).collect()
}

/// Where in the story of a domain the list was taken: after how many of its events.
pub(super) fn place(story: &[&Lifecycle], listed: Option<&Entry>) -> usize {
    let definitions = neighbours(story, is_definition);
    let runs = neighbours(story, is_of_run);
    let starts = starts(story);
    // Before the listed run began it was not there to be listed.
    let run = listed.and_then(|entry| entry.domain.id());
    let begins_listed = |at: &usize| starts[*at] && story[*at].domain.id() == run;
    let earliest = run.and_then(|_| (0..story.len()).rfind(begins_listed)).unwrap_or(0);
    let fits = |place: &usize| {
        let (before, after) = definitions[*place];
        let (run_before, run_after) = runs[*place];
        before.is_none_or(|at| is_defined_after(story[at], listed))
            && after.is_none_or(|at| may_be_defined(story[at], listed))
            && run_before.is_none_or(|at| is_run_after(story[at], listed))
            && run_after.is_none_or(|at| may_run_on(story[at], starts[at], listed))
    };
    (earliest..=story.len()).find(fits).unwrap_or(story.len())
}

/// For each place in a story, the last event of a sort before it and the first after it.
fn neighbours(
    story: &[&Lifecycle],
    is_wanted: fn(Change) -> bool,
) -> Vec<(Option<usize>, Option<usize>)> {
    let mut places = vec![(None, None); story.len() + 1];
    for at in 0..story.len() {
        let is_last = is_wanted(story[at].change);
        places[at + 1].0 = if is_last { Some(at) } else { places[at].0 };
    }
    for at in (0..story.len()).rev() {
        let is_next = is_wanted(story[at].change);
        places[at].1 = if is_next { Some(at) } else { places[at + 1].1 };
    }
    places
}

/// Which events begin a run: a start, and what libvirt sends before it, a resume.
fn starts(story: &[&Lifecycle]) -> Vec<bool> {
    let mut starts = vec![false; story.len()];
    let mut next: Option<usize> = None;
    for (at, event) in story.iter().enumerate().rev() {
        if !is_of_run(event.change) {
            continue;
        }
        let leads_to_start = matches!(event.change, Change::Resumed(_))
            && next.is_some_and(|next| {
                begins_run(story[next].change) && story[next].domain.id() == event.domain.id()
            });
        starts[at] = begins_run(event.change) || leads_to_start;
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
        // The definition that follows does not fit before a list that shows it.
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
