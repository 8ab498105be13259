//! Tests of the JSON form of events: exactly as documented, read back unchanged, valid by the
//! schema.

#![allow(clippy::unwrap_used, clippy::panic)]

mod schema;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use virevent::{
    AddressFamily, BlockJobStatus, BlockJobType, Change, ChannelReason, ChannelState, CrashCause,
    DefineCause, DiskChangeReason, Domain, DomainEvent, EventData, EventName, Fault, FaultKind,
    Gap, GapKind, GraphicsAddress, GraphicsIdentity, GraphicsPhase, IoErrorAction, Kind, Lifecycle,
    MemoryFailureAction, MemoryFailureRecipient, MetadataType, Notice, NoticeBody, Origin,
    ParamValue, Params, PausedReason, PmSuspendCause, RawEvent, Reboot, RunningReason, Scope,
    StartCause, State, StopCause, Synced, Text, TrayChangeReason, WatchdogAction,
};

use self::schema::Schema;

const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_769_860_800_000_000)
}

fn domain() -> Domain {
    Domain::new("test:///default", "h", UUID.parse().unwrap(), "vm1", Some(3))
}

fn lifecycle(change: Change) -> DomainEvent {
    Lifecycle::new(domain(), change, at()).into()
}

fn gap(scope: Scope, kind: GapKind) -> DomainEvent {
    Gap::new(scope, kind).into()
}

fn disconnected(kind: FaultKind) -> GapKind {
    GapKind::disconnected(Fault::new(kind, "the other side closed \"it\""))
}

fn synced(scope: Scope) -> DomainEvent {
    Synced::new(scope, 3).into()
}

fn other(name: EventName, data: EventData, domain: Option<Domain>) -> DomainEvent {
    RawEvent::new("test:///default", domain, name, data, at()).into()
}

fn text(event: &DomainEvent) -> String {
    serde_json::to_string(event).unwrap()
}

/// A notice of every kind, some with values that have no name.
fn every_notice() -> Vec<NoticeBody> {
    let text = |text: &str| -> Text { text.into() };
    let address = |node, service| GraphicsAddress {
        family: AddressFamily::Ipv4,
        node: text(node),
        service: text(service),
    };
    let params = || {
        Params(vec![
            (text("cputune.vcpupin0"), ParamValue::Text(text("0-1"))),
            (text("data_total"), ParamValue::Int(u64::MAX.into())),
            (text("error"), ParamValue::Int(-1)),
            (text("rate"), ParamValue::Double(0.5)),
            (text("success"), ParamValue::Bool(true)),
        ])
    };
    vec![
        NoticeBody::RtcChange { offset: -3 },
        NoticeBody::Watchdog { action: WatchdogAction::Pause },
        NoticeBody::Watchdog { action: WatchdogAction::Unknown(9) },
        NoticeBody::IoError {
            path: text("/x.qcow2"),
            alias: text("virtio-disk0"),
            action: IoErrorAction::Pause,
            reason: text("enospc"),
        },
        NoticeBody::Graphics {
            phase: GraphicsPhase::Initialize,
            local: address("127.0.0.1", "5900"),
            remote: GraphicsAddress { family: AddressFamily::Unknown(7), ..address("h", "") },
            auth_scheme: text("vnc+tls"),
            identities: vec![GraphicsIdentity { kind: text("x509dname"), name: text("CN=x") }],
        },
        NoticeBody::ControlError {},
        NoticeBody::BlockJob {
            disk: text("vda"),
            job: BlockJobType::Copy,
            status: BlockJobStatus::Ready,
        },
        NoticeBody::BlockJob {
            disk: text("vda"),
            job: BlockJobType::Unspecified,
            status: BlockJobStatus::Completed,
        },
        NoticeBody::DiskChange {
            old_path: Some(text("/gone.iso")),
            new_path: None,
            alias: text("ide0-0-0"),
            reason: DiskChangeReason::MissingOnStart,
        },
        NoticeBody::TrayChange { alias: text("ide0-0-0"), reason: TrayChangeReason::Open },
        NoticeBody::PmWakeup { reason: 0 },
        NoticeBody::PmSuspend { target: PmSuspendCause::Disk, reason: 0 },
        NoticeBody::BalloonChange { actual: u64::MAX },
        NoticeBody::DeviceRemoved { alias: text("net1") },
        NoticeBody::DeviceAdded { alias: text("net1") },
        NoticeBody::DeviceRemovalFailed { alias: text("net1") },
        NoticeBody::Tunable { params: params() },
        NoticeBody::AgentLifecycle {
            state: ChannelState::Connected,
            reason: ChannelReason::Channel,
        },
        NoticeBody::ChannelLifecycle {
            channel: text("org.qemu.guest_agent.0"),
            state: ChannelState::Disconnected,
            reason: ChannelReason::Unspecified,
        },
        NoticeBody::MigrationIteration { iteration: 2 },
        NoticeBody::JobCompleted { params: params() },
        NoticeBody::MetadataChange { metadata: MetadataType::Title, uri: None },
        NoticeBody::MetadataChange { metadata: MetadataType::Element, uri: Some(text("urn:x")) },
        NoticeBody::BlockThreshold {
            disk: text("vda[3]"),
            path: Some(text("/x.qcow2")),
            threshold: 1 << 40,
            excess: 512,
        },
        NoticeBody::MemoryFailure {
            recipient: MemoryFailureRecipient::Guest,
            action: MemoryFailureAction::Inject,
            action_required: true,
            recursive: false,
            other_flags: 8,
        },
        NoticeBody::MemoryDeviceSizeChange { alias: text("virtiomem0"), size: 1 << 20 },
        NoticeBody::NicMacChange {
            alias: text("net0"),
            old_mac: text("52:54:00:00:00:01"),
            new_mac: text("52:54:00:00:00:02"),
        },
        NoticeBody::VcpuRemoved { vcpu: 3 },
    ]
}

