//! The program as its users know it: what it prints, when it ends, and with which status.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod directory;
mod libvirtd;
mod qemu;
mod run;
#[cfg(feature = "test-tls")]
mod tls;
mod xenstored;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use virevent::{Change, DomainEvent, GapKind};

use self::run::{path, read, run, script, start, start_into, start_with};

const NOWHERE: &str = "test+unix:///default?socket=/nonexistent/libvirt-sock";

/// The changes of domains and `synced`, `gap`, as words.
fn words(events: &[DomainEvent]) -> Vec<String> {
    let word = |event: &DomainEvent| match event {
        DomainEvent::Lifecycle(event) => {
            format!("{} {}", event.domain.name(), event.change.as_str())
        }
        DomainEvent::Reboot(event) => format!("{} reboot", event.domain.name()),
        DomainEvent::Synced(_) => "synced".into(),
        DomainEvent::Gap(_) => "gap".into(),
        other => other.to_string(),
    };
    events.iter().map(word).collect()
}

#[test]
fn without_a_uri_a_demo_plays_and_ends_within_ten_seconds() {
    let began = Instant::now();
    let outcome = run(&["--json"]);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let words = words(&outcome.events());
    for word in ["web started", "synced", "gap"] {
        assert!(words.iter().any(|w| w == word), "{word} is not in {words:?}");
    }
}

