//! Tests of the JSON form of what is no whole event: exactly as documented, read back unchanged.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use std::fmt::Debug;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::ser::Serialize;
use serde_json::{Value, json};
use virevent::{
    Capabilities, Change, Counters, CrashCause, CrashedReason, DefineCause, Domain, DomainEvent,
    DomainStore, EventData, EventName, Fault, FaultKind, Filter, Gap, GapKind, IoErrorAction, Kind,
    Kinds, Lifecycle, Notice, NoticeBody, Options, Origin, PausedReason, PmSuspendCause, RawEvent,
    Reboot, ResumeCause, RunningReason, Scope, Selector, ShutdownCause, ShutoffReason,
    ShuttingDownReason, Snapshot, StartCause, State, Status, StopCause, SuspendCause, Synced,
    UndefineCause, Uuid, WatchdogAction,
};

/// Checks that `value` is written as `json`, and read back from it.
#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, json: Value) {
    assert_eq!(serde_json::to_value(value).unwrap(), json);
    reads_back(value);
}

#[track_caller]
fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    let json = serde_json::to_value(value).unwrap();
    assert_eq!(&serde_json::from_value::<T>(json).unwrap(), value, "{text}");
}

fn error<T: DeserializeOwned + Debug>(json: Value) -> String {
    serde_json::from_value::<T>(json).unwrap_err().to_string()
}

fn domain() -> Domain {
    Domain::new("test:///default", "h", Uuid::from_u128(7), "vm1", Some(3))
}

#[test]
fn a_change_and_a_state_have_the_fields_of_an_event() {
    is(&Change::Started(StartCause::Booted), json!({"change": "started", "cause": "booted"}));
    is(&Change::Crashed(CrashCause::Unspecified), json!({"change": "crashed"}));
    is(
        &Change::Stopped(StopCause::Unknown(42)),
        json!({"change": "stopped", "cause": "unknown", "raw": 42}),
    );
    is(
        &Change::Existing(State::Running(RunningReason::Booted)),
        json!({"change": "existing", "state": "running", "reason": "booted"}),
    );
    is(&State::Blocked, json!({"state": "blocked"}));
    is(
        &State::Paused(PausedReason::Unknown(42)),
        json!({"state": "paused", "reason": "unknown", "raw": 42}),
    );
    is(&State::from_codes(9, 2), json!({"state": "unknown", "raw": 9, "detail": 2}));
    assert!(error::<Change>(json!({})).contains("the field \"change\" is missing"));
    assert!(error::<State>(json!({"state": "begun"})).contains("unknown state"));
}

#[test]
fn every_change_and_state_reads_back_on_its_own() {
    for first in -1..12 {
        for second in -1..20 {
            reads_back(&Change::from_codes(first, second));
            reads_back(&State::from_codes(first, second));
            reads_back(&Change::Existing(State::from_codes(first, second)));
        }
    }
}

#[test]
fn a_cause_is_its_name_or_a_number_without_one() {
    macro_rules! every {
        ($($type:ident),+) => { $(
            is(&$type::Unspecified, json!(""));
            is(&$type::Unknown(1000), json!(1000));
            for code in -1..30 {
                let value = $type::from_code(code);
                reads_back(&value);
                if !matches!(value, $type::Unknown(_)) {
                    assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
                }
            }
            assert!(error::<$type>(json!("unheard")).contains("unknown name"));
        )+ };
    }
    every!(
        CrashCause,
        CrashedReason,
        DefineCause,
        IoErrorAction,
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
        UndefineCause,
        WatchdogAction
    );
    assert_eq!(serde_json::from_str::<StopCause>("1").unwrap(), StopCause::Destroyed);
}

#[test]
fn an_event_of_one_type_is_written_as_the_whole_event() {
    macro_rules! same {
        ($($event:expr),+ $(,)?) => { $(
            let event = $event;
            is(&event, serde_json::to_value(DomainEvent::from(event.clone())).unwrap());
        )+ };
    }
    let at = SystemTime::UNIX_EPOCH;
    let data = EventData::Json("[1]".into());
    same!(
        Lifecycle::new(domain(), Change::Started(StartCause::Booted), at).persistent(true),
        Reboot::new(domain(), at),
        Notice::new(domain(), NoticeBody::VcpuRemoved { vcpu: 3 }, at),
        RawEvent::new("s:", None, EventName::Number(99), data, at),
        Synced::new(Scope::source_wide("s:"), 3),
        Gap::new(Scope::source_wide("s:"), GapKind::lagged(1, true)),
    );
    let gap = json!({"kind": "gap", "gap": "lagged", "missed": 1, "source": "s:"});
    assert!(error::<Synced>(gap).contains("another event"));
    assert!(error::<Gap>(json!({"gap": "lagged"})).contains("missing field `kind`"));
}

