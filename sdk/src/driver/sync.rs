//! Register, list, merge: what to tell when the list is there.
//!
//! Events that come between the registration and the list are held. Each list was taken at some
//! moment in between, so for each domain a first part of its held events is contained in the list and
//! a second part happened after it; either may be empty. Told are, in this order: what is contained
//! and fits what was known, the rest of the difference between what was known and the list, what the
//! list does not contain, `Synced`. Those who knew nothing before get the list itself in place of the
//! first two.
//!
//! Where it cannot be known whether the list is older or newer than an event, the event is told: all
//! that happened after it will come as events too, so that the final state is right either way.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::SystemTime;

use uuid::Uuid;

use super::diff::Tale;
use super::held::Held;
use super::roster::{Entry, Key, Roster};
use super::scopes::Scopes;
use crate::{Change, DefineCause, DomainEvent, Lifecycle, Origin, State, StopCause};

/// What to tell of a list.
#[derive(Debug)]
pub(super) struct Merged {
    /// What was held, is contained in the list, and explains how it came about.
    pub(super) contained: Vec<DomainEvent>,
    /// What must have happened besides.
    pub(super) inferred: Vec<DomainEvent>,
    /// The domains as they were when the list was taken, by name.
    pub(super) listed: Vec<Entry>,
    /// What was held, and is not contained in the list.
    pub(super) observed: Vec<DomainEvent>,
    /// How many events were held that could not be kept.
    pub(super) missed: u64,
}

/// Makes the roster what the list and the held events say, and says what to tell of it.
pub(super) fn merge(
    roster: &mut Roster,
    list: Vec<Entry>,
    held: &mut Held,
    unreachable: &Scopes,
    now: SystemTime,
) -> Merged {
    let (events, missed) = held.take_events();
    let (contained, mut observed) = part(roster, &list, events);
    let inferred = relist(roster, list, unreachable, now);
    let listed = roster.sorted().into_iter().cloned().collect();
    for event in &mut observed {
        if let DomainEvent::Lifecycle(event) = event {
            roster.apply(event);
        }
    }
    let mut levels = Tale::new(Origin::Observed, now);
    for (domain, level) in held.take_levels() {
        match level {
            Ok(state) => levels.level(roster, domain, state),
            Err(cause) => levels.gone_level(roster, &domain, cause),
        }
    }
    observed.extend(levels.events.into_iter().map(DomainEvent::from));
    Merged { contained, inferred, listed, observed, missed }
}

/// Makes the list the new roster; returns what must have happened since the old one.
fn relist(
    roster: &mut Roster,
    list: Vec<Entry>,
    unreachable: &Scopes,
    now: SystemTime,
) -> Vec<DomainEvent> {
    let mut tale = Tale::new(Origin::Inferred, now);
    let mut old = Roster::new(roster.home());
    for entry in roster.take() {
        old.insert(entry);
    }
    let mut listed = Vec::with_capacity(list.len());
    for entry in list {
        listed.push((old.remove(&entry.domain), entry));
    }
    // What ended is told before what began.
    for missing in old.sorted() {
        // Of what is out of reach the list says nothing.
        if unreachable.contains(&missing.domain) {
            roster.insert(missing.clone());
        } else {
            tale.gone(missing, StopCause::Unspecified);
        }
    }
    for (before, entry) in listed {
        // A server that lists a domain twice is not believed twice.
        if roster.find(&entry.domain).is_some() {
            continue;
        }
        tale.differ(before.as_ref(), &entry);
        roster.insert(entry);
    }
    tale.events.into_iter().map(DomainEvent::from).collect()
}

/// Parts what was held into what the list contains and what it does not. What it contains is applied
/// to the old roster as far as it fits there; what does not fit is left out, the difference tells it.
fn part(
    roster: &mut Roster,
    list: &[Entry],
    events: VecDeque<DomainEvent>,
) -> (Vec<DomainEvent>, Vec<DomainEvent>) {
    let is_contained = contained(roster, list, &events);
    // Until here the story of each domain is in the list.
    let mut last: HashMap<Key, usize> = HashMap::new();
    for (index, event) in events.iter().enumerate().filter(|(index, _)| is_contained[*index]) {
        if let Some(domain) = event.domain() {
            last.insert(roster.key(domain), index);
        }
    }
    let mut astray: HashSet<Key> = HashSet::new();
    let (mut contained, mut observed) = (Vec::new(), Vec::new());
    for (index, mut event) in events.into_iter().enumerate() {
        let key = event.domain().map(|domain| roster.key(domain));
        match &mut event {
            DomainEvent::Lifecycle(lifecycle) if is_contained[index] => {
                let fits = fits(roster.find(&lifecycle.domain), lifecycle);
                if key.is_some_and(|key| astray.contains(&key) || (!fits && astray.insert(key))) {
                    continue;
                }
                roster.apply(lifecycle);
                contained.push(event);
            }
            DomainEvent::Lifecycle(_) => observed.push(event),
            // What else happened is told where it happened in the story of its domain.
            _ if key.and_then(|key| last.get(&key)).is_some_and(|last| index < *last) => {
                contained.push(event);
            }
            _ => observed.push(event),
        }
    }
    (contained, observed)
}

