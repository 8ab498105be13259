//! Errors in answer to calls, and calls that are never answered.

use virevent::driver::Settings;
use virevent::{End, Error, Kind};
use virevent_libvirt::wire::{code, procs};
use virevent_testkit::assert::expect_sequence;

use super::*;

const REGISTER: i32 = procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
const STATS: i32 = procs::CONNECT_GET_ALL_DOMAIN_STATS;

#[tokio::test]
async fn an_error_to_a_call_that_nothing_works_without_is_the_error_of_the_subscription() {
    for procedure in [REGISTER, STATS, procs::CONNECT_LIST_ALL_DOMAINS] {
        let daemon = FakeLibvirtd::start().unwrap();
        daemon.change(|faults| faults.refuse(procedure, code::SYSTEM_ERROR, "Disk quota exceeded"));
        let source = client(&daemon).source();
        let (error, line) = refusal(&source).await;
        let code = matches!(&error, Error::Server(error) if error.code == code::SYSTEM_ERROR);
        assert!(code, "{line}");
        assert!(line.contains("Disk quota exceeded") && !error.is_refusal(), "{line}");
        daemon.change(|faults| faults.errors.clear());
        tells_the_truth(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn an_error_after_an_outage_is_tried_again_until_it_passes() {
    let (daemon, mut events) = watched().await;
    daemon.change(|faults| faults.refuse(STATS, code::SYSTEM_ERROR, "Out of memory"));
    daemon.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    daemon.until(|daemon| daemon.calls(STATS) > 4).await;
    daemon.change(|faults| faults.errors.clear());
    recovers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn nothing_but_refusals_ends_the_streams_and_says_why() {
    let daemon = FakeLibvirtd::start().unwrap();
    let settings = Settings::default().refusal_timeout(Duration::from_millis(300));
    let source = client(&daemon).settings(settings).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.change(|faults| {
        faults.refuse(procs::CONNECT_OPEN, code::ACCESS_DENIED, "access denied: connect");
    });
    daemon.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    let mut rest = Vec::new();
    while let Ok(event) = next_within(&mut events, PATIENCE).await {
        rest.push(event.to_string());
    }
    match events.end() {
        Some(End::Failed(error)) => assert!(error.to_line().contains("access denied"), "{error}"),
        end => panic!("{end:?} after {rest:?}"),
    }
}

#[tokio::test]
async fn an_event_id_that_the_daemon_lacks_is_refused_by_name_and_left_out_by_default() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.last_event = 0);
    let source = client(&daemon).source();
    let reboots = Options::default().kind(Kind::Reboot);
    match source.subscribe_with(reboots).await.unwrap_err() {
        Error::Unsupported { kind, .. } => assert_eq!(kind, Kind::Reboot),
        error => panic!("{error}"),
    }
    tells_the_truth(&source, daemon.host()).await;
    assert!(source.capabilities().lacking.contains(&Kind::Reboot));
}

#[tokio::test]
async fn a_registration_that_is_never_confirmed_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.held.extend([REGISTER]));
    let (error, line) = refusal(&hasty_client(&daemon)).await;
    assert!(matches!(error, Error::Timeout { .. }), "{line}");
}

#[tokio::test]
async fn a_list_that_is_never_answered_while_events_flow_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().create("web").unwrap();
    daemon.change(|faults| faults.held.extend([STATS]));
    let source = hasty_client(&daemon);
    let flow = async {
        loop {
            daemon.host().suspend("web").unwrap();
            daemon.host().resume("web").unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (error, line) = tokio::select! {
        refusal = refusal(&source) => refusal,
        () = flow => unreachable!(),
    };
    assert!(matches!(error, Error::Timeout { .. }), "{line}");
}

#[tokio::test]
async fn what_happens_while_a_list_is_under_way_is_told_after_it() {
    let (daemon, mut events) = watched().await;
    daemon.change(|faults| faults.held.extend([STATS]));
    let lists = daemon.calls(STATS);
    daemon.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    daemon.until(|daemon| daemon.calls(STATS) > lists).await;
    // The list says that it runs; by now it does not.
    daemon.host().stop("web").unwrap();
    daemon.host().create("db").unwrap();
    daemon.release();
    let told =
        ["web[1] stopped (destroyed)", "db[2] started (booted)", "synced with * (2 domains)"];
    expect_sequence(&mut events, &told).await.unwrap();
    goes_on(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn an_event_before_the_reply_to_the_registration_leads_to_no_wrong_state() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().define("web").unwrap();
    daemon.change(|faults| faults.held.extend([REGISTER]));
    let source = client(&daemon).source();
    let act = async {
        daemon.until(|daemon| daemon.registered().contains(&0)).await;
        daemon.host().start("web").unwrap();
        daemon.host().suspend("web").unwrap();
        daemon.release();
    };
    let (events, ()) = tokio::join!(source.subscribe_with(Options::default()), act);
    let mut events = events.unwrap();
    let told = ["web[1] existing (paused *", "synced with * (1 domain)"];
    expect_sequence(&mut events, &told).await.unwrap();
    goes_on(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn a_deregistration_that_fails_does_not_hold_up_the_close() {
    let (daemon, events) = watched().await;
    let deregister = procs::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY;
    daemon.change(|faults| faults.refuse(deregister, code::INTERNAL_ERROR, "no such callback"));
    tokio::time::timeout(Duration::from_secs(4), events.close()).await.unwrap();
}
