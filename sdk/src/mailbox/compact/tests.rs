//! Tests of compaction: what is kept of some short streams.

use super::*;
use crate::{
    CrashCause, DefineCause, Fault, FaultKind, PmSuspendCause, Reboot, ResumeCause, RunningReason,
    ShutdownCause, StartCause, StopCause, SuspendCause, UndefineCause,
};

const STARTED: Change = Change::Started(StartCause::Booted);
const STOPPED: Change = Change::Stopped(StopCause::Shutdown);
const SUSPENDED: Change = Change::Suspended(SuspendCause::Paused);
const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);
const CRASHED: Change = Change::Crashed(CrashCause::Panicked);
const SHUTTING_DOWN: Change = Change::ShuttingDown(ShutdownCause::Guest);
const DEFINED: Change = Change::Defined(DefineCause::Added);
const UNDEFINED: Change = Change::Undefined(UndefineCause::Removed);
const EXISTING: Change = Change::Existing(State::Running(RunningReason::Booted));

fn step(change: Change) -> Lifecycle {
    let domain = Domain::new("s:", "h", Uuid::from_u128(1), "d", Some(1));
    Lifecycle::new(domain, change, std::time::SystemTime::UNIX_EPOCH)
}

fn lifecycle(change: Change) -> DomainEvent {
    step(change).into()
}

fn persistent(change: Change, persistent: bool) -> DomainEvent {
    step(change).persistent(persistent).into()
}

fn kept(changes: &[Change]) -> Vec<Change> {
    let mut events: VecDeque<DomainEvent> = changes.iter().copied().map(lifecycle).collect();
    compact(&mut events);
    events.iter().filter_map(DomainEvent::change).collect()
}

#[test]
fn of_many_runs_the_last_ending_and_later_events_are_kept() {
    assert_eq!(
        kept(&[STARTED, STOPPED, STARTED, STOPPED, STARTED, SUSPENDED, RESUMED]),
        [STOPPED, STARTED, RESUMED]
    );
    assert_eq!(kept(&[STARTED, SUSPENDED, STOPPED]), [STOPPED]);
    assert_eq!(kept(&[STARTED, SHUTTING_DOWN]), [STARTED, SHUTTING_DOWN]);
}

#[test]
fn a_wakeup_is_no_start_of_a_run() {
    let asleep = Change::PmSuspended(PmSuspendCause::Memory);
    let wakeup = Change::Started(StartCause::Wakeup);
    assert_eq!(kept(&[STOPPED, STARTED, asleep, wakeup]), [STOPPED, STARTED, wakeup]);
    assert_eq!(kept(&[EXISTING, asleep, wakeup]), [EXISTING, wakeup]);
}

#[test]
fn a_crash_is_an_ending_until_the_stop_that_follows_it() {
    assert_eq!(kept(&[STARTED, CRASHED]), [STARTED, CRASHED]);
    assert_eq!(kept(&[STARTED, CRASHED, STOPPED]), [STOPPED]);
    assert_eq!(kept(&[STARTED, SUSPENDED, CRASHED, RESUMED]), [STARTED, CRASHED, RESUMED]);
}

#[test]
fn one_step_of_each_kind_is_kept() {
    for step in [STARTED, STOPPED, CRASHED, SUSPENDED, RESUMED, SHUTTING_DOWN, DEFINED, EXISTING] {
        assert_eq!(kept(&[step, step, step]), [step]);
    }
    assert_eq!(kept(&[STARTED, CRASHED, RESUMED, CRASHED]), [STARTED, CRASHED]);
    assert_eq!(kept(&[STARTED, STARTED, SUSPENDED]), [STARTED, SUSPENDED]);
}

#[test]
fn a_step_is_dropped_for_any_that_settles_its_state() {
    for newer in [STARTED, STOPPED, CRASHED, EXISTING, RESUMED] {
        assert_eq!(kept(&[SUSPENDED, newer]), [newer]);
    }
    for newer in [STARTED, STOPPED] {
        assert_eq!(kept(&[EXISTING, newer]), [newer]);
    }
    assert_eq!(kept(&[STARTED, STOPPED]), [STOPPED]);
}

