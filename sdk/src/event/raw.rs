//! Events that the crate has no type for.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::{Domain, EventName, Kind, Origin};

/// The length of an event's name that is kept, in bytes, as of a domain's. No hypervisor has longer
/// names.
const MAX_NAME: usize = 4096;

/// A well framed event that this crate has no type for, passed on whole.
///
/// The hypervisor's own documentation says what its data means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// The domain it is about, where the frame says so.
    pub domain: Option<Domain>,
    /// When: the hypervisor's own time stamp where it sends one, else the time of receipt.
    pub at: SystemTime,
    /// How it came to be known.
    pub origin: Origin,
    body: Arc<Body>,
}

#[derive(Debug, PartialEq, Eq)]
struct Body {
    source: Arc<str>,
    name: EventName,
    data: EventData,
}

/// What came with an event.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventData {
    /// The text of a JSON value (QMP).
    Json(Box<str>),
    /// The bytes that follow the domain in the frame (libvirt: XDR, `docs/libvirt.md` says where
    /// the layouts are).
    Bytes(Box<[u8]>),
}

impl RawEvent {
    /// Makes an event. A name is cut to 4 KiB, and then ends in `…`.
    pub fn new(
        source: impl Into<Arc<str>>,
        domain: Option<Domain>,
        name: EventName,
        data: EventData,
        at: SystemTime,
    ) -> Self {
        // The peer chooses the name, and every mailbox keeps it: 4 MB names filled 7.7 GB of
        // memory.
        let name = shortened(name);
        let body = Arc::new(Body { source: source.into(), name, data });
        Self { domain, at, origin: Origin::Observed, body }
    }

    /// The URI of the source that reports it, without secrets.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.body.source
    }

    /// What the hypervisor calls it.
    #[must_use]
    pub fn name(&self) -> &EventName {
        &self.body.name
    }

    /// The memory that it keeps alive, in bytes, as if it shared nothing.
    pub(crate) fn weight(&self) -> usize {
        let data = match self.data() {
            EventData::Json(text) => text.len(),
            EventData::Bytes(bytes) => bytes.len(),
        };
        let name = match self.name() {
            EventName::Number(_) => 0,
            EventName::Name(name) => name.len(),
        };
        size_of::<Body>() + name + data + self.domain.as_ref().map_or(0, Domain::weight)
    }

    /// The kind that a subscriber asks for to get it. An event that has a type, but came with an
    /// unknown layout, is of that type's kind.
    pub(crate) fn kind(&self) -> Kind {
        self.name().typed().unwrap_or_else(|| Kind::Named(self.name().clone()))
    }

    /// What came with it.
    #[must_use]
    pub fn data(&self) -> &EventData {
        &self.body.data
    }
}

fn shortened(name: EventName) -> EventName {
    match name {
        EventName::Name(name) if name.len() > MAX_NAME => {
            let mut end = MAX_NAME - '…'.len_utf8();
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            EventName::Name(format!("{}…", &name[..end]).into())
        }
        name => name,
    }
}

impl fmt::Display for RawEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(domain) = &self.domain {
            write!(f, "{domain} ")?;
        }
        write!(f, "event {}", self.name())?;
        match self.data() {
            EventData::Json(text) => write!(f, " {text}"),
            EventData::Bytes(bytes) => write!(f, " ({} bytes)", bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str) -> String {
        let data = EventData::Bytes([].into());
        let name = EventName::Name(name.into());
        RawEvent::new("s", None, name, data, SystemTime::UNIX_EPOCH).name().to_string()
    }

    #[test]
    fn a_name_longer_than_four_kibibytes_is_cut() {
        let longest = "E".repeat(4096);
        assert_eq!(kept(&longest), longest);
        assert_eq!(kept(&format!("{longest}E")), format!("{}…", "E".repeat(4093)));
        assert_eq!(kept(&"é".repeat(1 << 20)), format!("{}…", "é".repeat(2046)));
    }
}
