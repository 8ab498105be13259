//! Messages of QEMU that come in pieces, too early, in unknown forms, or malformed.

use std::time::Duration;

use virevent::{EventSource, FaultKind, Kind, Options};
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{PATIENCE, SHORT, all, client, gap, goes_on, next, watched};

#[tokio::test]
async fn an_event_before_the_greeting_is_ignored() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.before_greeting = b"{\"event\": \"STOP\"}\r\n".to_vec());
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    let delivered = until_synced(&mut events).await.unwrap();
    assert_eq!(delivered[0].to_string(), "web[1] existing (running)");
    goes_on(&qemu, &mut events).await;
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
async fn an_older_qemu_without_a_question_is_accepted() {
    let qemu = FakeQemu::start("web").unwrap();
    let lacks = ["query-name", "query-uuid", "query-cpus-fast"];
    qemu.change(|faults| faults.lacks = lacks.map(String::from).to_vec());
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    let delivered = until_synced(&mut events).await.unwrap();
    assert!(delivered[0].to_string().starts_with("vm["), "{}", delivered[0]);
}

#[tokio::test]
async fn bytes_read_one_by_one_make_the_same_events() {
    let qemu = FakeQemu::start("web").unwrap();
    // A read may end anywhere in a line.
    qemu.change(|faults| faults.piece = Some(1));
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn an_event_before_the_run_state_is_in_it_or_delivered() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.set_status("paused");
    let early = b"{\"event\": \"STOP\"}\r\n{\"event\": \"POWERDOWN\"}\r\n";
    qemu.change(|faults| drop(faults.before.insert("query-status".into(), early.to_vec())));
    let mut events = client(&qemu).source().subscribe_with(all()).await.unwrap();
    let delivered = until_synced(&mut events).await.unwrap();
    assert_eq!(delivered[0].to_string(), "web[1] existing (paused (user))");
    assert_eq!(delivered.len(), 1, "the pause is part of the state: {delivered:?}");
    assert_eq!(next(&mut events).await, "web event POWERDOWN {}");
}

#[tokio::test]
async fn an_event_read_with_the_last_answer_is_delivered_at_once() {
    let (qemu, mut events) = watched().await;
    let late = b"{\"event\": \"GUEST_CRASHLOADED\", \"data\": {\"action\": \"run\"}}\r\n";
    // Both lines come in one read, so that no further read makes the event known.
    qemu.change(|faults| drop(faults.after.insert("query-status".into(), late.to_vec())));
    qemu.cut();
    let mut delivered = Vec::new();
    // Far shorter than the keepalive, whose answer would have the event read.
    while let Ok(event) = next_within(&mut events, Duration::from_secs(2)).await {
        delivered.push(event.to_string());
        if delivered.iter().any(|event| event.contains("crashloaded")) {
            return;
        }
    }
    panic!("{delivered:?}");
}

#[tokio::test]
async fn an_answer_to_a_question_never_asked_is_ignored() {
    let (qemu, mut events) = watched().await;
    qemu.send(b"{\"return\": {\"status\": \"running\"}, \"id\": 4711}\r\n");
    qemu.send(
        b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"?\"}}\r\n{\"new\": true}\r\n",
    );
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn unknown_events_and_values_pass_through_whole() {
    let (qemu, mut events) = watched().await;
    qemu.emit("QUANTUM_FLUX", r#"{"flux": [1, {"deep": null}]}"#);
    assert_eq!(next(&mut events).await, r#"web event QUANTUM_FLUX {"flux": [1, {"deep": null}]}"#);
    // Valid JSON that is beyond the numbers and the nesting of serde_json.
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for data in [r#"{"x": 1e999}"#, r#"{"x": 123456789012345678901234567890}"#, &deep] {
        qemu.emit("QUANTUM_FLUX", data);
        assert_eq!(next(&mut events).await, format!("web event QUANTUM_FLUX {data}"));
    }
    qemu.emit("RESET", r#"{"reason": {"new": "form"}, "guest": 7}"#);
    assert_eq!(next(&mut events).await, "web rebooted");
    goes_on(&qemu, &mut events).await;
}

#[tokio::test]
async fn an_event_has_the_time_of_qemu_or_that_of_receipt() {
    let (qemu, mut events) = watched().await;
    goes_on(&qemu, &mut events).await;
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
async fn a_huge_or_malformed_line_is_a_gap_and_a_resync() {
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
async fn an_event_asked_for_by_name_is_the_only_raw_event() {
    let qemu = FakeQemu::start("web").unwrap();
    let wanted = Options::default().kind("other:POWERDOWN".parse::<Kind>().unwrap());
    let mut events = client(&qemu).source().subscribe_with(wanted).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.emit("ACPI_DEVICE_OST", "");
    qemu.emit("RTC_CHANGE", r#"{"offset": "late"}"#);
    qemu.emit("POWERDOWN", "");
    assert_eq!(next(&mut events).await, "web event POWERDOWN {}");
    events.close().await;
    qemu.until(|qemu| !qemu.is_held()).await;
    for (kind, shown) in [("other:99", "other:99"), ("agent-lifecycle", "agent-lifecycle")] {
        let wanted = Options::default().kind(kind.parse::<Kind>().unwrap());
        let error = client(&qemu).source().subscribe_with(wanted).await.unwrap_err().to_line();
        let expected = format!("cannot report events of kind {shown}: leave it out");
        assert!(error.contains(&expected), "{error}");
    }
}
