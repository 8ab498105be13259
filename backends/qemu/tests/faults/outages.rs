//! Connections that break, or on which nothing is answered.

use std::time::{Duration, Instant};

use virevent::{EventSource, FaultKind, Options};
use virevent_qemu::Qmp;
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{SHORT, all, client, gap, goes_on, next, watched};

#[tokio::test]
async fn a_short_break_of_the_connection_is_a_gap() {
    let (qemu, mut events) = watched().await;
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn an_indistinguishable_qemu_is_the_same_run_after_a_break() {
    let qemu = FakeQemu::start("web").unwrap();
    // Without a thread id, and with the same name and uuid, nothing distinguishes two runs.
    qemu.change(|faults| faults.lacks = vec!["query-cpus-fast".into()]);
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_failed_question_after_a_break_is_not_another_run() {
    let (qemu, mut events) = watched().await;
    // The questions that were answered on the first connection fail on the second.
    let lacks = ["query-name", "query-uuid"];
    qemu.change(|faults| faults.lacks = lacks.map(String::from).to_vec());
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
    // Another run is still recognized as another.
    qemu.change(|faults| faults.hang_up = true);
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    // The next run has another thread id.
    qemu.boot("web").unwrap();
    qemu.change(|faults| faults.hang_up = false);
    assert_eq!(next(&mut events).await, "web stopped [inferred]");
}

#[tokio::test]
async fn a_pause_in_an_outage_is_delivered_after_it() {
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
async fn a_qemu_that_does_not_answer_is_a_gap_and_never_stopped() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    assert_eq!(gap(&mut events).await, FaultKind::Timeout);
    // Neither stopped nor synced: only an answer or the end of QEMU changes that.
    assert!(next_within(&mut events, 3 * SHORT).await.is_err());
    assert_eq!(qemu.accepted(), 1, "the connection is kept");
    qemu.cut();
    qemu.change(|faults| faults.unanswered.clear());
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_tcp_connection_without_answers_is_replaced() {
    let qemu = FakeQemu::start_tcp("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).greeting_timeout(SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    // QEMU neither answers nor closes the connection, as when its host is down.
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    assert_eq!(gap(&mut events).await, FaultKind::Timeout);
    qemu.change(|faults| faults.unanswered.clear());
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_tcp_connection_without_a_greeting_is_replaced() {
    let qemu = FakeQemu::start_tcp("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).greeting_timeout(SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    // It accepts the connection and sends nothing, as a host behind a broken network would.
    qemu.change(|faults| faults.deaf = true);
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    qemu.until(|qemu| qemu.accepted() >= 2).await;
    qemu.change(|faults| faults.deaf = false);
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn the_monitor_is_released_with_the_last_subscriber() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).source();
    // More than once: a released monitor must be usable again.
    for round in 1..=3 {
        let events = source.subscribe_with(Options::default()).await.unwrap();
        assert_eq!(qemu.accepted(), round);
        events.close().await;
        qemu.until(|qemu| !qemu.is_held()).await;
    }
}

#[tokio::test]
async fn a_second_greeting_on_a_connection_is_a_gap_and_a_resync() {
    let (qemu, mut events) = watched().await;
    qemu.set_status("paused");
    // QEMU 11 removes and re-makes a monitor so; the run state has changed in between.
    qemu.greet_again();
    assert_eq!(gap(&mut events).await, FaultKind::Protocol);
    assert_eq!(next(&mut events).await, "web suspended (paused) [inferred]");
    assert!(next(&mut events).await.starts_with("synced"));
    qemu.cont();
    assert_eq!(next(&mut events).await, "web resumed (unpaused)");
    assert_eq!(qemu.accepted(), 1, "it is negotiated on the same connection");
}

#[tokio::test]
async fn an_endlessly_greeting_peer_is_answered_at_intervals() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).look_every(Duration::from_secs(1)).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let greeting = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";
    qemu.change(|faults| faults.after.insert("query-status".into(), greeting.into()));
    let since = Instant::now();
    qemu.greet_again();
    // The intervals double from 10 ms up to the second.
    qemu.until(|qemu| qemu.calls("qmp_capabilities") >= 8).await;
    assert!(since.elapsed() > Duration::from_millis(500), "{:?}", since.elapsed());
    qemu.change(|faults| faults.after.clear());
    let is_synced = |event: &str| event.starts_with("synced");
    while !is_synced(&next(&mut events).await) {}
    assert_eq!(qemu.accepted(), 1, "the connection is kept");
}

#[tokio::test]
async fn a_greeting_in_an_outage_ends_it() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    // Its monitor is removed: nothing answers.
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    assert_eq!(gap(&mut events).await, FaultKind::Timeout);
    qemu.change(|faults| faults.unanswered.clear());
    qemu.greet_again();
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_refused_question_is_no_sign_of_life() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    // An error is an answer, but says nothing of the guest.
    qemu.change(|faults| faults.lacks = vec!["query-status".into()]);
    assert_eq!(gap(&mut events).await, FaultKind::Protocol);
    qemu.change(|faults| faults.lacks.clear());
    assert!(next(&mut events).await.starts_with("synced"));
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn a_question_that_qemu_cannot_parse_is_a_gap() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).keepalive(SHORT, 100 * SHORT).source();
    let mut events = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    // QEMU 7.2 was seen to garble the commands of a connection from then on.
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    let asked = qemu.calls("query-status");
    qemu.until(|qemu| qemu.calls("query-status") > asked).await;
    qemu.send(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\r\n");
    assert_eq!(gap(&mut events).await, FaultKind::Protocol);
    qemu.change(|faults| faults.unanswered.clear());
    // The connection without answers is dropped first.
    qemu.cut();
    assert!(next(&mut events).await.starts_with("synced"));
}

#[tokio::test]
async fn the_end_of_a_qemu_over_tcp_is_no_gap() {
    // It is a race between the end and the next attempt: once would prove little.
    for _ in 0..3 {
        let qemu = FakeQemu::start_tcp("web").unwrap();
        // The default interval over TCP.
        let source = Qmp::new(&qemu.uri()).unwrap().source();
        let mut events = source.subscribe_with(all()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        // A QEMU that ends closes its connection first, and listens for a moment longer.
        qemu.change(|faults| faults.hang_up = true);
        qemu.cut();
        qemu.until(|qemu| qemu.accepted() >= 2).await;
        qemu.kill();
        assert_eq!(next(&mut events).await, "web stopped (failed)");
    }
}

#[tokio::test]
async fn an_end_in_a_gap_has_the_cause_announced_before_it() {
    let (qemu, mut events) = watched().await;
    qemu.emit("SHUTDOWN", r#"{"guest": true, "reason": "guest-shutdown"}"#);
    assert_eq!(next(&mut events).await, "web shutting_down (guest)");
    qemu.change(|faults| faults.hang_up = true);
    qemu.cut();
    assert_eq!(gap(&mut events).await, FaultKind::Closed);
    qemu.kill();
    assert_eq!(next(&mut events).await, "web stopped (shutdown) [inferred]");
}
