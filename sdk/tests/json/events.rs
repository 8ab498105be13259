//! Whole events.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use virevent::{
    Change, CrashCause, DefineCause, DomainEvent, EventData, EventName, Fault, FaultKind, Gap,
    GapKind, Lifecycle, Origin, PausedReason, Reboot, RunningReason, Scope, StartCause, State,
    StopCause, Synced,
};

use crate::notices::{every_notice, notice};
use crate::untyped::other;
use crate::{UUID, at, domain, reads_back, text};

pub(crate) fn lifecycle(change: Change) -> DomainEvent {
    Lifecycle::new(domain(), change, at()).into()
}

pub(crate) fn gap(scope: Scope, kind: GapKind) -> DomainEvent {
    Gap::new(scope, kind).into()
}

fn disconnected(kind: FaultKind) -> GapKind {
    GapKind::disconnected(Fault::new(kind, "the other side closed \"it\""))
}

pub(crate) fn synced(scope: Scope) -> DomainEvent {
    Synced::new(scope, 3).into()
}

/// Every change with every cause, every state with every reason, and every shape of the rest.
pub(crate) fn every_event() -> Vec<DomainEvent> {
    let mut events = Vec::new();
    for event in 0..10 {
        events.extend((0..12).map(|detail| lifecycle(Change::from_codes(event, detail))));
    }
    events.push(lifecycle(Change::Started(StartCause::Unspecified)));
    for persistent in [true, false] {
        let stopped = Lifecycle::new(domain(), Change::Stopped(StopCause::Shutdown), at());
        events.push(stopped.persistent(persistent).into());
    }
    for state in 0..9 {
        events.extend((0..17).map(|r| lifecycle(Change::Existing(State::from_codes(state, r)))));
    }
    for origin in [Origin::Inferred, Origin::Replayed] {
        let domain = domain().with_id(None);
        let change = Change::Stopped(StopCause::Destroyed);
        let mut lifecycle = Lifecycle::new(domain.clone(), change, at());
        let mut reboot = Reboot::new(domain, at());
        lifecycle.origin = origin;
        reboot.origin = origin;
        events.extend([lifecycle.into(), reboot.into()]);
    }
    events.extend(every_notice().into_iter().map(notice));
    let json = |text: &str| EventData::Json(text.into());
    events.push(other("RTC_CHANGE".into(), json(r#"{"offset":-3,"qom":null}"#), Some(domain())));
    events.push(other("NULL".into(), json("null"), None));
    events.push(other("8".into(), EventData::Bytes([0, 0xff, 0x1a].into()), Some(domain())));
    events.push(other(EventName::Name("8".into()), EventData::Bytes([].into()), None));
    for scope in [
        Scope::source_wide("test:///default"),
        Scope::on_host("test:///default", "h2"),
        Scope::Domain(domain()),
        Scope::fleet("fleet:all", ["test:///default".into(), "qmp:/run/vm".into()]),
    ] {
        events.push(synced(scope.clone()));
        events.push(gap(scope.clone(), GapKind::lagged(u64::MAX, false)));
        events.push(gap(scope.clone(), GapKind::lagged(1, true)));
        events.push(gap(scope.clone(), GapKind::Removed));
        for kind in ["unreachable", "closed", "timeout", "protocol", "refused", "other"] {
            events.push(gap(scope.clone(), disconnected(FaultKind::from_name(kind))));
        }
    }
    events
}

#[test]
fn every_event_reads_back_as_it_was_written() {
    for event in every_event() {
        reads_back(&event);
    }
}

#[test]
fn a_lifecycle_event_has_exactly_the_documented_text() {
    assert_eq!(
        text(&lifecycle(Change::Started(StartCause::Booted))),
        concat!(
            r#"{"kind":"lifecycle","change":"started","cause":"booted","origin":"observed","#,
            r#""at":"2026-01-31T12:00:00.000000Z","source":"test:///default","#,
            r#""domain":{"host":"h","uuid":"6695eb01-f6a4-8304-79aa-97f2502e193f","#,
            r#""name":"vm1","id":3}}"#
        )
    );
}

#[test]
fn an_existing_domain_has_a_state_and_a_reason() {
    let head = |state| {
        text(&lifecycle(Change::Existing(state))).split_once(r#","origin""#).unwrap().0.to_owned()
    };
    assert_eq!(
        head(State::Running(RunningReason::Booted)),
        r#"{"kind":"lifecycle","change":"existing","state":"running","reason":"booted""#
    );
    assert_eq!(
        head(State::Blocked),
        r#"{"kind":"lifecycle","change":"existing","state":"blocked""#
    );
    assert_eq!(
        head(State::Paused(PausedReason::Unspecified)),
        r#"{"kind":"lifecycle","change":"existing","state":"paused""#
    );
    assert_eq!(
        head(State::Paused(PausedReason::Unknown(42))),
        r#"{"kind":"lifecycle","change":"existing","state":"paused","reason":"unknown","raw":42"#
    );
    assert_eq!(
        head(State::Unknown { state: 9, reason: 2 }),
        r#"{"kind":"lifecycle","change":"existing","state":"unknown","raw":9,"detail":2"#
    );
}

#[test]
fn json_omits_a_missing_cause_and_numbers_an_unknown_one() {
    let head = |change| text(&lifecycle(change)).split_once(r#","origin""#).unwrap().0.to_owned();
    assert_eq!(
        head(Change::Crashed(CrashCause::Unspecified)),
        r#"{"kind":"lifecycle","change":"crashed""#
    );
    assert_eq!(
        head(Change::Defined(DefineCause::Unknown(17))),
        r#"{"kind":"lifecycle","change":"defined","cause":"unknown","raw":17"#
    );
    assert_eq!(
        head(Change::Unknown { event: 11, detail: 5 }),
        r#"{"kind":"lifecycle","change":"unknown","raw":11,"detail":5"#
    );
}

#[test]
fn an_inactive_domain_has_no_id() {
    reads_back(&domain());
    let domain = domain().with_id(None);
    reads_back(&domain);
    assert_eq!(
        serde_json::to_string(&domain).unwrap(),
        format!(r#"{{"source":"test:///default","host":"h","uuid":"{UUID}","name":"vm1"}}"#)
    );
}

#[test]
fn markers_have_exactly_the_documented_text() {
    assert_eq!(
        text(&synced(Scope::source_wide("test:///default"))),
        r#"{"kind":"synced","source":"test:///default","domains":3}"#
    );
    assert_eq!(
        text(&synced(Scope::on_host("test:///default", "h2"))),
        r#"{"kind":"synced","source":"test:///default","host":"h2","domains":3}"#
    );
    assert_eq!(
        text(&gap(Scope::source_wide("test:///default"), disconnected(FaultKind::Closed))),
        concat!(
            r#"{"kind":"gap","gap":"disconnected","source":"test:///default","#,
            r#""error":"the other side closed \"it\"","fault":"closed"}"#
        )
    );
    assert_eq!(
        text(&gap(Scope::source_wide("test:///default"), GapKind::lagged(17, false))),
        r#"{"kind":"gap","gap":"lagged","source":"test:///default","missed":17}"#
    );
}

#[test]
fn a_time_out_of_range_is_written_as_the_nearest_in_range() {
    let at = |at| {
        let reboot = Reboot::new(domain(), at);
        serde_json::to_value(DomainEvent::from(reboot)).unwrap()["at"].clone()
    };
    assert_eq!(at(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000000Z");
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert_eq!(at(far), "9999-12-31T23:59:59.000000Z");
}

#[test]
fn unknown_fields_are_ignored() {
    let read: DomainEvent = serde_json::from_value(json!({
        "kind": "synced", "source": "x:", "domains": 1, "colour": "blue", "shape": {"a": [1]}
    }))
    .unwrap();
    assert_eq!(read, Synced::new(Scope::source_wide("x:"), 1).into());
}

#[test]
fn json_reads_a_number_that_the_writer_did_not_know() {
    let mut event =
        serde_json::to_value(lifecycle(Change::Stopped(StopCause::Unknown(99)))).unwrap();
    event["raw"] = json!(1);
    let read: DomainEvent = serde_json::from_value(event).unwrap();
    assert_eq!(read.change(), Some(Change::Stopped(StopCause::Destroyed)));
}

#[test]
fn an_error_names_what_is_wrong_with_an_event() {
    let started = serde_json::to_value(lifecycle(Change::Started(StartCause::Booted))).unwrap();
    let with = |field: &str, value: Value| {
        let mut event = started.clone();
        event[field] = value;
        event
    };
    let without = |field: &str| {
        let mut event = started.clone();
        event.as_object_mut().unwrap().remove(field);
        event
    };
    for (event, said) in [
        (with("kind", json!("device")), "unknown kind \"device\""),
        (with("change", json!("begun")), "unknown change \"begun\""),
        (with("cause", json!("destroyed")), "unknown cause \"destroyed\""),
        (with("cause", json!("unknown")), "lacks the field \"raw\""),
        (with("origin", json!("heard")), "unknown origin \"heard\""),
        (with("at", json!("yesterday")), "\"yesterday\""),
        (with("domain", json!({"host": "h", "uuid": "7", "name": "n"})), "\"7\""),
        (without("kind"), "missing field `kind`"),
        (without("at"), "this lifecycle event lacks the field \"at\""),
        (without("domain"), "lacks the field \"domain\""),
        (without("source"), "lacks the field \"source\""),
        (json!({"kind": "synced", "source": "x:"}), "lacks the field \"domains\""),
        (json!({"kind": "gap", "source": "x:", "gap": "torn"}), "unknown gap \"torn\""),
        (json!({"kind": "other", "event": 8, "at": "2026-01-31T12:00:00Z"}), "\"hex\""),
        (json!({"kind": "other", "event": 8, "hex": "0"}), "odd number"),
        (json!({"kind": "other", "event": 8, "hex": "+1"}), "not hexadecimal"),
        (json!({"kind": "other", "event": [], "hex": ""}), "a number or a name"),
        (json!([]), "invalid"),
    ] {
        let error = serde_json::from_value::<DomainEvent>(event.clone()).unwrap_err().to_string();
        assert!(error.contains(said), "{event}: {error}");
    }
}
