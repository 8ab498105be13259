//! The data of an event: the fields of a notice, or the JSON value of an event without a type.
//!
//! That value is kept as the text that it came as. A parsed value would lose what a hypervisor may
//! well send: `1e999` is no `f64`, an integer may have more than 64 bits, nesting more levels than
//! a parser follows.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::NoticeBody;

/// What stands in `data`.
pub(super) enum Data<'a> {
    /// The text of a JSON value, on one line.
    Text(Cow<'a, str>),
    /// The fields of a notice, to be written.
    Fields(&'a NoticeBody),
}

impl<'a> Data<'a> {
    /// The value without the spaces and line ends around and in it.
    pub(super) fn of(text: &'a str) -> Self {
        let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        // QEMU writes a space behind each colon and comma, but other writers do not, and their text
        // is passed on without a copy.
        if !text.bytes().any(is_space) {
            return Self::Text(Cow::Borrowed(text));
        }
        let mut compact = String::with_capacity(text.len());
        let mut is_quoted = false;
        let mut is_escaped = false;
        for letter in text.chars() {
            if is_quoted || !u8::try_from(letter).is_ok_and(is_space) {
                compact.push(letter);
            }
            is_quoted ^= letter == '"' && !is_escaped;
            is_escaped = is_quoted && letter == '\\' && !is_escaped;
        }
        Self::Text(Cow::Owned(compact))
    }

    /// The text, of what was read.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Fields(_) => "",
        }
    }
}

/// Fails where the text is no JSON.
impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = match self {
            Self::Text(text) => text,
            Self::Fields(body) => return body.data().serialize(serializer),
        };
        if serializer.is_human_readable() {
            let raw: &RawValue = serde_json::from_str(text).map_err(S::Error::custom)?;
            return raw.serialize(serializer);
        }
        // A form that has no place for JSON text.
        serde_json::from_str::<Value>(text).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Data<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::Text(Cow::Owned(Raw::deserialize(deserializer)?.get().to_owned())))
    }
}

/// A JSON value as its text.
// Boxed: a borrowed one fails on input that is not a slice, as from a reader.
pub(crate) struct Raw(Box<RawValue>);

impl Raw {
    pub(crate) fn get(&self) -> &str {
        self.0.get()
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::deserialize(Lenient(deserializer)).map(Self)
    }
}

/// Gives a [`RawValue`] from formats that hand out no JSON text too, serde's own buffer
/// (`#[serde(flatten)]`) among them: from the parsed value.
struct Lenient<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Text { name, visitor })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What a [`RawValue`] is read by, and the name that it asks for it by.
struct Text<V> {
    name: &'static str,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Text<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    /// The text, from JSON.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(map)
    }

    /// The value, from elsewhere.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        let text = match Value::deserialize(value)? {
            // A text that another format than JSON has kept as it stands.
            Value::Object(mut map) if map.len() == 1 && map.contains_key(self.name) => {
                match map.remove(self.name) {
                    Some(Value::String(text)) => text,
                    other => other.unwrap_or_default().to_string(),
                }
            }
            value => value.to_string(),
        };
        let entry = std::iter::once((self.name, text));
        self.visitor.visit_map(MapDeserializer::new(entry))
    }
}