#[test]
fn parts_of_a_marker_and_a_notice_have_their_fields() {
    let fault = Fault::new(FaultKind::Closed, "closed");
    is(&fault, json!({"error": "closed", "fault": "closed"}));
    let gap = json!({"gap": "disconnected", "error": "closed", "fault": "closed"});
    is(&GapKind::disconnected(fault), gap);
    is(&GapKind::lagged(17, false), json!({"gap": "lagged", "missed": 17}));
    is(&Scope::source_wide("s:"), json!({"source": "s:"}));
    is(&Scope::on_host("s:", "h"), json!({"source": "s:", "host": "h"}));
    reads_back(&Scope::Domain(domain()));
    is(
        &Scope::fleet("fleet:", ["b:".into(), "a:".into()]),
        json!({"source": "fleet:", "members": ["a:", "b:"]}),
    );
    is(&GapKind::Removed, json!({"gap": "removed"}));
    is(
        &NoticeBody::Watchdog { action: WatchdogAction::Unknown(9) },
        json!({"kind": "watchdog", "data": {"action": "unknown", "action_raw": 9}}),
    );
    assert!(error::<NoticeBody>(json!({"data": {}})).contains("\"kind\" is missing"));
    for origin in [Origin::Observed, Origin::Inferred, Origin::Replayed] {
        is(&origin, json!(origin.as_str()));
    }
    assert!(error::<Origin>(json!("heard")).contains("unknown origin"));
    is(&EventName::Number(99), json!(99));
    is(&EventName::Name("99".into()), json!("99"));
}

#[test]
fn a_kind_is_its_name_in_an_event_and_reads_virshs_too() {
    for kind in Kind::TYPED {
        is(kind, json!(kind.to_string().replace('-', "_")));
    }
    is(&Kind::Other, json!("other"));
    is(&Kind::Named("A-B".into()), json!("other:A-B"));
    assert_eq!(serde_json::from_str::<Kind>("\"io-error\"").unwrap(), Kind::IoError);
    assert!(error::<Kind>(json!("lifecyle")).contains("is not a kind"));
}

#[test]
fn kinds_keep_which_of_them_a_source_may_lack() {
    let mut without = Kinds::all();
    without.remove(&Kind::Lifecycle);
    without.insert(Kind::Watchdog);
    let mut all = Kinds::all();
    all.insert(Kind::Watchdog);
    all.insert("other:99".parse().unwrap());
    is(&all, json!(["all", "watchdog", "other:99"]));
    is(&Kinds::common(), json!(["lifecycle", "reboot"]));
    is(&Kinds::default(), json!([]));
    for kinds in [Kinds::all(), Kinds::common(), Kinds::default(), without, all] {
        let json = serde_json::to_value(&kinds).unwrap();
        let read: Kinds = serde_json::from_value(json.clone()).unwrap();
        // `==` ignores which are optional; the debug form shows it.
        assert_eq!(format!("{read:?}"), format!("{kinds:?}"), "{json}");
    }
}

#[test]
fn options_are_read_with_defaults_and_without_typos() {
    is(
        &Options::default(),
        json!({"capacity": 1024, "slack": 65536, "existing": true, "wait": false}),
    );
    let options = Options::default().kind(Kind::IoError).domain("web").capacity(64).wait(true);
    is(
        &options.domain(Uuid::nil()).slack(5).existing(false),
        json!({
            "kinds": ["io_error"],
            "domains": [{"name": "web"}, {"uuid": "00000000-0000-0000-0000-000000000000"}],
            "capacity": 64, "slack": 5, "existing": false, "wait": true
        }),
    );
    assert_eq!(serde_json::from_str::<Options>("{}").unwrap(), Options::default());
    assert!(error::<Options>(json!({"size": 64})).contains("unknown field `size`"));
    assert!(error::<Filter>(json!({"kind": []})).contains("unknown field `kind`"));
    reads_back(&Filter::default());
}

