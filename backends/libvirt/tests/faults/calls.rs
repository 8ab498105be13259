//! Errors in reply to calls, and calls without a reply.

use virevent::driver::Settings;
use virevent::{End, Error, Kind};
use virevent_libvirt::wire::{code, procs};
use virevent_testkit::assert::expect_sequence;

use super::*;

const REGISTER: i32 = procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
const STATS: i32 = procs::CONNECT_GET_ALL_DOMAIN_STATS;

#[tokio::test]
async fn an_error_to_a_required_call_fails_the_subscription() {
    for procedure in [REGISTER, STATS, procs::CONNECT_LIST_ALL_DOMAINS] {
        let daemon = FakeLibvirtd::start().unwrap();
        daemon.change(|faults| faults.refuse(procedure, code::SYSTEM_ERROR, "Disk quota exceeded"));
        let source = client(&daemon).source();
        let (error, line) = subscribe_error(&source).await;
        let code = matches!(&error, Error::Server(error) if error.code == code::SYSTEM_ERROR);
        assert!(code, "{line}");
        assert!(line.contains("Disk quota exceeded") && !error.is_refusal(), "{line}");
        daemon.change(|faults| faults.errors.clear());
        assert_new_stream_is_true(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_call_that_fails_after_an_outage_is_retried() {
    let (daemon, mut events) = synced_stream().await;
    daemon.change(|faults| faults.refuse(STATS, code::SYSTEM_ERROR, "Out of memory"));
    daemon.cut();
    assert_eq!(next_gap(&mut events).await, FaultKind::Closed);
    daemon.until(|daemon| daemon.calls(STATS) > 4).await;
    daemon.change(|faults| faults.errors.clear());
    assert_recovers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn refusals_alone_end_the_streams_with_the_reason() {
    let daemon = FakeLibvirtd::start().unwrap();
    let settings = Settings::default().refusal_timeout(Duration::from_millis(300));
    let source = client(&daemon).settings(settings).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.change(|faults| {
        faults.refuse(procs::CONNECT_OPEN, code::ACCESS_DENIED, "access denied: connect");
    });
    daemon.cut();
    assert_eq!(next_gap(&mut events).await, FaultKind::Closed);
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
async fn a_missing_event_is_refused_by_name_and_optional_by_default() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.last_event = 0);
    let source = client(&daemon).source();
    let reboots = Options::default().kind(Kind::Reboot);
    match source.subscribe_with(reboots).await.unwrap_err() {
        Error::Unsupported { kind, .. } => assert_eq!(kind, Kind::Reboot),
        error => panic!("{error}"),
    }
    assert_new_stream_is_true(&source, daemon.host()).await;
    assert!(source.capabilities().lacking.contains(&Kind::Reboot));
}

#[tokio::test]
async fn a_registration_that_is_never_confirmed_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.held.extend([REGISTER]));
    let (error, line) = subscribe_error(&hasty_client(&daemon)).await;
    assert!(matches!(error, Error::Timeout { .. }), "{line}");
}

#[tokio::test]
async fn an_unanswered_list_among_events_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().create("web").unwrap();
    daemon.change(|faults| faults.held.extend([STATS]));
    let source = hasty_client(&daemon);
    let send_events = async {
        loop {
            daemon.host().suspend("web").unwrap();
            daemon.host().resume("web").unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (error, line) = tokio::select! {
        failed = subscribe_error(&source) => failed,
        () = send_events => unreachable!(),
    };
    assert!(matches!(error, Error::Timeout { .. }), "{line}");
}

#[tokio::test]
async fn events_during_a_list_are_delivered_after_it() {
    let (daemon, mut events) = synced_stream().await;
    daemon.change(|faults| faults.held.extend([STATS]));
    let lists = daemon.calls(STATS);
    daemon.cut();
    assert_eq!(next_gap(&mut events).await, FaultKind::Closed);
    daemon.until(|daemon| daemon.calls(STATS) > lists).await;
    // The list that is on its way contains web as running.
    daemon.host().stop("web").unwrap();
    daemon.host().create("db").unwrap();
    daemon.release();
    let expected =
        ["web[1] stopped (destroyed)", "db[2] started (booted)", "synced with * (2 domains)"];
    expect_sequence(&mut events, &expected).await.unwrap();
    assert_delivers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn an_event_before_its_registrations_reply_is_applied() {
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
    let expected = ["web[1] existing (paused *", "synced with * (1 domain)"];
    expect_sequence(&mut events, &expected).await.unwrap();
    assert_delivers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn a_failed_deregistration_does_not_delay_close() {
    let (daemon, events) = synced_stream().await;
    let deregister = procs::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY;
    daemon.change(|faults| faults.refuse(deregister, code::INTERNAL_ERROR, "no such callback"));
    tokio::time::timeout(Duration::from_secs(4), events.close()).await.unwrap();
}
