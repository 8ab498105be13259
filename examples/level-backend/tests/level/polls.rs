//! What a poll sees, and what it does not.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use virevent::{Change, DomainEvent, EventSource, EventSourceExt, Origin};
use virevent_testkit::assert::{expect_sequence, next_within, nothing_within, until_synced};

use crate::fake::{Fake, INTERVAL};

#[tokio::test(start_paused = true)]
async fn what_changes_is_delivered_within_the_interval() {
    let fake = Fake::default();
    fake.start("web");
    let mut events = fake.source().subscribe().await.unwrap();
    let since = Instant::now();
    expect_sequence(&mut events, &["web[1] existing (running)", "synced with *"]).await.unwrap();
    fake.pause("web", true);
    fake.start("db");
    let expected = ["db[2] started", "web[1] suspended (paused)"];
    expect_sequence(&mut events, &expected).await.unwrap();
    fake.stop("web");
    expect_sequence(&mut events, &["web[1] stopped"]).await.unwrap();
    assert!(since.elapsed() <= 2 * INTERVAL, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_restart_between_two_looks_is_a_stop_and_a_start() {
    let fake = Fake::default();
    fake.start("web");
    let mut events = fake.source().subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.start("web");
    expect_sequence(&mut events, &["web[1] stopped", "web[2] started"]).await.unwrap();
    // The kernel uses a pid again: the time of the start distinguishes the runs.
    fake.restart_with_id("web");
    expect_sequence(&mut events, &["web[2] stopped", "web[2] started"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_between_two_looks_is_never_seen() {
    let fake = Fake::default();
    let mut events = fake.source().subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.start("web");
    fake.stop("web");
    nothing_within(&mut events, 3 * INTERVAL).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_world_delivers_nothing_for_an_hour() {
    let fake = Fake::default();
    fake.start("web");
    let source = fake.source();
    let mut events = source.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    nothing_within(&mut events, Duration::from_secs(3600)).await.unwrap();
    assert!(fake.world().looks >= 3600);
}

/// The driver verifies every minute, by a look like any other.
#[tokio::test(start_paused = true)]
async fn what_a_verification_finds_is_observed_too() {
    let fake = Fake::default();
    let source = fake.source();
    let mut events = source.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    let mut seen = 0;
    // Faster than the looks, so that every verification finds a change.
    for n in 0..200 {
        fake.start("web");
        sleep(INTERVAL * 3 / 4).await;
        if n % 2 == 0 {
            fake.stop("web");
        }
        while let Ok(event) = next_within(&mut events, Duration::ZERO).await {
            let DomainEvent::Lifecycle(change) = event else { panic!("{event}") };
            assert!(matches!(change.change, Change::Started(_) | Change::Stopped(_)), "{change:?}");
            assert_eq!(change.origin, Origin::Observed);
            seen += 1;
        }
    }
    assert!(seen > 50);
    assert!(source.health().verified().is_some());
    assert_eq!(source.counters().corrected, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_looked_at_without_a_subscriber() {
    let fake = Fake::default();
    let source = fake.source();
    let mut events = source.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    events.close().await;
    let looks = fake.world().looks;
    sleep(100 * INTERVAL).await;
    assert_eq!(fake.world().looks, looks);
}

#[tokio::test(start_paused = true)]
async fn what_changed_without_a_subscriber_only_exists() {
    let fake = Fake::default();
    fake.start("web");
    fake.start("db");
    let source = fake.source();
    source.subscribe().await.unwrap().close().await;
    fake.start("web");
    fake.stop("db");
    fake.start("mail");
    let mut events = source.subscribe().await.unwrap();
    let expected = ["mail[4] existing (running)", "web[3] existing (running)", "synced with *"];
    expect_sequence(&mut events, &expected).await.unwrap();
    nothing_within(&mut events, 3 * INTERVAL).await.unwrap();
}

/// Each subscription is a command, for which the driver drops `advance`.
#[tokio::test]
async fn commands_during_a_look_delay_no_other() {
    let fake = Fake::default();
    fake.world().takes = Duration::from_millis(50);
    let source = fake.source();
    let mut events = source.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    let disturb = tokio::spawn({
        let source = source.clone();
        async move {
            loop {
                drop(source.subscribe().await.unwrap());
                tokio::task::yield_now().await;
            }
        }
    });
    let looks = fake.world().looks;
    fake.start("web");
    expect_sequence(&mut events, &["web[1] started"]).await.unwrap();
    disturb.abort();
    assert!(fake.world().looks <= looks + 2, "a dropped future does not look again");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_a_gap_and_no_stop() {
    let fake = Fake::default();
    fake.start("web");
    let mut events = fake.source().subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.world().is_down = true;
    expect_sequence(&mut events, &["disconnected from * (*it is down)"]).await.unwrap();
    fake.start("db");
    fake.world().is_down = false;
    let expected = ["db[2] started [inferred]", "synced with * (2 domains)"];
    expect_sequence(&mut events, &expected).await.unwrap();
}
