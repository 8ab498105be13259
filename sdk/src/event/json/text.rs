//! Values that are written as text: times, bytes, uuids.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// Written as its `Display` text, without an allocation; read by its `TryFrom<&str>`.
pub(super) struct Text<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: for<'a> TryFrom<&'a str, Error: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        match T::try_from(&text) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(D::Error::custom(format!("{text:?}: {error}"))),
        }
    }
}

/// A time as RFC 3339, UTC, six digits.
pub(super) struct Stamp(pub(super) SystemTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The form has four digits for the year, and none for times before the epoch.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let at = self.0.clamp(SystemTime::UNIX_EPOCH, last);
        humantime::format_rfc3339_micros(at).fmt(f)
    }
}

impl TryFrom<&str> for Stamp {
    type Error = humantime::TimestampError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        humantime::parse_rfc3339(text).map(Self)
    }
}

/// Bytes as pairs of hexadecimal digits.
pub(super) struct Hex<'a>(pub(super) Cow<'a, [u8]>);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<&str> for Hex<'_> {
    type Error = &'static str;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let digit = |digit: u8| (digit as char).to_digit(16).ok_or("not hexadecimal");
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Ok((digit(high)? << 4 | digit(low)?) as u8),
            _ => Err("an odd number of hexadecimal digits"),
        };
        text.as_bytes().chunks(2).map(byte).collect::<Result<Vec<u8>, _>>().map(|b| Self(b.into()))
    }
}
