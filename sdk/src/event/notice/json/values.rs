//! What notices are made of beside numbers and names: in a notice and on its own the same form.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::{Field, Fields, present, wrong};
use crate::{GraphicsAddress, GraphicsIdentity, ParamValue, Params, Text};

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// An object of its own, in a field of a notice.
trait Object: Serialize + Sized {
    /// # Errors
    /// A field is missing, or of another type.
    fn read_object(fields: &Fields) -> Result<Self, String>;
}

macro_rules! object {
    ($($(#[$meta:meta])* $type:ident { $($field:ident $name:literal),+ })+) => { $(
        $(#[$meta])*
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $( self.$field.write($name, &mut map)?; )+
                map.end()
            }
        }

        impl Object for $type {
            fn read_object(fields: &Fields) -> Result<Self, String> {
                Ok(Self { $( $field: Field::read($name, fields)?, )+ })
            }
        }
    )+ };
}

object! {
    /// `{"family":"ipv4","node":"127.0.0.1","service":"5900"}`.
    GraphicsAddress { family "family", node "node", service "service" }
    /// `{"type":"x509dname","name":"CN=admin"}`.
    GraphicsIdentity { kind "type", name "name" }
}

/// An object, in which each parameter is an entry, in their order.
impl Serialize for Params {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Object for Params {
    fn read_object(fields: &Fields) -> Result<Self, String> {
        let param = |(name, _): &(String, _)| {
            let value = present(name, fields)?;
            let param = param_value(&value);
            let param = param.ok_or_else(|| wrong(name, EXPECTED, &value))?;
            Ok((name.as_str().into(), param))
        };
        fields.0.iter().map(param).collect()
    }
}

macro_rules! read_object {
    ($($type:ident)+) => { $(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::read_object(&Fields::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl Field for $type {
            fn write<M: SerializeMap>(&self, name: &str, map: &mut M) -> Result<(), M::Error> {
                map.serialize_entry(name, self)
            }

            fn read(name: &str, fields: &Fields) -> Result<Self, String> {
                Self::read_object(&fields.object(name)?)
            }
        }
    )+ };
}

read_object! { GraphicsAddress GraphicsIdentity Params }

impl Field for Vec<GraphicsIdentity> {
    fn write<M: SerializeMap>(&self, name: &str, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry(name, self)
    }

    fn read(name: &str, fields: &Fields) -> Result<Self, String> {
        let value = present(name, fields)?;
        let list = value.as_array().ok_or_else(|| wrong(name, "a list", &value))?;
        let identity = |item: &Value| {
            let entries = Fields::deserialize(item);
            let entries = entries.map_err(|_| wrong(name, "a list of objects", item))?;
            GraphicsIdentity::read_object(&entries)
        };
        list.iter().map(identity).collect()
    }
}

/// A number, a text, `true` or `false`.
impl Serialize for ParamValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => serializer.serialize_i64(number),
                (_, Ok(number)) => serializer.serialize_u64(number),
                _ => serializer.serialize_i128(*number),
            },
            // JSON has no other numbers: a peer may send any bits.
            Self::Double(number) if !number.is_finite() => serializer.collect_str(number),
            Self::Double(number) => serializer.serialize_f64(*number),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ParamValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let param = param_value(&value);
        param.ok_or_else(|| D::Error::custom(format_args!("{value}: expected {EXPECTED}")))
    }
}

const EXPECTED: &str = "a number, a text, true or false";

fn param_value(value: &Value) -> Option<ParamValue> {
    Some(match value {
        Value::Bool(value) => ParamValue::Bool(*value),
        Value::String(text) => ParamValue::Text(text.as_str().into()),
        Value::Number(number) => match number.as_i128() {
            Some(number) => ParamValue::Int(number),
            None => ParamValue::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        _ => return None,
    })
}
