use super::*;
use crate::wire::Message;

fn heard(tracker: &mut RunTracker, name: &str, data: &str) -> Meaning {
    let line = format!(r#"{{"event": "{name}", "data": {data}}}"#);
    match Message::read(line.as_bytes()) {
        Ok(Message::Event(event)) => tracker.observe(&event),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_after_a_pause_stands_when_its_cause_is_told() {
    let mut tracker = RunTracker::new("running");
    assert_eq!(heard(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause);
    heard(&mut tracker, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert_eq!(heard(&mut tracker, "STOP", "{}"), Meaning::Duplicate);
    tracker.take_pause(None);
    assert!(matches!(tracker.state(), State::Crashed(_)));

    let mut tracker = RunTracker::new("running");
    heard(&mut tracker, "STOP", "{}");
    heard(&mut tracker, "RESUME", "{}");
    tracker.take_pause(None);
    assert!(tracker.state().is_running());
}

#[test]
fn an_announced_end_stands_whatever_qemu_calls_itself_on_its_way_out() {
    let mut tracker = RunTracker::new("running");
    heard(&mut tracker, "SHUTDOWN", r#"{"guest": false, "reason": "host-signal"}"#);
    tracker.set_status("prelaunch");
    assert!(matches!(tracker.state(), State::ShuttingDown(_)));
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
    // It was reset and goes on, out of our sight: then it is killed.
    tracker.set_alive();
    tracker.set_status("running");
    assert!(tracker.state().is_running());
    assert_eq!(tracker.stop_cause(), StopCause::Failed);
}

#[test]
fn a_guest_that_goes_on_after_a_panic_can_be_paused_and_ends_as_any_other() {
    for event in ["GUEST_PANICKED", "GUEST_CRASHLOADED"] {
        let mut tracker = RunTracker::new("running");
        heard(&mut tracker, event, r#"{"action": "run"}"#);
        assert_eq!(heard(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause);
        assert_eq!(tracker.stop_cause(), StopCause::Failed);
    }
}

#[test]
fn a_run_state_says_which_announcements_before_it_are_over() {
    use StopCause::{Crashed, Destroyed, Failed, Migrated, Shutdown};
    let announced: [(&str, &str, StopCause); 5] = [
        ("SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#, Shutdown),
        ("SHUTDOWN", r#"{"guest": false, "reason": "host-ui"}"#, Destroyed),
        ("GUEST_PANICKED", r#"{"action": "pause"}"#, Crashed),
        ("WATCHDOG", r#"{"action": "poweroff"}"#, Destroyed),
        ("MIGRATION", r#"{"status": "completed"}"#, Migrated),
    ];
    let over = [
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
            heard(&mut tracker, event, data);
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
        for status in over {
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
fn a_pause_that_was_announced_before_a_look_is_not_the_cause_of_a_later_one() {
    for status in ["running", "prelaunch", "paused", "io-error"] {
        let mut tracker = RunTracker::new("running");
        heard(&mut tracker, "BLOCK_IO_ERROR", r#"{"action": "stop"}"#);
        tracker.set_status(status);
        heard(&mut tracker, "RESUME", "{}");
        tracker.set_status(status);
        assert_eq!(heard(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause, "{status}");
    }
}

#[test]
fn an_event_that_leaves_the_state_open_raises_a_doubt() {
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
    for (event, data, is_in_doubt) in table {
        let mut tracker = RunTracker::new("running");
        heard(&mut tracker, event, data);
        assert_eq!(tracker.take_needs_status(), is_in_doubt, "{event}");
        assert!(!tracker.take_needs_status());
    }
}

#[test]
fn a_run_state_from_before_an_announced_stop_is_passed_over() {
    let mut tracker = RunTracker::new("running");
    heard(&mut tracker, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert!(tracker.is_stale_status("running"));
    assert!(!tracker.is_stale_status("running"));
    heard(&mut tracker, "SUSPEND_DISK", "{}");
    heard(&mut tracker, "SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert!(!tracker.is_stale_status("running"));
}

#[test]
fn a_guest_that_quits_while_it_arrives_elsewhere_has_migrated() {
    let quit = r#"{"guest": false, "reason": "host-qmp-quit"}"#;
    let mut tracker = RunTracker::new("paused");
    tracker.set_status("finish-migrate");
    heard(&mut tracker, "SHUTDOWN", quit);
    assert_eq!(tracker.stop_cause(), StopCause::Migrated);
    // A migration that failed, or was cancelled, leaves the guest here.
    let mut tracker = RunTracker::new("paused");
    tracker.set_status("finish-migrate");
    tracker.set_status("paused");
    heard(&mut tracker, "SHUTDOWN", quit);
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
}

#[test]
fn a_pause_has_the_cause_that_was_announced_or_is_asked_for() {
    let mut tracker = RunTracker::new("running");
    assert_eq!(heard(&mut tracker, "STOP", "{}"), Meaning::PauseWithoutCause);
    assert_eq!(tracker.take_pause(Some("finish-migrate")).to_string(), "suspended (migrated)");
    heard(&mut tracker, "RESUME", "{}");
    heard(&mut tracker, "WATCHDOG", r#"{"action": "pause"}"#);
    let watchdog = Meaning::Change(Change::Suspended(SuspendCause::Watchdog));
    assert_eq!(heard(&mut tracker, "STOP", "{}"), watchdog);
}

#[test]
fn data_of_a_form_never_seen_breaks_nothing() {
    for data in ["[]", "7", r#"{"reason": 3, "guest": "yes"}"#, r#"{"reason": "solar-flare"}"#] {
        let mut tracker = RunTracker::new("running");
        let host = Meaning::Change(Change::ShuttingDown(ShutdownCause::Host));
        assert_eq!(heard(&mut tracker, "SHUTDOWN", data), host);
    }
}

#[test]
fn the_end_of_a_process_that_announced_nothing_is_a_failure() {
    let mut tracker = RunTracker::new("running");
    assert_eq!(tracker.stop_cause(), StopCause::Failed);
    heard(&mut tracker, "WATCHDOG", r#"{"action": "poweroff"}"#);
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
    let mut tracker = RunTracker::new("running");
    heard(&mut tracker, "GUEST_PANICKED", r#"{"action": "run"}"#);
    assert_eq!(tracker.stop_cause(), StopCause::Failed);
}

#[test]
fn a_state_newer_than_this_crate_is_not_running() {
    assert_eq!(state("quantum"), State::Paused(PausedReason::Unspecified));
}

#[test]
fn a_qemu_that_kept_its_guest_after_its_end_and_is_told_to_quit_ends_as_the_guest_did() {
    let quit = r#"{"guest": false, "reason": "host-qmp-quit"}"#;
    let mut tracker = RunTracker::new("running");
    heard(&mut tracker, "SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert_eq!(heard(&mut tracker, "STOP", "{}"), Meaning::Duplicate);
    assert_eq!(heard(&mut tracker, "SHUTDOWN", quit), Meaning::Duplicate);
    assert_eq!(tracker.stop_cause(), StopCause::Shutdown);
    // Of one that is found in this state the guest's end was not seen.
    let mut tracker = RunTracker::new("shutdown");
    assert_eq!(heard(&mut tracker, "SHUTDOWN", quit), Meaning::Duplicate);
    assert_eq!(tracker.stop_cause(), StopCause::Shutdown);

    let mut tracker = RunTracker::new("running");
    heard(&mut tracker, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    let leaves = Meaning::Change(Change::ShuttingDown(ShutdownCause::Host));
    assert_eq!(heard(&mut tracker, "SHUTDOWN", quit), leaves);
    assert_eq!(heard(&mut tracker, "SHUTDOWN", quit), Meaning::Duplicate);
    assert_eq!(tracker.stop_cause(), StopCause::Crashed);
    // One that went on after its crash is destroyed.
    let mut tracker = RunTracker::new("running");
    heard(&mut tracker, "GUEST_PANICKED", r#"{"action": "run"}"#);
    heard(&mut tracker, "SHUTDOWN", quit);
    assert_eq!(tracker.stop_cause(), StopCause::Destroyed);
}
