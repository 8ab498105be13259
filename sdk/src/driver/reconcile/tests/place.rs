//! Tests of the place of a list among the held events.

use super::*;
use crate::driver::reconcile::place::place;

const CRASHED: Change = Change::Crashed(CrashCause::Panicked);

/// The place of a list among held events of `web`.
fn place_of(held: &[(Option<u32>, Change)], list: Option<Listed>) -> usize {
    let events: Vec<_> = held.iter().map(|(id, change)| event(*id, *change)).collect();
    place(&events.iter().collect::<Vec<_>>(), list.map(Entry::listed).as_ref())
}

fn transient(id: u32, state: State) -> Listed {
    Listed { persistent: Some(false), ..entry(Some(id), state) }
}

#[test]
fn a_list_precedes_an_event_that_it_lacks() {
    let five = Some(5);
    let held = [(five, SUSPENDED), (five, RESUMED), (five, UNDEFINED)];
    assert_eq!(place_of(&held, Some(transient(5, RUNNING))), 3);
    assert_eq!(place_of(&held, Some(entry(five, RUNNING))), 0);
    assert_eq!(
        delivered(Some(entry(five, RUNNING)), &held, Some(transient(5, RUNNING))),
        ["web[5] suspended (paused)", "web[5] resumed (unpaused)", "web[5] undefined (removed)"]
    );
    let held = [(five, UNDEFINED), (None, STOPPED)];
    assert_eq!(place_of(&held, Some(entry(five, RUNNING))), 0);
    assert_eq!(place_of(&held, Some(transient(5, RUNNING))), 1);
    assert_eq!(place_of(&held, None), 2);
}

#[test]
fn a_definition_of_a_run_is_contained_in_a_list_that_shows_it() {
    let held = [(Some(5), DEFINED), (Some(5), SUSPENDED), (Some(5), RESUMED)];
    assert_eq!(place_of(&held, Some(transient(5, RUNNING))), 0);
    assert_eq!(place_of(&held, Some(entry(Some(5), RUNNING))), 1);
    assert_eq!(place_of(&held, Some(entry(Some(5), PAUSED))), 2);
    assert_eq!(
        delivered(Some(transient(5, RUNNING)), &held[..1], Some(entry(Some(5), RUNNING))),
        ["web[5] defined (added)"]
    );
}

#[test]
fn a_redefinition_under_another_name_is_delivered_once() {
    let events = vec![
        named("web", DEFINED),
        named("web", UNDEFINED),
        named("www", DEFINED),
        named("www", UNDEFINED),
    ];
    let domain = Domain::new("s:", "h", Uuid::from_u128(1), "www", None);
    let list = Listed::new(domain, OFF, Some(true));
    let refs: Vec<_> = events.iter().collect();
    assert_eq!(place(&refs, Some(&Entry::listed(list.clone()))), 3);
    let (delivered, known) = merged(None, events, Some(list));
    assert_eq!(
        delivered,
        [
            "web defined (added)",
            "web undefined (removed)",
            "www defined (added)",
            "www undefined (removed)"
        ]
    );
    assert!(known.is_none());
}

#[test]
fn a_list_stands_where_the_state_of_the_run_fits() {
    let crashed = State::Crashed(crate::CrashedReason::Panicked);
    let held = [(Some(6), STARTED), (Some(6), SUSPENDED), (Some(6), RESUMED), (Some(6), CRASHED)];
    assert_eq!(place_of(&held, Some(entry(None, OFF))), 0);
    assert_eq!(place_of(&held, Some(entry(Some(6), RUNNING))), 1);
    assert_eq!(place_of(&held, Some(entry(Some(6), PAUSED))), 2);
    assert_eq!(place_of(&held, Some(entry(Some(6), crashed))), 4);
}

#[test]
fn a_resume_begins_a_run_only_right_before_its_start() {
    let paused = || Some(entry(Some(5), PAUSED));
    assert_eq!(place_of(&[(Some(5), RESUMED), (Some(5), SUSPENDED)], paused()), 0);
    assert_eq!(place_of(&[(Some(5), RESUMED), (Some(6), STARTED)], paused()), 0);
    assert_eq!(place_of(&[(Some(5), RESUMED), (Some(5), STARTED)], paused()), 2);
    let stopped = [(None, STOPPED), (Some(6), RESUMED), (Some(6), STARTED)];
    assert_eq!(place_of(&stopped, Some(entry(None, OFF))), 1);
    assert_eq!(place_of(&stopped, Some(entry(Some(6), RUNNING))), 3);
}
