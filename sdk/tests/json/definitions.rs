//! The schema: it describes what is written, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;
use virevent::{Change, StartCause};

use crate::events::{every_event, lifecycle};
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
