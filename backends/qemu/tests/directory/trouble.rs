//! QEMUs that are out of reach, or that cannot be told apart.

use std::time::{Duration, Instant};

use virevent_qemu::QmpDir;
use virevent_testkit::assert::next_within;
use virevent_testkit::qmp::FakeQemu;

use super::{PATIENCE, Place, SILENCE, goes_on, in_short, next, watch};

#[tokio::test]
async fn a_monitor_that_is_held_holds_up_no_other_and_is_told_as_a_gap_of_its_own() {
    let place = Place::new();
    let (_web, held) = (place.qemu("web"), place.qemu("held"));
    held.change(|faults| faults.deaf = true);
    let began = Instant::now();
    let (mut events, existing) = place.watch().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(existing, ["web existing (running)"]);
    let gap = next_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(in_short(&gap), "lost sight of domain held");
    let _db = place.qemu("db");
    assert_eq!(next(&mut events).await, "db started (booted)");
    held.change(|faults| faults.deaf = false);
    held.cut();
    assert_eq!(next(&mut events).await, "held started (booted) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain held");
    goes_on(&held, "held", &mut events).await;
}

#[tokio::test]
async fn a_held_monitor_whose_qemu_goes_leaves_no_gap_behind() {
    let place = Place::new();
    let held = place.qemu("held");
    held.change(|faults| faults.deaf = true);
    let (mut events, existing) = place.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    assert_eq!(next(&mut events).await, "lost sight of domain held");
    held.end(None);
    assert_eq!(next(&mut events).await, "synced with domain held");
}

#[tokio::test]
async fn a_gap_in_one_delays_no_other() {
    let place = Place::new();
    let (web, db) = (place.qemu("web"), place.qemu("db"));
    let (mut events, _) = place.watch().await;
    db.change(|faults| faults.hang_up = true);
    db.cut();
    goes_on(&web, "web", &mut events).await;
    assert_eq!(next(&mut events).await, "lost sight of domain db");
    goes_on(&web, "web", &mut events).await;
    db.set_status("paused");
    db.change(|faults| faults.hang_up = false);
    assert_eq!(next(&mut events).await, "db suspended (paused) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain db");
}

#[tokio::test]
async fn who_subscribes_later_is_told_what_is_out_of_reach() {
    let place = Place::new();
    let (_web, db) = (place.qemu("web"), place.qemu("db"));
    let source = QmpDir::new(&place.uri()).unwrap().source();
    let (mut events, _) = watch(&source).await;
    db.change(|faults| faults.hang_up = true);
    db.cut();
    assert_eq!(next(&mut events).await, "lost sight of domain db");
    let (mut later, existing) = watch(&source).await;
    assert_eq!(existing, ["db existing (running)", "web existing (running)"]);
    assert_eq!(next(&mut later).await, "lost sight of domain db");
}

#[tokio::test]
async fn of_two_qemus_with_one_uuid_the_second_gets_one_of_its_own() {
    let place = Place::new();
    let one = place.qemu("web");
    let (mut events, _) = place.watch().await;
    let two = FakeQemu::at(&place.path("copy.sock"), "web").unwrap();
    let started = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&started), "web started (booted)");
    one.end(None);
    let stopped = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&stopped), "web stopped (failed)");
    assert!(!started.domain().unwrap().is_same(stopped.domain().unwrap()));
    goes_on(&two, "web", &mut events).await;
}
