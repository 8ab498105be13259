//! Tests of the rules for one event.

use std::time::SystemTime;

use uuid::Uuid;

use super::*;
use crate::domain::Host;
use crate::{Origin, PausedReason, SuspendCause};

const RUNNING: State = State::Running(RunningReason::Booted);
const PAUSED: State = State::Paused(PausedReason::User);
const OFF: State = State::Shutoff(ShutoffReason::Shutdown);
const STARTED: Change = Change::Started(StartCause::Booted);
const SUSPENDED: Change = Change::Suspended(SuspendCause::Paused);
const STOPPED: Change = Change::Stopped(StopCause::Destroyed);
const MIGRATED: Change = Change::Stopped(StopCause::Migrated);
const ADDED: Change = Change::Defined(DefineCause::Added);
const UPDATED: Change = Change::Defined(DefineCause::Updated);
const RENAMED: Change = Change::Defined(DefineCause::Renamed);
const UNDEFINED: Change = Change::Undefined(UndefineCause::Removed);

/// What is known of `web`.
struct Known {
    roster: Roster,
    key: Key,
}

fn domain(number: u128, id: Option<u32>) -> Domain {
    let name = if number == 1 { "web" } else { "db" };
    Domain::new("s:", "h", Uuid::from_u128(number), name, id)
}

fn event(number: u128, id: Option<u32>, change: Change) -> Lifecycle {
    Lifecycle::new(domain(number, id), change, SystemTime::UNIX_EPOCH)
}

impl Known {
    fn seen(id: Option<u32>, state: State, persistent: Option<bool>) -> Self {
        let mut roster = Roster::new(Host::new("s:".into(), "h".into()));
        roster.is_whole = true;
        let key = roster.key(&domain(1, id));
        roster.insert(key, Entry::seen(domain(1, id), state, persistent));
        Self { roster, key }
    }

    fn listed(id: Option<u32>, state: State, persistent: Option<bool>) -> Self {
        let mut known = Self::seen(id, state, persistent);
        known.roster.get_mut(known.key).unwrap().from_list = true;
        known
    }

    /// A list showed that this run has ended.
    fn after(mut self, run: u32) -> Self {
        self.roster.end_run(self.key, Some(run));
        self
    }

    /// Applies an event; returns what is delivered, and the trust in the domain.
    fn take(&mut self, event: impl Into<DomainEvent>) -> (Vec<String>, Trust) {
        let mut before = Inference::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
        let mut trust = Trust::Unchanged;
        let mut event = event.into();
        let mut note_trust = |_, _: &DomainEvent, verdict| trust = verdict;
        let is_delivered = observe_one(&mut self.roster, &mut event, &mut before, &mut note_trust);
        let mut delivered: Vec<_> = before.events.iter().map(ToString::to_string).collect();
        delivered.extend(is_delivered.then(|| event.to_string()));
        (delivered, trust)
    }

    fn change(&mut self, id: Option<u32>, change: Change) -> (Vec<String>, Trust) {
        self.take(event(1, id, change))
    }

    fn trust_after(&mut self, id: Option<u32>, change: Change) -> Trust {
        self.change(id, change).1
    }

    fn is_delivered(&mut self, id: Option<u32>, change: Change) -> bool {
        !self.change(id, change).0.is_empty()
    }

    fn reboot(&mut self, id: Option<u32>) {
        let (delivered, _) = self.take(Reboot::new(domain(1, id), SystemTime::UNIX_EPOCH));
        assert_eq!(delivered.len(), 1);
    }

    fn run(&self) -> Option<u32> {
        self.roster.get(self.key).and_then(|entry| entry.domain.id())
    }
}

#[test]
fn an_unknown_change_is_delivered_and_changes_nothing() {
    let mut known = Known::seen(None, OFF, Some(true));
    let unknown = Change::Unknown { event: 77, detail: 0 };
    assert!(known.is_delivered(None, unknown));
    assert!(known.is_delivered(Some(3), unknown));
    assert_eq!(known.run(), None);
}

#[test]
fn a_reboot_without_an_id_is_of_the_run_that_is_known() {
    let mut known = Known::seen(Some(3), RUNNING, Some(true));
    known.reboot(None);
    assert_eq!(known.run(), Some(3));
}

#[test]
fn a_late_reboot_of_a_past_run_keeps_the_current_id() {
    let mut known = Known::seen(Some(4), RUNNING, Some(true)).after(3);
    known.reboot(Some(3));
    assert_eq!(known.run(), Some(4));
    known.reboot(Some(5));
    assert_eq!(known.run(), Some(5));
}

#[test]
fn a_reboot_of_an_inactive_domain_starts_nothing() {
    let mut known = Known::seen(None, OFF, Some(true));
    known.reboot(Some(3));
    assert_eq!(known.run(), None);
}

#[test]
fn a_second_start_of_a_run_is_doubted_if_its_state_differs() {
    let mut running = Known::seen(Some(3), RUNNING, Some(true));
    assert_eq!(running.change(Some(3), STARTED), (vec![], Trust::Unchanged));
    let mut paused = Known::seen(Some(3), PAUSED, Some(true));
    assert_eq!(paused.change(Some(3), STARTED), (vec![], Trust::Doubted));
}

