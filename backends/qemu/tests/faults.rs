//! What a QEMU can do wrong, each in a test: it ends in a clear error, or in a gap and a recovery; never
//! in a panic, a hang, or a wrong state.
//!
//! The QEMU is the testkit's fake on a real socket, so that time is real too: deadlines are short where
//! a test waits for one, and long everywhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tokio::io::AsyncWriteExt;
use virevent::{Break, DomainEvent, EventSource, EventStream, FaultKind, Gap, Kind, Options};
use virevent_qemu::{Qmp, QmpDir};
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::qmp::FakeQemu;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const SHORT: Duration = Duration::from_millis(200);

fn client(qemu: &FakeQemu) -> Qmp {
    Qmp::new(&qemu.uri()).unwrap().look_every(Duration::from_millis(10))
}

fn all() -> Options {
    Options::default().kind(Kind::Lifecycle).kind(Kind::Reboot).kind(Kind::Other)
}

/// A running `web`, and a stream that is synced with it.
async fn watched() -> (FakeQemu, EventStream) {
    let qemu = FakeQemu::start("web").unwrap();
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (qemu, events)
}

async fn next(events: &mut EventStream) -> String {
    let event = next_within(events, PATIENCE).await.unwrap();
    match event.domain().and_then(virevent::Domain::id) {
        Some(id) => event.to_string().replace(&format!("[{id}]"), ""),
        None => event.to_string(),
    }
}

/// The kind of the gap that comes next.
async fn gap(events: &mut EventStream) -> FaultKind {
    match next_within(events, PATIENCE).await.unwrap() {
        DomainEvent::Gap(Gap { kind: Break::Disconnected { fault }, .. }) => fault.kind(),
        event => panic!("expected a gap, but got: {event}"),
    }
}

/// That the stream goes on: a pause is the next that is told.
async fn goes_on(qemu: &FakeQemu, events: &mut EventStream) {
    qemu.stop();
    assert_eq!(next(events).await, "web suspended (paused)");
}

async fn refusal(qemu: &FakeQemu) -> String {
    let source = client(qemu).greeting_timeout(SHORT).source();
    let outcome = tokio::time::timeout(PATIENCE, source.subscribe_with(Options::default())).await;
    outcome.expect("subscribing hangs").unwrap_err().to_line()
}

#[tokio::test]
async fn an_event_before_the_greeting_is_passed_over() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.before_greeting = b"{\"event\": \"STOP\"}\r\n".to_vec());
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    let told = until_synced(&mut events).await.unwrap();
    assert_eq!(told[0].to_string(), "web[1] existing (running)");
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn what_is_no_monitor_is_a_clear_error() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.before_greeting = b"QEMU 7.2.22 monitor\r\n".to_vec());
    let error = refusal(&qemu).await;
    assert!(error.contains("no QMP greeting") && error.contains("-monitor"), "{error}");
}

#[tokio::test]
async fn a_monitor_that_says_nothing_is_a_clear_error_within_the_deadline() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.deaf = true);
    let error = refusal(&qemu).await;
    assert!(error.contains("another client holds this monitor"), "{error}");
}

#[tokio::test]
async fn a_monitor_that_greets_and_answers_nothing_is_not_taken_for_one_that_is_held() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.unanswered = vec!["qmp_capabilities".into()]);
    let error = refusal(&qemu).await;
    assert!(error.contains("does not answer") && error.contains("SIGSTOP"), "{error}");
    assert!(!error.contains("holds"), "{error}");
}

#[tokio::test]
async fn what_is_no_socket_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [directory.path(), &file] {
        let source = Qmp::new(&format!("qmp:{}", path.display())).unwrap().source();
        let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
        assert!(error.contains("not a socket") && error.contains("-qmp unix:"), "{error}");
        assert!(!error.contains("has ended"), "{error}");
    }
}

#[tokio::test]
async fn a_slow_greeting_is_waited_for() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.greeting_delay = SHORT);
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_qemu_that_hangs_up_midway_through_the_questions_is_a_clear_error() {
    for question in ["qmp_capabilities", "query-name", "query-status"] {
        let qemu = FakeQemu::start("web").unwrap();
        qemu.change(|faults| faults.hang_up_at = vec![question.into()]);
        let error = refusal(&qemu).await;
        assert!(error.contains("hung up in the midst"), "{error}");
    }
}

#[tokio::test]
async fn an_older_qemu_that_lacks_a_question_is_good_enough() {
    let qemu = FakeQemu::start("web").unwrap();
    let lacks = ["query-name", "query-uuid", "query-cpus-fast"];
    qemu.change(|faults| faults.lacks = lacks.map(String::from).to_vec());
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    let told = until_synced(&mut events).await.unwrap();
    assert!(told[0].to_string().starts_with("vm["), "{}", told[0]);
}

