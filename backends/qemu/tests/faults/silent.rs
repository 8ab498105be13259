//! Changes without an event: only the run state shows them.

use virevent::driver::{Driver, Settings};
use virevent::{EventSource, EventStream};
use virevent_qemu::Qmp;
use virevent_testkit::assert::until_synced;
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{PATIENCE, SHORT, all, client, next};

/// A running `web` that is asked for its run state at short intervals.
async fn asked() -> (FakeQemu, EventStream) {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, 100 * SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (qemu, events)
}

#[tokio::test]
async fn a_silent_change_is_delivered_at_the_next_keepalive() {
    let (qemu, mut events) = asked().await;
    let table = [
        ("paused", "web suspended (paused)"),
        ("running", "web resumed"),
        ("io-error", "web suspended (ioerror)"),
        ("suspended", "web pm_suspended"),
        ("running", "web started (wakeup)"),
        ("guest-panicked", "web crashed (panicked)"),
        ("prelaunch", "web suspended"),
        ("shutdown", "web shutting_down"),
    ];
    for (status, delivered) in table {
        qemu.set_status(status);
        let event = next(&mut events).await;
        assert!(event.starts_with(delivered), "{status}: {event}");
    }
}

#[tokio::test]
async fn a_silent_change_is_delivered_during_a_flood_of_events() {
    let (qemu, mut events) = asked().await;
    qemu.set_status("paused");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut delivered = String::new();
    while !delivered.contains("suspended") {
        assert!(tokio::time::Instant::now() < deadline, "only events were delivered, and no state");
        // Each event is a sign of life, and must not put off the question for the run state.
        qemu.emit("POWERDOWN", "");
        delivered = next(&mut events).await;
    }
}

/// A source without a keepalive that verifies at short intervals.
fn verified(client: Qmp) -> Driver {
    client
        .keepalive(10 * PATIENCE, PATIENCE)
        .settings(Settings::default().verify(Some(SHORT)))
        .source()
}

#[tokio::test]
async fn a_silent_change_is_delivered_by_verification() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = verified(client(&qemu));
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.set_status("suspended");
    assert!(next(&mut events).await.starts_with("web pm_suspended"));
    qemu.set_status("shutdown");
    assert!(next(&mut events).await.starts_with("web shutting_down"));
}

#[tokio::test]
async fn verification_of_an_unchanged_qemu_delivers_nothing() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = verified(client(&qemu));
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let asked = qemu.calls("query-status");
    qemu.until(|qemu| qemu.calls("query-status") > asked + 3).await;
    assert_eq!((source.counters().events, source.counters().corrected), (0, 0));
    qemu.stop();
    assert_eq!(next(&mut events).await, "web suspended (paused)");
}

#[tokio::test]
async fn an_unchanged_qemu_delivers_nothing() {
    let (qemu, mut events) = asked().await;
    let asked = qemu.calls("query-status");
    // Several answers that say the same, and then an event that would come after any of theirs.
    qemu.until(|qemu| qemu.calls("query-status") > asked + 3).await;
    qemu.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
}

#[tokio::test]
async fn an_event_that_leaves_the_state_open_asks_for_the_run_state() {
    // The state before, the event and its change, the state after, and the change that leads there.
    let table = [
        ("paused", "RESUME", "web resumed (unpaused)", "suspended", "web pm_suspended"),
        ("suspended", "WAKEUP", "web started (wakeup)", "postmigrate", "web suspended (migrated)"),
        ("suspended", "RESET", "web rebooted", "prelaunch", "web suspended (paused)"),
    ];
    for (before, event, delivered, after, then) in table {
        let qemu = FakeQemu::start("web").unwrap();
        qemu.set_status(before);
        // The keepalive is too slow to find the state.
        let source = client(&qemu).keepalive(10 * PATIENCE, PATIENCE).source();
        let mut events = source.subscribe_with(all()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        qemu.set_status(after);
        qemu.emit(event, r#"{"guest": true}"#);
        assert_eq!(next(&mut events).await, delivered);
        assert_eq!(next(&mut events).await, then, "after {event}");
    }
}
