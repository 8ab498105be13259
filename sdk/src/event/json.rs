//! The JSON form of an event (feature `serde`): one flat object, as `docs/json.md` and
//! `docs/domain-event.schema.json` describe it.
//!
//! ```json
//! {"kind":"lifecycle","change":"started","cause":"booted","origin":"observed",
//!  "at":"2026-01-31T12:00:00.000000Z","domain":{"host":"h","uuid":"…","name":"vm1","id":3}}
//! ```
//!
//! Both ways lead over [`Flat`], a struct with every field that any kind has.

mod read;
mod text;
mod write;

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use self::text::{Hex, Stamp, Text};
use super::DomainEvent;
use crate::Domain;

/// The form that `docs/json.md` describes. Fails only for an event of kind `other` whose
/// [`EventData::Json`](crate::EventData::Json) is no JSON.
impl Serialize for DomainEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Flat::from_event(self).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// The form that `docs/json.md` describes. Fields that are not known are ignored; names that are not
/// known, and fields that are missing, are errors.
impl<'de> Deserialize<'de> for DomainEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Flat::deserialize(deserializer)?.into_event().map_err(D::Error::custom)
    }
}

/// As in an event: `{"host":…,"uuid":…,"name":…,"id":…}`, without `id` when it is inactive.
impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatDomain {
            host: self.host().into(),
            uuid: Text(self.uuid()),
            name: self.name().into(),
            id: self.id(),
        }
        .serialize(serializer)
    }
}

/// As in an event.
impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let FlatDomain { host, uuid, name, id } = FlatDomain::deserialize(deserializer)?;
        Ok(Self::new(&host, uuid.0, &name, id))
    }
}

/// Every field of every kind, in the order in which they are written.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Flat<'a> {
    kind: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<FlatName<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "present")]
    data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<Text<Hex<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anew: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domains: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Text<Stamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Domain>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct FlatDomain<'a> {
    host: Cow<'a, str>,
    uuid: Text<Uuid>,
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "an event is a number or a name")]
enum FlatName<'a> {
    Number(u32),
    Name(Cow<'a, str>),
}

/// A field that is there counts, even when it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Compiles the example of that page.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/json.md")]
struct Page;