#[test]
fn a_stop_without_an_id_is_doubted_where_a_list_ended_a_run() {
    let trust = |mut known: Known, id| {
        let (delivered, trust) = known.change(id, STOPPED);
        assert_eq!(delivered, ["web[4] stopped (destroyed)"]);
        trust
    };
    let listed = || Known::listed(Some(4), RUNNING, Some(true));
    assert_eq!(trust(listed(), None), Trust::Unchanged);
    assert_eq!(trust(listed().after(3), None), Trust::Doubted);
    assert_eq!(trust(listed().after(3), Some(4)), Trust::Unchanged);
    // After an event of the run, a repetition is a new event.
    let seen = Known::seen(Some(4), RUNNING, Some(true)).after(3);
    assert_eq!(trust(seen, None), Trust::Unchanged);
    // The event of another domain changes nothing here.
    let mut known = listed();
    let db = known.roster.key(&domain(2, None));
    known.roster.end_run(db, Some(3));
    assert_eq!(trust(known, None), Trust::Unchanged);
}

#[test]
fn a_migration_is_doubted_where_the_definition_may_be_gone() {
    let trust = |persistent| Known::seen(Some(3), RUNNING, persistent).trust_after(None, MIGRATED);
    assert_eq!(trust(Some(true)), Trust::Doubted);
    assert_eq!(trust(None), Trust::Doubted);
    assert_eq!(trust(Some(false)), Trust::Unchanged);
}

#[test]
fn a_late_definition_that_repeats_the_list_is_dropped_once() {
    let mut known = Known::listed(None, OFF, Some(true));
    assert!(!known.is_delivered(None, ADDED));
    assert!(known.is_delivered(None, ADDED), "what is observed is not suppressed twice");
    assert!(Known::listed(Some(3), RUNNING, Some(false)).is_delivered(Some(3), ADDED));
}

#[test]
fn a_late_rename_to_the_name_that_is_known_is_dropped() {
    assert!(!Known::listed(None, OFF, Some(true)).is_delivered(None, RENAMED));
    assert!(Known::listed(Some(3), RUNNING, Some(false)).is_delivered(Some(3), RENAMED));
}

#[test]
fn a_definition_in_another_run_is_doubted() {
    let trust = |id| Known::seen(Some(3), RUNNING, Some(true)).trust_after(id, UPDATED);
    assert_eq!(trust(Some(3)), Trust::Unchanged);
    assert_eq!(trust(None), Trust::Unchanged);
    assert_eq!(trust(Some(4)), Trust::Doubted);
}

#[test]
fn a_late_undefinition_that_repeats_the_list_is_dropped() {
    let delivered =
        |persistent| Known::listed(Some(3), RUNNING, persistent).change(Some(3), UNDEFINED).0;
    assert_eq!(delivered(Some(true)), ["web[3] undefined (removed)"]);
    assert_eq!(delivered(None), ["web[3] undefined (removed)"]);
    assert_eq!(delivered(Some(false)), [""; 0]);
}

#[test]
fn an_undefinition_in_another_run_is_doubted() {
    let trust = |id| Known::seen(Some(3), RUNNING, Some(true)).trust_after(id, UNDEFINED);
    assert_eq!(trust(Some(3)), Trust::Unchanged);
    assert_eq!(trust(Some(4)), Trust::Doubted);
}

#[test]
fn an_undefinition_in_a_past_run_leaves_nothing() {
    let mut past = Known::seen(None, OFF, Some(true)).after(3);
    assert_eq!(
        past.change(Some(3), UNDEFINED),
        (vec!["web undefined (removed)".into()], Trust::Unchanged)
    );
    assert!(past.roster.get(past.key).is_none());
    let mut unseen = Known::seen(None, OFF, Some(true)).after(3);
    let (delivered, trust) = unseen.change(Some(4), UNDEFINED);
    assert_eq!(delivered, ["web[4] started [inferred]", "web[4] undefined (removed)"]);
    assert_eq!((unseen.run(), trust), (Some(4), Trust::Doubted));
}

#[test]
fn an_event_of_a_run_that_a_list_ended_is_late() {
    let mut known = Known::seen(None, OFF, Some(true)).after(3);
    assert_eq!(known.change(Some(3), SUSPENDED), (vec![], Trust::Doubted));
    assert_eq!(
        known.change(Some(4), SUSPENDED).0,
        ["web[4] started [inferred]", "web[4] suspended (paused)"],
        "another run began without an event"
    );
}

#[test]
fn an_id_that_is_used_again_is_a_run_of_its_own() {
    let mut known = Known::seen(None, OFF, Some(true)).after(3);
    assert_eq!(
        known.change(Some(3), STARTED),
        (vec!["web[3] started (booted)".into()], Trust::Doubted)
    );
    known.change(Some(3), STOPPED);
    assert!(known.is_delivered(Some(3), SUSPENDED), "the list ended the run before");
    assert_eq!(Known::seen(None, OFF, None).trust_after(Some(3), STARTED), Trust::Unchanged);
}

#[test]
fn an_inferred_event_precedes_the_one_that_shows_it() {
    let mut known = Known::seen(Some(3), RUNNING, Some(true));
    let mut before = Inference::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
    let mut events = vec![
        event(1, Some(3), SUSPENDED).into(),
        // Late, and dropped.
        event(1, Some(2), STOPPED).into(),
        event(2, Some(7), SUSPENDED).into(),
        event(1, Some(3), STOPPED).into(),
        event(1, Some(4), SUSPENDED).into(),
    ];
    observe_all(&mut known.roster, &mut events, &mut before, |_, _, _| {});
    let delivered: Vec<_> = events.iter().map(ToString::to_string).collect();
    assert_eq!(
        delivered,
        [
            "web[3] suspended (paused)",
            "db[7] started [inferred]",
            "db[7] suspended (paused)",
            "web[3] stopped (destroyed)",
            "web[4] started [inferred]",
            "web[4] suspended (paused)",
        ]
    );
}
