//! A connection that breaks, or brings no answer.

use std::time::Duration;

use virevent::{Break, DomainEvent, EventSource, FaultKind, Gap, Options};
use virevent_qemu::{Qmp, QmpDir};
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::qmp::FakeQemu;

use super::{PATIENCE, SHORT, all, client, gap, goes_on, next, watched};

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
