//! The schema: it describes what is written, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use virevent::{
    AddressFamily, BlockJobStatus, BlockJobType, Change, ChannelReason, ChannelState, CrashCause,
    CrashedReason, DefineCause, DiskChangeReason, FaultKind, GraphicsPhase, IoErrorAction, Kind,
    MemoryFailureAction, MemoryFailureRecipient, MetadataType, PausedReason, PmSuspendCause,
    ResumeCause, RunningReason, ShutdownCause, ShutoffReason, ShuttingDownReason, StartCause,
    StopCause, SuspendCause, TrayChangeReason, UndefineCause, WatchdogAction,
};

use crate::events::{every_event, lifecycle};
use crate::json_name;
use crate::schema::Schema;

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
        for (tag, field) in [("change", "cause"), ("state", "reason")] {
            let name = |of: &str| event[of].as_str().unwrap_or("").to_owned();
            written.insert([name(tag), field.to_owned(), name(field)]);
        }
    }
    for cause in Schema::load().causes() {
        assert!(written.contains(&cause), "{cause:?}");
    }
}

#[test]
fn an_enumeration_of_the_schema_has_the_names_of_the_code() {
    macro_rules! every {
        ($($type:ident),+ $(,)?) => { $(
            let codes = (-1..100).map($type::from_code);
            let names: BTreeSet<_> = codes.map($type::as_str).collect();
            let names = names.into_iter().filter(|name| !matches!(*name, "" | "unknown"));
            let mut known = Schema::names_of::<$type>();
            known.sort();
            assert_eq!(known, names.collect::<Vec<_>>(), stringify!($type));
        )+ };
    }
    every!(
        AddressFamily,
        BlockJobStatus,
        BlockJobType,
        ChannelReason,
        ChannelState,
        CrashCause,
        CrashedReason,
        DefineCause,
        DiskChangeReason,
        GraphicsPhase,
        IoErrorAction,
        MemoryFailureAction,
        MemoryFailureRecipient,
        MetadataType,
        PausedReason,
        PmSuspendCause,
        ResumeCause,
        RunningReason,
        ShutdownCause,
        ShutoffReason,
        ShuttingDownReason,
        StartCause,
        StopCause,
        SuspendCause,
        TrayChangeReason,
        UndefineCause,
        WatchdogAction,
    );
    for name in Schema::load().names_in("fault_kind") {
        assert_eq!(FaultKind::from_name(&name).as_str(), name);
    }
    let kinds: Vec<_> = Kind::TYPED.iter().map(json_name).collect();
    assert_eq!(Schema::load().names_in("kind"), kinds);
}

#[test]
fn every_reference_of_the_schema_has_a_target() {
    let references = Schema::load().references();
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        if let Some(path) = reference.strip_prefix("#/$defs/") {
            Schema::load().definition(path);
        } else {
            assert_eq!(reference, "#");
        }
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
        ("cause", json!("unknown")),
        ("origin", json!(null)),
        ("at", json!("2026-01-31T12:00:00Z")),
        ("domain", json!({"host": "h", "name": "vm1"})),
        ("domain", json!({"host": "h", "uuid": "7", "name": "vm1"})),
        ("colour", json!("blue")),
    ] {
        let mut event = started.clone();
        event[field] = wrong;
        assert!(schema.check(&event).is_err(), "{event}");
    }
}

