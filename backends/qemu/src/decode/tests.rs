use super::*;
use crate::wire::Message;

fn observe(tracker: &mut RunTracker, name: &str, data: &str) -> Meaning {
    let line = format!(r#"{{"event": "{name}", "data": {data}}}"#);
    match Message::read(line.as_bytes()) {
        Ok(Message::Event(event)) => tracker.observe(&event),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_pause_cause_keeps_the_events_after_the_pause() {
    let mut tracker = RunTracker::new("running");
    assert_eq!(observe(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause);
    observe(&mut tracker, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert_eq!(observe(&mut tracker, "STOP", "{}"), Meaning::Duplicate);
    tracker.take_pause(None);
    assert!(matches!(tracker.state(), State::Crashed(_)));

    let mut tracker = RunTracker::new("running");
    observe(&mut tracker, "STOP", "{}");
    observe(&mut tracker, "RESUME", "{}");
    tracker.take_pause(None);
    assert!(tracker.state().is_running());
}

#[test]
fn an_announced_end_outlasts_later_run_states() {
    let mut tracker = RunTracker::new("running");
    observe(&mut tracker, "SHUTDOWN", r#"{"guest": false, "reason": "host-signal"}"#);
    tracker.set_status("prelaunch");
    assert!(matches!(tracker.state(), State::ShuttingDown(_)));
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
    // It was reset while there was no connection, and is killed later.
    tracker.set_alive();
    tracker.set_status("running");
    assert!(tracker.state().is_running());
    assert_eq!(tracker.stop_cause(), StopCause::Failed);
}

#[test]
fn a_guest_that_survives_a_panic_can_be_paused() {
    for event in ["GUEST_PANICKED", "GUEST_CRASHLOADED"] {
        let mut tracker = RunTracker::new("running");
        observe(&mut tracker, event, r#"{"action": "run"}"#);
        assert_eq!(observe(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause);
        assert_eq!(tracker.stop_cause(), StopCause::Failed);
    }
}

#[test]
fn a_run_state_cancels_announcements_that_cannot_lead_to_it() {
    use StopCause::{Crashed, Destroyed, Failed, Migrated, Shutdown};
    let announced: [(&str, &str, StopCause); 5] = [
        ("SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#, Shutdown),
        ("SHUTDOWN", r#"{"guest": false, "reason": "host-ui"}"#, Destroyed),
        ("GUEST_PANICKED", r#"{"action": "pause"}"#, Crashed),
        ("WATCHDOG", r#"{"action": "poweroff"}"#, Destroyed),
        ("MIGRATION", r#"{"status": "completed"}"#, Migrated),
    ];
    let cancelling = [
        "running",
        "prelaunch",
        "inmigrate",
        "paused",
        "suspended",
        "debug",
        "io-error",
        "internal-error",
        "watchdog",
        "save-vm",
        "restore-vm",
        "colo",
    ];
    for (event, data, cause) in announced {
        let announcing = || {
            let mut tracker = RunTracker::new("paused");
            observe(&mut tracker, event, data);
            assert_eq!(tracker.stop_cause(), cause);
            // On a new connection.
            tracker.set_alive();
            tracker
        };
        let ends = |status: &str| {
            let mut tracker = announcing();
            tracker.set_status(status);
            tracker.stop_cause()
        };
        for status in cancelling {
            assert_eq!(ends(status), Failed, "{event}, then {status}");
        }
        for status in ["finish-migrate", "quantum"] {
            assert_eq!(ends(status), cause, "{event}, then {status}");
        }
        assert_eq!(ends("guest-panicked"), Crashed, "{event}");
        assert_eq!(ends("postmigrate"), Migrated, "{event}");
        let kept = if cause == Destroyed { Destroyed } else { Shutdown };
        assert_eq!(ends("shutdown"), kept, "{event}");
    }
}

#[test]
fn a_run_state_cancels_an_announced_pause_cause() {
    for status in ["running", "prelaunch", "paused", "io-error"] {
        let mut tracker = RunTracker::new("running");
        observe(&mut tracker, "BLOCK_IO_ERROR", r#"{"action": "stop"}"#);
        tracker.set_status(status);
        observe(&mut tracker, "RESUME", "{}");
        tracker.set_status(status);
        assert_eq!(observe(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause, "{status}");
    }
}

#[test]
fn an_event_that_leaves_the_state_open_needs_the_run_state() {
    let table = [
        ("RESUME", "{}", true),
        ("WAKEUP", "{}", true),
        ("RESET", "{}", true),
        ("STOP", "{}", true),
        ("GUEST_PANICKED", r#"{"action": "run"}"#, true),
        ("GUEST_PANICKED", r#"{"action": "pause"}"#, false),
        ("SUSPEND", "{}", false),
        ("SHUTDOWN", "{}", false),
        ("RTC_CHANGE", "{}", false),
    ];
    for (event, data, needs_status) in table {
        let mut tracker = RunTracker::new("running");
        observe(&mut tracker, event, data);
        assert_eq!(tracker.take_needs_status(), needs_status, "{event}");
        assert!(!tracker.take_needs_status());
    }
}

#[test]
fn a_run_state_older_than_an_announcement_is_ignored_once() {
    let mut tracker = RunTracker::new("running");
    observe(&mut tracker, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert!(tracker.is_stale_status("running"));
    assert!(!tracker.is_stale_status("running"));
    observe(&mut tracker, "SUSPEND_DISK", "{}");
    observe(&mut tracker, "SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert!(!tracker.is_stale_status("running"));
}

#[test]
fn a_quit_during_finish_migrate_is_a_migration() {
    let quit = r#"{"guest": false, "reason": "host-qmp-quit"}"#;
    let mut tracker = RunTracker::new("paused");
    tracker.set_status("finish-migrate");
    observe(&mut tracker, "SHUTDOWN", quit);
    assert_eq!(tracker.stop_cause(), StopCause::Migrated);
    // A migration that failed or was cancelled leaves the guest on the source.
    let mut tracker = RunTracker::new("paused");
    tracker.set_status("finish-migrate");
    tracker.set_status("paused");
    observe(&mut tracker, "SHUTDOWN", quit);
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
}

#[test]
fn a_pause_has_the_announced_cause_or_asks_for_it() {
    let mut tracker = RunTracker::new("running");
    assert_eq!(observe(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause);
    assert_eq!(tracker.take_pause(Some("finish-migrate")).to_string(), "suspended (migrated)");
    observe(&mut tracker, "RESUME", "{}");
    observe(&mut tracker, "WATCHDOG", r#"{"action": "pause"}"#);
    let watchdog = Meaning::Change(Change::Suspended(SuspendCause::Watchdog));
    assert_eq!(observe(&mut tracker, "STOP", "{}"), watchdog);
}

#[test]
fn event_data_of_an_unknown_form_counts_as_empty() {
    for data in ["[]", "7", r#"{"reason": 3, "guest": "yes"}"#, r#"{"reason": "solar-flare"}"#] {
        let mut tracker = RunTracker::new("running");
        let host = Meaning::Change(Change::ShuttingDown(ShutdownCause::Host));
        assert_eq!(observe(&mut tracker, "SHUTDOWN", data), host);
    }
}

#[test]
fn an_unannounced_end_is_a_failure() {
    let mut tracker = RunTracker::new("running");
    assert_eq!(tracker.stop_cause(), StopCause::Failed);
    observe(&mut tracker, "WATCHDOG", r#"{"action": "poweroff"}"#);
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
    let mut tracker = RunTracker::new("running");
    observe(&mut tracker, "GUEST_PANICKED", r#"{"action": "run"}"#);
    assert_eq!(tracker.stop_cause(), StopCause::Failed);
}

#[test]
fn an_unknown_run_state_is_not_running() {
    assert_eq!(state("quantum"), State::Paused(PausedReason::Unspecified));
}

#[test]
fn a_quit_after_no_shutdown_keeps_the_cause_of_the_guest() {
    let quit = r#"{"guest": false, "reason": "host-qmp-quit"}"#;
    let mut tracker = RunTracker::new("running");
    observe(&mut tracker, "SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert_eq!(observe(&mut tracker, "STOP", "{}"), Meaning::Duplicate);
    assert_eq!(observe(&mut tracker, "SHUTDOWN", quit), Meaning::Duplicate);
    assert_eq!(tracker.stop_cause(), StopCause::Shutdown);
    // The guest's shutdown was before the connection.
    let mut tracker = RunTracker::new("shutdown");
    assert_eq!(observe(&mut tracker, "SHUTDOWN", quit), Meaning::Duplicate);
    assert_eq!(tracker.stop_cause(), StopCause::Shutdown);

    let mut tracker = RunTracker::new("running");
    observe(&mut tracker, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    let leaves = Meaning::Change(Change::ShuttingDown(ShutdownCause::Host));
    assert_eq!(observe(&mut tracker, "SHUTDOWN", quit), leaves);
    assert_eq!(observe(&mut tracker, "SHUTDOWN", quit), Meaning::Duplicate);
    assert_eq!(tracker.stop_cause(), StopCause::Crashed);
    // A guest that survived its panic is destroyed.
    let mut tracker = RunTracker::new("running");
    observe(&mut tracker, "GUEST_PANICKED", r#"{"action": "run"}"#);
    observe(&mut tracker, "SHUTDOWN", quit);
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
}
