//! Parts of events on their own.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::ser::Serialize;
use serde_json::json;
use virevent::{
    AddressFamily, BlockJobStatus, BlockJobType, Change, ChannelReason, ChannelState, CrashCause,
    CrashedReason, DefineCause, DiskChangeReason, DomainEvent, EventData, EventName, Fault,
    FaultKind, Gap, GapKind, GraphicsPhase, IoErrorAction, Lifecycle, MemoryFailureAction,
    MemoryFailureRecipient, MetadataType, Notice, NoticeBody, Options, Origin, ParamValue,
    PausedReason, PmSuspendCause, RawEvent, Reboot, ResumeCause, RunningReason, Scope,
    ShutdownCause, ShutoffReason, ShuttingDownReason, Snapshot, StartCause, State, StopCause,
    SuspendCause, Synced, TrayChangeReason, UndefineCause, WatchdogAction,
};

use crate::{domain, error, is, reads_back};

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
        ($($type:ident),+ $(,)?) => { $(
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
    is(&FaultKind::Unreachable, json!("unreachable"));
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
fn what_a_form_does_not_hold_is_lost_as_documented() {
    fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
        serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_999);
    assert_eq!(again(&Reboot::new(domain(), at)).at, at - Duration::from_nanos(999));
    assert_eq!(again(&ParamValue::Double(f64::NEG_INFINITY)), ParamValue::Text("-inf".into()));
    assert_eq!(again(&ParamValue::Int(1 << 70)), ParamValue::Double(2_f64.powi(70)));
    let data = again(&EventData::Json("{ \"a\": \" \" }".into()));
    assert_eq!(data, EventData::Json("{\"a\":\" \"}".into()));
    assert_eq!(again(&StopCause::Unknown(1)), StopCause::Destroyed);
    let resumed = Options::default().resume(Snapshot::default());
    assert_eq!(again(&resumed), Options::default());
}
