//! Recorded sessions of a real QEMU, whole and in pieces, and the changes that they are decoded to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fastrand::Rng;
use serde_json::Value;
use virevent_qemu::decode::{Meaning, RunTracker, notice};
use virevent_qemu::wire::{Event, Lines, Message, Reply};

macro_rules! session {
    ($name:literal) => {
        bytes(include_str!(concat!("vectors/qmp-", $name, ".jsonl")))
    };
}

#[test]
fn a_run_is_decoded_from_start_to_quit() {
    check(
        &session!("lifecycle"),
        &[
            "resumed (unpaused)",
            "suspended (paused)",
            "resumed (unpaused)",
            "rebooted",
            "rebooted",
            "POWERDOWN",
            // The recorded client did not ask for the run state before the next event.
            "suspended",
            "rebooted",
            "shutting_down (host)",
            "end: destroyed",
        ],
    );
}

#[test]
fn a_power_off_is_decoded_as_shutdown() {
    let expected = ["resumed (unpaused)", "shutting_down (guest)", "end: shutdown"];
    check(&session!("guest-poweroff-exit"), &expected);
}

#[test]
fn a_reset_with_no_reboot_is_decoded_as_shutdown() {
    let expected = ["resumed (unpaused)", "shutting_down (guest)", "end: shutdown"];
    check(&session!("guest-reset-noreboot"), &expected);
}

#[test]
fn a_signal_is_decoded_as_destroyed_or_failed() {
    check(
        &session!("signal-term"),
        &["resumed (unpaused)", "shutting_down (host)", "end: destroyed"],
    );
    check(&session!("signal-kill"), &["resumed (unpaused)", "end: failed"]);
}

#[test]
fn a_panic_that_ends_the_run_is_decoded_as_crashed() {
    check(
        &session!("panic-shutdown"),
        &["resumed (unpaused)", "crashed (panicked)", "shutting_down (finished)", "end: crashed"],
    );
}

#[test]
fn a_disk_error_or_a_watchdog_is_the_cause_of_the_pause() {
    let decoded = self::decoded(&session!("ioerror-stop"), 50);
    assert!(contains(&decoded, &["io-error top: paused, no space left"]), "{decoded:?}");
    assert!(contains(&decoded, &["suspended (ioerror)"]), "{decoded:?}");
    let decoded = self::decoded(&session!("watchdog-pause"), 50);
    assert!(contains(&decoded, &["suspended (watchdog)"]), "{decoded:?}");
    check(
        &session!("watchdog-poweroff"),
        &["resumed (unpaused)", "watchdog poweroff", "end: destroyed"],
    );
}

#[test]
fn a_migration_away_is_decoded_as_migrated() {
    check(
        &session!("migrate-source"),
        &[
            "resumed (unpaused)",
            "MIGRATION",
            "migration-iteration 1",
            "MIGRATION",
            "migration-iteration 2",
            "MIGRATION",
            "suspended (migrated)",
            "shutting_down (host)",
            "end: migrated",
        ],
    );
}

#[test]
fn a_sleep_is_decoded_as_pm_suspended() {
    let decoded = self::decoded(&session!("suspend-wakeup"), 50);
    let sleep =
        ["pm-suspend memory", "pm_suspended (memory)", "pm-wakeup", "started (wakeup)", "rebooted"];
    assert!(contains(&decoded, &sleep), "{decoded:?}");
    let decoded = self::decoded(&session!("suspend-disk"), 50);
    let sleep = ["pm-suspend disk", "pm_suspended (disk)", "shutting_down (guest)"];
    assert!(contains(&decoded, &sleep), "{decoded:?}");
}