#[test]
fn for_people_it_prints_an_aligned_line_an_event_and_no_colours_into_a_pipe() {
    let script = script(true, &[r#"define = "web""#, "after = \"50ms\"\nstart = \"web\""]);
    let outcome = run(&["--script", path(&script)]);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{outcome:?}");
    assert_eq!(lines[0].find("existing"), lines[2].find("started"));
    assert!(lines[2].contains("web[1]") && lines[2].ends_with("started (booted)"), "{outcome:?}");
    assert!(!outcome.stdout.contains('\x1b'));
}

#[test]
fn a_script_in_a_file_plays_in_place_of_the_demo_and_in_the_fakes_own_name() {
    let script = script(true, &[r#"create = "x""#]);
    for args in [
        &["--json", "--script", path(&script)][..],
        &["--json", "fake:", "--script", path(&script)],
    ] {
        assert_eq!(words(&run(args).events()), ["x existing", "synced"]);
    }
}

#[test]
fn count_ends_it_after_so_many_events_without_those_that_exist_and_markers() {
    let outcome = run(&["--json", "--count", "2", "--stats"]);
    assert_eq!(outcome.status, 0);
    let events = outcome.events();
    assert_eq!(events.iter().filter(|event| event.is_happening()).count(), 2);
    assert!(events.len() > 2 && events.last().unwrap().is_happening());
    let stats: serde_json::Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!(stats["events"], 2);
    assert!(stats["wall_s"].as_f64().unwrap() > 0.1, "{stats}");
    assert!(stats["cpu_s"].as_f64().unwrap() < 1.0, "{stats}");
    assert!(stats["max_rss_kib"].as_u64().unwrap() > 100, "{stats}");
}

#[test]
fn count_is_over_all_uris() {
    let outcome = run(&["--json", "--count", "3", "fake:", "fake:"]);
    let events = outcome.events();
    assert_eq!(events.iter().filter(|event| event.is_happening()).count(), 3);
    assert_eq!(words(&events).iter().filter(|word| *word == "synced").count(), 2);
}

#[test]
fn for_ends_it_that_long_after_the_start() {
    let script = script(false, &[r#"define = "web""#]);
    let began = Instant::now();
    let outcome = run(&["--json", "--for", "0.3", "--script", path(&script)]);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(words(&outcome.events()), ["web existing", "synced"]);
}

#[test]
fn quiet_prints_no_events() {
    let outcome = run(&["--quiet", "--count", "1"]);
    assert_eq!((outcome.status, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""));
}

#[test]
fn only_domain_and_no_existing_choose_the_events() {
    let steps = [
        r#"define = "a""#,
        r#"define = "b""#,
        "after = \"50ms\"\nstart = \"a\"",
        r#"start = "b""#,
        r#"reboot = "b""#,
    ];
    let script = script(true, &steps);
    let told = |args: &[&str]| {
        words(&run(&[args, &["--json", "--script", path(&script)]].concat()).events())
    };
    assert_eq!(told(&["--only", "reboot"]), ["synced", "b reboot"]);
    assert_eq!(told(&["--domain", "b"]), ["b existing", "synced", "b started", "b reboot"]);
    assert_eq!(told(&["--only=lifecycle", "--no-existing", "--domain=a"]), ["synced", "a started"]);
}

#[test]
fn help_and_version_are_on_standard_output() {
    assert!(run(&["--help"]).stdout.contains("--capacity N"));
    assert_eq!(run(&["-V"]).stdout, concat!("watch ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_what_to_do() {
    run(&["foo:///system"]).assert_failed(2, "use one of qemu:");
    run(&["--frobnicate"]).assert_failed(2, "--help");
    run(&["--count", "none"]).assert_failed(2, "give a whole number");
    run(&["--only", "lifecycl"]).assert_failed(2, "give lifecycle, reboot");
    run(&["--script", "/nonexistent.toml"])
        .assert_failed(2, "cannot read the script /nonexistent.toml: No such file");
    run(&["--script", "/"]).assert_failed(2, "cannot read the script /: Is a directory");
}

#[test]
fn a_wrong_script_exits_with_2_and_names_file_and_line() {
    let script = script(true, &[r#"define = "web""#, r#"begin = "web""#]);
    let outcome = run(&["--script", path(&script)]);
    outcome.assert_failed(2, "line 5");
    outcome.assert_failed(2, path(&script));
}

#[test]
fn an_unreachable_hypervisor_exits_with_1_and_so_it_does_among_others() {
    run(&[NOWHERE]).assert_failed(1, "/nonexistent/libvirt-sock");
    run(&["fake:", NOWHERE]).assert_failed(1, "/nonexistent/libvirt-sock");
}

#[test]
fn what_the_library_logs_is_on_standard_error_if_it_is_asked_for() {
    let script = script(true, &[r#"define = "web""#, "after = \"20ms\"\nlose_connection = true"]);
    let args = ["--json", "--script", path(&script)];
    let logged = start_with(&[("VIREVENT_LOG", "debug")], &args).end();
    assert_eq!(logged.status, 0, "{logged:?}");
    assert!(logged.stderr.contains("fake:"), "{logged:?}");
    assert_eq!(run(&args).stderr, "");
    start_with(&[("VIREVENT_LOG", "loud")], &args)
        .end()
        .assert_failed(2, "VIREVENT_LOG is \"loud\": give warn, info or debug");
}

#[test]
fn a_directory_that_is_not_there_is_said_once_on_standard_error() {
    let home = tempfile::tempdir().unwrap();
    let uri = format!("qmp-dir:{}/qemu", home.path().display());
    let outcome = run(&["--quiet", "--for", "0.5", &uri]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let [line] = lines[..] else { panic!("{outcome:?}") };
    assert!(line.starts_with("watch: ") && line.contains("does not exist yet"), "{line}");
    assert!(line.contains(&uri["qmp-dir:".len()..]), "{line}");
}

#[test]
fn who_waits_is_told_of_a_gap_where_nothing_can_be_reached() {
    let outcome = run(&["--json", "--wait", "--for", "0.5", NOWHERE]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.told(), ["gap"]);
}

#[test]
fn a_closed_pipe_ends_it_quietly_even_when_nothing_happens() {
    let script = script(false, &[r#"define = "web""#]);
    let mut watch = start(&["--json", "--script", path(&script)]);
    watch.until_synced();
    watch.close_stdout();
    let outcome = watch.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
}

#[test]
fn ctrl_c_and_sigterm_end_it_with_0() {
    let script = script(false, &[r#"define = "web""#]);
    for signal in [Signal::INT, Signal::TERM] {
        let mut watch = start(&["--json", "--stats", "--script", path(&script)]);
        watch.until_synced();
        watch.signal(signal);
        let outcome = watch.end();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        assert!(outcome.stderr.starts_with(r#"{"events":0"#), "{outcome:?}");
    }
}

/// 1,000 runs of a domain in 200 ms, and then a domain that is defined last.
fn busy_script(ends: bool) -> tempfile::NamedTempFile {
    let mut steps = vec![r#"define = "web""#.to_owned(), "after = \"100ms\"".to_owned()];
    for run in 0..1000 {
        let wait = if run % 10 == 0 { "after = \"2ms\"\n" } else { "" };
        steps.push(format!("{wait}start = \"web\""));
        steps.push("stop = \"web\"".to_owned());
    }
    steps.push("define = \"last\"".to_owned());
    script(ends, &steps.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_blocked_output_stops_no_driver_and_loses_nothing_unannounced() {
    let script = busy_script(true);
    let mut watch = start(&["--json", "--capacity", "16", "--script", path(&script)]);
    watch.until_synced();
    sleep(Duration::from_millis(700));
    let outcome = watch.end();
    let events = outcome.events();
    let missed: u64 = events
        .iter()
        .map(|event| match event {
            DomainEvent::Gap(gap) => match gap.kind {
                GapKind::Lagged { missed, .. } => missed,
                _ => 0,
            },
            _ => 0,
        })
        .sum();
    let told = events.iter().filter(|event| event.is_happening()).count() as u64;
    assert!(missed > 100, "only {missed} missed, of {told} told");
    assert_eq!(missed + told, 2001);
    let last = |name: &str| {
        let changes =
            events.iter().filter(|event| event.domain().is_some_and(|d| d.name() == name));
        changes.filter_map(DomainEvent::change).next_back().unwrap()
    };
    assert!(matches!(last("web"), Change::Stopped(_)));
    assert!(matches!(last("last"), Change::Defined(_)));
}

#[test]
fn a_blocked_output_does_not_hold_up_the_end_that_was_asked_for() {
    let script = busy_script(false);
    let mut timed = start(&["--json", "--for", "0.5", "--script", path(&script)]);
    let mut interrupted = start(&["--json", "--script", path(&script)]);
    interrupted.until_synced();
    sleep(Duration::from_millis(500));
    interrupted.signal(Signal::INT);
    assert_eq!(timed.status(), 0);
    assert_eq!(interrupted.status(), 0);
}

#[test]
fn an_output_that_somebody_made_non_blocking_loses_nothing() {
    let script = script(true, &[r#"define = "web""#, r#"start = "web""#]);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    while theirs.write(&[b'\n'; 4096]).is_ok() {}
    let watch = start_into(&["--json", "--script", path(&script)], OwnedFd::from(theirs));
    // It has long met the full socket by then.
    sleep(Duration::from_millis(500));
    let stdout = thread::spawn(move || read(ours));
    let outcome = watch.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let told = stdout.join().unwrap();
    assert_eq!(told.lines().filter(|line| !line.is_empty()).count(), 2, "{}", told.trim());
}

#[test]
fn a_hypervisor_that_does_not_confirm_the_end_is_named_and_a_second_ctrl_c_does_not_wait() {
    let script = script(false, &[r#"create = "web""#, "after = \"50ms\"\ngo_silent = true"]);
    let mut watch = start(&["--json", "--script", path(&script)]);
    watch.until_synced();
    sleep(Duration::from_millis(300));
    let since = Instant::now();
    watch.signal(Signal::INT);
    sleep(Duration::from_millis(800));
    watch.signal(Signal::INT);
    let outcome = watch.end();
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(outcome.status, 0);
    assert!(outcome.stderr.contains("waiting for the hypervisor to confirm"), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}