/// Whether an event can have happened to a domain that is as `known` says.
fn fits(known: Option<&Entry>, event: &Lifecycle) -> bool {
    let (run, id) = (known.and_then(|entry| entry.domain.id()), event.domain.id());
    match event.change {
        Change::Started(_) => run.is_none() && id.is_some(),
        Change::Stopped(_) => run.is_some() && (id.is_none() || id == run),
        Change::Undefined(_) => known.is_some(),
        Change::Defined(_) => true,
        _ => run.is_some() && id == run,
    }
}

/// For each held event, whether the list contains it.
fn contained(roster: &mut Roster, list: &[Entry], held: &VecDeque<DomainEvent>) -> Vec<bool> {
    let mut contained = vec![false; held.len()];
    if held.is_empty() {
        return contained;
    }
    let listed: HashMap<(Uuid, &str), &Entry> =
        list.iter().map(|entry| ((entry.domain.uuid(), entry.domain.host()), entry)).collect();
    let mut stories: HashMap<(Uuid, &str), Vec<(usize, &Lifecycle)>> = HashMap::new();
    for (index, event) in held.iter().enumerate() {
        if let DomainEvent::Lifecycle(event) = event {
            let key = (event.domain.uuid(), event.domain.host());
            stories.entry(key).or_default().push((index, event));
        }
    }
    for (key, story) in stories {
        let entry = listed.get(&key).copied();
        let known_run = roster.find(&story[0].1.domain).and_then(|entry| entry.domain.id());
        let (definitions, runs): (Vec<_>, Vec<_>) = story
            .into_iter()
            .partition(|(_, e)| matches!(e.change, Change::Defined(_) | Change::Undefined(_)));
        for (index, _) in &definitions[..definitions_contained(&definitions, entry)] {
            contained[*index] = true;
        }
        for (index, _) in &runs[..runs_contained(&runs, entry, known_run)] {
            contained[*index] = true;
        }
    }
    contained
}

/// How many of a domain's held definitions the list contains: up to the first after which it would
/// be as the list says.
fn definitions_contained(story: &[(usize, &Lifecycle)], listed: Option<&Entry>) -> usize {
    let as_listed = |event: &Lifecycle| match (event.change, listed) {
        // An update leaves no trace in a list: it is told, unless the domain has gone since.
        (Change::Defined(DefineCause::Updated), listed) => listed.is_none(),
        (Change::Defined(_), Some(entry)) => {
            entry.persistent != Some(false) && entry.domain.name() == event.domain.name()
        }
        (Change::Undefined(_), Some(entry)) => entry.persistent == Some(false),
        (Change::Undefined(_), None) => true,
        _ => false,
    };
    story.iter().position(|(_, event)| as_listed(event)).map_or(0, |at| at + 1)
}

/// The same for what is held of a domain's runs.
fn runs_contained(
    story: &[(usize, &Lifecycle)],
    listed: Option<&Entry>,
    known_run: Option<u32>,
) -> usize {
    let active = listed.filter(|entry| entry.domain.is_active());
    let as_listed = |event: &Lifecycle| match (State::after(event.change), active) {
        (Some(State::Shutoff(_)), None) => true,
        (Some(state), Some(entry)) => {
            event.domain.id() == entry.domain.id() && state.is_same(entry.state)
        }
        _ => false,
    };
    if let Some(at) = story.iter().position(|(_, event)| as_listed(event)) {
        // libvirt tells a start as resumed and then started.
        let start = |(_, event): &(usize, &Lifecycle)| {
            matches!(event.change, Change::Started(_)) && as_listed(event)
        };
        return if story.get(at + 1).is_some_and(start) { at + 2 } else { at + 1 };
    }
    // A run that began before the registration and is not the one listed had ended when the list was
    // taken; so the list is newer than all of this.
    let run = story.iter().find_map(|(_, event)| event.domain.id()).or(known_run);
    let began = story.iter().any(|(_, event)| matches!(event.change, Change::Started(_)));
    let over = run.is_some() && run != active.and_then(|entry| entry.domain.id());
    if over && !began { story.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Domain, PausedReason, ResumeCause, RunningReason, ShutoffReason, StartCause, SuspendCause,
        UndefineCause,
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

    fn entry(id: Option<u32>, state: State) -> Entry {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", id);
        Entry { domain, state, persistent: Some(true) }
    }

    /// What is told when `old` was known, `held` came, and `list` is the answer.
    fn told(
        old: Option<Entry>,
        held: &[(Option<u32>, Change)],
        list: Option<Entry>,
    ) -> Vec<String> {
        let mut roster = Roster::new(crate::domain::Host::new("s:".into(), "h".into()));
        old.into_iter().for_each(|entry| roster.insert(entry));
        let mut waiting = Held::new("s".into());
        for (id, change) in held {
            let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", *id);
            waiting.event(Lifecycle::new(domain, *change, SystemTime::UNIX_EPOCH).into());
        }
        let list = list.into_iter().collect();
        let (reachable, at) = (Scopes::default(), SystemTime::UNIX_EPOCH);
        let merged = merge(&mut roster, list, &mut waiting, &reachable, at);
        let all = [merged.contained, merged.inferred, merged.observed];
        all.iter().flatten().map(ToString::to_string).collect()
    }

    #[test]
    fn a_held_start_that_the_list_contains_is_told_once() {
        let held = [(Some(6), RESUMED), (Some(6), STARTED)];
        assert_eq!(
            told(Some(entry(None, OFF)), &held, Some(entry(Some(6), RUNNING))),
            ["web[6] started (booted) [inferred]"]
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
}