#[tokio::test]
async fn bytes_that_come_one_by_one_make_the_same_events() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.piece = Some(1));
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn an_event_among_the_answers_is_part_of_the_state_or_told() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.set_status("paused");
    let early =
        b"{\"event\": \"STOP\"}\r\n{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 1}}\r\n";
    qemu.change(|faults| drop(faults.before.insert("query-status".into(), early.to_vec())));
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    let told = until_synced(&mut events).await.unwrap();
    assert_eq!(told[0].to_string(), "web[1] existing (paused (user))");
    assert_eq!(told.len(), 1, "the pause is part of the state: {told:?}");
    assert_eq!(next(&mut events).await, r#"web event RTC_CHANGE {"offset": 1}"#);
}

#[tokio::test]
async fn an_event_right_behind_the_last_answer_waits_for_no_further_word() {
    let (qemu, mut events) = watched().await;
    let late = b"{\"event\": \"GUEST_CRASHLOADED\", \"data\": {\"action\": \"run\"}}\r\n";
    qemu.change(|faults| drop(faults.after.insert("query-status".into(), late.to_vec())));
    qemu.cut();
    let mut told = Vec::new();
    // Far less than QEMU is asked for a sign of life after.
    while let Ok(event) = next_within(&mut events, Duration::from_secs(2)).await {
        told.push(event.to_string());
        if told.iter().any(|event| event.contains("crashloaded")) {
            return;
        }
    }
    panic!("{told:?}");
}

