//! Events without a type of their own, and what came with them.

use serde_json::json;
use virevent::{Domain, DomainEvent, EventData, EventName, RawEvent};

use crate::{at, domain, error, is, text};

pub(crate) fn other(name: EventName, data: EventData, domain: Option<Domain>) -> DomainEvent {
    RawEvent::new("test:///default", domain, name, data, at()).into()
}

#[test]
fn an_untyped_event_has_its_name_or_number_and_json_or_hex() {
    let data = EventData::Json("{ \"offset\": 1,\n \"x\": [] }".into());
    assert_eq!(
        text(&other("RTC_CHANGE".into(), data, None)),
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
fn the_data_of_an_event_is_the_same_on_its_own() {
    is(&EventData::Json(r#"{"id":[1,null]}"#.into()), json!({"data": {"id": [1, null]}}));
    is(&EventData::Json("null".into()), json!({"data": null}));
    is(&EventData::Bytes([0, 0xff].into()), json!({"hex": "00ff"}));
    assert!(error::<EventData>(json!({})).contains("\"data\" or \"hex\" is missing"));
    assert!(error::<EventData>(json!({"hex": "0"})).contains("odd number"));
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
