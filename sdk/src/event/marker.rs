//! Markers: where what a stream delivered becomes incomplete, and where it is complete again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::domain::Host;
use crate::{Domain, Fault};

/// How far a [`Gap`] or a [`Synced`] reaches.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every domain of the source with this URI.
    Source(Arc<str>),
    /// The domains of one host of a fleet.
    Host {
        /// The URI of the source that knows the host, without secrets.
        source: Arc<str>,
        /// What the host calls itself.
        host: Arc<str>,
    },
    /// One domain.
    Domain(Domain),
    /// The domains of a fleet.
    Fleet {
        /// The URI of the fleet.
        source: Arc<str>,
        /// The URIs of the sources that this is about, in order: members, and the members of members
        /// that are fleets.
        members: Arc<[Arc<str>]>,
    },
}

impl Scope {
    /// All of the source with this URI.
    pub fn source_wide(source: impl Into<Arc<str>>) -> Self {
        Self::Source(source.into())
    }

    /// One host of a fleet.
    pub fn on_host(source: impl Into<Arc<str>>, host: impl Into<Arc<str>>) -> Self {
        Self::Host { source: source.into(), host: host.into() }
    }

    /// All of the fleet with this URI, which has these sources.
    pub fn fleet(source: impl Into<Arc<str>>, members: impl IntoIterator<Item = Arc<str>>) -> Self {
        let members: BTreeSet<_> = members.into_iter().collect();
        Self::Fleet { source: source.into(), members: members.into_iter().collect() }
    }

    /// The URI of the source or the fleet, without secrets.
    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Source(source) | Self::Host { source, .. } | Self::Fleet { source, .. } => source,
            Self::Domain(domain) => domain.source(),
        }
    }

    /// Whether this is all of a source, or all of a fleet.
    #[must_use]
    pub fn is_source(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Fleet { .. })
    }

    /// Whether this is a fleet that has this source.
    fn has_member(&self, source: &str) -> bool {
        match self {
            Self::Fleet { members, .. } => {
                members.binary_search_by(|member| (**member).cmp(source)).is_ok()
            }
            _ => false,
        }
    }

    /// The domain, if the scope is one.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Domain(domain) => Some(domain),
            _ => None,
        }
    }

    /// Whether `domain` is in the scope.
    #[must_use]
    pub fn contains(&self, domain: &Domain) -> bool {
        match self {
            Self::Source(source) => domain.source() == &**source,
            Self::Host { source, host } => domain.source() == &**source && domain.host() == &**host,
            Self::Domain(one) => one.is_same(domain),
            Self::Fleet { .. } => self.has_member(domain.source()),
        }
    }

    /// Whether the whole of `other` is in this scope: a [`Synced`] ends each [`Gap`] whose scope
    /// its own includes.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fleet { .. }, Self::Fleet { members, .. }) if !self.is_same(other) => {
                members.iter().all(|member| self.has_member(member))
            }
            (Self::Fleet { source, .. }, other) => {
                &**source == other.source() || self.has_member(other.source())
            }
            (Self::Source(source), other) => &**source == other.source(),
            (_, Self::Domain(domain)) => self.contains(domain),
            _ => self.is_same(other),
        }
    }

    /// Whether both name the same scope. A domain's run and name do not matter.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    pub(crate) fn key(&self) -> ScopeKey {
        match self {
            Self::Source(source) | Self::Fleet { source, .. } => ScopeKey::of_source(source),
            Self::Host { source, host } => {
                ScopeKey { source: Arc::clone(source), host: Some(Arc::clone(host)), uuid: None }
            }
            Self::Domain(domain) => ScopeKey::of(domain),
        }
    }
}

/// The identity of a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ScopeKey {
    source: Arc<str>,
    host: Option<Arc<str>>,
    uuid: Option<Uuid>,
}

impl ScopeKey {
    pub(crate) fn of(domain: &Domain) -> Self {
        Self { uuid: Some(domain.uuid()), ..Self::of_host(domain) }
    }

    pub(crate) fn of_source(source: &Arc<str>) -> Self {
        Self { source: Arc::clone(source), host: None, uuid: None }
    }

