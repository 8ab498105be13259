//! Tests of the inferred events: one difference each, and what is delivered for it.

use uuid::Uuid;

use super::*;
use crate::{PausedReason, RunningReason, ShutoffReason};

const RUNNING: State = State::Running(RunningReason::Booted);
const PAUSED: State = State::Paused(PausedReason::User);
const OFF: State = State::Shutoff(ShutoffReason::Destroyed);

fn entry(id: Option<u32>, state: State, persistent: Option<bool>) -> Entry {
    let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", id);
    Entry::seen(domain, state, persistent)
}

fn delivered(old: Option<Entry>, new: Option<Entry>) -> Vec<String> {
    let mut inference = Inference::new(Origin::Observed, SystemTime::UNIX_EPOCH);
    match (old, new) {
        (old, Some(new)) => inference.differ(old.as_ref(), &new),
        (Some(old), None) => inference.gone(&old, StopCause::Unspecified),
        (None, None) => {}
    }
    inference.events.iter().map(ToString::to_string).collect()
}

#[test]
fn a_run_that_was_seen_begins_before_it_ends() {
    let seen = Entry { unannounced: true, ..entry(Some(3), RUNNING, Some(false)) };
    assert_eq!(delivered(Some(seen.clone()), None), ["web[3] started", "web[3] stopped"]);
    let running = entry(Some(3), RUNNING, Some(false));
    assert_eq!(delivered(Some(seen), Some(running)), ["web[3] started (booted)"]);
}

#[test]
fn a_run_that_was_seen_begins_before_it_is_defined() {
    let seen = Entry { unannounced: true, ..entry(Some(3), RUNNING, Some(false)) };
    let defined = entry(Some(3), RUNNING, Some(true));
    assert_eq!(delivered(Some(seen), Some(defined)), ["web[3] started (booted)", "web[3] defined"]);
}

#[test]
fn a_guest_that_migrated_in_is_resumed_too() {
    let migrated = entry(Some(3), State::Running(RunningReason::Migrated), Some(false));
    let expected = ["web[3] started (migrated)", "web[3] resumed (migrated)"];
    assert_eq!(delivered(None, Some(migrated)), expected);
}

#[test]
fn an_unchanged_domain_infers_nothing() {
    let running = entry(Some(3), RUNNING, Some(true));
    assert!(delivered(Some(running.clone()), Some(running)).is_empty());
    let off = entry(None, OFF, None);
    assert!(delivered(Some(off.clone()), Some(off)).is_empty());
}

#[test]
fn a_missing_domain_stopped_and_was_undefined_if_persistent() {
    let persistent = entry(Some(3), RUNNING, Some(true));
    assert_eq!(delivered(Some(persistent), None), ["web[3] stopped", "web undefined"]);
    let transient = entry(Some(3), RUNNING, Some(false));
    assert_eq!(delivered(Some(transient), None), ["web[3] stopped"]);
    let inactive = entry(None, OFF, Some(true));
    assert_eq!(delivered(Some(inactive), None), ["web undefined"]);
}

#[test]
fn a_new_domain_was_defined_and_started() {
    let persistent = entry(Some(3), RUNNING, Some(true));
    assert_eq!(delivered(None, Some(persistent)), ["web defined", "web[3] started (booted)"]);
    let transient = entry(Some(3), PAUSED, Some(false));
    assert_eq!(delivered(None, Some(transient)), ["web[3] started", "web[3] suspended (paused)"]);
    assert_eq!(delivered(None, Some(entry(None, OFF, Some(true)))), ["web defined"]);
}

#[test]
fn a_new_id_while_active_is_a_stop_and_a_start() {
    let old = entry(Some(3), RUNNING, Some(true));
    let new = entry(Some(4), RUNNING, Some(true));
    assert_eq!(delivered(Some(old), Some(new)), ["web[3] stopped", "web[4] started (booted)"]);
}

#[test]
fn a_stop_has_the_cause_that_the_hypervisor_still_knows() {
    let old = entry(Some(3), RUNNING, Some(true));
    let new = entry(None, OFF, Some(true));
    assert_eq!(delivered(Some(old), Some(new)), ["web[3] stopped (destroyed)"]);
}

