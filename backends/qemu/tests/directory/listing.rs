//! What happens while the list of a directory is under way: one that says nothing keeps it open for
//! a second.

use std::fs;
use std::time::Duration;

use virevent::{EventSource, EventStream, Options};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::qmp::FakeQemu;

use super::{TestDirectory, in_short, next};

const MOMENT: Duration = Duration::from_millis(100);

/// A directory with a QEMU, and one that says nothing.
fn place() -> (TestDirectory, FakeQemu, FakeQemu) {
    let place = TestDirectory::new();
    let (web, deaf) = (place.qemu("web"), place.qemu("deaf"));
    deaf.change(|faults| faults.deaf = true);
    (place, web, deaf)
}

/// Begins to subscribe, until `web` is held by it and the list is under way.
async fn begin(place: &TestDirectory, web: &FakeQemu) -> tokio::task::JoinHandle<EventStream> {
    let source = QmpDir::new(&place.uri()).unwrap().source();
    let subscribing =
        tokio::spawn(async move { source.subscribe_with(Options::default()).await.unwrap() });
    web.until(|web| web.calls("query-status") > 0).await;
    tokio::time::sleep(MOMENT).await;
    subscribing
}

async fn existing(events: &mut EventStream) -> Vec<String> {
    until_synced(events).await.unwrap().iter().map(in_short).collect()
}

/// Breaks the connection for good, ends the run, and begins another under its name.
async fn break_and_replace(place: &TestDirectory, web: &FakeQemu) {
    web.change(|faults| faults.hang_up = true);
    web.send(b"nonsense\r\n");
    tokio::time::sleep(MOMENT).await;
    web.kill();
    fs::remove_file(place.path("web.sock")).unwrap();
    tokio::time::sleep(MOMENT).await;
    web.change(|faults| faults.hang_up = false);
    web.boot("web").unwrap();
}

#[tokio::test]
async fn the_end_of_one_run_is_not_the_end_of_the_next() {
    let (place, web, _deaf) = place();
    let subscribing = begin(&place, &web).await;
    break_and_replace(&place, &web).await;
    let mut events = subscribing.await.unwrap();
    assert_eq!(existing(&mut events).await, ["web existing (running)"]);
}

#[tokio::test]
async fn a_state_older_than_the_list_does_not_undo_it() {
    let (place, web, _deaf) = place();
    let subscribing = begin(&place, &web).await;
    web.cut();
    web.until(|web| web.accepted() == 2 && web.is_held()).await;
    tokio::time::sleep(MOMENT).await;
    web.stop();
    let mut events = subscribing.await.unwrap();
    let told = existing(&mut events).await;
    assert!(told[0].starts_with("web existing (paused"), "{told:?}");
}

#[tokio::test]
async fn each_run_is_delivered_once_after_the_directory_returns() {
    let place = TestDirectory::new();
    let web = place.qemu("web");
    let (mut events, existing) = place.watch().await;
    assert_eq!(existing, ["web existing (running)"]);
    let away = place.path("").with_extension("away");
    fs::rename(place.path(""), &away).unwrap();
    fs::write(place.path(""), "").unwrap();
    assert!(next(&mut events).await.contains("disconnected"));
    let deaf = FakeQemu::at(&away.join("deaf.sock"), "deaf").unwrap();
    deaf.change(|faults| faults.deaf = true);
    fs::remove_file(place.path("")).unwrap();
    fs::rename(&away, place.path("")).unwrap();
    deaf.until(|deaf| deaf.accepted() > 0).await;
    break_and_replace(&place, &web).await;
    let mut told = Vec::new();
    while !told.last().is_some_and(|line: &String| line.contains("synced")) {
        told.push(next(&mut events).await);
    }
    let of_web: Vec<_> = told.iter().filter(|line| line.starts_with("web")).collect();
    assert_eq!(of_web.len(), 2, "{told:?}");
    assert!(of_web[0].contains("stopped") && of_web[1].contains("started"), "{told:?}");
}

#[tokio::test]
async fn a_subscription_does_not_wait_for_an_abandoned_list() {
    let (place, _web, _deaf) = place();
    let source = QmpDir::new(&place.uri()).unwrap().source();
    let given_up = source.subscribe_with(Options::default());
    assert!(tokio::time::timeout(MOMENT * 3, given_up).await.is_err());
    let second = source.subscribe_with(Options::default());
    let mut events = tokio::time::timeout(Duration::from_secs(10), second).await.unwrap().unwrap();
    assert_eq!(existing(&mut events).await, ["web existing (running)"]);
}

#[tokio::test]
async fn an_unreadable_directory_is_never_an_empty_one() {
    let place = TestDirectory::new();
    let _web = place.qemu("web");
    let source = QmpDir::new(&place.uri()).unwrap().source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    existing(&mut events).await;
    fs::rename(place.path(""), place.path("").with_extension("away")).unwrap();
    fs::write(place.path(""), "").unwrap();
    drop(events);
    match source.subscribe_with(Options::default()).await {
        Err(error) => assert!(error.to_string().contains("not a directory"), "{error}"),
        Ok(mut events) => {
            let first = next_within(&mut events, Duration::from_secs(10)).await.unwrap();
            assert!(first.to_string().contains("disconnected"), "{first}");
        }
    }
}

#[tokio::test]
async fn a_crash_during_the_first_questions_is_delivered_once() {
    let place = TestDirectory::new();
    let (mut events, _) = place.watch().await;
    let web = FakeQemu::absent_at(&place.path("web.sock"));
    let panic = br#"{"timestamp": {"seconds": 1795333210, "microseconds": 380905}, "event": "GUEST_PANICKED", "data": {"action": "pause"}}
{"timestamp": {"seconds": 1795333210, "microseconds": 380906}, "event": "STOP"}
"#;
    web.change(|faults| faults.before.insert("query-status".into(), panic.to_vec()));
    web.boot("web").unwrap();
    web.set_status("guest-panicked");
    assert_eq!(next(&mut events).await, "web started (booted)");
    assert_eq!(next(&mut events).await, "web crashed (panicked)");
    web.change(|faults| faults.before.clear());
    web.end(Some("host-qmp-quit"));
    assert!(!next(&mut events).await.contains("crashed (panicked)"));
}
