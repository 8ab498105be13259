//! Tests of the JSON form of events, their parts and settings: exactly as documented, read back
//! unchanged, valid by the schema.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)]

mod definitions;
mod events;
mod notices;
mod parts;
mod schema;
mod settings;
mod store;
mod untyped;

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::ser::Serialize;
use serde_json::Value;
use virevent::{Domain, DomainEvent, Kind};

use self::schema::Schema;

const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_769_860_800_000_000)
}

fn domain() -> Domain {
    Domain::new("test:///default", "h", UUID.parse().unwrap(), "vm1", Some(3))
}

fn text(event: &DomainEvent) -> String {
    serde_json::to_string(event).unwrap()
}

fn json_name(kind: &Kind) -> String {
    kind.to_string().replace('-', "_")
}

/// Checks that `value` is written as `json`, valid by the definition of its type, and read back.
#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, json: Value) {
    assert_eq!(serde_json::to_value(value).unwrap(), json);
    reads_back(value);
}

/// Checks that what is written of `value` is valid by the definition of its type, and read back.
#[track_caller]
fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    let json = serde_json::to_value(value).unwrap();
    assert_eq!(Schema::of::<T>().check(&json), Ok(()), "{text}");
    assert_eq!(&serde_json::from_value::<T>(json).unwrap(), value, "{text}");
}

/// Checks that `json` is against the definition of the type, and gives the error of reading it.
#[track_caller]
fn error<T: DeserializeOwned + Debug>(json: Value) -> String {
    assert!(Schema::of::<T>().check(&json).is_err(), "valid: {json}");
    serde_json::from_value::<T>(json).unwrap_err().to_string()
}
