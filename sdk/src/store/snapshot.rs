//! A state of the table that does not change any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use crate::domain::Host;
use crate::event::ScopeKey;
use crate::{Change, Domain, EventSource, Origin, Scope, Selector, State};

/// A domain in a [`DomainStore`](super::DomainStore).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredDomain {
    /// The domain, with the id of its run if it is active. It names the source and the host.
    pub domain: Domain,
    /// Its state.
    pub state: State,
    /// The change that led to the state, with its cause; [`Existing`](Change::Existing) where the
    /// domain was already in that state when it was first seen.
    pub change: Change,
    /// How the change came to be known.
    pub origin: Origin,
    /// The time of the change; `None` for [`Existing`](Change::Existing). If it is
    /// [`Inferred`](Origin::Inferred), the change happened at this time at the latest.
    #[cfg_attr(
        feature = "serde",
        serde(
            with = "crate::event::json::stamp",
            skip_serializing_if = "Option::is_none",
            default
        )
    )]
    pub since: Option<SystemTime>,
    /// Whether it exists when it does not run; `None` where that is not known.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none", default))]
    pub persistent: Option<bool>,
    /// Whether this is true now: its scope has been [`Synced`](crate::DomainEvent::Synced), and
    /// there was no [`Gap`](crate::DomainEvent::Gap) of it since.
    pub certain: bool,
}

/// The domains of one host. In 16 chunks by the first digit of the uuid, so that a change while a
/// snapshot is alive copies a sixteenth.
#[derive(Clone, Debug)]
struct HostTable {
    chunks: [Arc<Chunk>; 16],
}

type Chunk = BTreeMap<Uuid, Arc<StoredDomain>>;

/// Hashed, and sorted where the order shows: each event looks a host up, and in an ordered map of
/// 1,000 hosts that takes ten comparisons of long names.
type Hosts = HashMap<Arc<Host>, Arc<HostTable>, foldhash::fast::RandomState>;

impl Default for HostTable {
    fn default() -> Self {
        let empty = Arc::new(Chunk::new());
        Self { chunks: std::array::from_fn(|_| Arc::clone(&empty)) }
    }
}

impl HostTable {
    fn get(&self, uuid: Uuid) -> Option<&Arc<StoredDomain>> {
        self.chunks[chunk_of(uuid)].get(&uuid)
    }

    fn chunk_mut(&mut self, uuid: Uuid) -> &mut Chunk {
        Arc::make_mut(&mut self.chunks[chunk_of(uuid)])
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<StoredDomain>> {
        self.chunks.iter().flat_map(|chunk| chunk.values())
    }

    fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }
}

fn chunk_of(uuid: Uuid) -> usize {
    usize::from(uuid.as_bytes()[0] >> 4)
}

/// What a [`DomainStore`](super::DomainStore) knew at one moment: consistent, and unaffected by
/// what happens later. Taking one and cloning it copy no domain.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    hosts: Arc<Hosts>,
    uncertain: Arc<BTreeMap<ScopeKey, Scope>>,
    /// The sources that have been synced: all their domains were known.
    sources: Arc<BTreeSet<Arc<str>>>,
    /// Whether any source has delivered an event.
    has_begun: bool,
}

impl Snapshot {
    /// One domain, by uuid or name. Where several sources or hosts have such a domain, the first in
    /// order; [`same`](Self::same) and [`iter`](Self::iter) tell them apart. A name is looked for in
    /// the whole table.
    #[must_use]
    pub fn get(&self, domain: impl Into<Selector>) -> Option<&Arc<StoredDomain>> {
        match domain.into() {
            Selector::Uuid(uuid) => {
                let found = self.hosts.values().filter_map(|host| host.get(uuid));
                found.min_by(|one, other| one.domain.shared_host().cmp(other.domain.shared_host()))
            }
            selector => self.iter().find(|stored| selector.matches(&stored.domain)),
        }
    }

    /// The domain with the same source, host and uuid.
    #[must_use]
    pub fn same(&self, domain: &Domain) -> Option<&Arc<StoredDomain>> {
        self.hosts.get(&**domain.shared_host())?.get(domain.uuid())
    }

