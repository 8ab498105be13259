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

use std::collections::VecDeque;
use std::time::SystemTime;

use super::Listed;
use super::inference::Inference;
use super::observe::{Trust, begins_run, is_half_started, observe_one};
use super::roster::{ByKey, Entry, Key, Roster};
use super::scopes::Scopes;
use super::sync_buffer::SyncBuffer;
use crate::{
    Change, DefineCause, Domain, DomainEvent, Lifecycle, Origin, PausedReason, ShutoffReason,
    State, UndefineCause,
};

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
        State::Paused(PausedReason::StartingUp) if listed.domain.is_active() => {
            without_run(&listed)
        }
        _ => Some(listed),
    }
}

/// The domain without the run that it is in, if it exists then.
fn without_run(entry: &Entry) -> Option<Entry> {
    let domain = entry.domain.with_id(None);
    let state = State::Shutoff(ShutoffReason::Unspecified);
    (entry.persistent != Some(false)).then_some(Entry { domain, state, ..entry.clone() })
}

/// For each held event, whether the list contains it.
fn contained(
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
fn place(story: &[&Lifecycle], listed: Option<&Entry>) -> usize {
    let definitions = neighbours(story, is_definition);
    let runs = neighbours(story, is_of_run);
    let starts = starts(story);
    // Before the listed run began it was not there to be listed.
    let run = listed.and_then(|entry| entry.domain.id());
    let begins_listed = |at: &usize| starts[*at] && story[*at].domain.id() == run;
    let earliest = run.and_then(|_| (0..story.len()).rfind(begins_listed)).map_or(0, |at| at + 1);
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
        // The definition under the new name follows.
        Change::Undefined(UndefineCause::Renamed) => true,
        _ => listed.is_none_or(|entry| entry.persistent != Some(true)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CrashCause, Domain, PmSuspendCause, ResumeCause, RunningReason, StartCause, StopCause,
        SuspendCause, Uuid,
    };

    const RUNNING: State = State::Running(RunningReason::Booted);
    const PAUSED: State = State::Paused(PausedReason::User);
    const OFF: State = State::Shutoff(ShutoffReason::Shutdown);
    const STARTED: Change = Change::Started(StartCause::Booted);
    const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);
    const SUSPENDED: Change = Change::Suspended(SuspendCause::Paused);
    const STOPPED: Change = Change::Stopped(StopCause::Shutdown);
    const DEFINED: Change = Change::Defined(DefineCause::Added);
    const UNDEFINED: Change = Change::Undefined(UndefineCause::Removed);

    fn entry(id: Option<u32>, state: State) -> Listed {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", id);
        Listed::new(domain, state, Some(true))
    }

    fn event(id: Option<u32>, change: Change) -> Lifecycle {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", id);
        Lifecycle::new(domain, change, SystemTime::UNIX_EPOCH)
    }

    /// What is delivered to those who knew the domains when `old` was known, `held` came, and `list` is the
    /// answer.
    fn told(
        old: Option<Listed>,
        held: &[(Option<u32>, Change)],
        list: Option<Listed>,
    ) -> Vec<String> {
        let events: Vec<_> = held.iter().map(|(id, change)| event(*id, *change)).collect();
        merged(old, events, list).0
    }

    /// The same, and how the domain is known to be in the end.
    fn merged(
        old: Option<Listed>,
        held: Vec<Lifecycle>,
        list: Option<Listed>,
    ) -> (Vec<String>, Option<Entry>) {
        let host = crate::domain::Host::new("s:".into(), "h".into());
        let mut roster = Roster::new(host);
        let key = roster.key(&event(None, DEFINED).domain);
        if let Some(old) = old {
            roster.insert(key, Entry::listed(old));
        }
        let mut buffer = SyncBuffer::new("s:".into());
        held.into_iter().for_each(|event| buffer.event(event.into()));
        let list = list.into_iter().collect();
        let reachable = Scopes::default();
        let at = SystemTime::UNIX_EPOCH;
        let merged = merge(&mut roster, list, &mut buffer, &reachable, true, at);
        let told = merged.difference.iter().chain(&merged.observed);
        (told.map(ToString::to_string).collect(), roster.get(key).cloned())
    }

    #[test]
    fn a_held_start_that_the_list_contains_is_told_once() {
        let held = [(Some(6), RESUMED), (Some(6), STARTED)];
        assert_eq!(
            told(Some(entry(None, OFF)), &held, Some(entry(Some(6), RUNNING))),
            ["web[6] resumed (unpaused)", "web[6] started (booted)"]
        );
    }

    #[test]
    fn a_held_event_that_is_newer_than_the_list_is_told_after_it() {
        let running = entry(Some(5), RUNNING);
        assert_eq!(
            told(Some(running.clone()), &[(None, STOPPED)], Some(running)),
            ["web[5] stopped (shutdown)"]
        );
        assert_eq!(
            told(None, &[(Some(6), STARTED)], Some(entry(None, OFF))),
            ["web defined [inferred]", "web[6] started (booted)"]
        );
    }

    #[test]
    fn a_held_stop_of_the_run_before_the_listed_one_is_contained_in_it() {
        assert_eq!(
            told(
                Some(entry(Some(5), RUNNING)),
                &[(Some(5), SUSPENDED), (None, STOPPED)],
                Some(entry(Some(6), RUNNING))
            ),
            [
                "web[5] suspended (paused)",
                "web[5] stopped (shutdown)",
                "web[6] started (booted) [inferred]"
            ]
        );
    }

    #[test]
    fn a_stop_and_start_that_the_list_contains_are_told_once() {
        assert_eq!(
            told(
                Some(entry(Some(5), RUNNING)),
                &[(None, STOPPED), (Some(6), STARTED), (Some(6), SUSPENDED)],
                Some(entry(Some(6), PAUSED))
            ),
            ["web[5] stopped (shutdown)", "web[6] started (booted)", "web[6] suspended (paused)"]
        );
    }

    #[test]
    fn what_happened_after_the_part_that_the_list_contains_is_told() {
        assert_eq!(
            told(
                Some(entry(Some(5), RUNNING)),
                &[(None, STOPPED), (Some(6), STARTED), (None, STOPPED)],
                Some(entry(None, OFF))
            ),
            ["web[5] stopped (shutdown)", "web[6] started (booted)", "web[6] stopped (shutdown)"]
        );
    }

    #[test]
    fn a_whole_run_between_the_registration_and_the_list_is_told() {
        let held = [(Some(6), STARTED), (Some(6), SUSPENDED), (None, STOPPED)];
        assert_eq!(
            told(None, &held, None),
            ["web[6] started (booted)", "web[6] suspended (paused)", "web[6] stopped (shutdown)"]
        );
    }

    #[test]
    fn an_update_of_a_domain_that_is_gone_from_the_list_leaves_no_ghost() {
        let (off, held) = (entry(None, OFF), [(None, Change::Defined(DefineCause::Updated))]);
        assert_eq!(told(Some(off.clone()), &held, Some(off.clone())), ["web defined (updated)"]);
        assert_eq!(
            told(Some(off), &held, None),
            ["web defined (updated)", "web undefined [inferred]"]
        );
    }

    #[test]
    fn a_domain_undefined_and_defined_again_before_the_list_is_there() {
        let off = entry(None, OFF);
        let held = [(None, UNDEFINED), (None, DEFINED)];
        let both = ["web undefined (removed)", "web defined (added)"];
        assert_eq!(told(Some(off.clone()), &held, Some(off.clone())), both);
        assert_eq!(told(Some(off), &held, None), both);
    }

    fn named(name: &str, change: Change) -> Lifecycle {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), name, None);
        Lifecycle::new(domain, change, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_redefinition_does_not_hide_a_start_of_the_outage() {
        let updated = Change::Defined(DefineCause::Updated);
        assert_eq!(
            told(Some(entry(None, OFF)), &[(Some(5), updated)], Some(entry(Some(5), RUNNING))),
            ["web[5] started (booted) [inferred]", "web[5] defined (updated)"]
        );
    }

    #[test]
    fn a_rename_does_not_hide_a_stop_of_the_outage() {
        let renames = vec![
            named("web", Change::Undefined(UndefineCause::Renamed)),
            named("www", Change::Defined(DefineCause::Renamed)),
        ];
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "www", None);
        let list = Listed::new(domain, OFF, Some(true));
        let (told, known) = merged(Some(entry(Some(5), RUNNING)), renames, Some(list));
        assert_eq!(
            told,
            [
                "web undefined (renamed)",
                "www defined (renamed)",
                "www[5] stopped (shutdown) [inferred]"
            ]
        );
        let known = known.unwrap().domain;
        assert_eq!((known.name(), known.id()), ("www", None));
    }

    #[test]
    fn a_wakeup_is_no_start_and_a_crash_after_it_keeps_its_cause() {
        let asleep = entry(Some(5), State::PmSuspended);
        let held = [
            (Some(5), Change::Started(StartCause::Wakeup)),
            (Some(5), Change::Crashed(CrashCause::Panicked)),
            (None, Change::Stopped(StopCause::Crashed)),
        ];
        let expected =
            ["web[5] started (wakeup)", "web[5] crashed (panicked)", "web[5] stopped (crashed)"];
        assert_eq!(told(Some(asleep), &held, Some(entry(None, OFF))), expected);
        let running = entry(Some(5), RUNNING);
        let slept = [(Some(5), Change::PmSuspended(PmSuspendCause::Memory))];
        let held = [&slept[..], &held[..]].concat();
        assert_eq!(told(Some(running), &held, Some(entry(None, OFF)))[1..], expected);
    }

    #[test]
    fn a_stop_of_a_run_that_nobody_was_told_of_is_dropped() {
        let off = entry(None, OFF);
        for id in [None, Some(5)] {
            let stop = [(id, Change::Stopped(StopCause::Crashed))];
            assert_eq!(told(Some(off.clone()), &stop, Some(off.clone())), [""; 0]);
        }
    }

    #[test]
    fn a_run_that_is_seen_in_its_pause_has_begun() {
        let paused = entry(Some(6), PAUSED);
        let held = [(Some(6), SUSPENDED)];
        assert_eq!(
            told(Some(entry(Some(5), RUNNING)), &held, Some(paused)),
            ["web[5] stopped [inferred]", "web[6] started [inferred]", "web[6] suspended (paused)",]
        );
    }

    #[test]
    fn a_start_that_is_under_way_is_not_inferred() {
        let starting = entry(Some(6), State::Paused(PausedReason::StartingUp));
        assert_eq!(told(Some(entry(None, OFF)), &[], Some(starting.clone())), [""; 0]);
        let held = [(Some(6), RESUMED), (Some(6), STARTED)];
        assert_eq!(
            told(Some(entry(None, OFF)), &held, Some(starting)),
            ["web[6] resumed (unpaused)", "web[6] started (booted)"]
        );
    }

    #[test]
    fn a_server_that_lists_a_domain_twice_is_not_believed_twice() {
        let host = crate::domain::Host::new("s:".into(), "h".into());
        let mut roster = Roster::new(host);
        let mut buffer = SyncBuffer::new("s:".into());
        let list = vec![entry(Some(5), RUNNING), entry(Some(6), PAUSED)];
        let reachable = Scopes::default();
        let at = SystemTime::UNIX_EPOCH;
        let merged = merge(&mut roster, list, &mut buffer, &reachable, true, at);
        let told: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["web defined [inferred]", "web[5] started (booted) [inferred]"]);
        assert_eq!(merged.listed.len(), 1);
    }

    #[test]
    fn what_is_gone_is_inferred_first_and_then_the_rest_by_name() {
        let host = crate::domain::Host::new("s:".into(), "h".into());
        let mut roster = Roster::new(host);
        let domain = |number: u128, name: &str| {
            Domain::new("s:", "h", Uuid::from_u128(number), name, Some(number as u32))
        };
        for (number, name) in [(1, "d"), (2, "a"), (3, "c")] {
            let domain = domain(number, name);
            let key = roster.key(&domain);
            roster.insert(key, Entry::seen(domain, RUNNING, Some(false)));
        }
        let listed = |number, name| Listed::new(domain(number, name), RUNNING, Some(false));
        let list = vec![listed(5, "e"), listed(4, "b"), listed(3, "c")];
        let mut buffer = SyncBuffer::new("s:".into());
        let reachable = Scopes::default();
        let at = SystemTime::UNIX_EPOCH;
        let merged = merge(&mut roster, list, &mut buffer, &reachable, true, at);
        let told: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a[2] stopped [inferred]",
                "d[1] stopped [inferred]",
                "b[4] started (booted) [inferred]",
                "e[5] started (booted) [inferred]",
            ]
        );
    }

    #[test]
    fn a_reboot_keeps_its_place_in_the_story_that_the_list_contains() {
        let host = crate::domain::Host::new("s:".into(), "h".into());
        let mut roster = Roster::new(host);
        let mut buffer = SyncBuffer::new("s:".into());
        let reboot = crate::Reboot::new(event(Some(6), STARTED).domain, SystemTime::UNIX_EPOCH);
        buffer.event(event(Some(6), STARTED).into());
        buffer.event(reboot.clone().into());
        buffer.event(event(Some(6), SUSPENDED).into());
        buffer.event(reboot.into());
        let list = vec![entry(Some(6), PAUSED)];
        let reachable = Scopes::default();
        let at = SystemTime::UNIX_EPOCH;
        let merged = merge(&mut roster, list, &mut buffer, &reachable, true, at);
        let told: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
        assert_eq!(
            told[..3],
            ["web[6] started (booted)", "web[6] rebooted", "web[6] suspended (paused)"]
        );
        let told: Vec<_> = merged.observed.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["web[6] rebooted"], "it came after all that the list contains");
    }
}
