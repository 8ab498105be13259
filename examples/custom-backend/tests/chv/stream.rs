//! What is delivered, and in which order.

use std::time::Duration;

use futures::StreamExt;
use virevent::{EventSource, EventSourceExt, Kind, Kinds, Options};
use virevent_testkit::assert::{expect_sequence, nothing_within, until_synced};

use crate::fake::{Fake, event, event_with};

#[tokio::test]
async fn a_vm_exists_then_its_events_are_delivered() {
    let fake = Fake::start("web");
    fake.boot();
    let mut events = fake.source().subscribe().await.unwrap();
    expect_sequence(&mut events, &["web[*] existing (running (booted))", "synced with chv:*"])
        .await
        .unwrap();
    fake.shut_down();
    fake.enter(None, &["deleted"]);
    fake.boot();
    let expected = [
        "web[*] stopped (shutdown)",
        "web undefined (removed)",
        "web defined (added)",
        "web[*] started (booted)",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
}

#[tokio::test]
async fn the_first_run_has_the_process_id() {
    let fake = Fake::start("web");
    fake.boot();
    let mut events = fake.source().subscribe().await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    assert_eq!(existing[0].domain().unwrap().id(), Some(std::process::id()));
}

#[tokio::test]
async fn unknown_events_are_other_for_those_that_ask() {
    let fake = Fake::start("web");
    fake.boot();
    let source = fake.source();
    let mut common = source.subscribe().await.unwrap();
    let mut all = source.subscribe_with(Options::default().kinds(Kinds::all())).await.unwrap();
    until_synced(&mut common).await.unwrap();
    until_synced(&mut all).await.unwrap();
    let properties = "{\n    \"id\": \"_disk0\"\n  }";
    fake.write(&event_with("virtio-device", "activated", properties));
    fake.write(&event_with("vm", "device-removed", properties));
    let expected =
        ["web[*] event virtio-device/activated {*_disk0*}", "web[*] device-removed _disk0"];
    expect_sequence(&mut all, &expected).await.unwrap();
    nothing_within(&mut common, Duration::from_millis(100)).await.unwrap();
}

#[tokio::test]
async fn an_unknown_event_is_asked_for_by_its_name() {
    let fake = Fake::start("web");
    let kind: Kind = "other:vm/resized".parse().unwrap();
    let source = fake.source();
    let mut events = source.subscribe_with(Options::default().kinds([kind])).await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.enter(None, &["resizing", "resized"]);
    expect_sequence(&mut events, &["web event vm/resized null"]).await.unwrap();
}

#[tokio::test]
async fn a_reply_that_overtakes_an_event_is_asked_for_again() {
    let fake = Fake::start("web");
    fake.enter(Some("Running"), &[]);
    fake.vm().late = Some([event("vm", "booting"), event("vm", "booted")].concat());
    let mut events = fake.source().subscribe().await.unwrap();
    // The reason is known from the event, and the run is delivered once.
    let expected = ["web[*] existing (running (booted))", "synced with chv:*"];
    expect_sequence(&mut events, &expected).await.unwrap();
    assert!(fake.vm().calls >= 2);
}

#[tokio::test]
async fn a_run_without_an_event_is_believed_in_the_end() {
    let fake = Fake::start("web");
    fake.enter(Some("Running"), &[]);
    let mut events = fake.source().subscribe().await.unwrap();
    let expected = ["web[*] existing (running)", "synced with chv:*"];
    expect_sequence(&mut events, &expected).await.unwrap();
}

#[tokio::test]
async fn an_end_in_an_outage_keeps_its_cause() {
    let fake = Fake::start("web");
    fake.boot();
    let mut events = fake.source().subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.go_down();
    expect_sequence(&mut events, &["disconnected from *"]).await.unwrap();
    fake.write(&event_with("guest", "panic", "{\n    \"event\": \"panic\"\n  }"));
    fake.shut_down();
    fake.come_back();
    let expected = ["web[*] stopped (crashed) [inferred]", "synced with chv:*"];
    expect_sequence(&mut events, &expected).await.unwrap();
}

/// Each subscription and each drop is a command, for which the driver drops `advance`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_advance_loses_no_event() {
    let fake = Fake::start("web");
    fake.boot();
    let source = fake.source();
    let mut events = source.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    let disturb = tokio::spawn({
        let source = source.clone();
        async move {
            loop {
                drop(source.subscribe().await.unwrap());
            }
        }
    });
    let bytes = [event("vm", "paused"), event("vm", "resumed")].concat().repeat(200);
    let mut random = fastrand::Rng::with_seed(1);
    let mut rest = &bytes[..];
    let mut changes = Vec::new();
    while changes.len() < 400 {
        let (now, later) = rest.split_at(random.usize(0..=300).min(rest.len()));
        rest = later;
        fake.write(now);
        if rest.is_empty() {
            changes.extend(events.next().await.unwrap().change());
        }
        tokio::task::yield_now().await;
    }
    disturb.abort();
    let is_right = |pair: &[virevent::Change]| {
        matches!(pair, [virevent::Change::Suspended(_), virevent::Change::Resumed(_)])
    };
    assert!(changes.chunks(2).all(is_right), "{changes:?}");
    assert_eq!(source.counters().gaps, 0);
}
