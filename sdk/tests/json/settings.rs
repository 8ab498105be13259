//! What a subscriber asks for, and what a source says of itself.

use serde_json::json;
use virevent::{
    Capabilities, Counters, EventName, Fault, FaultKind, Filter, Kind, Kinds, Options, Selector,
    Status, Uuid,
};

use crate::{error, is, reads_back};

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
fn a_kind_that_its_text_does_not_give_back_is_an_object() {
    let number = |number| Kind::Named(EventName::Number(number));
    let named = |name: &str| Kind::Named(EventName::Name(name.into()));
    is(&number(99), json!("other:99"));
    is(&number(8), json!({"other": 8}));
    is(&named("99"), json!({"other": "99"}));
    is(&named("RTC_CHANGE"), json!({"other": "RTC_CHANGE"}));
    is(&named(""), json!({"other": ""}));
    is(&named("?all"), json!("other:?all"));
    let kinds = Kinds::from([Kind::Watchdog, number(8), number(99), named("8")]);
    is(&kinds, json!(["watchdog", {"other": 8}, "other:99", {"other": "8"}]));
    let plain = serde_json::from_value::<Kind>(json!({"other": "POWERDOWN"})).unwrap();
    assert_eq!(plain, named("POWERDOWN"));
    let typed = serde_json::from_value::<Kind>(json!("other:8")).unwrap_err().to_string();
    assert!(typed.contains("block-job"), "{typed}");
    assert!(error::<Kind>(json!({"other": null})).contains("expected the name of a kind"));
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
