//! Recorded sessions of a real QEMU, whole and in pieces, against what they are to become.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fastrand::Rng;
use virevent_qemu::decode::{Meaning, RunTracker};
use virevent_qemu::wire::{Lines, Message, Reply};

macro_rules! session {
    ($name:literal) => {
        bytes(include_str!(concat!("vectors/qmp-", $name, ".jsonl")))
    };
}

/// What QEMU sent.
fn bytes(recorded: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in recorded.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["dir"] == "s2c" {
            let hex = line["hex"].as_str().unwrap();
            let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            bytes.extend((0..hex.len()).step_by(2).map(digits));
        }
    }
    bytes
}

/// What a session tells, read in pieces of at most `piece` bytes, up to the end of the process. The
/// client that was recorded asks for the run state after most steps, and some before the first event: that
/// answers for ours, too.
fn told(bytes: &[u8], piece: usize, random: &mut Rng) -> Vec<String> {
    let (mut lines, mut told, mut rest) = (Lines::new(), Vec::new(), bytes);
    let (mut tracker, mut asked) = (RunTracker::new("prelaunch"), false);
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(random.usize(1..=piece.min(rest.len())));
        rest = tail;
        lines.push(head);
        while let Some(line) = lines.next_line().unwrap() {
            match Message::read(line).unwrap() {
                Message::Greeting => {}
                Message::Event(event) => {
                    assert!(event.at.is_some(), "{event:?}");
                    let said = tracker.observe(&event);
                    if asked && !matches!(said, Meaning::Other | Meaning::Duplicate) {
                        told.push(tracker.take_pause(None).to_string());
                        asked = false;
                    }
                    match said {
                        Meaning::Change(change) => told.push(change.to_string()),
                        Meaning::Reboot => told.push("rebooted".into()),
                        Meaning::PauseWithoutCause => asked = true,
                        Meaning::Duplicate => {}
                        Meaning::Other => told.push(event.name.to_owned()),
                    }
                }
                Message::Reply(_, Reply::Return(value)) if value.get().contains("\"status\"") => {
                    let answer: serde_json::Value = serde_json::from_str(value.get()).unwrap();
                    let status = answer.get("running").and(answer["status"].as_str());
                    if asked && status.is_some() {
                        told.push(tracker.take_pause(status).to_string());
                        asked = false;
                    } else if told.is_empty() {
                        tracker = status.map_or(tracker, RunTracker::new);
                    }
                }
                Message::Reply(..) => {}
                Message::Unknown => panic!("{}", String::from_utf8_lossy(line)),
            }
        }
    }
    told.push(format!("end: {}", tracker.stop_cause().as_str()));
    told
}

fn check(bytes: &[u8], expected: &[&str]) {
    let mut random = Rng::with_seed(7);
    let whole = told(bytes, usize::MAX, &mut Rng::with_seed(1));
    assert_eq!(whole, expected);
    for piece in [1, 2, 3, 17, 100] {
        assert_eq!(told(bytes, piece, &mut random), expected, "in pieces of at most {piece}");
    }
}

#[test]
fn a_life_from_start_to_quit() {
    check(
        &session!("lifecycle"),
        &[
            "resumed (unpaused)",
            "suspended (paused)",
            "resumed (unpaused)",
            "rebooted",
            "rebooted",
            "POWERDOWN",
            // Nobody asked for the run state before the next event.
            "suspended",
            "rebooted",
            "shutting_down (host)",
            "end: destroyed",
        ],
    );
}

#[test]
fn a_guest_that_powers_itself_off() {
    let tracker = ["resumed (unpaused)", "shutting_down (guest)", "end: shutdown"];
    check(&session!("guest-poweroff-exit"), &tracker);
}

#[test]
fn a_guest_that_resets_where_that_is_its_end() {
    let tracker = ["resumed (unpaused)", "shutting_down (guest)", "end: shutdown"];
    check(&session!("guest-reset-noreboot"), &tracker);
}

#[test]
fn a_qemu_that_gets_a_signal() {
    check(
        &session!("signal-term"),
        &["resumed (unpaused)", "shutting_down (host)", "end: destroyed"],
    );
    check(&session!("signal-kill"), &["resumed (unpaused)", "end: failed"]);
}

#[test]
fn a_panic_that_ends_the_run() {
    check(
        &session!("panic-shutdown"),
        &["resumed (unpaused)", "crashed (panicked)", "shutting_down (finished)", "end: crashed"],
    );
}