#[tokio::test]
async fn an_answer_to_a_question_never_asked_is_passed_over() {
    let (qemu, mut events) = watched().await;
    qemu.send(b"{\"return\": {\"status\": \"running\"}, \"id\": 4711}\r\n");
    qemu.send(
        b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"?\"}}\r\n{\"new\": true}\r\n",
    );
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn events_and_values_never_seen_pass_through_whole() {
    let (qemu, mut events) = watched().await;
    qemu.emit("QUANTUM_FLUX", r#"{"flux": [1, {"deep": null}]}"#);
    assert_eq!(next(&mut events).await, r#"web event QUANTUM_FLUX {"flux": [1, {"deep": null}]}"#);
    qemu.emit("RESET", r#"{"reason": {"new": "form"}, "guest": 7}"#);
    assert_eq!(next(&mut events).await, "web rebooted");
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn an_event_has_qemus_own_time_and_without_one_that_of_receipt() {
    let (qemu, mut events) = watched().await;
    qemu.cont();
    let at = next_within(&mut events, PATIENCE).await.unwrap().lifecycle().unwrap().at;
    let stamp = at.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!((stamp.as_secs(), stamp.subsec_micros()), (1_795_333_210, 380_905));
    let before = std::time::SystemTime::now();
    qemu.send(
        b"{\"timestamp\": {\"seconds\": -1, \"microseconds\": -1}, \"event\": \"RESUME\"}\r\n",
    );
    assert!(next_within(&mut events, PATIENCE).await.unwrap().lifecycle().unwrap().at >= before);
}

#[tokio::test]
async fn a_huge_line_or_one_that_is_no_json_is_a_gap_and_a_recovery() {
    let huge = vec![b'x'; virevent_qemu::wire::MAX_LINE + 2];
    for garbage in [&huge[..], b"{\"event\": \"\xff\xfe\"}\r\n", b"{\"event\": \r\n", b"[]\r\n"] {
        let (qemu, mut events) = watched().await;
        qemu.send(garbage);
        assert_eq!(gap(&mut events).await, FaultKind::Protocol);
        assert!(next(&mut events).await.starts_with("synced"));
        goes_on(&qemu, &mut events).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_gap_even_if_it_is_back_at_once() {
    let (qemu, mut events) = watched().await;
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_qemu_that_cannot_be_told_from_the_next_is_the_same_after_a_broken_connection() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.lacks = vec!["query-cpus-fast".into()]);
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_question_that_fails_after_a_broken_connection_makes_no_other_qemu() {
    let (qemu, mut events) = watched().await;
    let lacks = ["query-name", "query-uuid"];
    qemu.change(|faults| faults.lacks = lacks.map(String::from).to_vec());
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
    // Another is another all the same.
    qemu.change(|faults| faults.hang_up = true);
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    qemu.boot("web").unwrap();
    qemu.change(|faults| faults.hang_up = false);
    assert_eq!(next(&mut events).await, "web stopped (failed) [inferred]");
}

#[tokio::test]
async fn a_pause_in_an_outage_is_told_after_it() {
    let (qemu, mut events) = watched().await;
    qemu.change(|faults| faults.hang_up = true);
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    qemu.set_status("io-error");
    qemu.change(|faults| faults.hang_up = false);
    assert_eq!(next(&mut events).await, "web suspended (ioerror) [inferred]");
    assert!(next(&mut events).await.starts_with("synced"));
}

#[tokio::test]
async fn what_was_announced_is_the_cause_of_the_end() {
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
async fn a_guest_that_has_left_has_migrated_even_if_no_event_said_so() {
    let (qemu, mut events) = watched().await;
    qemu.set_status("finish-migrate");
    let asked = qemu.calls("query-status");
    qemu.emit("STOP", "");
    assert_eq!(next(&mut events).await, "web suspended (migrated)");
    qemu.set_status("postmigrate");
    qemu.until(|qemu| qemu.calls("query-status") > asked + 1).await;
    qemu.end(Some("host-qmp-quit"));
    assert_eq!(next(&mut events).await, "web shutting_down (host)");
    assert_eq!(next(&mut events).await, "web stopped (migrated)");
}

#[tokio::test]
async fn a_guest_that_survives_a_crash_is_as_its_run_state_says() {
    let (qemu, mut events) = watched().await;
    qemu.emit("GUEST_PANICKED", r#"{"action": "run"}"#);
    assert_eq!(next(&mut events).await, "web crashed (panicked)");
    assert_eq!(next(&mut events).await, "web resumed");
    qemu.emit("GUEST_CRASHLOADED", r#"{"action": "run"}"#);
    assert_eq!(next(&mut events).await, "web crashed (crashloaded)");
    goes_on(&qemu, &mut events).await;
    // Where the host keeps it, it stays crashed.
    qemu.set_status("guest-panicked");
    qemu.emit("GUEST_PANICKED", r#"{"action": "pause"}"#);
    assert_eq!(next(&mut events).await, "web crashed (panicked)");
    assert!(next_within(&mut events, SHORT).await.is_err());
    qemu.end(None);
    assert_eq!(next(&mut events).await, "web stopped (crashed)");
}

#[tokio::test]
async fn an_end_that_was_called_off_in_an_outage_is_not_the_cause_of_the_next() {
    let (qemu, mut events) = watched().await;
    qemu.emit("SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert_eq!(next(&mut events).await, "web shutting_down (guest)");
    qemu.set_status("prelaunch");
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert_eq!(next(&mut events).await, "web suspended (paused) [inferred]");
    assert!(next(&mut events).await.starts_with("synced"));
    qemu.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
}

#[tokio::test]
async fn a_pause_whose_cause_is_not_answered_is_told_all_the_same() {
    let (qemu, mut events) = watched().await;
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    qemu.stop();
    assert_eq!(next(&mut events).await, "web suspended");
    qemu.cont();
    assert_eq!(next(&mut events).await, "web resumed (unpaused)");
}

#[tokio::test]
async fn a_pause_that_the_end_of_the_process_overtakes_is_told_before_it() {
    let (qemu, mut events) = watched().await;
    qemu.change(|faults| faults.hang_up_at = vec!["query-status".into()]);
    qemu.stop();
    assert_eq!(next(&mut events).await, "web suspended");
    qemu.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
}

#[tokio::test]
async fn a_qemu_that_answers_no_more_is_out_of_reach_and_never_stopped() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    assert_eq!(gap(&mut events).await, FaultKind::Timeout);
    assert!(next_within(&mut events, 3 * SHORT).await.is_err());
    assert_eq!(qemu.accepted(), 1, "it is waited for where it is");
    qemu.cut();
    qemu.change(|faults| faults.unanswered.clear());
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_connection_over_tcp_that_brings_no_answer_is_made_anew() {
    let qemu = FakeQemu::start_tcp("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).greeting_timeout(SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    // Nothing comes any more, and no end either.
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    assert_eq!(gap(&mut events).await, FaultKind::Timeout);
    qemu.change(|faults| faults.unanswered.clear());
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_connection_over_tcp_that_brings_no_greeting_is_made_anew() {
    let qemu = FakeQemu::start_tcp("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).greeting_timeout(SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.change(|faults| faults.deaf = true);
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    qemu.until(|qemu| qemu.accepted() >= 2).await;
    qemu.change(|faults| faults.deaf = false);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn an_event_that_is_asked_for_by_name_comes_alone() {
    let qemu = FakeQemu::start("web").unwrap();
    let wanted = Options::default().kind("other:RTC_CHANGE".parse::<Kind>().unwrap());
    let mut events = client(&qemu).source().subscribe_with(wanted).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.emit("POWERDOWN", "");
    qemu.emit("RTC_CHANGE", r#"{"offset": 1}"#);
    assert_eq!(next(&mut events).await, r#"web event RTC_CHANGE {"offset": 1}"#);
    events.close().await;
    qemu.until(|qemu| !qemu.is_held()).await;
    let numbered = Options::default().kind("other:8".parse::<Kind>().unwrap());
    let error = client(&qemu).source().subscribe_with(numbered).await.unwrap_err().to_line();
    assert!(error.contains("cannot report events of kind other:8: leave it out"), "{error}");
}

#[tokio::test]
async fn the_monitor_is_free_as_soon_as_nobody_listens() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).source();
    for round in 1..=3 {
        let events = source.subscribe_with(Options::default()).await.unwrap();
        assert_eq!(qemu.accepted(), round);
        events.close().await;
        qemu.until(|qemu| !qemu.is_held()).await;
    }
}

#[tokio::test]
async fn no_time_is_too_short_or_too_long_to_be_waited_for() {
    for time in [Duration::ZERO, Duration::MAX] {
        let (qemu, place) = (FakeQemu::start("web").unwrap(), tempfile::tempdir().unwrap());
        let _db = FakeQemu::at(&place.path().join("db.sock"), "db").unwrap();
        let all_of_it = |qmp: Qmp| qmp.keepalive(time, time).look_every(time);
        let one = all_of_it(Qmp::new(&qemu.uri()).unwrap());
        let one = if time.is_zero() { one } else { one.greeting_timeout(time) };
        let uri = format!("qmp-dir:{}", place.path().display());
        let many = QmpDir::new(&uri).unwrap().keepalive(time, time).look_every(time);
        let many = if time.is_zero() { many } else { many.greeting_timeout(time) };
        for source in [one.source(), many.source()] {
            let mut events = source.subscribe_with(Options::default()).await.unwrap();
            let told = until_synced(&mut events).await.unwrap();
            assert_eq!(told.len(), 1, "{told:?}");
        }
        // The interval at which it is asked for a sign of life is never.
        assert_eq!(qemu.calls("query-status"), 1);
    }
}

#[tokio::test]
async fn what_goes_on_without_an_end_is_not_said_to_say_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vm.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let endless = [b"{\"", &[b'x'; 3 * 1024 * 1024][..]].concat();
        client.write_all(&endless).await.unwrap();
        std::future::pending::<()>().await;
    });
    let qmp = Qmp::new(&format!("qmp:{}", path.display())).unwrap();
    let source = qmp.greeting_timeout(Duration::from_secs(1)).source();
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("bytes within") && !error.contains("says nothing"), "{error}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_not_taken_for_a_monitor_that_is_held() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts, and so from some number on nobody is answered.
    let mut line = Vec::new();
    loop {
        let stream = tokio::net::TcpStream::connect(address);
        let Ok(stream) = tokio::time::timeout(SHORT, stream).await else { break };
        line.push(stream);
    }
    let qmp = Qmp::new(&format!("qmp+tcp://{address}")).unwrap();
    let source = qmp.greeting_timeout(SHORT).source();
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("nothing answers") && !error.contains("lets us in"), "{error}");
}

#[tokio::test]
async fn what_ends_before_it_began_is_told_with_what_to_look_at() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.hang_up = true);
    let error = refusal(&qemu).await;
    assert!(error.contains("before its greeting") && error.contains("ss -xlp"), "{error}");
    qemu.change(|faults| (faults.hang_up, faults.deaf) = (false, true));
    let error = refusal(&qemu).await;
    assert!(error.contains("or it is no QMP socket"), "{error}");
}

#[tokio::test]
async fn a_socket_of_datagrams_is_a_clear_error() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vm.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let source = Qmp::new(&format!("qmp:{}", path.display())).unwrap().source();
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("datagrams") && error.contains("no monitor"), "{error}");
}

#[tokio::test]
async fn a_qemu_that_freezes_is_told_as_one_and_not_as_a_server_with_too_many_clients() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    let DomainEvent::Gap(Gap { kind: Break::Disconnected { fault }, .. }) =
        next_within(&mut events, PATIENCE).await.unwrap()
    else {
        panic!("expected a gap");
    };
    let message = fault.message();
    assert!(message.contains("vm.sock") && message.contains("SIGSTOP"), "{message}");
    assert!(!message.contains("as many clients"), "{message}");
}

/// In a process of its own, which may open no more files than the connection.
#[test]
fn a_qemu_that_cannot_be_watched_for_want_of_files_is_not_watched_in_part() {
    const URI: &str = "VIREVENT_TEST_URI";

    let name = "a_qemu_that_cannot_be_watched_for_want_of_files_is_not_watched_in_part";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Ok(uri) = std::env::var(URI) else {
            let qemu = FakeQemu::start("web").unwrap();
            let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", name]).env(URI, qemu.uri()).kill_on_drop(true);
            let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        };
        let next_one = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let current = Some(u64::try_from(next_one).unwrap() + 1);
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let source = Qmp::new(&uri).unwrap().source();
        let outcome = source.subscribe_with(Options::default()).await;
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        let error = outcome.map(|_| ()).unwrap_err().to_line();
        assert!(error.contains("ulimit -n"), "{error}");
    });
}
