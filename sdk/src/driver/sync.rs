//! Register, list, merge: what to tell when the list is there.
//!
//! Events that come between the registration and the list are held. Each list was taken at some
//! moment in between, so for each domain a first part of its held events is contained in the list and
//! a second part happened after it; either may be empty. Told are, in this order: the difference
//! between what was known and the list, the held events that the list does not contain, `Synced`.
//!
//! Where it cannot be known whether the list is older or newer than an event, the event is told: all
//! that happened after it will come as events too, so that the final state is right either way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use super::diff::Tale;
use super::roster::{Entry, Roster};
use crate::mailbox::Queue;
use crate::{Change, DefineCause, Domain, DomainEvent, Lifecycle, Origin, State, StopCause};

/// How many events are held while a list is under way. Beyond it they are compacted like a mailbox.
const HELD: usize = 65_536;

/// What came while a list was under way.
#[derive(Debug)]
pub(super) struct Held {
    queue: Queue,
    /// The newest word of a level-triggered hypervisor on each domain.
    levels: Vec<(Domain, Result<State, StopCause>)>,
}

impl Held {
    pub(super) fn new(source: Arc<str>) -> Self {
        Self { queue: Queue::new(source, HELD), levels: Vec::new() }
    }

    pub(super) fn event(&mut self, event: DomainEvent) {
        self.queue.push(event);
    }

    pub(super) fn level(&mut self, domain: Domain, level: Result<State, StopCause>) {
        match self.levels.iter_mut().find(|(known, _)| known.is_same(&domain)) {
            Some(known) => *known = (domain, level),
            None => self.levels.push((domain, level)),
        }
    }

    /// Whether so much came that only another list can tell the truth.
    pub(super) fn is_stale(&self) -> bool {
        self.queue.is_stale()
    }
}

/// What to tell of a list.
pub(super) struct Merged {
    /// What must have happened since the domains were last known.
    pub(super) inferred: Vec<Lifecycle>,
    /// What was held, and is not contained in the list.
    pub(super) observed: Vec<DomainEvent>,
}

/// Makes the list the new roster, and says what to tell of it. The held events that remain are not
/// applied yet.
pub(super) fn merge(
    roster: &mut Roster,
    list: Vec<Entry>,
    held: &mut Held,
    now: SystemTime,
) -> Merged {
    let mut observed = VecDeque::new();
    held.queue.take(&mut observed);
    let contained = contained(roster, &list, &observed);
    let mut contained = contained.into_iter();
    observed.retain(|_| !contained.next().unwrap_or(false));

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
        tale.gone(missing, StopCause::Unspecified);
    }
    for (before, entry) in listed {
        // A server that lists a domain twice is not believed twice.
        if roster.find(&entry.domain).is_some() {
            continue;
        }
        tale.differ(before.as_ref(), &entry);
        roster.insert(entry);
    }
    let mut levels = Tale::new(Origin::Observed, now);
    for (domain, level) in held.levels.drain(..) {
        match level {
            Ok(state) => levels.level(roster, domain, state),
            Err(cause) => levels.gone_level(roster, &domain, cause),
        }
    }
    observed.extend(levels.events.into_iter().map(DomainEvent::from));
    Merged { inferred: tale.events, observed: observed.into() }
}

impl Tale {
    /// A level-triggered hypervisor says how a domain is now.
    pub(super) fn level(&mut self, roster: &mut Roster, domain: Domain, state: State) {
        let old = roster.find(&domain).cloned();
        let persistent = old.as_ref().map_or(Some(false), |old| old.persistent);
        let new = Entry { domain, state, persistent };
        self.differ(old.as_ref(), &new);
        roster.insert(new);
    }

    /// A level-triggered hypervisor says that a domain is no more.
    pub(super) fn gone_level(&mut self, roster: &mut Roster, domain: &Domain, cause: StopCause) {
        if let Some(old) = roster.remove(domain) {
            self.gone(&old, cause);
        }
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
        PausedReason, ResumeCause, RunningReason, ShutoffReason, StartCause, SuspendCause,
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
        let domain = Domain::new("h", Uuid::from_u128(1), "web", id);
        Entry { domain, state, persistent: Some(true) }
    }

    /// What is told when `old` was known, `held` came, and `list` is the answer.
    fn told(
        old: Option<Entry>,
        held: &[(Option<u32>, Change)],
        list: Option<Entry>,
    ) -> Vec<String> {
        let mut roster = Roster::new("h".into());
        old.into_iter().for_each(|entry| roster.insert(entry));
        let mut waiting = Held::new("s".into());
        for (id, change) in held {
            let domain = Domain::new("h", Uuid::from_u128(1), "web", *id);
            let (origin, at) = (Origin::Observed, SystemTime::UNIX_EPOCH);
            waiting.event(Lifecycle { domain, change: *change, origin, at }.into());
        }
        let merged =
            merge(&mut roster, list.into_iter().collect(), &mut waiting, SystemTime::UNIX_EPOCH);
        let inferred =
            merged.inferred.into_iter().map(|event| DomainEvent::from(event).to_string());
        inferred.chain(merged.observed.iter().map(ToString::to_string)).collect()
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
            ["web stopped (shutdown)"]
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
            ["web[5] stopped [inferred]", "web[6] started (booted) [inferred]"]
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
            [
                "web[5] stopped [inferred]",
                "web[6] started [inferred]",
                "web[6] suspended (paused) [inferred]"
            ]
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
            [
                "web[5] stopped (shutdown) [inferred]",
                "web[6] started (booted)",
                "web stopped (shutdown)"
            ]
        );
    }

    #[test]
    fn an_update_is_told_unless_the_domain_is_gone_from_the_list() {
        let (off, held) = (entry(None, OFF), [(None, Change::Defined(DefineCause::Updated))]);
        assert_eq!(told(Some(off.clone()), &held, Some(off.clone())), ["web defined (updated)"]);
        assert_eq!(told(Some(off), &held, None), ["web undefined [inferred]"]);
    }

    #[test]
    fn a_domain_undefined_and_defined_again_before_the_list_is_not_told_as_undefined() {
        let off = entry(None, OFF);
        let held = [(None, UNDEFINED), (None, DEFINED)];
        assert!(told(Some(off.clone()), &held, Some(off.clone())).is_empty());
        assert_eq!(
            told(Some(off), &held, None),
            ["web undefined [inferred]", "web defined (added)"]
        );
    }
}
