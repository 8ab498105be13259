//! Events that the crate has no type for.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::{Domain, EventName, Origin};

/// A well framed event that this crate has no type for, passed on whole.
///
/// What its data means is the hypervisor's own documentation to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// The domain it is about, where the frame says so.
    pub domain: Option<Domain>,
    /// When: the hypervisor's own stamp where it sends one, else the time of receipt.
    pub at: SystemTime,
    /// How we know.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventData {
    /// The text of a JSON value (QMP).
    Json(Box<str>),
    /// The bytes that follow the domain in the frame (libvirt: XDR, `docs/libvirt.md` says where the
    /// layouts are).
    Bytes(Box<[u8]>),
}

impl RawEvent {
    /// Makes an event.
    pub fn new(
        source: impl Into<Arc<str>>,
        domain: Option<Domain>,
        name: EventName,
        data: EventData,
        at: SystemTime,
    ) -> Self {
        let body = Arc::new(Body { source: source.into(), name, data });
        Self { domain, at, origin: Origin::Observed, body }
    }

    /// The URI of the source that told it, without secrets.
    pub fn source(&self) -> &str {
        &self.body.source
    }

    /// What the hypervisor calls it.
    pub fn name(&self) -> &EventName {
        &self.body.name
    }

    /// How many bytes came with it.
    pub(crate) fn weight(&self) -> usize {
        match self.data() {
            EventData::Json(text) => text.len(),
            EventData::Bytes(bytes) => bytes.len(),
        }
    }

    /// What came with it.
    pub fn data(&self) -> &EventData {
        &self.body.data
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
