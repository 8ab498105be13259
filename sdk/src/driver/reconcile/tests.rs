//! What is delivered when a list comes.

use super::*;
use crate::{
    Change, CrashCause, DefineCause, Lifecycle, PmSuspendCause, ResumeCause, RunningReason,
    StartCause, StopCause, SuspendCause, UndefineCause, Uuid,
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

/// What is delivered to those who knew the domains when `old` was known, `held` came, and `list` is
/// the answer.
fn delivered(
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
    let delivered = merged.difference.iter().chain(&merged.observed);
    (delivered.map(ToString::to_string).collect(), roster.get(key).cloned())
}

#[test]
fn a_held_start_that_the_list_contains_is_delivered_once() {
    let held = [(Some(6), RESUMED), (Some(6), STARTED)];
    assert_eq!(
        delivered(Some(entry(None, OFF)), &held, Some(entry(Some(6), RUNNING))),
        ["web[6] resumed (unpaused)", "web[6] started (booted)"]
    );
}

#[test]
fn a_held_event_newer_than_the_list_follows_it() {
    let running = entry(Some(5), RUNNING);
    assert_eq!(
        delivered(Some(running.clone()), &[(None, STOPPED)], Some(running)),
        ["web[5] stopped (shutdown)"]
    );
    assert_eq!(
        delivered(None, &[(Some(6), STARTED)], Some(entry(None, OFF))),
        ["web defined [inferred]", "web[6] started (booted)"]
    );
}

#[test]
fn a_held_stop_of_the_run_before_the_listed_one_is_contained() {
    assert_eq!(
        delivered(
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
fn a_stop_and_start_in_the_list_are_delivered_once() {
    assert_eq!(
        delivered(
            Some(entry(Some(5), RUNNING)),
            &[(None, STOPPED), (Some(6), STARTED), (Some(6), SUSPENDED)],
            Some(entry(Some(6), PAUSED))
        ),
        ["web[5] stopped (shutdown)", "web[6] started (booted)", "web[6] suspended (paused)"]
    );
}

#[test]
fn events_after_the_list_are_delivered() {
    assert_eq!(
        delivered(
            Some(entry(Some(5), RUNNING)),
            &[(None, STOPPED), (Some(6), STARTED), (None, STOPPED)],
            Some(entry(None, OFF))
        ),
        ["web[5] stopped (shutdown)", "web[6] started (booted)", "web[6] stopped (shutdown)"]
    );
}

#[test]
fn a_whole_run_within_the_window_is_delivered() {
    let held = [(Some(6), STARTED), (Some(6), SUSPENDED), (None, STOPPED)];
    assert_eq!(
        delivered(None, &held, None),
        ["web[6] started (booted)", "web[6] suspended (paused)", "web[6] stopped (shutdown)"]
    );
}

#[test]
fn an_update_of_a_domain_that_is_gone_leaves_no_ghost() {
    let off = entry(None, OFF);
    let held = [(None, Change::Defined(DefineCause::Updated))];
    assert_eq!(delivered(Some(off.clone()), &held, Some(off.clone())), ["web defined (updated)"]);
    assert_eq!(
        delivered(Some(off), &held, None),
        ["web defined (updated)", "web undefined [inferred]"]
    );
}

#[test]
fn a_domain_may_be_undefined_and_defined_before_the_list() {
    let off = entry(None, OFF);
    let held = [(None, UNDEFINED), (None, DEFINED)];
    let both = ["web undefined (removed)", "web defined (added)"];
    assert_eq!(delivered(Some(off.clone()), &held, Some(off.clone())), both);
    assert_eq!(delivered(Some(off), &held, None), both);
}

fn named(name: &str, change: Change) -> Lifecycle {
    let domain = Domain::new("s:", "h", Uuid::from_u128(1), name, None);
    Lifecycle::new(domain, change, SystemTime::UNIX_EPOCH)
}

#[test]
fn a_redefinition_does_not_hide_a_start_of_the_outage() {
    let updated = Change::Defined(DefineCause::Updated);
    assert_eq!(
        delivered(Some(entry(None, OFF)), &[(Some(5), updated)], Some(entry(Some(5), RUNNING))),
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
    let (delivered, known) = merged(Some(entry(Some(5), RUNNING)), renames, Some(list));
    assert_eq!(
        delivered,
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
    assert_eq!(delivered(Some(asleep), &held, Some(entry(None, OFF))), expected);
    let running = entry(Some(5), RUNNING);
    let slept = [(Some(5), Change::PmSuspended(PmSuspendCause::Memory))];
    let held = [&slept[..], &held[..]].concat();
    assert_eq!(delivered(Some(running), &held, Some(entry(None, OFF)))[1..], expected);
}

#[test]
fn a_stop_of_an_unknown_run_is_dropped() {
    let off = entry(None, OFF);
    for id in [None, Some(5)] {
        let stop = [(id, Change::Stopped(StopCause::Crashed))];
        assert_eq!(delivered(Some(off.clone()), &stop, Some(off.clone())), [""; 0]);
    }
}

#[test]
fn a_run_that_is_seen_in_its_pause_has_begun() {
    let paused = entry(Some(6), PAUSED);
    let held = [(Some(6), SUSPENDED)];
    assert_eq!(
        delivered(Some(entry(Some(5), RUNNING)), &held, Some(paused)),
        ["web[5] stopped [inferred]", "web[6] started [inferred]", "web[6] suspended (paused)",]
    );
}

#[test]
fn a_start_that_is_under_way_is_not_inferred() {
    let starting = entry(Some(6), State::Paused(PausedReason::StartingUp));
    assert_eq!(delivered(Some(entry(None, OFF)), &[], Some(starting.clone())), [""; 0]);
    let held = [(Some(6), RESUMED), (Some(6), STARTED)];
    assert_eq!(
        delivered(Some(entry(None, OFF)), &held, Some(starting)),
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
    let delivered: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
    assert_eq!(delivered, ["web defined [inferred]", "web[5] started (booted) [inferred]"]);
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
    let delivered: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
    assert_eq!(
        delivered,
        [
            "a[2] stopped [inferred]",
            "d[1] stopped [inferred]",
            "b[4] started (booted) [inferred]",
            "e[5] started (booted) [inferred]",
        ]
    );
}

#[test]
fn a_reboot_keeps_its_place_in_a_story_that_is_listed() {
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
    let delivered: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
    assert_eq!(
        delivered[..3],
        ["web[6] started (booted)", "web[6] rebooted", "web[6] suspended (paused)"]
    );
    let delivered: Vec<_> = merged.observed.iter().map(ToString::to_string).collect();
    assert_eq!(delivered, ["web[6] rebooted"], "it came after all that the list contains");
}

const CRASHED: Change = Change::Crashed(CrashCause::Panicked);

/// Where in a story of `web` its list was taken.
fn place_of(held: &[(Option<u32>, Change)], list: Option<Listed>) -> usize {
    let events: Vec<_> = held.iter().map(|(id, change)| event(*id, *change)).collect();
    place::place(&events.iter().collect::<Vec<_>>(), list.map(Entry::listed).as_ref())
}

fn transient(id: u32, state: State) -> Listed {
    Listed { persistent: Some(false), ..entry(Some(id), state) }
}

#[test]
fn a_list_stands_before_an_event_of_another_sort_that_it_lacks() {
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
    let story: Vec<_> = events.iter().collect();
    assert_eq!(place::place(&story, Some(&Entry::listed(list.clone()))), 3);
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

#[test]
fn a_start_under_way_leaves_the_domain_inactive() {
    let starting = Some(entry(Some(6), State::Paused(PausedReason::StartingUp)));
    let (delivered, known) = merged(Some(entry(None, OFF)), Vec::new(), starting);
    assert_eq!(delivered, [""; 0]);
    let known = known.unwrap();
    assert_eq!(known.domain.id(), None);
    assert_eq!(known.state, State::Shutoff(ShutoffReason::Unspecified));
}

/// A roster that knows `web`, and a buffer that holds these events.
fn holding(old: Listed, held: &[Lifecycle]) -> (Roster, SyncBuffer) {
    let mut roster = Roster::new(crate::domain::Host::new("s:".into(), "h".into()));
    let key = roster.key(&old.domain);
    roster.insert(key, Entry::listed(old));
    let mut buffer = SyncBuffer::new("s:".into());
    held.iter().for_each(|held| buffer.event(held.clone().into()));
    (roster, buffer)
}

#[test]
fn a_start_that_gets_through_settles_its_own_doubt_only() {
    let other = Domain::new("s:", "h", Uuid::from_u128(2), "db", Some(9));
    let other = Lifecycle::new(other, RESUMED, SystemTime::UNIX_EPOCH);
    let held = [other, event(Some(6), RESUMED), event(Some(6), STARTED)];
    let (mut roster, mut buffer) = holding(entry(None, OFF), &held);
    let at = SystemTime::UNIX_EPOCH;
    let list = vec![entry(None, OFF)];
    let merged = merge(&mut roster, list, &mut buffer, &Scopes::default(), true, at);
    let doubted: Vec<_> = merged.doubted.iter().map(|(_, domain)| domain.name()).collect();
    assert_eq!(doubted, ["db"]);
}

#[test]
fn a_start_under_way_in_a_late_list_is_doubted() {
    let (mut roster, mut buffer) = holding(entry(Some(5), RUNNING), &[]);
    let arriving = entry(Some(5), State::Paused(PausedReason::Migration));
    let at = SystemTime::UNIX_EPOCH;
    let merged = merge_late(&mut roster, vec![arriving], &mut buffer, &Scopes::default(), at);
    assert_eq!(merged.doubted.len(), 1);
}

#[test]
fn which_runs_are_over_is_forgotten_at_the_next_list() {
    let (mut roster, mut buffer) = holding(entry(Some(5), RUNNING), &[]);
    let key = roster.key(&event(None, DEFINED).domain);
    roster.end_run(key, Some(4));
    let at = SystemTime::UNIX_EPOCH;
    let list = vec![entry(Some(5), RUNNING)];
    merge(&mut roster, list, &mut buffer, &Scopes::default(), true, at);
    assert!(!roster.has_ended_any(key));
}

#[test]
fn a_late_list_of_many_hosts_is_compared_host_by_host() {
    let on = |host: &str, id| Domain::new("s:", host, Uuid::from_u128(1), "web", id);
    let (mut roster, mut buffer) = holding(entry(Some(5), RUNNING), &[]);
    let far = on("far", Some(7));
    let key = roster.key(&far);
    roster.insert(key, Entry::seen(far.clone(), RUNNING, Some(true)));
    // It has been delivered, and is newer than the list.
    let stopped = Lifecycle::new(on("far", None), STOPPED, SystemTime::UNIX_EPOCH);
    roster.get_mut(key).unwrap().domain = on("far", None);
    buffer.event(stopped.into());
    let list = vec![
        entry(Some(5), RUNNING),
        Listed::new(far, RUNNING, Some(true)),
        Listed::new(on("new", Some(9)), RUNNING, Some(false)),
    ];
    let at = SystemTime::UNIX_EPOCH;
    let merged = merge_late(&mut roster, list, &mut buffer, &Scopes::default(), at);
    let delivered: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
    assert_eq!(delivered, ["web[9] started (booted) [inferred]"]);
    assert_eq!(merged.listed.len(), 3);
}
