//! A time that may be missing, as a field of another form.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::{Stamp, Text};

pub(crate) fn serialize<S: Serializer>(
    at: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    at.map(|at| Text(Stamp(at))).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SystemTime>, D::Error> {
    let at = Option::<Text<Stamp>>::deserialize(deserializer)?;
    Ok(at.map(|Text(Stamp(at))| at))
}
