//! Guarantees of a stream: how it begins, what it delivers, how it ends.

use futures::{FutureExt, StreamExt};
use virevent::{
    DomainEvent, DomainEvents, End, EventSource, EventSourceExt, Kind, Options, StartCause, Status,
    StopCause,
};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::{nothing_within, until_synced};

use crate::{delivered, lines, secs, synced};

#[tokio::test(start_paused = true)]
async fn a_new_stream_is_existing_then_synced_then_events() {
    let fake = FakeHypervisor::new();
    fake.define("db").unwrap();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let mut events = fake.subscribe().await.unwrap();
    fake.start_as("db", StartCause::Restored).unwrap();
    delivered(
        &mut events,
        &[
            "db existing (shutoff*",
            "web[1] existing (running (booted))",
            "synced with fake: (2 domains)",
            "db[2] started (restored)",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_later_subscriber_is_served_from_the_roster() {
    let (fake, mut first) = synced().await;
    fake.hang_lists();
    fake.suspend("web").unwrap();
    delivered(&mut first, &["web[1] suspended (paused)"]).await;
    let mut second = fake.subscribe().await.unwrap();
    delivered(&mut second, &["web[1] existing (paused (user))", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_delivered_in_order_with_their_causes() {
    let (fake, mut events) = synced().await;
    fake.suspend("web").unwrap();
    fake.resume("web").unwrap();
    fake.reboot("web").unwrap();
    fake.stop_as("web", StopCause::Saved).unwrap();
    fake.undefine("web").unwrap();
    delivered(
        &mut events,
        &[
            "web[1] suspended (paused)",
            "web[1] resumed (unpaused)",
            "web[1] rebooted",
            "web[1] stopped (saved)",
            "web undefined (removed)",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_carries_the_id_of_the_run_that_ended() {
    let (fake, mut events) = synced().await;
    fake.stop("web").unwrap();
    fake.start("web").unwrap();
    fake.stop("web").unwrap();
    delivered(
        &mut events,
        &["web[1] stopped (destroyed)", "web[2] started (booted)", "web[2] stopped (destroyed)"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_filter_by_domain_passes_its_domain_and_the_markers_only() {
    let fake = FakeHypervisor::new();
    let web = fake.create("web").unwrap();
    fake.create("db").unwrap();
    let mut by_name = fake.subscribe_with(Options::default().domain("web")).await.unwrap();
    let mut by_uuid = fake.subscribe_with(Options::default().domain(&web)).await.unwrap();
    fake.stop("db").unwrap();
    fake.stop("web").unwrap();
    for events in [&mut by_name, &mut by_uuid] {
        delivered(
            events,
            &[
                "web[1] existing (running*",
                "synced with fake: (2 domains)",
                "web[1] stopped (destroyed)",
            ],
        )
        .await;
        nothing_within(events, secs(1)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_by_kind_passes_its_kind_and_the_markers_only() {
    let (fake, _other) = synced().await;
    let mut reboots = fake.subscribe_with(Options::default().kind(Kind::Reboot)).await.unwrap();
    fake.suspend("web").unwrap();
    fake.resume("web").unwrap();
    fake.reboot("web").unwrap();
    delivered(&mut reboots, &["synced with *", "web[1] rebooted"]).await;
}

#[tokio::test(start_paused = true)]
async fn without_existing_a_stream_begins_with_synced() {
    let (fake, _other) = synced().await;
    let options = Options::default().existing(false);
    let mut events = fake.subscribe_with(options).await.unwrap();
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_stream_after_its_buffered_events() {
    let (fake, mut events) = synced().await;
    fake.stop("web").unwrap();
    tokio::task::yield_now().await;
    fake.shutdown().await;
    delivered(&mut events, &["web[1] stopped (destroyed)"]).await;
    assert!(events.next().await.is_none());
    assert!(matches!(events.end(), Some(End::Shutdown)));
    assert!(fake.registered().is_empty());
    assert_eq!(fake.health().status(), Status::Shutdown);
    let error = fake.subscribe().await.unwrap_err();
    assert!(matches!(error, virevent::Error::Shutdown), "{error}");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_source_ends_no_stream() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    let host = fake.host().clone();
    let mut events = fake.subscribe().await.unwrap();
    drop(fake);
    host.start("web").unwrap();
    delivered(&mut events, &["web existing *", "synced with *", "web[1] started (booted)"]).await;
}

#[test]
fn a_stream_ends_with_the_runtime_that_drove_its_source() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fake = FakeHypervisor::new();
    let first = runtime();
    let mut events = first.block_on(fake.subscribe()).unwrap();
    drop(first);
    let ended = runtime().block_on(async {
        until_synced(&mut events).await.unwrap();
        assert!(events.next().await.is_none());
        fake.subscribe().await.unwrap_err()
    });
    assert!(matches!(ended, virevent::Error::DriverEnded), "{ended}");
    assert_eq!(fake.health().status(), Status::Ended);
}

#[test]
fn a_subscription_outside_a_runtime_is_an_error() {
    let fake = FakeHypervisor::new();
    let error = fake.subscribe().now_or_never().unwrap().unwrap_err();
    assert!(matches!(error, virevent::Error::NoRuntime), "{error}");
}

#[tokio::test(start_paused = true)]
async fn combinators_pick_the_events_that_they_are_named_after() {
    let fake = FakeHypervisor::new();
    fake.create("db").unwrap();
    let mut started = fake.subscribe().await.unwrap().started();
    let mut stopped = fake.subscribe().await.unwrap().stopped();
    let mut of_web = fake.subscribe().await.unwrap().of_domain("web");
    fake.create("web").unwrap();
    fake.stop("db").unwrap();
    assert_eq!(started.next().await.unwrap().domain.name(), "web");
    assert_eq!(stopped.next().await.unwrap().domain.name(), "db");
    let first_two = [of_web.next().await.unwrap(), of_web.next().await.unwrap()];
    assert_eq!(lines(&first_two), ["synced with fake: (1 domain)", "web[2] started (booted)"]);
}

#[tokio::test(start_paused = true)]
async fn counters_count_what_passed() {
    let (fake, mut events) = synced().await;
    fake.reboot("web").unwrap();
    fake.suspend("web").unwrap();
    delivered(&mut events, &["web[1] rebooted", "web[1] suspended *"]).await;
    fake.lose_connection();
    let missed = until_synced(&mut events).await.unwrap();
    assert!(matches!(missed[..], [DomainEvent::Gap(_)]), "{missed:?}");
    let counters = fake.counters();
    assert_eq!((counters.events, counters.missed), (2, 0));
    assert_eq!((counters.gaps, counters.reconnects), (1, 1));
}
