//! Changes while the first list of a directory is under way: a silent socket keeps it open for a
//! second.

use std::fs;
use std::time::Duration;

use virevent::{EventSource, EventStream, Options};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{TestDirectory, in_short, next};

const MOMENT: Duration = Duration::from_millis(100);

/// A directory with a QEMU and a silent socket.
fn web_and_silent() -> (TestDirectory, FakeQemu, FakeQemu) {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let deaf = directory.qemu("deaf");
    deaf.change(|faults| faults.deaf = true);
    (directory, web, deaf)
}

/// Begins to subscribe, and waits until the monitor of `web` is held and the list is under way.
async fn begin(directory: &TestDirectory, web: &FakeQemu) -> tokio::task::JoinHandle<EventStream> {
    let source = QmpDir::new(&directory.uri()).unwrap().source();
    let subscribing =
        tokio::spawn(async move { source.subscribe_with(Options::default()).await.unwrap() });
    web.until(|web| web.calls("query-status") > 0).await;
    tokio::time::sleep(MOMENT).await;
    subscribing
}

async fn existing(events: &mut EventStream) -> Vec<String> {
    until_synced(events).await.unwrap().iter().map(in_short).collect()
}

/// Breaks the connection for good, ends the run, and starts another with its name.
async fn break_and_replace(directory: &TestDirectory, web: &FakeQemu) {
    web.change(|faults| faults.hang_up = true);
    web.send(b"nonsense\r\n");
    tokio::time::sleep(MOMENT).await;
    web.kill();
    fs::remove_file(directory.path("web.sock")).unwrap();
    tokio::time::sleep(MOMENT).await;
    web.change(|faults| faults.hang_up = false);
    web.boot("web").unwrap();
}

#[tokio::test]
async fn the_end_of_one_run_is_not_the_end_of_the_next() {
    let (directory, web, _deaf) = web_and_silent();
    let subscribing = begin(&directory, &web).await;
    break_and_replace(&directory, &web).await;
    let mut events = subscribing.await.unwrap();
    assert_eq!(existing(&mut events).await, ["web existing (running)"]);
}

#[tokio::test]
async fn a_state_older_than_the_list_does_not_undo_it() {
    let (directory, web, _deaf) = web_and_silent();
    let subscribing = begin(&directory, &web).await;
    web.cut();
    web.until(|web| web.accepted() == 2 && web.is_held()).await;
    tokio::time::sleep(MOMENT).await;
    web.stop();
    let mut events = subscribing.await.unwrap();
    let delivered = existing(&mut events).await;
    assert!(delivered[0].starts_with("web existing (paused"), "{delivered:?}");
}

#[tokio::test]
async fn each_run_is_delivered_once_after_the_directory_returns() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let (mut events, existing) = directory.watch().await;
    assert_eq!(existing, ["web existing (running)"]);
    let away = directory.path("").with_extension("away");
    fs::rename(directory.path(""), &away).unwrap();
    fs::write(directory.path(""), "").unwrap();
    assert!(next(&mut events).await.contains("disconnected"));
    let deaf = FakeQemu::at(&away.join("deaf.sock"), "deaf").unwrap();
    deaf.change(|faults| faults.deaf = true);
    fs::remove_file(directory.path("")).unwrap();
    fs::rename(&away, directory.path("")).unwrap();
    deaf.until(|deaf| deaf.accepted() > 0).await;
    break_and_replace(&directory, &web).await;
    let mut delivered = Vec::new();
    while !delivered.last().is_some_and(|line: &String| line.contains("synced")) {
        delivered.push(next(&mut events).await);
    }
    let of_web: Vec<_> = delivered.iter().filter(|line| line.starts_with("web")).collect();
    assert_eq!(of_web.len(), 2, "{delivered:?}");
    assert!(of_web[0].contains("stopped") && of_web[1].contains("started"), "{delivered:?}");
}

#[tokio::test]
async fn a_subscription_does_not_wait_for_an_abandoned_list() {
    let (directory, _web, _deaf) = web_and_silent();
    let source = QmpDir::new(&directory.uri()).unwrap().source();
    let given_up = source.subscribe_with(Options::default());
    assert!(tokio::time::timeout(MOMENT * 3, given_up).await.is_err());
    let second = source.subscribe_with(Options::default());
    let mut events = tokio::time::timeout(Duration::from_secs(10), second).await.unwrap().unwrap();
    assert_eq!(existing(&mut events).await, ["web existing (running)"]);
}

#[tokio::test]
async fn an_unreadable_directory_is_never_an_empty_one() {
    let directory = TestDirectory::new();
    let _web = directory.qemu("web");
    let source = QmpDir::new(&directory.uri()).unwrap().source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    existing(&mut events).await;
    // A file in place of the directory makes it unreadable for root, too.
    fs::rename(directory.path(""), directory.path("").with_extension("away")).unwrap();
    fs::write(directory.path(""), "").unwrap();
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
    let directory = TestDirectory::new();
    let (mut events, _) = directory.watch().await;
    let web = FakeQemu::absent_at(&directory.path("web.sock"));
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