    /// The scope of the host that a domain is on.
    pub(crate) fn of_host(domain: &Domain) -> Self {
        let Host { source, name } = &**domain.shared_host();
        Self { source: Arc::clone(source), host: Some(Arc::clone(name)), uuid: None }
    }
}

/// The source's URI, and before it `host web1 on `, or `domain vm7 on `.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(source) => f.write_str(source),
            Self::Host { source, host } => write!(f, "host {host} on {source}"),
            Self::Domain(domain) => write!(f, "domain {} on {}", domain.name(), domain.source()),
            Self::Fleet { source, .. } => f.write_str(source),
        }
    }
}

/// From here on, what the stream delivered is complete and true for the scope.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The scope.
    pub scope: Scope,
    /// The number of domains in the scope, active and inactive, whatever the subscriber's filter.
    pub domains: u64,
}

impl Synced {
    /// Makes one, for a test of your own code.
    #[must_use]
    pub fn new(scope: Scope, domains: u64) -> Self {
        Self { scope, domains }
    }
}

impl fmt::Display for Synced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.domains == 1 { "" } else { "s" };
        write!(f, "synced with {} ({} domain{plural})", self.scope, self.domains)
    }
}

/// From here on, what the stream delivered is incomplete for the scope.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The scope.
    pub scope: Scope,
    /// What happened.
    pub kind: GapKind,
}

impl Gap {
    /// Makes one, for a test of your own code.
    #[must_use]
    pub fn new(scope: Scope, kind: GapKind) -> Self {
        Self { scope, kind }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            GapKind::Disconnected { fault } => {
                write!(f, "disconnected from {} ({fault})", self.scope)
            }
            GapKind::Lagged { missed, .. } => {
                write!(f, "lagged on {} ({missed} missed)", self.scope)
            }
            GapKind::Removed => write!(f, "{} was removed", self.scope),
        }
    }
}

impl GapKind {
    /// Makes a [`Disconnected`](Self::Disconnected).
    #[must_use]
    pub fn disconnected(fault: Fault) -> Self {
        Self::Disconnected { fault }
    }

    /// Makes a [`Lagged`](Self::Lagged).
    #[must_use]
    pub fn lagged(missed: u64, reset: bool) -> Self {
        Self::Lagged { missed, reset }
    }
}

/// What happened.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// The hypervisor is unreachable. **Its domains are not stopped**: what has changed follows
    /// after the reconnect, before the next [`Synced`].
    #[non_exhaustive]
    Disconnected {
        /// Why.
        fault: Fault,
    },
    /// This subscriber read too slowly, and its mailbox was compacted.
    #[non_exhaustive]
    Lagged {
        /// The exact number of events that were dropped, without
        /// [`Existing`](crate::Change::Existing) and markers.
        missed: u64,
        /// False, as nearly always: every domain's last ending and its final state were kept and
        /// follow. True: not even these could be kept, so **forget what you know** of the source.
        /// What exists follows as [`Existing`](crate::Change::Existing) events and [`Synced`];
        /// other domains are gone.
        reset: bool,
    },
    /// The source was removed from the fleet: **forget what you know** of it. Its domains are not
    /// stopped, and nothing more is delivered of them.
    Removed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_includes_itself_and_its_parts() {
        let domain = |host, number| {
            let uuid = Uuid::from_u128(number);
            Scope::Domain(Domain::new("s:", host, uuid, "web", Some(number as u32)))
        };
        let all = Scope::source_wide("s:");
        let here = Scope::on_host("s:", "here");
        let there = Scope::on_host("s:", "there");
        let parts = [&all, &here, &there, &domain("here", 1), &domain("here", 2)];
        let included = |scope: &Scope| parts.map(|part| scope.includes(part));
        assert_eq!(included(&all), [true; 5]);
        assert_eq!(included(&Scope::source_wide("other:")), [false; 5]);
        assert_eq!(included(&here), [false, true, false, true, true]);
        assert_eq!(included(&there), [false, false, true, false, false]);
        assert_eq!(included(&domain("here", 1)), [false, false, false, true, false]);
        let renamed = Domain::new("s:", "here", Uuid::from_u128(1), "other", None);
        assert!(Scope::Domain(renamed).includes(parts[3]), "a domain is its uuid");
    }
}
