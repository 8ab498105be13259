//! The causes of pauses and ends.

use virevent::FaultKind;
use virevent_testkit::assert::next_within;

use super::{SHORT, gap, goes_on, next, watched};

#[tokio::test]
async fn an_announcement_is_the_cause_of_the_end() {
    let table = [
        (Some("guest-shutdown"), "web stopped (shutdown)"),
        (Some("host-qmp-quit"), "web stopped (destroyed)"),
        (Some("guest-panic"), "web stopped (crashed)"),
        (Some("host-error"), "web stopped (failed)"),
        (None, "web stopped (failed)"),
    ];
    for (reason, stopped) in table {
        let (qemu, mut events) = watched().await;
        qemu.end(reason);
        if reason.is_some() {
            assert!(next(&mut events).await.starts_with("web shutting_down"));
        }
        assert_eq!(next(&mut events).await, stopped);
        qemu.boot("db").unwrap();
        assert_eq!(next(&mut events).await, "db started (booted)");
    }
}

#[tokio::test]
async fn a_guest_that_left_without_an_event_has_migrated() {
    let (qemu, mut events) = watched().await;
    qemu.set_status("finish-migrate");
    let asked = qemu.calls("query-status");
    qemu.emit("STOP", "");
    assert_eq!(next(&mut events).await, "web suspended (migrated)");
    // Nothing but the run state says that the guest has left: MIGRATION events are off.
    qemu.set_status("postmigrate");
    qemu.until(|qemu| qemu.calls("query-status") > asked + 1).await;
    qemu.end(Some("host-qmp-quit"));
    assert_eq!(next(&mut events).await, "web shutting_down (host)");
    assert_eq!(next(&mut events).await, "web stopped (migrated)");
}

#[tokio::test]
async fn a_guest_that_survives_a_crash_has_the_state_of_qemu() {
    let (qemu, mut events) = watched().await;
    qemu.emit("GUEST_PANICKED", r#"{"action": "run"}"#);
    assert_eq!(next(&mut events).await, "web crashed (panicked)");
    assert_eq!(next(&mut events).await, "web resumed");
    qemu.emit("GUEST_CRASHLOADED", r#"{"action": "run"}"#);
    assert_eq!(next(&mut events).await, "web crashed (crashloaded)");
    goes_on(&qemu, &mut events).await;
    // With `-action panic=pause` the guest stays crashed.
    qemu.set_status("guest-panicked");
    qemu.emit("GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert_eq!(next(&mut events).await, "web crashed (panicked)");
    assert!(next_within(&mut events, SHORT).await.is_err());
    qemu.end(None);
    assert_eq!(next(&mut events).await, "web stopped (crashed)");
}

#[tokio::test]
async fn an_end_cancelled_in_an_outage_is_not_the_next_cause() {
    let (qemu, mut events) = watched().await;
    qemu.emit("SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert_eq!(next(&mut events).await, "web shutting_down (guest)");
    // The guest was reset in the outage: its shutdown is cancelled.
    qemu.set_status("prelaunch");
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert_eq!(next(&mut events).await, "web suspended (paused) [inferred]");
    assert!(next(&mut events).await.starts_with("synced"));
    qemu.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
}

#[tokio::test]
async fn a_pause_without_an_answered_cause_is_delivered() {
    let (qemu, mut events) = watched().await;
    // The question for the cause is never answered: the pause has a deadline of its own.
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    qemu.stop();
    assert_eq!(next(&mut events).await, "web suspended");
    qemu.cont();
    assert_eq!(next(&mut events).await, "web resumed (unpaused)");
}

#[tokio::test]
async fn a_pending_pause_is_delivered_before_the_end() {
    let (qemu, mut events) = watched().await;
    // QEMU closes the connection where the cause of the pause would be answered.
    qemu.change(|faults| faults.hang_up_at = vec!["query-status".into()]);
    qemu.stop();
    assert_eq!(next(&mut events).await, "web suspended");
    qemu.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
}