#[test]
fn a_pause_and_a_resume_within_a_run_are_inferred() {
    let running = entry(Some(3), RUNNING, Some(true));
    let paused = entry(Some(3), PAUSED, Some(true));
    let resumed = entry(Some(3), State::Running(RunningReason::Unpaused), Some(true));
    assert_eq!(delivered(Some(running), Some(paused.clone())), ["web[3] suspended (paused)"]);
    assert_eq!(delivered(Some(paused), Some(resumed)), ["web[3] resumed (unpaused)"]);
}

#[test]
fn a_changed_definition_is_inferred_for_the_run() {
    let persistent = entry(Some(3), RUNNING, Some(true));
    let transient = entry(Some(3), RUNNING, Some(false));
    let unsaid = entry(Some(3), RUNNING, None);
    assert_eq!(delivered(Some(persistent.clone()), Some(transient.clone())), ["web[3] undefined"]);
    assert_eq!(delivered(Some(transient.clone()), Some(persistent.clone())), ["web[3] defined"]);
    assert_eq!(delivered(Some(unsaid.clone()), Some(persistent.clone())), ["web[3] defined"]);
    assert_eq!(delivered(Some(unsaid.clone()), Some(transient)), [""; 0]);
    assert_eq!(delivered(Some(persistent), Some(unsaid)), [""; 0]);
}

#[test]
fn the_end_of_a_sleep_is_a_wakeup() {
    let asleep = entry(Some(3), State::PmSuspended, Some(true));
    let running = entry(Some(3), RUNNING, Some(true));
    let paused = entry(Some(3), PAUSED, Some(true));
    assert_eq!(delivered(Some(asleep.clone()), Some(running)), ["web[3] started (wakeup)"]);
    assert_eq!(delivered(Some(asleep), Some(paused)), ["web[3] suspended (paused)"]);
}

#[test]
fn a_domain_without_a_state_that_runs_has_not_changed() {
    let idle = entry(Some(3), State::NoState, Some(true));
    let running = entry(Some(3), RUNNING, Some(true));
    let paused = entry(Some(3), PAUSED, Some(true));
    assert_eq!(delivered(Some(idle.clone()), Some(running)), [""; 0]);
    assert_eq!(delivered(Some(idle), Some(paused)), ["web[3] suspended (paused)"]);
}

#[test]
fn a_correction_remembers_which_run_is_over() {
    let ends = |found: Option<Entry>| {
        let mut roster = Roster::new(crate::domain::Host::new("s:".into(), "h".into()));
        let old = entry(Some(3), RUNNING, Some(true));
        let key = roster.key(&old.domain);
        roster.insert(key, old);
        let mut inference = Inference::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
        inference.correct(&mut roster, key, found);
        roster.has_ended(key, Some(3))
    };
    assert!(ends(None));
    assert!(ends(Some(entry(None, OFF, Some(true)))));
    assert!(ends(Some(entry(Some(4), RUNNING, Some(true)))));
    assert!(!ends(Some(entry(Some(3), PAUSED, Some(true)))));
}

#[test]
fn a_run_that_was_seen_begins_with_what_is_known_of_it() {
    let seen = Entry { unannounced: true, ..entry(Some(3), RUNNING, Some(false)) };
    let paused = entry(Some(3), PAUSED, Some(true));
    let mut inference = Inference::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
    inference.differ(Some(&seen), &paused);
    let delivered: Vec<_> = inference.events.iter().map(DomainEvent::lifecycle).collect();
    let delivered: Vec<_> =
        delivered.into_iter().flatten().map(|e| (e.change, e.persistent)).collect();
    let suspended = Change::Suspended(crate::SuspendCause::Paused);
    assert_eq!(
        delivered,
        [
            (Change::Started(StartCause::Unspecified), Some(false)),
            (suspended, Some(false)),
            (Change::Defined(DefineCause::Unspecified), Some(true)),
        ]
    );
}

#[test]
fn what_was_renamed_and_is_inactive_is_persistent() {
    let old = entry(Some(3), RUNNING, None);
    let mut new = entry(None, OFF, None);
    new.domain = Domain::new("s:", "h", Uuid::from_u128(1), "db", None);
    let mut inference = Inference::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
    inference.differ(Some(&old), &new);
    let defined = inference.events.pop().expect("a domain was renamed");
    assert_eq!(defined.to_string(), "db defined (renamed) [inferred]");
    let DomainEvent::Lifecycle(defined) = defined else { panic!("{defined:?}") };
    assert_eq!(defined.persistent, Some(true));
}
