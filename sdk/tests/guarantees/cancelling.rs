//! Guarantees of a cancel: how a subscription ends.

use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use virevent::{End, EventSource, EventSourceExt, Kind, Options};
use virevent_testkit::assert::until_synced;
use virevent_testkit::{Asked, FakeHypervisor};

use crate::{ms, secs, synced};

fn is_deregister(asked: &Asked) -> bool {
    *asked == Asked::Deregister
}

#[tokio::test(start_paused = true)]
async fn the_last_dropped_stream_deregisters_then_disconnects() {
    let (fake, events) = synced().await;
    drop(events);
    let dropped = Instant::now();
    fake.asked(is_deregister).await;
    assert!(dropped.elapsed() < ms(1));
    assert!(fake.is_connected());
    fake.asked(|asked| *asked == Asked::Disconnect).await;
    assert_eq!(dropped.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_within_the_idle_time_reuses_the_connection() {
    let (fake, events) = synced().await;
    drop(events);
    fake.asked(is_deregister).await;
    tokio::time::sleep(ms(29_999)).await;
    fake.stop("web").unwrap();
    let mut events = fake.subscribe().await.unwrap();
    crate::delivered(&mut events, &["web existing (shutoff*", "synced with *"]).await;
    tokio::time::sleep(secs(60)).await;
    // The subscriber after 29.999 s must also stop the idle timer: 60 s later the connection is the
    // same.
    let connects = fake.journal().into_iter().filter(|asked| *asked == Asked::Connect).count();
    assert_eq!(connects, 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_either_half_cancels_and_discards_what_was_buffered() {
    let (fake, events) = synced().await;
    let (mut events, subscription) = events.split();
    fake.stop("web").unwrap();
    // The event is in the mailbox by now, and must not be delivered.
    tokio::time::sleep(ms(1)).await;
    drop(subscription);
    assert!(events.next().await.is_none());
    assert!(matches!(events.end(), Some(End::Cancelled)));
    fake.asked(is_deregister).await;

    fake.clear_journal();
    let (events, _subscription) = fake.subscribe().await.unwrap().split();
    drop(events);
    fake.asked(is_deregister).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_guard_wakes_a_reader_that_waits() {
    let (_fake, events) = synced().await;
    let (mut events, subscription) = events.split();
    let reader = tokio::spawn(async move { events.next().await });
    tokio::task::yield_now().await;
    drop(subscription);
    assert!(reader.await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn close_returns_when_the_hypervisor_has_confirmed() {
    let (fake, events) = synced().await;
    events.close().await;
    assert!(fake.registered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn close_returns_at_once_while_others_need_the_registration() {
    let (fake, first) = synced().await;
    let _second = fake.subscribe().await.unwrap();
    fake.hang_registrations();
    let asked = Instant::now();
    first.close().await;
    assert!(asked.elapsed() < ms(1));
}

#[tokio::test(start_paused = true)]
async fn close_returns_at_once_in_an_outage() {
    let (fake, events) = synced().await;
    fake.hang_registrations();
    // A registration without an answer bounds `close` at 5 s; an outage needs no answer at all.
    let asked = Instant::now();
    events.close().await;
    assert_eq!(asked.elapsed().as_secs(), 5);

    let (fake, mut events) = synced().await;
    fake.go_down();
    crate::delivered(&mut events, &["disconnected from *"]).await;
    let asked = Instant::now();
    events.close().await;
    assert!(asked.elapsed() < ms(1));
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_server_also_after_events_were_dropped() {
    let (fake, events) = synced().await;
    let (events, subscription) = events.split();
    fake.hang_registrations();
    drop(events);
    let mut close = Box::pin(subscription.close());
    assert!(tokio::time::timeout(secs(1), &mut close).await.is_err());
    fake.release_registrations();
    close.await;
    assert!(fake.registered().is_empty());
}

#[test]
fn close_needs_no_timers_where_it_is_awaited() {
    let source = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let fake = FakeHypervisor::new();
    let events = source.block_on(fake.subscribe()).unwrap();
    // Without `enable_time`: a timer in `close` would panic here.
    let elsewhere = tokio::runtime::Builder::new_current_thread().build().unwrap();
    elsewhere.block_on(events.close());
    assert!(fake.registered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_after_close() {
    let (fake, events) = synced().await;
    fake.stop("web").unwrap();
    let (mut events, subscription) = events.split();
    let mut close = Box::pin(subscription.close());
    assert!(close.as_mut().now_or_never().is_none());
    assert!(events.next().await.is_none());
    close.await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_subscription_midway_leaves_nothing_registered() {
    let fake = FakeHypervisor::new();
    fake.hang_lists();
    // Dropped before the connection, and at later points on the way to the list.
    for wait in [0, 1, 5] {
        let attempt = tokio::time::timeout(ms(wait), fake.subscribe()).await;
        assert!(attempt.is_err());
        tokio::time::sleep(ms(1)).await;
        assert!(fake.registered().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_subscription_stops_a_connection_attempt() {
    let fake = FakeHypervisor::new();
    fake.hang_connects();
    let attempt = tokio::time::timeout(ms(1), fake.subscribe()).await;
    assert!(attempt.is_err());
    // The attempt that hung would succeed now, if it were still under way.
    fake.accept();
    tokio::time::sleep(secs(60)).await;
    assert!(!fake.is_connected());
}

#[test]
fn a_stream_can_be_dropped_without_a_runtime_and_on_any_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fake = FakeHypervisor::new();
    let events = runtime.block_on(fake.subscribe()).unwrap();
    std::thread::spawn(move || drop(events)).join().unwrap();
    runtime.block_on(fake.asked(is_deregister));
}

#[test]
fn a_stream_can_be_dropped_while_unwinding() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fake = FakeHypervisor::new();
    let events = runtime.block_on(fake.subscribe()).unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _events = events;
        std::panic::resume_unwind(Box::new("a bug in the service"));
    }));
    assert!(unwound.is_err());
    runtime.block_on(fake.asked(is_deregister));
}

#[tokio::test(start_paused = true)]
async fn the_last_subscriber_for_a_kind_deregisters_that_kind() {
    let (fake, _lifecycle) = synced().await;
    let other = fake.subscribe_with(Options::default().kind(Kind::Other)).await.unwrap();
    assert!(fake.registered().contains(&Kind::Other));
    other.close().await;
    assert!(!fake.registered().contains(&Kind::Other));
    assert!(fake.registered().contains(&Kind::Lifecycle));
}

#[tokio::test(start_paused = true)]
async fn next_may_be_dropped_at_any_time() {
    let (fake, mut events) = synced().await;
    for _ in 0..20 {
        assert!(tokio::time::timeout(ms(1), events.next()).await.is_err());
    }
    fake.stop("web").unwrap();
    crate::delivered(&mut events, &["web[1] stopped *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_subscribers_that_come_and_go_leave_nothing() {
    let fake = FakeHypervisor::new();
    for _ in 0..1000 {
        until_synced(&mut fake.subscribe().await.unwrap()).await.unwrap();
    }
    tokio::time::sleep(ms(1)).await;
    assert!(fake.registered().is_empty());
    fake.shutdown().await;
    assert!(!fake.is_connected());
}
