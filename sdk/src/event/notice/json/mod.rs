//! The `data` of a notice in JSON: one entry a field.
//!
//! An enumeration is its name; a number without a name is `"unknown"`, with the number in
//! `FIELD_raw`.

mod values;

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::{
    AddressFamily, BlockJobStatus, BlockJobType, ChannelReason, ChannelState, DiskChangeReason,
    GraphicsPhase, IoErrorAction, MemoryFailureAction, MemoryFailureRecipient, MetadataType,
    NoticeBody, Text, TrayChangeReason, WatchdogAction,
};
use crate::event::json::Raw;
use crate::{Kind, PmSuspendCause};

/// The object that fields are read from, its entries in their order, which parameters keep.
pub(super) struct Fields(Vec<(String, Raw)>);

impl Fields {
    /// The value of an entry. Of an entry that comes twice the last counts, as in other readers.
    fn get(&self, name: &str) -> Option<Value> {
        let (_, raw) = self.0.iter().rfind(|(known, _)| known == name)?;
        serde_json::from_str(raw.get()).ok()
    }

    /// An entry that is an object.
    fn object(&self, name: &str) -> Result<Self, String> {
        let entry = self.0.iter().rfind(|(known, _)| known == name);
        let (_, raw) = entry.ok_or_else(|| missing(name))?;
        let wrong = |_| format!("the field \"{name}\" is {}: expected an object", raw.get());
        serde_json::from_str(raw.get()).map_err(wrong)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Fields(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// The fields of a notice, as an object.
pub(crate) struct NoticeData<'a>(&'a NoticeBody);

impl Serialize for NoticeData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.write_fields(&mut map)?;
        map.end()
    }
}

impl NoticeBody {
    pub(crate) fn data(&self) -> NoticeData<'_> {
        NoticeData(self)
    }

    /// From the kind and the text of `data`. `None`: the kind is no notice's.
    pub(crate) fn from_json(kind: &Kind, data: &str) -> Option<Result<Self, String>> {
        let fields = match serde_json::from_str::<Fields>(data) {
            Ok(fields) => fields,
            Err(error) => return Some(Err(format!("the data of {kind}: {error}"))),
        };
        Some(
            Self::read_fields(kind, &fields)?
                .map_err(|error| format!("the data of {kind}: {error}")),
        )
    }
}

/// A field of a notice.
pub(super) trait Field: Sized {
    fn write<M: SerializeMap>(&self, name: &str, map: &mut M) -> Result<(), M::Error>;

    /// # Errors
    /// The field is missing, or of another type.
    fn read(name: &str, fields: &Fields) -> Result<Self, String>;
}

fn present(name: &str, fields: &Fields) -> Result<Value, String> {
    fields.get(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> String {
    format!("the field \"{name}\" is missing")
}

fn wrong(name: &str, expected: &str, value: &Value) -> String {
    format!("the field \"{name}\" is {value}: expected {expected}")
}

macro_rules! plain {
    ($($type:ty, $as:ident, $expected:literal;)+) => { $(
        impl Field for $type {
            fn write<M: SerializeMap>(&self, name: &str, map: &mut M) -> Result<(), M::Error> {
                map.serialize_entry(name, self)
            }

            fn read(name: &str, fields: &Fields) -> Result<Self, String> {
                let value = present(name, fields)?;
                let number = value.$as().and_then(|value| Self::try_from(value).ok());
                number.ok_or_else(|| wrong(name, $expected, &value))
            }
        }
    )+ };
}

plain! {
    bool, as_bool, "true or false";
    i32, as_i64, "a number of 32 bits";
    i64, as_i64, "a number of 64 bits";
    u32, as_u64, "a number of 32 bits, not negative";
    u64, as_u64, "a number of 64 bits, not negative";
}

impl Field for Text {
    fn write<M: SerializeMap>(&self, name: &str, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry(name, self)
    }

    fn read(name: &str, fields: &Fields) -> Result<Self, String> {
        let value = present(name, fields)?;
        value.as_str().map(Self::from).ok_or_else(|| wrong(name, "a text", &value))
    }
}

/// Left out where there is none.
impl Field for Option<Text> {
    fn write<M: SerializeMap>(&self, name: &str, map: &mut M) -> Result<(), M::Error> {
        self.as_ref().map_or(Ok(()), |text| text.write(name, map))
    }

    fn read(name: &str, fields: &Fields) -> Result<Self, String> {
        fields.get(name).map(|_| Field::read(name, fields)).transpose()
    }
}

macro_rules! named {
    ($($type:ident),+ $(,)?) => { $(
        impl Field for $type {
            fn write<M: SerializeMap>(&self, name: &str, map: &mut M) -> Result<(), M::Error> {
                if *self != Self::Unspecified {
                    map.serialize_entry(name, self.as_str())?;
                }
                match self {
                    Self::Unknown(raw) => map.serialize_entry(&format!("{name}_raw"), raw),
                    _ => Ok(()),
                }
            }

            fn read(name: &str, fields: &Fields) -> Result<Self, String> {
                let Some(value) = fields.get(name) else { return Ok(Self::Unspecified) };
                match value.as_str() {
                    Some("unknown") => i32::read(&format!("{name}_raw"), fields).map(Self::from_code),
                    Some(text) => {
                        Self::from_name(text).ok_or_else(|| wrong(name, "a known name", &value))
                    }
                    None => Err(wrong(name, "a name", &value)),
                }
            }
        }
    )+ };
}

named!(
    AddressFamily,
    BlockJobStatus,
    BlockJobType,
    ChannelReason,
    ChannelState,
    DiskChangeReason,
    GraphicsPhase,
    IoErrorAction,
    MemoryFailureAction,
    MemoryFailureRecipient,
    MetadataType,
    PmSuspendCause,
    TrayChangeReason,
    WatchdogAction,
);