#[test]
fn a_disk_error_and_a_watchdog_explain_the_pause_that_follows() {
    let told = told(&session!("ioerror-stop"), 50, &mut Rng::with_seed(1));
    assert!(told.iter().any(|line| line == "BLOCK_IO_ERROR"), "{told:?}");
    assert!(told.iter().any(|line| line == "suspended (ioerror)"), "{told:?}");
    let told = self::told(&session!("watchdog-pause"), 50, &mut Rng::with_seed(1));
    assert!(told.iter().any(|line| line == "suspended (watchdog)"), "{told:?}");
    check(&session!("watchdog-poweroff"), &["resumed (unpaused)", "WATCHDOG", "end: destroyed"]);
}

#[test]
fn a_migration_away_and_its_arrival() {
    check(
        &session!("migrate-source"),
        &[
            "resumed (unpaused)",
            "MIGRATION",
            "MIGRATION_PASS",
            "MIGRATION",
            "MIGRATION_PASS",
            "MIGRATION",
            "suspended (migrated)",
            "shutting_down (host)",
            "end: migrated",
        ],
    );
}

#[test]
fn a_sleep_to_memory_and_to_disk() {
    let told = told(&session!("suspend-wakeup"), 50, &mut Rng::with_seed(1));
    let sleep = ["pm_suspended (memory)", "started (wakeup)", "rebooted"];
    assert!(told.windows(3).any(|tracker| tracker == sleep), "{told:?}");
    let told = self::told(&session!("suspend-disk"), 50, &mut Rng::with_seed(1));
    let sleep = ["pm_suspended (disk)", "shutting_down (guest)"];
    assert!(told.windows(2).any(|tracker| tracker == sleep), "{told:?}");
}

#[test]
fn a_guest_that_arrives() {
    check(
        &session!("migrate-target"),
        &[
            "MIGRATION",
            "MIGRATION",
            "resumed (migrated)",
            "MIGRATION",
            "shutting_down (host)",
            "end: destroyed",
        ],
    );
}

#[test]
fn a_panic_that_pauses_the_guest_and_one_that_it_survives() {
    check(
        &session!("panic-pause"),
        &[
            "resumed (unpaused)",
            // The pause that follows is part of it.
            "crashed (panicked)",
            "resumed (unpaused)",
            "rebooted",
            "rebooted",
            "crashed (panicked)",
            "shutting_down (host)",
            "end: crashed",
        ],
    );
    check(
        &session!("panic-none"),
        &[
            "resumed (unpaused)",
            "crashed (panicked)",
            "rebooted",
            "rebooted",
            "crashed (panicked)",
            "shutting_down (host)",
            "end: destroyed",
        ],
    );
    check(
        &session!("crashloaded"),
        &["resumed (unpaused)", "crashed (crashloaded)", "shutting_down (host)", "end: destroyed"],
    );
}

#[test]
fn a_guest_that_powers_itself_off_in_a_qemu_that_stays() {
    check(
        &session!("guest-poweroff-noshutdown"),
        &[
            "resumed (unpaused)",
            "shutting_down (guest)",
            "rebooted",
            "resumed (unpaused)",
            "rebooted",
            "shutting_down (guest)",
            // That it is told to quit then is part of it.
            "end: shutdown",
        ],
    );
}

#[test]
fn events_without_a_type_are_passed_on_each_once() {
    let quit = ["shutting_down (host)", "end: destroyed"];
    let clock = ["resumed (unpaused)", "RTC_CHANGE", "RTC_CHANGE"];
    check(&session!("rtc-change"), &[&clock[..], &quit].concat());
    let balloon = ["resumed (unpaused)", "BALLOON_CHANGE", "BALLOON_CHANGE"];
    check(&session!("balloon"), &[&balloon[..], &quit].concat());
    let devices = [
        "resumed (unpaused)",
        "DEVICE_DELETED",
        "rebooted",
        "rebooted",
        "DEVICE_DELETED",
        "DEVICE_DELETED",
    ];
    check(&session!("devices"), &[&devices[..], &quit].concat());
    const JOB: &str = "JOB_STATUS_CHANGE";
    let jobs = [
        &[JOB; 3][..],
        &["BLOCK_JOB_READY"],
        &[JOB; 2],
        &["BLOCK_JOB_COMPLETED"],
        &[JOB; 8],
        &["BLOCK_JOB_COMPLETED"],
        &[JOB; 8],
        &quit,
    ];
    check(&session!("blockjobs"), &jobs.concat());
}

#[test]
fn a_second_client_is_told_what_happens_from_its_turn_on() {
    let tracker = ["resumed (unpaused)", "shutting_down (host)", "end: destroyed"];
    check(&session!("two-clients-second"), &tracker);
    check(&session!("name-2"), &tracker[1..]);
}
