//! Domains (virtual machines), the identity that an event carries, and selectors of them.

use std::convert::Infallible;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// A domain: a virtual machine, running or not, on one host.
///
/// Cheap to clone: the identity is shared, and a source interns it once a connection.
///
/// Its identity is its [`source`](Domain::source), [`host`](Domain::host) and
/// [`uuid`](Domain::uuid): key your tables by these (the uuid is enough where there is one source
/// on one host). A name can change, and an id is reused. A new id under the same uuid is a new run
/// of the domain.
#[derive(Clone)]
pub struct Domain {
    ident: Arc<Ident>,
    id: Option<u32>,
}

struct Ident {
    host: Arc<Host>,
    uuid: Uuid,
    name: Box<str>,
    /// The memory that the identity keeps alive, in bytes, as if it shared nothing. Computed once:
    /// every mailbox asks for it with every event.
    weight: usize,
}

/// A host, as one source knows it. All domains of a connection share it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Host {
    pub(crate) source: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Host {
    pub(crate) fn new(source: Arc<str>, name: Arc<str>) -> Arc<Self> {
        Arc::new(Self { source, name })
    }
}

impl Domain {
    /// Makes a domain by hand, for a test of your own code.
    ///
    /// `id` is that of the current run; `None` when the domain is inactive.
    #[must_use]
    pub fn new(source: &str, host: &str, uuid: Uuid, name: &str, id: Option<u32>) -> Self {
        Self::on(Host::new(source.into(), host.into()), uuid, name, id)
    }

    pub(crate) fn on(host: Arc<Host>, uuid: Uuid, name: &str, id: Option<u32>) -> Self {
        let name = Box::from(name);
        // The source's URI does not count: the program chose it, and all domains share it.
        let weight = size_of::<Ident>() + host.name.len() + str::len(&name);
        Self { ident: Arc::new(Ident { host, uuid, name, weight }), id }
    }

    /// The host that runs the domain, as the hypervisor calls itself (its host name, mostly).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.ident.host.name
    }

    /// The URI of the source that reports the domain, without secrets. Two sources may know the
    /// same domain under the same host and uuid: libvirt, and the monitor socket of its QEMU.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.ident.host.source
    }

    /// The domain's uuid, the one part of its identity that never changes.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.ident.uuid
    }

    /// The domain's name at the time of the event.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.ident.name
    }

    /// The number of this run: libvirt's domain id, Xen's domid, the process id of a QEMU.
    ///
    /// `None` when the domain is inactive. An event that ends a run carries the id of the run that
    /// ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.id
    }

    /// Whether the domain has a run.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.id.is_some()
    }

    /// The same domain in another run, or in none.
    #[must_use]
    pub fn with_id(&self, id: Option<u32>) -> Self {
        Self { ident: Arc::clone(&self.ident), id }
    }

    /// Whether both are the same domain, whatever they are called and in whichever run.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.uuid() == other.uuid()
            && (Arc::ptr_eq(&self.ident.host, &other.ident.host)
                || self.ident.host == other.ident.host)
    }

    /// The memory that it keeps alive, in bytes, as if it shared nothing.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.ident.weight
    }

    pub(crate) fn shared_host(&self) -> &Arc<Host> {
        &self.ident.host
    }
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && (Arc::ptr_eq(&self.ident, &other.ident)
                || (self.is_same(other) && self.name() == other.name()))
    }
}

impl Eq for Domain {}

impl Hash for Domain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid().hash(state);
        // Host and name are left out: uuids hardly ever collide, and equal values still hash alike.
        self.id.hash(state);
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("source", &self.source())
            .field("host", &self.host())
            .field("uuid", &self.uuid())
            .field("name", &self.name())
            .field("id", &self.id)
            .finish()
    }
}

/// The name, and the id of the run where there is one: `web[7]`.
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.id {
            Some(id) => write!(f, "[{id}]"),
            None => Ok(()),
        }
    }
}

/// Names one domain, by uuid or by name: what a filter and a wait take.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The domain with this uuid, whatever it is called.
    Uuid(Uuid),
    /// The domain that has this name at the time of the event.
    Name(Box<str>),
}

impl Selector {
    /// Whether `domain` is the one named.
    #[must_use]
    pub fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::Uuid(uuid) => domain.uuid() == *uuid,
            Self::Name(name) => domain.name() == &**name,
        }
    }
}

impl From<Uuid> for Selector {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

/// By uuid.
impl From<&Domain> for Selector {
    fn from(domain: &Domain) -> Self {
        Self::Uuid(domain.uuid())
    }
}

/// A text in the form of a uuid selects by uuid, any other by name.
impl From<&str> for Selector {
    fn from(text: &str) -> Self {
        match Uuid::try_parse(text) {
            Ok(uuid) => Self::Uuid(uuid),
            Err(_) => Self::Name(text.into()),
        }
    }
}

impl From<String> for Selector {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for Selector {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

/// As `From<&str>`: never fails.
impl FromStr for Selector {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(f, "{uuid}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_in_the_form_of_a_uuid_selects_by_uuid() {
        let domain = Domain::new("s:", "h", Uuid::from_u128(7), "web", Some(3));
        assert!(Selector::from(Uuid::from_u128(7).to_string()).matches(&domain));
        assert!(Selector::from("web").matches(&domain));
        assert!(!Selector::from("we").matches(&domain));
    }

    #[test]
    fn another_run_is_the_same_domain_but_not_equal() {
        let run = Domain::new("s:", "h", Uuid::from_u128(7), "web", Some(3));
        let next = run.with_id(Some(4));
        assert!(run.is_same(&next));
        assert_ne!(run, next);
        assert_eq!(run.to_string(), "web[3]");
    }
}