#[test]
fn a_guest_in_its_crash_kernel_has_not_ended() {
    let crashloaded = Change::Crashed(CrashCause::Crashloaded);
    assert_eq!(kept(&[EXISTING, SUSPENDED, crashloaded, DEFINED]), [EXISTING, SUSPENDED, DEFINED]);
}

#[test]
fn of_definitions_the_newest_is_kept() {
    assert_eq!(
        kept(&[DEFINED, STARTED, UNDEFINED, DEFINED, STOPPED, UNDEFINED]),
        [STOPPED, UNDEFINED]
    );
}

#[test]
fn an_existing_domain_is_kept_until_a_newer_run() {
    assert_eq!(kept(&[EXISTING, SUSPENDED]), [EXISTING, SUSPENDED]);
    assert_eq!(kept(&[EXISTING, UNDEFINED]), [EXISTING, UNDEFINED]);
    assert_eq!(kept(&[EXISTING, STOPPED, STARTED]), [STOPPED, STARTED]);
}

#[test]
fn events_without_a_state_are_dropped_and_counted() {
    let domain = Domain::new("s:", "h", Uuid::from_u128(1), "d", Some(1));
    let at = std::time::SystemTime::UNIX_EPOCH;
    let reboot = Reboot::new(domain, at);
    let mut events: VecDeque<DomainEvent> = vec![reboot.clone().into(), reboot.into()].into();
    assert_eq!(compact(&mut events), 2);
    assert!(events.is_empty());
}

fn synced(scope: &Scope, domains: u64) -> DomainEvent {
    Synced::new(scope.clone(), domains).into()
}

fn broke(scope: &Scope, message: &str) -> DomainEvent {
    let fault = Fault::new(FaultKind::Closed, message);
    Gap::new(scope.clone(), GapKind::disconnected(fault)).into()
}

fn lagged(scope: &Scope, missed: u64, reset: bool) -> DomainEvent {
    Gap::new(scope.clone(), GapKind::lagged(missed, reset)).into()
}

#[test]
fn the_newest_marker_of_each_kind_and_scope_is_kept() {
    let whole = Scope::source_wide("s:");
    let part = Scope::Domain(step(STARTED).domain);
    let other = Scope::source_wide("t:");
    let mut events = VecDeque::from([
        synced(&other, 1),
        broke(&whole, "1"),
        synced(&whole, 1),
        broke(&part, "1"),
        lagged(&whole, 5, true),
        broke(&whole, "2"),
        lagged(&whole, 7, true),
        synced(&part, 1),
        lagged(&whole, 9, false),
        synced(&whole, 2),
    ]);
    assert_eq!(compact(&mut events), 5 + 9);
    let kept = [
        synced(&other, 1),
        broke(&whole, "2"),
        lagged(&whole, 7, true),
        synced(&part, 1),
        synced(&whole, 2),
    ];
    assert_eq!(events, kept);
}

#[test]
fn a_sync_that_ended_the_gap_of_a_part_is_kept() {
    let domain = Scope::Domain(step(STARTED).domain);
    for wider in [Scope::on_host("s:", "h"), Scope::source_wide("s:")] {
        let markers = [broke(&domain, "1"), synced(&wider, 1), broke(&wider, "2")];
        let mut events = VecDeque::from(markers.clone());
        compact(&mut events);
        assert_eq!(events, markers);
    }
}

#[test]
fn the_end_of_a_domain_is_kept_beside_what_began_after_it() {
    let transient = |change| persistent(change, false);
    let mut events = VecDeque::from([
        transient(STARTED),
        transient(STOPPED),
        transient(STARTED),
        transient(STOPPED),
        transient(STARTED),
        transient(CRASHED),
    ]);
    assert_eq!(compact(&mut events), 3);
    assert_eq!(events, [STOPPED, STARTED, CRASHED].map(transient));
}

#[test]
fn the_newest_known_persistence_is_kept() {
    let unknown = Change::Unknown { event: 9, detail: 0 };
    let mut events = VecDeque::from([
        persistent(STARTED, false),
        persistent(unknown, true),
        persistent(unknown, false),
        lifecycle(SUSPENDED),
        lifecycle(RESUMED),
    ]);
    compact(&mut events);
    let kept = [persistent(STARTED, false), persistent(unknown, false), lifecycle(RESUMED)];
    assert_eq!(events, kept);
}
