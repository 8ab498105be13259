//! The members of QEMU's data, read in place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use virevent::Text;

/// Reads these members of an event's data into a struct of that moment. Returns `None` from the
/// function if one is missing, or is of another type or beyond its range.
macro_rules! members {
    ($event:expr, { $( $field:ident $($name:literal)? : $type:ty ),* $(,)? }) => {{
        #[derive(serde::Deserialize)]
        struct Members {
            $( $( #[serde(rename = $name)] )? $field: $type, )*
        }
        let data = $event.data.map_or("{}", serde_json::value::RawValue::get);
        serde_json::from_str::<Members>(data).ok()?
    }};
}
pub(super) use members;

/// A JSON string, without an allocation where it is short.
pub(super) struct JsonText(pub(super) Text);

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = JsonText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<JsonText, E> {
                Ok(JsonText(text.into()))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

/// `MemoryFailureFlags`.
#[derive(serde::Deserialize)]
pub(super) struct Flags {
    #[serde(rename = "action-required")]
    pub(super) action_required: bool,
    pub(super) recursive: bool,
}

/// An end of a connection to a console: `VncServerInfo`, `VncClientInfo`, `SpiceServerInfo`,
/// `SpiceChannel`. VNC has a service, SPICE a port.
#[derive(serde::Deserialize)]
pub(super) struct Peer {
    pub(super) host: JsonText,
    pub(super) service: Option<JsonText>,
    pub(super) port: Option<JsonText>,
    pub(super) family: JsonText,
    /// Of the server.
    pub(super) auth: Option<JsonText>,
    /// Of the client, as the one below.
    pub(super) x509_dname: Option<JsonText>,
    pub(super) sasl_username: Option<JsonText>,
}
