//! The subjects of events and the keys of the state bucket: both are tokens with dots between them.
//!
//! ```text
//!   virevent.<relay>.<host>.<uuid>.<kind>     an event;  _ for a uuid that there is none of
//!   domain.<relay>.<host>.<uuid>              the state of a domain, in the bucket
//!   relay.<relay>                             the status of a relay, in the bucket
//! ```
//!
//! A host chooses its name, and a hypervisor the names of its events. So every byte of a token that
//! is not a letter, a digit or `-` is written `=XX`: it can contain no dot and no wildcard.

use std::fmt::Write;

use uuid::Uuid;
use virevent::{DomainEvent, Error};

/// The subjects of all relays.
pub(crate) const ALL: &str = "virevent.>";

/// The keys of all domains, and of all relays.
pub(crate) const STATUS_KEYS: &str = "relay.*";

/// The length of a token before it is escaped. A host's name has 255 bytes at most; a kind that is
/// longer is cut, since the body has it whole.
const MAX_TOKEN: usize = 255;

/// The longest name of a relay.
const MAX_NAME: usize = 64;

/// The token of what is not about one domain.
const NO_DOMAIN: &str = "_";

/// A subject of an event, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) relay: String,
    pub(crate) host: String,
    /// `None` for a marker of the host, and for an event that names no domain.
    pub(crate) uuid: Option<Uuid>,
}

impl Subject {
    /// The parts of a subject; `None` if it is not one of an event.
    pub(crate) fn parse(subject: &str) -> Option<Self> {
        let mut tokens = subject.split('.');
        if tokens.next() != Some("virevent") {
            return None;
        }
        let relay = unescape(tokens.next()?)?;
        let host = unescape(tokens.next()?)?;
        let uuid = match tokens.next()? {
            NO_DOMAIN => None,
            uuid => Some(Uuid::try_parse(uuid).ok()?),
        };
        let _kind = tokens.next().filter(|kind| !kind.is_empty())?;
        tokens.next().is_none().then_some(Self { relay, host, uuid })
    }
}

/// The subject of an event of a host.
pub(crate) fn of_event(relay: &str, host: &str, event: &DomainEvent) -> String {
    let uuid = event.domain().map(|domain| domain.uuid().to_string());
    let kind = match event {
        DomainEvent::Synced(_) => "synced".to_owned(),
        DomainEvent::Gap(_) => "gap".to_owned(),
        event => event.kind().map_or_else(|| "other".to_owned(), |kind| kind.to_string()),
    };
    let uuid = uuid.as_deref().unwrap_or(NO_DOMAIN);
    format!("virevent.{}.{}.{uuid}.{}", escape(relay), escape(host), escape(&kind))
}

/// The subjects of one relay.
pub(crate) fn of_relay(relay: &str) -> String {
    format!("virevent.{}.>", escape(relay))
}

/// The key of a domain's state.
pub(crate) fn domain_key(relay: &str, host: &str, uuid: Uuid) -> String {
    format!("domain.{}.{}.{uuid}", escape(relay), escape(host))
}

/// The keys of the states of one relay's domains.
pub(crate) fn domain_keys(relay: &str) -> String {
    format!("domain.{}.>", escape(relay))
}

/// The key of a relay's status.
pub(crate) fn status_key(relay: &str) -> String {
    format!("relay.{}", escape(relay))
}

/// Checks the name of a relay.
///
/// # Errors
/// [`Error::InvalidOption`]: it is empty, too long, or has other characters.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_valid) {
        true => Ok(()),
        false => Err(Error::invalid_option(
            "name of a relay",
            name,
            format!("1 to {MAX_NAME} letters, digits, '-', '_' and '.'"),
        )),
    }
}

fn escape(text: &str) -> String {
    // An empty token is not allowed, and a lone `=` is no escape.
    if text.is_empty() {
        return "=".to_owned();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes().take(MAX_TOKEN) {
        match byte {
            b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => token.push(byte.into()),
            _ => {
                // Writing into a string cannot fail.
                let _ = write!(token, "={byte:02X}");
            }
        }
    }
    token
}

pub(crate) fn unescape(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'=' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    let text = String::from_utf8(bytes).ok()?;
    // One text has one token, so that a key and a subject can be compared.
    (!text.is_empty() && escape(&text) == token).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use virevent::{Change, Domain, EventData, EventName, Lifecycle, RawEvent, StartCause};

    use super::*;

    #[test]
    fn hostile_names_stay_one_token_and_come_back() {
        for host in ["web1", "a.b", ">", "*", "a b", "", "=", "ä", "a\r\nPUB x", "..", "=2E", "_"]
        {
            let uuid = Uuid::from_u128(7);
            let domain = Domain::new("s:", host, uuid, "a.*.>", Some(1));
            let change = Change::Started(StartCause::Booted);
            let event = Lifecycle::new(domain, change, SystemTime::UNIX_EPOCH).into();
            let subject = of_event("r.1", host, &event);
            assert_eq!(subject.split('.').count(), 5, "{subject}");
            assert!(!subject.contains(['*', '>', ' ', '\r', '\n']), "{subject}");
            let parsed = Subject::parse(&subject).unwrap();
            assert_eq!(
                parsed,
                Subject { relay: "r.1".into(), host: host.into(), uuid: Some(uuid) }
            );
        }
    }

    #[test]
    fn a_hostile_kind_stays_one_token() {
        let name = EventName::Name("a.>*\n".into());
        let at = SystemTime::UNIX_EPOCH;
        let event = RawEvent::new("s:", None, name, EventData::Json("{}".into()), at).into();
        let subject = of_event("r", "h", &event);
        assert_eq!(Subject::parse(&subject).unwrap().uuid, None);
        assert_eq!(subject, "virevent.r.h.=5F.other=3Aa=2E=3E=2A=0A".replace("=5F", "_"));
    }

    #[test]
    fn what_is_no_subject_of_an_event_is_refused() {
        for subject in [
            "",
            "virevent",
            "virevent.r.h._",
            "virevent.r.h._.",
            "virevent.r.h._.gap.x",
            "virevent.r..x.gap",
            "virevent.r.h.x.gap",
            "virevent.r.=6.x._.gap",
            "virevent.r.=61._.gap",
            "virevent.r.=C3._.gap",
            "other.r.h._.gap",
        ] {
            assert_eq!(Subject::parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_relay_has_a_short_plain_name() {
        check_name("web1-libvirt.example_2").unwrap();
        for name in ["", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
