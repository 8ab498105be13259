//! A cause, a reason or another enumeration on its own: its name; the number where this version has
//! no name for it; an empty text where the hypervisor gave none.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::Serializer;

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected a name or a number of 32 bits")]
enum Code<'a> {
    Number(i32),
    Name(Cow<'a, str>),
}

pub(crate) fn write_code<S: Serializer>(
    serializer: S,
    name: &str,
    unknown: Option<i32>,
) -> Result<S::Ok, S::Error> {
    match unknown {
        Some(raw) => serializer.serialize_i32(raw),
        None => serializer.serialize_str(name),
    }
}

/// A number that was unknown to the writer may be known here.
pub(crate) fn read_code<'de, D: Deserializer<'de>, T: Default>(
    deserializer: D,
    from_name: impl Fn(&str) -> Option<T>,
    from_code: impl Fn(i32) -> T,
) -> Result<T, D::Error> {
    match Code::deserialize(deserializer)? {
        Code::Number(raw) => Ok(from_code(raw)),
        Code::Name(name) if name.is_empty() => Ok(T::default()),
        Code::Name(name) => {
            from_name(&name).ok_or_else(|| D::Error::custom(format!("unknown name {name:?}")))
        }
    }
}
