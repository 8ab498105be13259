//! The built program: its output, its end and its exit status.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod directory;
mod libvirtd;
mod qemu;
mod record;
mod resume;
mod run;
#[cfg(feature = "sasl")]
mod sasl;
mod ssh;
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

use self::run::{path, read, run, script, start, start_into, start_reading, start_with};

const NOWHERE: &str = "test+unix:///default?socket=/nonexistent/libvirt-sock";

/// The events as words: a domain and its change, `synced`, `gap`.
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
fn without_a_uri_the_demo_ends_within_ten_seconds() {
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
fn a_pipe_gets_aligned_lines_without_colours() {
    let script = script(true, &[r#"define = "web""#, "after = \"50ms\"\nstart = \"web\""]);
    let outcome = run(&["--script", path(&script)]);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{outcome:?}");
    assert_eq!(lines[0].find("existing"), lines[2].find("started"));
    assert!(lines[2].contains("web[1]") && lines[2].ends_with("started (booted)"), "{outcome:?}");
    assert!(!outcome.stdout.contains('\x1b'));
}

#[test]
fn a_script_plays_in_place_of_the_demo_and_of_the_fake_uri() {
    let script = script(true, &[r#"create = "x""#]);
    for args in [
        &["--json", "--script", path(&script)][..],
        &["--json", "fake:", "--script", path(&script)],
    ] {
        assert_eq!(words(&run(args).events()), ["x existing", "synced"]);
    }
}

#[test]
fn count_ignores_existing_domains_and_markers() {
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
fn count_includes_the_events_of_all_uris() {
    let outcome = run(&["--json", "--count", "3", "fake:", "fake:"]);
    let events = outcome.events();
    assert_eq!(events.iter().filter(|event| event.is_happening()).count(), 3);
    assert_eq!(words(&events).iter().filter(|word| *word == "synced").count(), 2);
}

#[test]
fn for_ends_the_program_after_its_time() {
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
    let printed = |args: &[&str]| {
        words(&run(&[args, &["--json", "--script", path(&script)]].concat()).events())
    };
    assert_eq!(printed(&["--only", "reboot"]), ["synced", "b reboot"]);
    assert_eq!(printed(&["--domain", "b"]), ["b existing", "synced", "b started", "b reboot"]);
    assert_eq!(
        printed(&["--only=lifecycle", "--no-existing", "--domain=a"]),
        ["synced", "a started"]
    );
}

#[test]
fn change_chooses_among_lifecycle_events_and_their_count() {
    let steps = [
        r#"define = "a""#,
        "after = \"50ms\"\nstart = \"a\"",
        r#"reboot = "a""#,
        r#"suspend = "a""#,
        r#"stop = "a""#,
    ];
    let script = script(true, &steps);
    let printed = |args: &[&str]| {
        words(&run(&[args, &["--json", "--script", path(&script)]].concat()).events())
    };
    assert_eq!(printed(&["--change", "started,stopped"]), ["synced", "a started", "a stopped"]);
    assert_eq!(
        printed(&["--change=existing,suspended", "--only=lifecycle,reboot", "--count=2"]),
        ["a existing", "synced", "a reboot", "a suspended"]
    );
    run(&["--change", "begun"]).assert_failed(2, "give one of existing, defined, undefined");
}

#[test]
fn a_script_is_read_from_standard_input() {
    let mut watch = start_reading(&["--json", "--script", "-"]);
    watch.write("ends = true\n[[step]]\ncreate = \"x\"\n");
    assert_eq!(words(&watch.end().events()), ["x existing", "synced"]);
    let mut watch = start_reading(&["--script", "-"]);
    watch.write("[[step]]\nbegin = \"x\"\n");
    watch.end().assert_failed(2, "standard input: ");
}

#[test]
fn a_line_has_the_date_in_the_local_zone_or_in_utc() {
    let script = script(true, &[r#"create = "x""#]);
    let line = |args: &[&str]| {
        let args = [args, &["--script", path(&script)]].concat();
        let outcome = start_with(&[("TZ", "EAST-05:30")], &args).end();
        outcome.stdout.lines().next().unwrap().to_owned()
    };
    let local = line(&[]);
    let form = |line: &str| line.replace(|c: char| c.is_ascii_digit(), "0");
    assert!(form(&local).starts_with("0000-00-00 00:00:00.000+00:00  x[0] "), "{local}");
    assert!(local.contains("+05:30"), "{local}");
    let utc = line(&["--utc"]);
    assert!(form(&utc).starts_with("0000-00-00 00:00:00.000Z  x[0] "), "{utc}");
}

#[test]
fn each_line_has_its_source_if_there_are_several() {
    let script = script(true, &[r#"create = "x""#]);
    let printed = |args: &[&str]| run(&[args, &["--script", path(&script)]].concat()).stdout;
    assert!(!printed(&["fake:"]).contains("fake:  "));
    let several = printed(&["fake:", "fake:", "--count", "3"]);
    assert!(several.lines().all(|line| line.contains("  fake:  ")), "{several}");
}

#[test]
fn a_long_first_sync_is_reported_once_on_stderr() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("s");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let uri = format!("test+unix:///default?socket={}", socket.display());
    let outcome = run(&["--for", "7", &uri]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let expected = format!("virevent-watch: {uri}: waiting for the connection\n");
    assert_eq!(outcome.stderr, expected);
}

#[test]
fn help_and_version_are_on_standard_output() {
    assert!(run(&["--help"]).stdout.contains("--capacity N"));
    assert_eq!(run(&["-V"]).stdout, concat!("virevent-watch ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_names_the_fix() {
    run(&["foo:///system"]).assert_failed(2, "use one of qemu:");
    run(&["--frobnicate"]).assert_failed(2, "--help");
    run(&["--count", "none"]).assert_failed(2, "give a whole number");
    run(&["--only", "lifecycl"]).assert_failed(2, "one of lifecycle, reboot");
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
fn an_unreachable_hypervisor_exits_with_1_even_among_others() {
    run(&[NOWHERE]).assert_failed(1, "/nonexistent/libvirt-sock");
    run(&["fake:", NOWHERE]).assert_failed(1, "/nonexistent/libvirt-sock");
}

#[test]
fn an_empty_uri_is_libvirts_default() {
    let variables = [("LIBVIRT_DEFAULT_URI", NOWHERE)];
    start_with(&variables, &[""]).end().assert_failed(1, "/nonexistent/libvirt-sock");
    let variables = [("LIBVIRT_DEFAULT_URI", "no-such-name")];
    start_with(&variables, &[""]).end().assert_failed(2, "no name in uri_aliases");
    run(&["no-such-name"]).assert_failed(2, "no name in uri_aliases");
}

#[test]
fn a_failure_of_ssh_is_one_line() {
    run(&["test+ssh://h/default?command=/bin/false"])
        .assert_failed(1, "it ended with exit status 1");
    run(&["test+ssh://h/default?command=/no/ssh"]).assert_failed(1, "no program \"/no/ssh\"");
    run(&["test+ssh://h/default?proxy=bogus"]).assert_failed(2, "auto, native or netcat");
    run(&["test+libssh2://h/default"]).assert_failed(2, "use test+ssh://");
}

#[test]
fn virevent_log_prints_the_log_on_stderr() {
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
fn a_missing_directory_is_reported_once_on_stderr() {
    let home = tempfile::tempdir().unwrap();
    let uri = format!("qmp-dir:{}/qemu", home.path().display());
    let outcome = run(&["--quiet", "--for", "0.5", &uri]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let [line] = lines[..] else { panic!("{outcome:?}") };
    assert!(line.starts_with("virevent-watch: ") && line.contains("does not exist yet"), "{line}");
    assert!(line.contains(&uri["qmp-dir:".len()..]), "{line}");
}

#[test]
fn wait_prints_a_gap_if_the_hypervisor_is_unreachable() {
    let outcome = run(&["--json", "--wait", "--for", "0.5", NOWHERE]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.in_short(), ["gap"]);
}

#[test]
fn a_closed_pipe_ends_the_program_without_an_event() {
    let script = script(false, &[r#"define = "web""#]);
    let mut watch = start(&["--json", "--script", path(&script)]);
    watch.until_synced();
    watch.close_stdout();
    let outcome = watch.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
}

#[test]
fn ctrl_c_and_sigterm_end_the_program_with_0() {
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

/// A script of 1,000 runs of a domain in 200 ms, and the definition of another domain at its end.
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
fn a_blocked_output_loses_no_event_without_a_gap() {
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
    let printed = events.iter().filter(|event| event.is_happening()).count() as u64;
    assert!(missed > 100, "only {missed} missed, and {printed} printed");
    assert_eq!(missed + printed, 2001);
    let last = |name: &str| {
        let changes =
            events.iter().filter(|event| event.domain().is_some_and(|d| d.name() == name));
        changes.filter_map(DomainEvent::change).next_back().unwrap()
    };
    assert!(matches!(last("web"), Change::Stopped(_)));
    assert!(matches!(last("last"), Change::Defined(_)));
}

#[test]
fn a_blocked_output_does_not_delay_a_requested_end() {
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
fn a_non_blocking_output_loses_nothing() {
    let script = script(true, &[r#"define = "web""#, r#"start = "web""#]);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    while theirs.write(&[b'\n'; 4096]).is_ok() {}
    let watch = start_into(&["--json", "--script", path(&script)], OwnedFd::from(theirs));
    // By then the program has long found the socket full.
    sleep(Duration::from_millis(500));
    let stdout = thread::spawn(move || read(ours));
    let outcome = watch.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let printed = stdout.join().unwrap();
    assert_eq!(printed.lines().filter(|line| !line.is_empty()).count(), 2, "{}", printed.trim());
}

#[test]
fn a_second_ctrl_c_ends_the_wait_for_a_silent_hypervisor() {
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