#[test]
fn a_selector_reads_a_text_and_keeps_a_name_like_a_uuid() {
    let uuid = Uuid::from_u128(7).to_string();
    is(&Selector::Name(uuid.as_str().into()), json!({"name": uuid}));
    for text in ["web", &uuid] {
        let read: Selector = serde_json::from_value(json!(text)).unwrap();
        assert_eq!(read, Selector::from(text));
    }
}

#[test]
fn a_status_counters_and_capabilities_read_back() {
    for (status, name) in [
        (Status::Idle, "idle"),
        (Status::Connecting, "connecting"),
        (Status::Syncing, "syncing"),
        (Status::Synced, "synced"),
        (Status::Shutdown, "shutdown"),
        (Status::Ended, "ended"),
    ] {
        is(&status, json!({"status": name}));
    }
    let fault = Fault::new(FaultKind::Timeout, "no answer");
    let json = json!({"status": "disconnected", "error": "no answer", "fault": "timeout"});
    is(&Status::Disconnected(fault), json);
    assert!(error::<Status>(json!({"status": "well"})).contains("unknown status"));
    let json = json!({"events": 1, "missed": 2, "gaps": 3, "reconnects": 4, "corrected": 5});
    let counters: Counters = serde_json::from_value(json.clone()).unwrap();
    is(&counters, json);
    let json = json!({"kinds": ["lifecycle"], "lacking": ["reboot"]});
    let capabilities: Capabilities = serde_json::from_value(json.clone()).unwrap();
    is(&capabilities, json);
}

#[test]
fn a_snapshot_reads_back_and_names_its_version() {
    let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_500_000);
    let store = DomainStore::new();
    let mut booted = Lifecycle::new(domain(), Change::Started(StartCause::Booted), at);
    booted.persistent = Some(true);
    store.apply(&booted.into());
    let off = State::Shutoff(ShutoffReason::Crashed);
    let db = Domain::new("qmp-dir:/run", "h", Uuid::from_u128(8), "db", None);
    store.apply(&Lifecycle::new(db, Change::Existing(off), at).into());
    store.apply(&Synced::new(Scope::source_wide("test:///default"), 1).into());
    is(
        &store.snapshot(),
        json!({
            "version": 1,
            "sources": ["test:///default"],
            "uncertain": [{"source": "qmp-dir:/run"}],
            "domains": [
                {
                    "domain": {
                        "source": "qmp-dir:/run", "host": "h",
                        "uuid": "00000000-0000-0000-0000-000000000008", "name": "db"
                    },
                    "state": {"state": "shutoff", "reason": "crashed"},
                    "change": {"change": "existing", "state": "shutoff", "reason": "crashed"},
                    "origin": "observed", "certain": false
                },
                {
                    "domain": {
                        "source": "test:///default", "host": "h",
                        "uuid": "00000000-0000-0000-0000-000000000007", "name": "vm1", "id": 3
                    },
                    "state": {"state": "running", "reason": "booted"},
                    "change": {"change": "started", "cause": "booted"},
                    "origin": "observed", "since": "1970-01-01T00:00:01.500000Z",
                    "persistent": true, "certain": true
                }
            ]
        }),
    );
    is(&Snapshot::default(), json!({"version": 1, "sources": [], "uncertain": [], "domains": []}));
}

#[test]
fn a_snapshot_that_cannot_be_read_is_a_clear_error() {
    let read = |json| error::<Snapshot>(json);
    let newer = r#"{"version":2,"domains":"another form"}"#;
    let newer = serde_json::from_str::<Snapshot>(newer).unwrap_err().to_string();
    assert!(newer.contains("of version 2, from a newer virevent: this one reads version 1"));
    let older = read(json!({"version": 0, "domains": []}));
    assert!(older.contains("of version 0, which this virevent no longer reads: begin without it"));
    assert!(read(json!({"domains": []})).contains("missing field `version`"));
    assert!(read(json!({"version": 1})).contains("missing field `domains`"));
    assert!(read(json!([1])).contains("expected a snapshot of a store"));
    assert!(read(json!({"version": 1, "domains": [{"domain": 1}]})).contains("invalid type"));
}