fn notice(body: NoticeBody) -> DomainEvent {
    Notice::new(domain(), body, at()).into()
}

/// Every change with every cause, every state with every reason, and every shape of the rest.
fn every_event() -> Vec<DomainEvent> {
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
        let text = text(&event);
        assert_eq!(serde_json::from_str::<DomainEvent>(&text).unwrap(), event, "{text}");
        let value = serde_json::to_value(&event).unwrap();
        assert_eq!(serde_json::from_value::<DomainEvent>(value).unwrap(), event, "{text}");
    }
}

#[test]
fn every_event_has_exactly_the_fields_of_the_schema() {
    let schema = Schema::load();
    for event in every_event() {
        let value = serde_json::to_value(&event).unwrap();
        if let Err(error) = schema.check(&value) {
            panic!("{value}: {error}");
        }
    }
}

#[test]
fn the_schema_has_only_causes_and_reasons_of_the_code() {
    let mut written = BTreeSet::new();
    for event in every_event() {
        let event = serde_json::to_value(&event).unwrap();
        for field in ["cause", "reason", "origin", "fault"] {
            let name = |of: &str| event[of].as_str().unwrap_or("").to_owned();
            let of = if field == "reason" { name("state") } else { name("change") };
            written.insert((of, field.to_owned(), name(field)));
        }
    }
    for (of, field, name) in Schema::load().enums() {
        let known = written
            .iter()
            .any(|(o, f, n)| (f, n) == (&field, &name) && (o == &of || of.is_empty()));
        assert!(known, "{of} {field} {name}");
    }
}