/// Values that lack a field, have one too many, or a wrong name.
#[test]
fn each_definition_refuses_what_its_type_does_not_write() {
    let domain = json!({
        "source": "s:", "host": "h", "uuid": "00000000-0000-0000-0000-000000000007", "name": "vm1"
    });
    let stored = json!({
        "domain": domain, "state": {"state": "running"}, "change": {"change": "started"},
        "origin": "observed", "certain": true
    });
    assert_eq!(Schema::load().definition("stored_domain").check(&stored), Ok(()));
    let with = |value: &Value, field: &str, wrong: Value| {
        let mut value = value.clone();
        value[field] = wrong;
        value
    };
    let refused = [
        ("capabilities", json!({"kinds": []})),
        ("capabilities", json!({"kinds": [], "lacking": ["lifecyle"]})),
        ("change", json!({"cause": "booted"})),
        ("change", json!({"change": "started", "cause": "crashed"})),
        ("change", json!({"change": "started", "cause": "unknown"})),
        ("change", json!({"change": "unknown", "raw": 7})),
        ("change", json!({"change": "existing"})),
        ("change", json!({"change": "started", "state": "running"})),
        ("counters", json!({"events": 1})),
        ("domain", with(&domain, "source", json!(null))),
        ("domain", with(&domain, "uuid", json!("7"))),
        ("event_data", json!({})),
        ("event_data", json!({"hex": "0"})),
        ("event_data", json!({"data": 1, "hex": "00"})),
        ("event_name", json!(-1)),
        ("event_name", json!(null)),
        ("fault", json!({"fault": "closed"})),
        ("fault", json!({"error": "closed", "fault": "shut"})),
        ("fault_kind", json!("shut")),
        ("filter", json!({"capacity": 64})),
        ("gap_kind", json!({"gap": "torn"})),
        ("gap_kind", json!({"gap": "lagged"})),
        ("gap_kind", json!({"gap": "disconnected", "error": "closed", "missed": 1})),
        ("graphics_address", json!({"family": "ipv5", "node": "h", "service": ""})),
        ("graphics_address", json!({"family": "ipv4", "node": "h"})),
        ("graphics_identity", json!({"name": "CN=x"})),
        ("kind", json!("other:")),
        ("kind", json!("lifecyle")),
        ("kinds", json!(["?"])),
        ("kinds", json!("all")),
        ("notice_body", json!({"kind": "vcpu_removed", "data": {}})),
        ("notice_body", json!({"kind": "vcpu_removed", "data": {"vcpu": 1, "colour": "blue"}})),
        ("notice_body", json!({"kind": "watchdog", "data": {"action": "bark"}})),
        ("notice_body", json!({"kind": "lifecycle", "data": {}})),
        ("options", json!({"capacity": 0})),
        ("options", json!({"wait": "yes"})),
        ("options", json!({"domains": ["web", {"name": "web", "uuid": null}]})),
        ("origin", json!("heard")),
        ("param_value", json!([1])),
        ("params", json!({"rate": null})),
        ("scope", json!({"host": "h"})),
        ("scope", json!({"source": "s:", "members": [1]})),
        ("selector", json!({})),
        ("selector", json!({"uuid": "web"})),
        ("snapshot", json!({"version": 2, "sources": [], "uncertain": [], "domains": []})),
        ("snapshot", json!({"version": 1, "sources": [], "uncertain": []})),
        ("state", json!({"state": "shutoff", "reason": "booted"})),
        ("state", json!({"state": "running", "reason": "unknown"})),
        ("state", json!({"state": "begun"})),
        ("status", json!({"status": "disconnected"})),
        ("status", json!({"status": "synced", "error": "closed"})),
        ("stored_domain", with(&stored, "certain", json!(null))),
        ("stored_domain", with(&stored, "since", json!("yesterday"))),
        ("stored_domain", with(&stored, "change", json!({"change": "started", "colour": 1}))),
        ("stop_cause", json!("booted")),
        ("stop_cause", json!("unknown")),
        ("text", json!(1)),
        ("transition", json!({"origin": "observed"})),
        ("transition", json!({"before": stored})),
        ("transition", json!({"after": stored, "origin": "observed", "event": {"kind": "gap"}})),
        ("kind", json!({"other": []})),
        ("kind", json!({"other": "99", "colour": "blue"})),
        ("gap", json!({"kind": "gap", "gap": "removed"})),
        ("lifecycle", json!({"kind": "lifecycle", "change": "crashed"})),
        ("notice", json!({"kind": "control_error", "data": {}})),
        ("raw_event", json!({"kind": "other", "event": 8, "hex": ""})),
        ("reboot", json!({"kind": "reboot"})),
        ("synced", json!({"kind": "synced", "source": "s:"})),
        ("at", json!("2026-01-31T12:00:00.000000+00:00")),
        ("domain_of_event", json!({})),
        ("host", json!(1)),
        ("raw", json!("1")),
        ("source", json!(1)),
        ("unknown", json!(1)),
        ("unnamed", json!("booted")),
        ("uuid", json!("7")),
    ];
    for (name, value) in &refused {
        assert!(Schema::load().definition(name).check(value).is_err(), "{name}: {value}");
    }
    for name in Schema::load().definitions() {
        if Schema::load().is_enumeration(&name) {
            for value in [json!("unheard"), json!("unknown"), json!(null)] {
                let schema = Schema::load().definition(&name);
                assert!(schema.check(&value).is_err(), "{name}: {value}");
            }
        } else {
            assert!(refused.iter().any(|(known, _)| *known == name), "no case of {name}");
        }
    }
}