    /// Every domain, in the order of source, host and uuid.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<StoredDomain>> {
        self.sorted(|_| true).flat_map(|host| host.iter())
    }

    /// The hosts that `is_wanted` accepts, in order.
    fn sorted(&self, is_wanted: impl Fn(&Host) -> bool) -> impl Iterator<Item = &HostTable> {
        let mut hosts: Vec<_> = self.hosts.iter().filter(|(host, _)| is_wanted(host)).collect();
        hosts.sort_unstable_by_key(|(host, _)| *host);
        hosts.into_iter().map(|(_, table)| &**table)
    }

    /// The active domains, in the same order.
    pub fn active(&self) -> impl Iterator<Item = &Arc<StoredDomain>> {
        self.iter().filter(|stored| stored.domain.is_active())
    }

    /// The number of domains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.values().map(|host| host.len()).sum()
    }

    /// Whether there is no domain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The scopes of which it is not certain that all is known: a source before its first
    /// [`Synced`](crate::DomainEvent::Synced), and every unreachable source, host or domain.
    pub fn uncertain(&self) -> impl Iterator<Item = &Scope> {
        self.uncertain.values()
    }

    /// Whether all is known: each source that delivered an event has been synced, and no scope is
    /// uncertain.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.has_begun && self.uncertain.is_empty()
    }

    /// The URIs of the sources whose domains are all known, or were before an outage: those that have
    /// been [`Synced`](crate::DomainEvent::Synced). Of a fleet, it and its members.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| &**source)
    }

    /// Leaves out the sources, by URI, that `wanted` does not accept: those that a program watches no
    /// more when it [resumes](crate::Options::resume()).
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        let hosts = self.hosts.iter().filter(|(host, _)| wanted(&host.source));
        self.hosts =
            Arc::new(hosts.map(|(host, table)| (Arc::clone(host), Arc::clone(table))).collect());
        Arc::make_mut(&mut self.uncertain).retain(|_, scope| wanted(scope.source()));
        Arc::make_mut(&mut self.sources).retain(|source| wanted(source));
    }

    pub(super) fn begin(&mut self, has_begun: bool) {
        self.has_begun = has_begun;
    }

    /// The sources that have been synced.
    pub(super) fn synced(&self) -> &Arc<BTreeSet<Arc<str>>> {
        &self.sources
    }

    /// Whether all domains of a source are known, or were before an outage.
    pub(crate) fn knows(&self, source: &str) -> bool {
        self.sources.contains(source)
    }

    /// Whether it knows the source, or a member of it.
    pub(crate) fn knows_any(&self, source: &dyn EventSource) -> bool {
        let members = source.members();
        self.knows(source.uri()) || members.iter().any(|member| self.knows_any(&**member))
    }

    /// The hosts of a source that have domains.
    pub(crate) fn hosts_of(&self, source: &str) -> impl Iterator<Item = &Arc<Host>> {
        let mut hosts: Vec<_> = self.hosts.keys().filter(|host| *host.source == *source).collect();
        hosts.sort_unstable();
        hosts.into_iter()
    }

    /// The host of a domain, if it has any domain.
    #[cfg(feature = "serde")]
    pub(super) fn host(&self, domain: &Domain) -> Option<&Arc<Host>> {
        Some(self.hosts.get_key_value(&**domain.shared_host())?.0)
    }

    /// The source has been synced.
    pub(super) fn learn(&mut self, source: &Arc<str>) {
        self.has_begun = true;
        if !self.sources.contains(source) {
            Arc::make_mut(&mut self.sources).insert(Arc::clone(source));
        }
    }

    /// The sources of the scope were removed from their fleet.
    pub(super) fn unlearn(&mut self, scope: &Scope) {
        let is_in = |source: &Arc<str>| scope.includes(&Scope::Source(Arc::clone(source)));
        if self.sources.iter().any(is_in) {
            Arc::make_mut(&mut self.sources).retain(|source| !is_in(source));
        }
    }

    /// Whether `domain` is in none of the uncertain scopes.
    pub(super) fn trusts(&self, domain: &Domain) -> bool {
        let covered = |key: &ScopeKey| self.uncertain.contains_key(key);
        self.uncertain.is_empty()
            || !(covered(&ScopeKey::of_source(&domain.shared_host().source))
                || covered(&ScopeKey::of_host(domain))
                || covered(&ScopeKey::of(domain)))
    }

    /// The domains of a scope.
    pub(crate) fn within<'a>(
        &'a self,
        scope: &'a Scope,
    ) -> impl Iterator<Item = &'a Arc<StoredDomain>> {
        let one = scope.domain().and_then(|domain| self.same(domain));
        let hosts = self.sorted(move |host| match scope {
            Scope::Source(source) => host.source == *source,
            Scope::Host { source, host: name } => host.source == *source && host.name == *name,
            Scope::Fleet { members, .. } => members.binary_search(&host.source).is_ok(),
            Scope::Domain(_) => false,
        });
        one.into_iter().chain(hosts.flat_map(|table| table.iter()))
    }

    /// Stores a domain, and returns what was stored of it before.
    pub(super) fn insert(&mut self, stored: Arc<StoredDomain>) -> Option<Arc<StoredDomain>> {
        let host = Arc::clone(stored.domain.shared_host());
        let uuid = stored.domain.uuid();
        let hosts = Arc::make_mut(&mut self.hosts);
        Arc::make_mut(hosts.entry(host).or_default()).chunk_mut(uuid).insert(uuid, stored)
    }

    pub(super) fn remove(&mut self, domain: &Domain) -> Option<Arc<StoredDomain>> {
        self.same(domain)?;
        let hosts = Arc::make_mut(&mut self.hosts);
        let host = &**domain.shared_host();
        let table = Arc::make_mut(hosts.get_mut(host)?);
        let removed = table.chunk_mut(domain.uuid()).remove(&domain.uuid());
        if table.len() == 0 {
            hosts.remove(host);
        }
        removed
    }

    /// Makes a scope uncertain. What is in it needs no scope of its own.
    pub(super) fn doubt(&mut self, scope: &Scope) {
        if let Scope::Fleet { members, .. } = scope {
            // A domain is looked up by its own source.
            return members
                .iter()
                .for_each(|member| self.doubt(&Scope::Source(Arc::clone(member))));
        }
        self.has_begun = true;
        let uncertain = Arc::make_mut(&mut self.uncertain);
        uncertain.retain(|_, known| !scope.includes(known));
        uncertain.insert(scope.key(), scope.clone());
    }

    /// Makes a scope certain.
    pub(super) fn trust(&mut self, scope: &Scope) {
        if !self.uncertain.is_empty() {
            Arc::make_mut(&mut self.uncertain).retain(|_, known| !scope.includes(known));
        }
    }
}

/// Whether both have the same domains in the same states, and are certain of the same.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
            && self.uncertain.values().eq(other.uncertain.values())
            && self.sources == other.sources
    }
}

impl Eq for Snapshot {}
