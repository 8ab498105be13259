//! What the store says of a domain, and what that means. Pure.
//!
//! | node | says |
//! |---|---|
//! | `/local/domain/N/vm` | the uuid: `/vm/<uuid>`, in old stores with `-1`, `-2` ... after it |
//! | `/local/domain/N/name` | the name |
//! | `/local/domain/N/control/shutdown` | what the host asks of the guest; empty once the guest has taken note |
//!
//! The paths are those of Xen's `docs/misc/xenstore-paths.pandoc`.

use std::fmt::Write as _;

use virevent::{EventData, EventName, StopCause, Uuid};

/// The name of the event that carries a request to a guest: the node that it stands in.
pub const REQUEST_EVENT: &str = "control/shutdown";

/// The first number that is no domain's: `DOMID_FIRST_RESERVED` in Xen's `xen.h`.
pub const FIRST_RESERVED: u16 = 0x7ff0;

/// The number of a domain, if the text is one.
pub fn domid(text: &[u8]) -> Option<u16> {
    // A plus sign would parse, too.
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|domid| *domid < FIRST_RESERVED)
}

/// The uuid in the value of a domain's `vm`. The nil one is domain 0's: a guest that has it has none.
pub fn uuid(vm: &[u8]) -> Option<Uuid> {
    let uuid = Uuid::try_parse_ascii(vm.strip_prefix(b"/vm/")?.get(..36)?).ok()?;
    (!uuid.is_nil()).then_some(uuid)
}

/// The name in the value of a domain's `name`; what is not UTF-8 in it is replaced. An empty one is
/// still to be written.
pub fn name(value: &[u8]) -> Option<String> {
    (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
}

/// What a domain is called whose name nobody has written: as Xen's tools call domain 0.
pub fn name_of(domid: u16) -> String {
    format!("Domain-{domid}")
}

/// The namespace of derived uuids: made up once, at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x73e1_87de_58b3_4f3a_8ceb_273f_dda5_bc86);

/// The uuid of a domain whose `vm` nobody has written: made of host and number, the same each time
/// (UUIDv5 of RFC 9562).
pub fn uuid_of(host: &str, domid: u16) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{host}\n{domid}").as_bytes())
}

/// What a host asks of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// Nothing, or nothing any more: the guest has taken note.
    #[default]
    Nothing,
    /// To power off.
    Poweroff,
    /// To shut down for a reboot: the host makes it anew, under another number.
    Reboot,
    /// To halt.
    Halt,
    /// To make ready for being saved or migrated.
    Suspend,
    /// To crash.
    Crash,
    /// Something that has no name here.
    Other(Box<str>),
}

impl Request {
    /// The value of a domain's `control/shutdown`. The guest may write there, too.
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

    /// The value.
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

    /// Whether the run is to end by it.
    pub fn is_ending(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Other(_))
    }

    /// The event that carries it: its name, and `{"request":"poweroff"}`.
    pub fn event(&self) -> (EventName, EventData) {
        let mut json = String::from("{\"request\":\"");
        for character in self.as_str().chars() {
            // Control characters in the form that is right for all of them.
            let written = match character {
                '"' | '\\' => write!(json, "\\{character}"),
                '\0'..='\x1f' => write!(json, "\\u{:04x}", u32::from(character)),
                _ => write!(json, "{character}"),
            };
            // A String takes everything.
            debug_assert!(written.is_ok());
        }
        json.push_str("\"}");
        (EventName::Name(REQUEST_EVENT.into()), EventData::Json(json.into()))
    }
}

/// Why a run ended, as far as the store tells.
///
/// It knows what the guest was asked for, and no more: a guest that powered itself off, one that
/// crashed and one that was destroyed leave the same trace, and so they have no cause here.
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
