//! Guarantees of the merge: what is delivered of events that arrive before the list.

use virevent::{EventSourceExt, Origin};
use virevent_testkit::assert::{nothing_within, until_synced};
use virevent_testkit::{Asked, FakeHypervisor};

use crate::{delivered, lines, secs, synced};

/// A fake that has been asked for its list and does not answer yet.
async fn listing(fake: &FakeHypervisor) {
    fake.clear_journal();
    fake.asked(|asked| *asked == Asked::List).await;
}

#[tokio::test(start_paused = true)]
async fn events_within_the_window_are_delivered_once() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.hang_lists();
    let source = fake.clone();
    let subscribing = tokio::spawn(async move { source.subscribe().await.unwrap() });
    fake.asked(|asked| *asked == Asked::List).await;
    fake.start("web").unwrap();
    fake.create("db").unwrap();
    tokio::time::sleep(secs(1)).await;
    fake.release_lists();
    let mut events = subscribing.await.unwrap();
    // The fake takes its list when it answers: it contains both.
    let beginning = until_synced(&mut events).await.unwrap();
    assert_eq!(
        lines(&beginning),
        ["db[2] existing (running (booted))", "web[1] existing (running (booted))"]
    );
    nothing_within(&mut events, secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_window_delivers_what_the_list_contains_once() {
    let (fake, mut events) = synced().await;
    fake.hang_lists();
    fake.lose_connection();
    listing(&fake).await;
    // Both happen after the list was requested and before it is taken.
    fake.stop("web").unwrap();
    fake.start("web").unwrap();
    tokio::time::sleep(secs(1)).await;
    fake.release_lists();
    let delivered = until_synced(&mut events).await.unwrap();
    assert_eq!(lines(&delivered[1..]), ["web[1] stopped (destroyed)", "web[2] started (booted)"]);
}

#[tokio::test(start_paused = true)]
async fn only_changes_of_the_outage_are_inferred() {
    let (fake, mut events) = synced().await;
    fake.go_down();
    fake.create("hidden").unwrap();
    fake.restore();
    let delivered = until_synced(&mut events).await.unwrap();
    assert_eq!(delivered[1].lifecycle().unwrap().origin, Origin::Inferred);
    fake.create("seen").unwrap();
    crate::delivered(&mut events, &["seen[3] started (booted)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_event_that_repeats_the_list_is_dropped_once() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.single_step();
    let source = fake.clone();
    let mut events = source.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.go_down();
    fake.start("web").unwrap();
    fake.restore();
    delivered(
        &mut events,
        &["disconnected from *", "web[1] started * [inferred]", "synced with *"],
    )
    .await;
    // A server may send the event of a start that its list contained already.
    fake.release();
    fake.lifecycle("web", virevent::Change::Started(virevent::StartCause::Booted)).unwrap();
    nothing_within(&mut events, secs(1)).await.unwrap();
    fake.stop("web").unwrap();
    delivered(&mut events, &["web[1] stopped (destroyed)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_event_right_after_a_sync_is_delivered() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    fake.pm_suspend("web").unwrap();
    let mut events = fake.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    // Neither repeats the list: a wakeup changes the state, and `web` was transient.
    fake.wake_up("web").unwrap();
    fake.define("web").unwrap();
    delivered(&mut events, &["web[1] started (wakeup)", "web* defined (added)"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_of_an_earlier_registration_is_not_held() {
    let (fake, events) = synced().await;
    fake.hang_registrations();
    drop(events);
    fake.asked(|asked| *asked == Asked::Deregister).await;
    let source = fake.clone();
    let subscribing = tokio::spawn(async move { source.subscribe().await.unwrap() });
    // It starts before the deregistration takes effect and ends before the next registration: the
    // end reaches no subscriber.
    fake.create("ghost").unwrap();
    tokio::time::sleep(secs(1)).await;
    fake.single_step();
    fake.stop("ghost").unwrap();
    fake.release_registrations();
    let mut events = subscribing.await.unwrap();
    fake.release();
    delivered(&mut events, &["web[1] existing *", "synced with fake: (1 domain)"]).await;
    nothing_within(&mut events, secs(1)).await.unwrap();
}