#[test]
fn the_schema_refuses_invalid_events() {
    let schema = Schema::load();
    let started = serde_json::to_value(lifecycle(Change::Started(StartCause::Booted))).unwrap();
    for (field, wrong) in [
        ("kind", json!("lifecycl")),
        ("change", json!("begun")),
        ("cause", json!("destroyed")),
        ("origin", json!(null)),
        ("domain", json!({"host": "h", "name": "vm1"})),
    ] {
        let mut event = started.clone();
        event[field] = wrong;
        assert!(schema.check(&event).is_err(), "{event}");
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
fn a_notice_has_its_fields_in_data() {
    let head = |body| text(&notice(body)).split_once(r#","origin""#).unwrap().0.to_owned();
    let io_error = NoticeBody::IoError {
        path: "/x.qcow2".into(),
        alias: "virtio-disk0".into(),
        action: IoErrorAction::Pause,
        reason: "enospc".into(),
    };
    assert_eq!(
        head(io_error),
        r#"{"kind":"io_error","data":{"path":"/x.qcow2","alias":"virtio-disk0","action":"pause","reason":"enospc"}"#
    );
    assert_eq!(
        head(NoticeBody::Watchdog { action: WatchdogAction::Unknown(9) }),
        r#"{"kind":"watchdog","data":{"action":"unknown","action_raw":9}"#
    );
}

#[test]
fn parameters_keep_their_order_and_odd_numbers_stay_readable() {
    let params = |rate: ParamValue| {
        let elapsed = ("time_elapsed".into(), ParamValue::Int(7));
        notice(NoticeBody::JobCompleted { params: Params(vec![elapsed, ("rate".into(), rate)]) })
    };
    let event = params(ParamValue::Double(2.5));
    assert!(text(&event).contains(r#"{"params":{"time_elapsed":7,"rate":2.5}}"#));
    assert_eq!(serde_json::from_str::<DomainEvent>(&text(&event)).unwrap(), event);
    let odd = text(&params(ParamValue::Double(f64::INFINITY)));
    let read: DomainEvent = serde_json::from_str(&odd).unwrap();
    assert_eq!(read, params(ParamValue::Text("inf".into())), "JSON has no such number");
}

#[test]
fn every_kind_of_notice_has_an_event_in_these_tests() {
    let tested: BTreeSet<Kind> = every_notice().iter().map(NoticeBody::kind).collect();
    assert_eq!(tested.len() + 2, Kind::TYPED.len(), "lifecycle and reboot are no notices");
}

#[test]
fn every_name_of_the_schema_in_a_notice_is_known() {
    let notices: Vec<Value> = every_notice()
        .into_iter()
        .map(|body| serde_json::to_value(notice(body)).unwrap())
        .collect();
    for (kind, field, name) in Schema::load().notice_enums() {
        let mut event =
            notices.iter().find(|event| event["kind"] == kind.as_str()).unwrap().clone();
        event["data"][&field] = json!(name);
        event["data"][format!("{field}_raw")] = json!(1_000_000);
        let read: DomainEvent = serde_json::from_value(event).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap()["data"][&field], name, "{kind} {field}");
    }
}

#[test]
fn a_notice_with_a_wrong_field_is_an_error_that_names_it() {
    let with = |data: Value| {
        let mut event = serde_json::to_value(notice(NoticeBody::VcpuRemoved { vcpu: 3 })).unwrap();
        event["data"] = data;
        serde_json::from_value::<DomainEvent>(event).unwrap_err().to_string()
    };
    for data in [json!({}), json!({"vcpu": -1}), json!({"vcpu": "3"}), json!({"vcpu": 1_u64 << 32})]
    {
        let error = with(data);
        assert!(error.contains("vcpu-removed") && error.contains("\"vcpu\""), "{error}");
    }
    assert!(with(json!([3])).contains("vcpu-removed"));
}

#[test]
fn an_inactive_domain_has_no_id() {
    let domain = domain().with_id(None);
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
fn an_untyped_event_has_its_name_or_number_and_json_or_hex() {
    let json = EventData::Json("{ \"offset\": 1,\n \"x\": [] }".into());
    assert_eq!(
        text(&other("RTC_CHANGE".into(), json, None)),
        concat!(
            r#"{"kind":"other","event":"RTC_CHANGE","data":{"offset":1,"x":[]},"#,
            r#""origin":"observed","at":"2026-01-31T12:00:00.000000Z","source":"test:///default"}"#
        )
    );
    assert_eq!(
        text(&other("8".into(), EventData::Bytes([0, 0xff].into()), None)),
        concat!(
            r#"{"kind":"other","event":8,"hex":"00ff","origin":"observed","#,
            r#""at":"2026-01-31T12:00:00.000000Z","source":"test:///default"}"#
        )
    );
}

#[test]
fn data_is_passed_on_as_the_hypervisor_wrote_it() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let table = [
        r#"{"offset":1e999}"#,
        r#"{"id":123456789012345678901234567890}"#,
        r#"{"b":1.10,"a":-0,"a":"\ud800 \u00e4 \" x"}"#,
        &deep,
    ];
    for data in table {
        let event = other("X".into(), EventData::Json(data.into()), Some(domain()));
        let line = text(&event);
        assert!(line.contains(&format!(r#""data":{data},"origin""#)), "{line}");
        assert_eq!(serde_json::from_str::<DomainEvent>(&line).unwrap(), event);
    }
}

#[test]
fn an_event_is_read_from_a_value_and_from_a_buffer_too() {
    #[derive(serde::Deserialize)]
    struct Item {
        number: u32,
        #[serde(flatten)]
        event: DomainEvent,
    }
    let event = other("X".into(), EventData::Json(r#"{"a":[1,null]}"#.into()), Some(domain()));
    let mut value = serde_json::to_value(&event).unwrap();
    assert_eq!(serde_json::from_value::<DomainEvent>(value.clone()).unwrap(), event);
    value["number"] = 7.into();
    let item: Item = serde_json::from_str(&value.to_string()).unwrap();
    assert_eq!((item.number, item.event), (7, event));
}

#[test]
fn data_that_is_no_json_is_an_error_and_not_a_broken_line() {
    let event = other("X".into(), EventData::Json("{".into()), None);
    assert!(serde_json::to_string(&event).is_err());
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
