//! Verification: the known state is compared with the daemon's.

use virevent::driver::Settings;
use virevent::{Kind, Notice, NoticeBody};
use virevent_libvirt::wire::{code, procs};
use virevent_testkit::assert::{expect_sequence, nothing_within};

use super::*;

const STATS: i32 = procs::CONNECT_GET_ALL_DOMAIN_STATS;
const LIST: i32 = procs::CONNECT_LIST_ALL_DOMAINS;

/// A daemon with a running domain `web`, and a synced stream of a source that verifies at this
/// interval.
async fn verified(every: Duration) -> (FakeLibvirtd, Driver, EventStream) {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().define("web").unwrap();
    daemon.host().start("web").unwrap();
    let settings = Settings::default().verify(Some(every));
    let source = client(&daemon).settings(settings).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (daemon, source, events)
}

/// Ends `web` without an event.
fn stop_silently(daemon: &FakeLibvirtd) {
    daemon.change(|faults| faults.mute.insert(0));
    daemon.host().stop("web").unwrap();
}

fn control_error(daemon: &FakeLibvirtd) {
    let domain = daemon.host().domain("web").unwrap();
    let at = std::time::SystemTime::now();
    daemon.host().emit(Notice::new(domain, NoticeBody::ControlError {}, at));
}

#[tokio::test]
async fn a_silent_end_is_found_by_a_verifying_list() {
    let (daemon, source, mut events) = verified(Duration::from_millis(100)).await;
    stop_silently(&daemon);
    expect_sequence(&mut events, &["web[1] stopped (destroyed) [inferred]"]).await.unwrap();
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test]
async fn after_a_control_error_only_its_domain_is_verified() {
    let (daemon, source, mut events) = verified(Duration::from_secs(3600)).await;
    stop_silently(&daemon);
    let lists = daemon.calls(LIST);
    control_error(&daemon);
    expect_sequence(&mut events, &["web[1] stopped (destroyed) [inferred]"]).await.unwrap();
    assert_eq!(source.counters().corrected, 1);
    assert_eq!(daemon.calls(LIST), lists, "no list of all domains");
    assert_eq!(daemon.calls(procs::DOMAIN_IS_PERSISTENT), 2, "two state requests");
}

#[tokio::test]
async fn a_failed_state_request_is_repeated() {
    let (daemon, _source, mut events) = verified(Duration::from_secs(3600)).await;
    stop_silently(&daemon);
    daemon.change(|faults| faults.refuse(STATS, code::SYSTEM_ERROR, "Out of memory"));
    let calls = daemon.calls(STATS);
    control_error(&daemon);
    daemon.until(|daemon| daemon.calls(STATS) > calls).await;
    daemon.change(|faults| faults.errors.clear());
    expect_sequence(&mut events, &["web[1] stopped (destroyed) [inferred]"]).await.unwrap();
}

#[tokio::test]
async fn a_state_request_finds_that_a_domain_is_gone() {
    let (daemon, _source, mut events) = verified(Duration::from_secs(3600)).await;
    daemon.host().create("db").unwrap();
    next_within(&mut events, PATIENCE).await.unwrap();
    let domain = daemon.host().domain("db").unwrap();
    daemon.change(|faults| faults.mute.insert(0));
    daemon.host().stop("db").unwrap();
    let at = std::time::SystemTime::now();
    daemon.host().emit(Notice::new(domain, NoticeBody::ControlError {}, at));
    let event = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(event.to_string(), "db[2] stopped [inferred]");
    assert!(event.lifecycle().is_some_and(virevent::Lifecycle::is_gone));
}

#[tokio::test]
async fn without_the_bulk_list_a_domain_is_looked_up() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.lacks.insert(STATS));
    daemon.host().define("web").unwrap();
    daemon.host().start("web").unwrap();
    let source = client(&daemon).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    stop_silently(&daemon);
    control_error(&daemon);
    expect_sequence(&mut events, &["web[1] stopped (destroyed) [inferred]"]).await.unwrap();
    assert_eq!(daemon.calls(procs::DOMAIN_LOOKUP_BY_UUID), 2);
}

#[tokio::test]
async fn verification_of_unchanged_domains_delivers_nothing() {
    let (daemon, source, mut events) = verified(Duration::from_millis(10)).await;
    daemon.host().define("off").unwrap();
    daemon.host().create("db").unwrap();
    daemon.host().suspend("db").unwrap();
    for _ in 0..3 {
        next_within(&mut events, PATIENCE).await.unwrap();
    }
    let lists = daemon.calls(LIST);
    daemon.until(|daemon| daemon.calls(LIST) > lists + 20).await;
    nothing_within(&mut events, Duration::from_millis(50)).await.unwrap();
    assert_eq!(source.counters().corrected, 0);
}

/// The daemon behaves like this while the lock of a domain is held.
#[tokio::test]
async fn an_unanswered_list_delays_neither_close_nor_events() {
    let (daemon, source, mut events) = verified(Duration::from_millis(100)).await;
    let lists = daemon.calls(STATS);
    daemon.change(|faults| faults.held.insert(STATS));
    daemon.until(|daemon| daemon.calls(STATS) > lists).await;
    let late = source.subscribe_with(Options::default().kind(Kind::Watchdog)).await.unwrap();
    assert_eq!(daemon.registered(), [0, 1, 3, 7]);
    late.close().await;
    assert_eq!(daemon.registered(), [0, 1, 7]);
    assert_delivers(&mut events, daemon.host()).await;
    tokio::time::timeout(Duration::from_secs(4), events.close()).await.unwrap();
    assert!(daemon.registered().is_empty());
    assert_eq!(daemon.calls(STATS), lists + 1, "no second list is sent");
    assert_eq!(daemon.accepted(), 1);
}