#[test]
fn a_migration_in_is_decoded_as_resumed() {
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
fn a_survived_panic_is_decoded_as_crashed_alone() {
    check(
        &session!("panic-pause"),
        &[
            "resumed (unpaused)",
            // The STOP that follows belongs to it.
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
fn a_power_off_with_no_shutdown_keeps_its_cause() {
    check(
        &session!("guest-poweroff-noshutdown"),
        &[
            "resumed (unpaused)",
            "shutting_down (guest)",
            "rebooted",
            "resumed (unpaused)",
            "rebooted",
            "shutting_down (guest)",
            // The later quit of QEMU belongs to it.
            "end: shutdown",
        ],
    );
}

#[test]
fn an_event_is_one_notice_or_is_passed_on_once() {
    let quit = ["shutting_down (host)", "end: destroyed"];
    let clock = ["resumed (unpaused)", "rtc-change -14400 s", "rtc-change 21599 s"];
    check(&session!("rtc-change"), &[&clock[..], &quit].concat());
    let balloon = ["resumed (unpaused)", "balloon-change 15360 KiB", "balloon-change 13312 KiB"];
    check(&session!("balloon"), &[&balloon[..], &quit].concat());
    let devices = [
        "resumed (unpaused)",
        "device-removed tab0",
        "rebooted",
        "rebooted",
        // A part of the device, without an id.
        "DEVICE_DELETED",
        "device-removed rng0",
    ];
    check(&session!("devices"), &[&devices[..], &quit].concat());
    const JOB: &str = "JOB_STATUS_CHANGE";
    let jobs = [
        &[JOB; 3][..],
        &["block-job m1: copy ready"],
        &[JOB; 2],
        &["block-job m1: copy completed"],
        &[JOB; 8],
        &["block-job b1: backup completed"],
        &[JOB; 8],
        &quit,
    ];
    check(&session!("blockjobs"), &jobs.concat());
}

#[test]
fn each_recorded_action_has_its_name() {
    let notices = |session: &[u8], kind: &str| -> Vec<String> {
        let decoded = decoded(session, 50).into_iter();
        decoded.filter_map(|line| Some(line.strip_prefix(kind)?.to_owned())).collect()
    };
    let tray = ["cd0: open", "cd0: close", "cd0: open"];
    assert_eq!(notices(&session!("tray"), "tray-change "), tray);
    let reported = notices(&session!("ioerror-report"), "io-error ");
    assert_eq!(reported.first().unwrap(), "top: reported to the guest");
    let ignored = notices(&session!("ioerror-ignore"), "io-error ");
    assert_eq!(ignored.first().unwrap(), "top: ignored");
    for (session, action) in
        [(session!("watchdog-debug"), "debug"), (session!("watchdog-inject-nmi"), "inject nmi")]
    {
        assert_eq!(notices(&session, "watchdog ").first().unwrap(), action);
    }
}

#[test]
fn a_second_client_is_served_after_the_first() {
    let expected = ["resumed (unpaused)", "shutting_down (host)", "end: destroyed"];
    check(&session!("two-clients-second"), &expected);
    check(&session!("name-2"), &expected[1..]);
}

/// What QEMU sent in a recorded session.
fn bytes(recorded: &str) -> Vec<u8> {
    let lines = recorded.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line["dir"] == "s2c").flat_map(|line| unhex(&line["hex"])).collect()
}

fn unhex(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Asserts what a session is decoded to, whole and in random pieces.
fn check(bytes: &[u8], expected: &[&str]) {
    assert_eq!(decoded(bytes, usize::MAX), expected);
    for piece in [1, 2, 3, 17, 100] {
        assert_eq!(decoded(bytes, piece), expected, "in pieces of at most {piece}");
    }
}

/// What a session is decoded to up to the end of the process, read in pieces of at most `piece`
/// bytes.
fn decoded(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut random = Rng::with_seed(7);
    let mut lines = Lines::new();
    let mut decoder = Decoder::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(random.usize(1..=piece.min(rest.len())));
        rest = tail;
        lines.push(head);
        while let Some(line) = lines.next_line().unwrap() {
            decoder.message(&Message::read(line).unwrap());
        }
    }
    decoder.end()
}

/// Follows a session. The recorded client asked for the run state after most steps: its answers
/// stand for those to a client of ours.
struct Decoder {
    tracker: RunTracker,
    /// Whether a pause waits for the run state with its cause.
    is_pause_pending: bool,
    decoded: Vec<String>,
}

impl Decoder {
    fn new() -> Self {
        let tracker = RunTracker::new("prelaunch");
        Self { tracker, is_pause_pending: false, decoded: Vec::new() }
    }

    fn message(&mut self, message: &Message<'_>) {
        match message {
            Message::Event(event) => self.event(event),
            Message::Reply(_, Reply::Return(value)) => self.answer(value.get()),
            Message::Greeting | Message::Reply(_, Reply::Error(_)) => {}
            Message::Unknown => panic!("{message:?}"),
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        assert!(event.at.is_some(), "{event:?}");
        let meaning = self.tracker.observe(event);
        if !matches!(meaning, Meaning::Other | Meaning::Duplicate) {
            self.finish_pause(None);
        }
        let notice = notice::body(event).map(|body| format!("{} {body}", body.kind()));
        let is_noticed = notice.is_some();
        // That of a sleep comes before the change.
        self.decoded.extend(notice.map(|notice| notice.trim_end().to_owned()));
        match meaning {
            Meaning::Change(change) => self.decoded.push(change.to_string()),
            Meaning::Reboot => self.decoded.push("rebooted".into()),
            Meaning::PauseWithoutCause => self.is_pause_pending = true,
            Meaning::Duplicate => {}
            Meaning::Other if !is_noticed => self.decoded.push(event.name.to_owned()),
            Meaning::Other => {}
        }
    }

    fn answer(&mut self, answer: &str) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        // Jobs and block devices have a status, too.
        let status = answer.get("running").and(answer["status"].as_str());
        let Some(status) = status else { return };
        if self.is_pause_pending {
            self.finish_pause(Some(status));
        } else if self.decoded.is_empty() {
            self.tracker = RunTracker::new(status);
        }
    }

    fn finish_pause(&mut self, status: Option<&str>) {
        if std::mem::take(&mut self.is_pause_pending) {
            self.decoded.push(self.tracker.take_pause(status).to_string());
        }
    }

    fn end(mut self) -> Vec<String> {
        self.decoded.push(format!("end: {}", self.tracker.stop_cause().as_str()));
        self.decoded
    }
}

fn contains(decoded: &[String], part: &[&str]) -> bool {
    decoded.windows(part.len()).any(|window| window == part)
}
