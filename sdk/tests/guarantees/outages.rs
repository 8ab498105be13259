//! Guarantees of an outage: the gap, the reconnects, and what is delivered after it.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use virevent::{
    Domain, DomainEvent, DomainStore, End, Error, EventSource, EventSourceExt, Fault, FaultKind,
    Gap, GapKind, Options, Scope, Status,
};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};
use virevent_testkit::{Asked, FakeHypervisor};

use crate::{delivered, lines, secs, synced};

fn unreachable() -> Error {
    Error::unreachable("fake", "start it", io::Error::from(io::ErrorKind::ConnectionRefused))
}

fn refusal() -> Error {
    Error::authentication("a password")
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_a_gap_then_the_difference_then_synced() {
    let (fake, mut events) = synced().await;
    fake.define("db").unwrap();
    delivered(&mut events, &["db defined (added)"]).await;
    fake.go_down();
    delivered(&mut events, &["disconnected from fake:*"]).await;
    fake.stop("web").unwrap();
    fake.start("db").unwrap();
    fake.create("new").unwrap();
    fake.restore();
    delivered(
        &mut events,
        &[
            "db[2] started (booted) [inferred]",
            "new[3] started (booted) [inferred]",
            "web[1] stopped (destroyed) [inferred]",
            "synced with fake: (3 domains)",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_domain_is_not_repeated_after_an_outage() {
    let (fake, mut events) = synced().await;
    fake.lose_connection();
    delivered(&mut events, &["disconnected from *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_run_under_the_same_uuid_is_a_stop_and_a_start() {
    let (fake, mut events) = synced().await;
    fake.go_down();
    fake.stop("web").unwrap();
    fake.start("web").unwrap();
    fake.restore();
    delivered(
        &mut events,
        &[
            "disconnected from *",
            "web[1] stopped [inferred]",
            "web[2] started (booted) [inferred]",
            "synced with *",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn unreachable_is_never_stopped() {
    let (fake, mut events) = synced().await;
    fake.go_down();
    delivered(&mut events, &["disconnected from *"]).await;
    nothing_within(&mut events, secs(3600)).await.unwrap();
    fake.restore();
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_stops_nothing() {
    let (fake, mut events) = synced().await;
    fake.hang_lists();
    fake.lose_connection();
    delivered(&mut events, &["disconnected from *"]).await;
    // Longer than any deadline: a list without an answer must never count as an empty list.
    nothing_within(&mut events, secs(120)).await.unwrap();
    fake.release_lists();
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_started_stopped_loop_is_right_after_outages() {
    let (fake, mut events) = synced().await;
    let store = DomainStore::new();
    // Only the loop over started and stopped is checked, as a service would write it.
    for round in 0..5 {
        fake.go_down();
        let name = format!("vm{round}");
        fake.create(&name).unwrap();
        if round % 2 == 1 {
            fake.stop(&format!("vm{}", round - 1)).unwrap();
        }
        fake.restore();
        let delivered = until_synced(&mut events).await.unwrap();
        store.extend(&delivered);
        for past in 0..=round {
            let name = format!("vm{past}");
            let runs = store.get(&name).is_some_and(|web| web.domain.is_active());
            assert_eq!(runs, fake.domain(&name).is_some(), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn subscribing_in_an_outage_opens_with_disconnected() {
    let (fake, mut first) = synced().await;
    fake.go_down();
    delivered(&mut first, &["disconnected from *"]).await;
    let mut second = fake.subscribe().await.unwrap();
    delivered(&mut second, &["disconnected from *"]).await;
    fake.restore();
    delivered(&mut second, &["web[1] existing *", "synced with *"]).await;
    delivered(&mut first, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_subscription_to_an_unreachable_source_fails() {
    let fake = FakeHypervisor::new();
    fake.refuse(unreachable());
    let error = fake.subscribe().await.unwrap_err();
    assert!(!error.is_refusal(), "{error}");
    tokio::time::sleep(secs(60)).await;
    assert_eq!(fake.health().status(), Status::Idle);
    assert_eq!(fake.journal(), [Asked::Connect], "without a subscriber there is no second attempt");
    fake.accept();
    fake.subscribe().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_waits_opens_with_disconnected_instead() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    fake.refuse(unreachable());
    let mut events = fake.subscribe_with(Options::default().wait(true)).await.unwrap();
    delivered(&mut events, &["disconnected from fake:*start it*"]).await;
    fake.accept();
    delivered(&mut events, &["web[1] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_fails_a_first_subscription_with_wait() {
    let fake = FakeHypervisor::new();
    fake.refuse(refusal());
    let error = fake.subscribe_with(Options::default().wait(true)).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_nothing_but_refusals_ends_the_streams() {
    let (fake, mut events) = synced().await;
    fake.refuse(refusal());
    fake.lose_connection();
    delivered(&mut events, &["disconnected from *"]).await;
    nothing_within(&mut events, secs(59)).await.unwrap();
    let end = tokio::time::timeout(secs(7), events.next()).await;
    assert!(end.unwrap().is_none(), "within the longest wait between two attempts");
    let Some(End::Failed(error)) = events.end() else { panic!("{:?}", events.end()) };
    assert!(error.is_refusal(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn refusals_count_from_the_last_other_failure() {
    let (fake, mut events) = synced().await;
    fake.refuse(refusal());
    fake.lose_connection();
    delivered(&mut events, &["disconnected from *"]).await;
    tokio::time::sleep(secs(50)).await;
    // An unreachable server is no refusal: the minute starts over.
    fake.refuse(unreachable());
    tokio::time::sleep(secs(10)).await;
    fake.refuse(refusal());
    nothing_within(&mut events, secs(55)).await.unwrap();
    fake.accept();
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn one_refusal_among_other_failures_ends_nothing() {
    let (fake, mut events) = synced().await;
    fake.refuse(refusal());
    fake.lose_connection();
    delivered(&mut events, &["disconnected from *"]).await;
    fake.asked(|asked| *asked == Asked::Connect).await;
    fake.accept();
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_reconnects_without_limit() {
    let (fake, mut events) = synced().await;
    fake.go_down();
    delivered(&mut events, &["disconnected from *"]).await;
    tokio::time::sleep(secs(86_400)).await;
    fake.restore();
    let back = next_within(&mut events, secs(6)).await.unwrap();
    assert!(matches!(back, DomainEvent::Synced(_)), "within the longest wait: {back}");
}

/// The length of an outage that begins this long after a sync that ended a long outage. The
/// hypervisor accepts connections again, so only the backoff counts.
async fn outage_after_a_healthy_time(healthy: Duration) -> Duration {
    let (fake, mut events) = synced().await;
    fake.go_down();
    // The waits have grown to their limit by then.
    tokio::time::sleep(secs(600)).await;
    fake.restore();
    delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    tokio::time::sleep(healthy).await;
    let lost = tokio::time::Instant::now();
    fake.lose_connection();
    delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    lost.elapsed()
}

#[tokio::test(start_paused = true)]
async fn the_backoff_starts_over_ten_seconds_after_a_sync() {
    let short = Duration::from_millis(100);
    assert!(outage_after_a_healthy_time(secs(11)).await <= short);
    assert!(outage_after_a_healthy_time(secs(1)).await > short, "this seed draws a longer wait");
}

#[tokio::test(start_paused = true)]
async fn commands_are_served_between_two_connection_attempts() {
    let (fake, mut events) = synced().await;
    fake.go_down();
    tokio::time::sleep(secs(600)).await;
    let began = tokio::time::Instant::now();
    let mut late = fake.subscribe().await.unwrap();
    delivered(&mut late, &["disconnected from *"]).await;
    late.close().await;
    delivered(&mut events, &["disconnected from *"]).await;
    fake.shutdown().await;
    assert!(events.next().await.is_none());
    assert!(matches!(events.end(), Some(End::Shutdown)));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_hangs_is_given_up_after_ten_seconds() {
    let fake = FakeHypervisor::new();
    fake.hang_connects();
    let asked = tokio::time::Instant::now();
    let error = fake.subscribe().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(asked.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_given_up_after_ten_seconds() {
    let fake = FakeHypervisor::new();
    fake.hang_registrations();
    let error = fake.subscribe().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { call: "the registration", .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_half_open_peer_is_noticed_within_thirty_seconds() {
    let (fake, mut events) = synced().await;
    // Keepalives are answered, so silence of the guests is no reason to disconnect.
    nothing_within(&mut events, secs(300)).await.unwrap();
    fake.go_silent();
    let gap = next_within(&mut events, secs(31)).await.unwrap();
    let DomainEvent::Gap(Gap { kind: GapKind::Disconnected { fault, .. }, .. }) = &gap else {
        panic!("{gap}")
    };
    assert_eq!(fault.kind(), FaultKind::Timeout);
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_scoped_outage_is_a_gap_and_a_synced_of_that_scope_alone() {
    let (fake, mut events) = synced().await;
    fake.create("db").unwrap();
    delivered(&mut events, &["db[2] started *"]).await;
    let web: Domain = fake.domain("web").unwrap();
    let fault = Fault::new(FaultKind::Closed, "its socket closed");
    fake.disconnected(Scope::Domain(web.clone()), fault);
    delivered(&mut events, &["disconnected from domain web on fake: (its socket closed)"]).await;
    fake.suspend("db").unwrap();
    delivered(&mut events, &["db[2] suspended (paused)"]).await;

    let mut late = fake.subscribe().await.unwrap();
    delivered(&mut late, &["db[2] existing *", "web[1] existing *", "synced *"]).await;
    delivered(&mut late, &["disconnected from domain web on fake: *"]).await;

    fake.restored(Scope::Domain(web));
    delivered(&mut events, &["synced with domain web on fake: (1 domain)"]).await;
}

#[tokio::test(start_paused = true)]
async fn health_can_be_awaited() {
    let (fake, events) = synced().await;
    let mut health = fake.health();
    assert_eq!(health.status(), Status::Synced);
    fake.go_down();
    health.wait_for(|status| matches!(status, Status::Disconnected(_))).await;
    fake.restore();
    health.wait_for(|status| *status == Status::Synced).await;
    drop(events);
    let idle = health.wait_for(|status| *status == Status::Idle);
    tokio::time::timeout(secs(1), idle).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_level_triggered_hypervisor_keeps_the_same_promises() {
    let fake = FakeHypervisor::builder().level_triggered().build();
    fake.create("web").unwrap();
    let mut events = fake.subscribe().await.unwrap();
    delivered(&mut events, &["web[1] existing *", "synced with *"]).await;
    fake.suspend("web").unwrap();
    fake.resume("web").unwrap();
    fake.create("db").unwrap();
    delivered(&mut events, &["web[1] suspended *", "web[1] resumed *", "db[2] started *"]).await;
    fake.go_down();
    fake.stop("web").unwrap();
    fake.restore();
    let delivered = until_synced(&mut events).await.unwrap();
    assert_eq!(lines(&delivered[1..]), ["web[1] stopped [inferred]"]);
}
