//! Notices, and the fields of each kind.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use virevent::{
    AddressFamily, BlockJobStatus, BlockJobType, ChannelReason, ChannelState, DiskChangeReason,
    DomainEvent, GraphicsAddress, GraphicsIdentity, GraphicsPhase, IoErrorAction, Kind,
    MemoryFailureAction, MemoryFailureRecipient, MetadataType, Notice, NoticeBody, ParamValue,
    Params, PmSuspendCause, Text, TrayChangeReason, WatchdogAction,
};

use crate::schema::Schema;
use crate::{at, domain, error, is, json_name, text};

/// A notice of every kind, some with values that have no name.
pub(crate) fn every_notice() -> Vec<NoticeBody> {
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

pub(crate) fn notice(body: NoticeBody) -> DomainEvent {
    Notice::new(domain(), body, at()).into()
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
fn a_value_of_a_notice_is_the_same_on_its_own() {
    is(&Text::from("vda"), json!("vda"));
    let long = "x".repeat(100);
    is(&Text::from(long.as_str()), json!(long));
    let address = GraphicsAddress {
        family: AddressFamily::Unknown(7),
        node: "::1".into(),
        service: "5900".into(),
    };
    is(&address, json!({"family": "unknown", "family_raw": 7, "node": "::1", "service": "5900"}));
    let identity = GraphicsIdentity { kind: "x509dname".into(), name: "CN=x".into() };
    is(&identity, json!({"type": "x509dname", "name": "CN=x"}));
    let values = [
        (ParamValue::Int(u64::MAX.into()), json!(u64::MAX)),
        (ParamValue::Int(i64::MIN.into()), json!(i64::MIN)),
        (ParamValue::Double(2.0), json!(2.0)),
        (ParamValue::Bool(true), json!(true)),
        (ParamValue::Text("0-1".into()), json!("0-1")),
    ];
    for (value, json) in &values {
        is(value, json.clone());
    }
    let params: Params = [("z", values[0].0.clone()), ("a", values[4].0.clone())]
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect();
    assert_eq!(serde_json::to_string(&params).unwrap(), r#"{"z":18446744073709551615,"a":"0-1"}"#);
    let read: Params = serde_json::from_str(r#"{"z":18446744073709551615,"a":"0-1"}"#).unwrap();
    assert_eq!(read, params);
    is(&Params::default(), json!({}));
    assert!(error::<GraphicsAddress>(json!({"family": "ipv4"})).contains("\"node\" is missing"));
    assert!(error::<GraphicsIdentity>(json!({"type": 1, "name": ""})).contains("expected a text"));
    assert!(error::<Params>(json!({"rate": [1]})).contains("\"rate\" is [1]"));
    assert!(error::<ParamValue>(json!(null)).contains("expected a number"));
    assert!(error::<Text>(json!(1)).contains("expected a string"));
}

#[test]
fn values_of_a_notice_are_read_from_a_buffer_too() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(untagged)]
    enum Item {
        Address(GraphicsAddress),
        Value(ParamValue),
        Params(Params),
    }
    let read = |json| serde_json::from_value::<Item>(json).unwrap();
    let address = json!({"family": "ipv4", "node": "h", "service": ""});
    assert!(matches!(read(address), Item::Address(address) if &*address.node == "h"));
    assert_eq!(read(json!(1.5)), Item::Value(ParamValue::Double(1.5)));
    let params = Params(vec![("error".into(), ParamValue::Int(-1))]);
    assert_eq!(read(json!({"error": -1})), Item::Params(params));
}

#[test]
fn every_kind_of_notice_has_an_event_in_these_tests() {
    let tested: BTreeSet<Kind> = every_notice().iter().map(NoticeBody::kind).collect();
    assert_eq!(tested.len() + 2, Kind::TYPED.len(), "lifecycle and reboot are no notices");
    let tested: BTreeSet<String> = tested.iter().map(json_name).collect();
    assert_eq!(Schema::load().notice_kinds().into_iter().collect::<BTreeSet<_>>(), tested);
}

#[test]
fn every_name_of_the_schema_in_a_notice_is_known() {
    let notices: Vec<Value> = every_notice()
        .into_iter()
        .map(|body| serde_json::to_value(notice(body)).unwrap())
        .collect();
    for [kind, field, name] in Schema::load().notice_names() {
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
