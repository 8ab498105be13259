use super::*;
use crate::wire::Message;

fn heard(story: &mut Story, name: &str, data: &str) -> Said {
    let line = format!(r#"{{"event": "{name}", "data": {data}}}"#);
    match Message::read(line.as_bytes()) {
        Ok(Message::Event(event)) => story.hear(&event),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_after_a_pause_stands_when_its_cause_is_told() {
    let mut story = Story::new("running");
    assert_eq!(heard(&mut story, "STOP", "{}"), Said::Ask);
    heard(&mut story, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert_eq!(heard(&mut story, "STOP", "{}"), Said::Nothing);
    story.paused(None);
    assert!(matches!(story.state(), State::Crashed(_)));

    let mut story = Story::new("running");
    heard(&mut story, "STOP", "{}");
    heard(&mut story, "RESUME", "{}");
    story.paused(None);
    assert!(story.state().is_running());
}

#[test]
fn an_announced_end_stands_whatever_qemu_calls_itself_on_its_way_out() {
    let mut story = Story::new("running");
    heard(&mut story, "SHUTDOWN", r#"{"guest": false, "reason": "host-signal"}"#);
    story.look("prelaunch");
    assert!(matches!(story.state(), State::ShuttingDown(_)));
    assert_eq!(story.stop_cause(), StopCause::Destroyed);
    // It was reset and goes on, out of our sight: then it is killed.
    story.lives();
    story.look("running");
    assert!(story.state().is_running());
    assert_eq!(story.stop_cause(), StopCause::Failed);
}

#[test]
fn a_guest_that_goes_on_after_a_panic_can_be_paused_and_ends_as_any_other() {
    for event in ["GUEST_PANICKED", "GUEST_CRASHLOADED"] {
        let mut story = Story::new("running");
        heard(&mut story, event, r#"{"action": "run"}"#);
        assert_eq!(heard(&mut story, "STOP", "{}"), Said::Ask);
        assert_eq!(story.stop_cause(), StopCause::Failed);
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
            let mut story = Story::new("paused");
            heard(&mut story, event, data);
            assert_eq!(story.stop_cause(), cause);
            // On a new connection.
            story.lives();
            story
        };
        let ends = |status: &str| {
            let mut story = announcing();
            story.look(status);
            story.stop_cause()
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
        let mut story = Story::new("running");
        heard(&mut story, "BLOCK_IO_ERROR", r#"{"action": "stop"}"#);
        story.look(status);
        heard(&mut story, "RESUME", "{}");
        story.look(status);
        assert_eq!(heard(&mut story, "STOP", "{}"), Said::Ask, "{status}");
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
        let mut story = Story::new("running");
        heard(&mut story, event, data);
        assert_eq!(story.take_doubt(), is_in_doubt, "{event}");
        assert!(!story.take_doubt());
    }
}

#[test]
fn a_run_state_from_before_an_announced_stop_is_passed_over() {
    let mut story = Story::new("running");
    heard(&mut story, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert!(story.is_before_announced("running"));
    assert!(!story.is_before_announced("running"));
    heard(&mut story, "SUSPEND_DISK", "{}");
    heard(&mut story, "SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert!(!story.is_before_announced("running"));
}

#[test]
fn a_guest_that_quits_while_it_arrives_elsewhere_has_migrated() {
    let quit = r#"{"guest": false, "reason": "host-qmp-quit"}"#;
    let mut story = Story::new("paused");
    story.look("finish-migrate");
    heard(&mut story, "SHUTDOWN", quit);
    assert_eq!(story.stop_cause(), StopCause::Migrated);
    // A migration that failed, or was cancelled, leaves the guest here.
    let mut story = Story::new("paused");
    story.look("finish-migrate");
    story.look("paused");
    heard(&mut story, "SHUTDOWN", quit);
    assert_eq!(story.stop_cause(), StopCause::Destroyed);
}

#[test]
fn a_pause_has_the_cause_that_was_announced_or_is_asked_for() {
    let mut story = Story::new("running");
    assert_eq!(heard(&mut story, "STOP", "{}"), Said::Ask);
    assert_eq!(story.paused(Some("finish-migrate")).to_string(), "suspended (migrated)");
    heard(&mut story, "RESUME", "{}");
    heard(&mut story, "WATCHDOG", r#"{"action": "pause"}"#);
    let watchdog = Said::Change(Change::Suspended(SuspendCause::Watchdog));
    assert_eq!(heard(&mut story, "STOP", "{}"), watchdog);
}

#[test]
fn data_of_a_form_never_seen_breaks_nothing() {
    for data in ["[]", "7", r#"{"reason": 3, "guest": "yes"}"#, r#"{"reason": "solar-flare"}"#] {
        let mut story = Story::new("running");
        let host = Said::Change(Change::ShuttingDown(ShutdownCause::Host));
        assert_eq!(heard(&mut story, "SHUTDOWN", data), host);
    }
}

#[test]
fn the_end_of_a_process_that_announced_nothing_is_a_failure() {
    let mut story = Story::new("running");
    assert_eq!(story.stop_cause(), StopCause::Failed);
    heard(&mut story, "WATCHDOG", r#"{"action": "poweroff"}"#);
    assert_eq!(story.stop_cause(), StopCause::Destroyed);
    let mut story = Story::new("running");
    heard(&mut story, "GUEST_PANICKED", r#"{"action": "run"}"#);
    assert_eq!(story.stop_cause(), StopCause::Failed);
}

#[test]
fn a_state_newer_than_this_crate_is_not_running() {
    assert_eq!(state("quantum"), State::Paused(PausedReason::Unspecified));
}

#[test]
fn a_qemu_that_kept_its_guest_after_its_end_and_is_told_to_quit_ends_as_the_guest_did() {
    let quit = r#"{"guest": false, "reason": "host-qmp-quit"}"#;
    let mut story = Story::new("running");
    heard(&mut story, "SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert_eq!(heard(&mut story, "STOP", "{}"), Said::Nothing);
    assert_eq!(heard(&mut story, "SHUTDOWN", quit), Said::Nothing);
    assert_eq!(story.stop_cause(), StopCause::Shutdown);
    // Of one that is found in this state the guest's end was not seen.
    let mut story = Story::new("shutdown");
    assert_eq!(heard(&mut story, "SHUTDOWN", quit), Said::Nothing);
    assert_eq!(story.stop_cause(), StopCause::Shutdown);

    let mut story = Story::new("running");
    heard(&mut story, "GUEST_PANICKED", r#"{"action": "pause"}"#);
    let leaves = Said::Change(Change::ShuttingDown(ShutdownCause::Host));
    assert_eq!(heard(&mut story, "SHUTDOWN", quit), leaves);
    assert_eq!(heard(&mut story, "SHUTDOWN", quit), Said::Nothing);
    assert_eq!(story.stop_cause(), StopCause::Crashed);
    // One that went on after its crash is destroyed.
    let mut story = Story::new("running");
    heard(&mut story, "GUEST_PANICKED", r#"{"action": "run"}"#);
    heard(&mut story, "SHUTDOWN", quit);
    assert_eq!(story.stop_cause(), StopCause::Destroyed);
}
