//! The values of a domain's nodes, decoded. Pure.
//!
//! | node | value |
//! |---|---|
//! | `/local/domain/N/vm` | the uuid: `/vm/<uuid>`, in old stores with `-1`, `-2` ... after it |
//! | `/local/domain/N/name` | the name |
//! | `/local/domain/N/control/shutdown` | the request of the host to the guest; empty once the guest has acknowledged it |
//!
//! The paths are those of Xen's `docs/misc/xenstore-paths.pandoc`.

use std::fmt::Write as _;

use virevent::{EventData, EventName, StopCause, Uuid};

/// The name of the event that carries a request to a guest: its node.
pub const REQUEST_EVENT: &str = "control/shutdown";

/// The first number that is no domain id: `DOMID_FIRST_RESERVED` in Xen's `xen.h`.
pub const FIRST_RESERVED: u16 = 0x7ff0;

/// The domain id in a text, if it is one.
#[must_use]
pub fn domid(text: &[u8]) -> Option<u16> {
    // The parser would accept a plus sign.
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|domid| *domid < FIRST_RESERVED)
}

/// The uuid in the value of a domain's `vm`. The nil uuid is domain 0's: a guest with it counts as one without.
#[must_use]
pub fn uuid(vm: &[u8]) -> Option<Uuid> {
    // Old xend appended -1, -2 ... after a rename: only 36 characters are the uuid.
    let uuid = Uuid::try_parse_ascii(vm.strip_prefix(b"/vm/")?.get(..36)?).ok()?;
    (!uuid.is_nil()).then_some(uuid)
}

/// The name in the value of a domain's `name`, with U+FFFD for bytes that are not UTF-8. An empty value is still to be
/// written.
#[must_use]
pub fn name(value: &[u8]) -> Option<String> {
    (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
}

/// The name of a domain whose `name` is not written: of the form that Xen's tools give domain 0.
#[must_use]
pub fn name_of(domid: u16) -> String {
    format!("Domain-{domid}")
}

/// The namespace of derived uuids, chosen at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x73e1_87de_58b3_4f3a_8ceb_273f_dda5_bc86);

/// The uuid of a domain whose `vm` is not written: derived from the host and the domain id (UUIDv5 of RFC 9562), so that
/// it is the same each time.
#[must_use]
pub fn uuid_of(host: &str, domid: u16) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{host}\n{domid}").as_bytes())
}

/// A request of the host to a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// None, or one that the guest has acknowledged.
    #[default]
    Nothing,
    /// To power off.
    Poweroff,
    /// To shut down for a reboot: the host makes another domain, with another id.
    Reboot,
    /// To halt.
    Halt,
    /// To prepare for being saved or migrated.
    Suspend,
    /// To crash.
    Crash,
    /// Another word.
    Other(Box<str>),
}

impl Request {
    /// Reads the value of a domain's `control/shutdown`. The guest may write there, too.
    #[must_use]
    pub fn read(value: &[u8]) -> Self {
        match value {
            b"" => Self::Nothing,
            b"poweroff" => Self::Poweroff,
            b"reboot" => Self::Reboot,
            b"halt" => Self::Halt,
            b"suspend" => Self::Suspend,
            b"crash" => Self::Crash,
            other => Self::Other(String::from_utf8_lossy(other).into()),
        }
    }

    /// The word, as it is in the node.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Nothing => "",
            Self::Poweroff => "poweroff",
            Self::Reboot => "reboot",
            Self::Halt => "halt",
            Self::Suspend => "suspend",
            Self::Crash => "crash",
            Self::Other(text) => text,
        }
    }

    /// Whether the request ends the run.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Other(_))
    }

    /// The event that carries it: its name, and `{"request":"poweroff"}`.
    #[must_use]
    pub fn event(&self) -> (EventName, EventData) {
        let mut json = String::from("{\"request\":\"");
        for character in self.as_str().chars() {
            // This form of an escape is valid for every control character.
            let written = match character {
                '"' | '\\' => write!(json, "\\{character}"),
                '\0'..='\x1f' => write!(json, "\\u{:04x}", u32::from(character)),
                _ => write!(json, "{character}"),
            };
            // Writing to a String cannot fail.
            debug_assert!(written.is_ok());
        }
        json.push_str("\"}");
        (EventName::Name(REQUEST_EVENT.into()), EventData::Json(json.into()))
    }
}

/// The cause of a stop, as far as the store has one.
///
/// The store has the request to the guest, and nothing else: a guest that powered itself off, one that crashed and one
/// that was destroyed leave the same trace, so their stops have no cause.
#[must_use]
pub fn stop_cause(was_asked: bool) -> StopCause {
    if was_asked { StopCause::Shutdown } else { StopCause::Unspecified }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_from_every_form_of_vm() {
        let known = Uuid::try_parse("00000005-0000-4000-8000-000000000005").unwrap();
        for vm in
            ["00000005-0000-4000-8000-000000000005", "00000005-0000-4000-8000-000000000005-12"]
        {
            assert_eq!(uuid(format!("/vm/{vm}").as_bytes()), Some(known));
        }
        let strange =
            [&b""[..], b"/vm/", b"/vm/5", b"00000005-0000-4000-8000-000000000005", &[0xff; 40]];
        for vm in strange {
            assert_eq!(uuid(vm), None, "{vm:?}");
        }
    }

    #[test]
    fn a_domid_is_a_number_below_the_reserved_ones() {
        assert_eq!(domid(b"0"), Some(0));
        assert_eq!(domid(b"32751"), Some(32751));
        for text in [&b"32752"[..], b"-1", b"+1", b"", b"1x", b"99999999999999999999", b"\xff"] {
            assert_eq!(domid(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_still_a_name() {
        assert_eq!(name(b"w\xffb").as_deref(), Some("w\u{fffd}b"));
        assert_eq!(name(b""), None);
    }

    #[test]
    fn a_derived_uuid_is_stable_and_unique() {
        assert_eq!(uuid_of("h", 5), uuid_of("h", 5));
        assert_ne!(uuid_of("h", 5), uuid_of("h", 6));
        assert_ne!(uuid_of("h", 5), uuid_of("other", 5));
        assert_eq!(uuid_of("h", 5).get_version_num(), 5);
    }

    #[test]
    fn any_request_of_a_guest_is_valid_json() {
        for text in ["poweroff", "reboot", "halt", "suspend", "crash"] {
            let request = Request::read(text.as_bytes());
            assert!(request.is_ending());
            assert_eq!(request.as_str(), text);
        }
        let (name, data) = Request::read(b"a\"b\\\n\x01\xff").event();
        assert_eq!(name.to_string(), REQUEST_EVENT);
        let EventData::Json(json) = data else { panic!() };
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["request"], "a\"b\\\n\u{1}\u{fffd}");
        assert!(!Request::read(b"s3").is_ending() && !Request::read(b"").is_ending());
    }
}
