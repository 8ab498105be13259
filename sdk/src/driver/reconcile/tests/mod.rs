//! Tests of the merge: the events that a list and the events held for it deliver.

mod late;
mod outage;
mod place;

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

/// What subscribers that know the domains are delivered, where `old` was known, `held` arrived, and
/// `list` is the answer.
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

fn named(name: &str, change: Change) -> Lifecycle {
    let domain = Domain::new("s:", "h", Uuid::from_u128(1), name, None);
    Lifecycle::new(domain, change, SystemTime::UNIX_EPOCH)
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

#[test]
fn a_domain_that_is_listed_twice_is_started_once() {
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
fn gone_domains_are_inferred_first_then_others_by_name() {
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
fn a_reboot_keeps_its_place_among_listed_events() {
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
