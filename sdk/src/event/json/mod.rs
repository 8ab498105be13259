//! The JSON form of an event (feature `serde`): one flat object, as `docs/json.md` and
//! `docs/domain-event.schema.json` describe it.
//!
//! ```json
//! {"kind":"lifecycle","change":"started","cause":"booted","origin":"observed",
//!  "at":"2026-01-31T12:00:00.000000Z","persistent":true,"source":"qemu:///system",
//!  "domain":{"host":"h","uuid":"…","name":"vm1","id":3}}
//! ```
//!
//! Reading and writing go through [`Flat`], a struct with every field of every kind.

mod code;
mod data;
mod parts;
mod read;
mod settings;
pub(crate) mod stamp;
mod text;
mod write;

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use uuid::Uuid;

pub(super) use self::code::{read_code, write_code};
use self::data::Data;
pub(super) use self::data::Raw;
use self::text::{Hex, Stamp, Text};
use super::DomainEvent;
use crate::{Domain, EventName};

/// The form that `docs/json.md` describes. Fails only for an event of kind `other` whose
/// [`EventData::Json`](crate::EventData::Json) is no JSON.
impl Serialize for DomainEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Flat::from_event(self).serialize(serializer)
    }
}

/// The form that `docs/json.md` describes. Unknown fields are ignored; unknown names and missing
/// fields are errors.
impl<'de> Deserialize<'de> for DomainEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Flat::deserialize(deserializer)?.into_event().map_err(D::Error::custom)
    }
}

/// `{"source":…,"host":…,"uuid":…,"name":…,"id":…}`, without `id` when the domain is inactive. In
/// an event the source stands beside the domain.
impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatDomain { source: Some(self.source().into()), ..FlatDomain::of(self) }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = FlatDomain::deserialize(deserializer)?;
        let Some(source) = &flat.source else { return Err(D::Error::missing_field("source")) };
        Ok(flat.domain(source))
    }
}

/// Every field of every kind, in the order in which they are written.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Flat<'a> {
    /// Empty for a part of an event.
    #[serde(skip_serializing_if = "str::is_empty", default)]
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
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<Text<Hex<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Text<Stamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domains: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<FlatDomain<'a>>,
}

/// A domain as it is written.
#[derive(serde::Serialize, serde::Deserialize)]
struct FlatDomain<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    host: Cow<'a, str>,
    uuid: Text<Uuid>,
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
}

impl<'a> FlatDomain<'a> {
    /// A domain as it stands in an event.
    fn of(domain: &'a Domain) -> Self {
        Self {
            source: None,
            host: domain.host().into(),
            uuid: Text(domain.uuid()),
            name: domain.name().into(),
            id: domain.id(),
        }
    }

    fn domain(&self, source: &str) -> Domain {
        Domain::new(source, &self.host, self.uuid.0, &self.name, self.id)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "an event is a number or a name")]
enum FlatName<'a> {
    // First, since the first variant that fits is taken: a text never reads as a number.
    Number(u32),
    Name(Cow<'a, str>),
}

impl<'a> FlatName<'a> {
    fn of(name: &'a EventName) -> Self {
        match name {
            EventName::Number(number) => Self::Number(*number),
            EventName::Name(name) => Self::Name(Cow::Borrowed(name)),
        }
    }

    fn name(&self) -> EventName {
        match self {
            Self::Number(number) => EventName::Number(*number),
            Self::Name(name) => EventName::Name((&**name).into()),
        }
    }
}

/// A field counts as present even when it is `null`.
// Plain `Option` makes `"data":null`, a value that a hypervisor may send, the same as no data.
fn present<'de, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Data<'a>>, D::Error> {
    Data::deserialize(deserializer).map(Some)
}

/// Compiles the example of that page.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/json.md")]
struct Page;
