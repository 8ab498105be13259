//! Tests of changes that happened in an outage, beside events that were held for the list.

use super::*;

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
fn a_run_first_seen_in_a_pause_gets_an_inferred_start() {
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
fn a_start_under_way_leaves_the_domain_inactive() {
    let starting = Some(entry(Some(6), State::Paused(PausedReason::StartingUp)));
    let (delivered, known) = merged(Some(entry(None, OFF)), Vec::new(), starting);
    assert_eq!(delivered, [""; 0]);
    let known = known.unwrap();
    assert_eq!(known.domain.id(), None);
    assert_eq!(known.state, State::Shutoff(ShutoffReason::Unspecified));
}
