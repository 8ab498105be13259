//! The roster: what the driver knows of the domains of a source, by host and uuid.

use std::collections::HashSet;
use std::sync::Arc;

use super::Listed;
use super::entry::Entry;
use super::hosts::{ByKey, Hosts, Key};
use super::scopes::Scopes;
use crate::domain::Host;
use crate::{Domain, Error, Scope};

/// More domains than any fleet has: a source with more is broken, or not to be trusted.
const MAX_DOMAINS: usize = 1 << 20;

/// The length of all names together, in bytes: 256 for each of 262,144 domains.
const MAX_NAME_BYTES: usize = 64 << 20;

/// More hosts than any fleet has.
const MAX_HOSTS: usize = 1 << 16;

/// The number of domains of which the run is kept that a list ended.
// Forgetting them all costs at most a late event that is believed until the domain is looked at
// again.
const MAX_ENDED: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Roster {
    hosts: Hosts,
    entries: ByKey<Entry>,
    /// The length of all names, in bytes.
    name_bytes: usize,
    /// Every domain is known: a domain that is not here does not exist.
    pub(super) is_whole: bool,
    /// The runs that a list, and no event, showed to have ended. An event of such a run is late.
    ended: ByKey<u32>,
}

impl Roster {
    pub(super) fn new(home: Arc<Host>) -> Self {
        Self {
            hosts: Hosts::new(home),
            entries: ByKey::default(),
            name_bytes: 0,
            is_whole: false,
            ended: ByKey::default(),
        }
    }

    /// Takes the name of the connection's own host. Where domains are known, subscribers know the
    /// host by its former name, and the roster keeps that.
    pub(super) fn set_host(&mut self, host: &str) {
        let home = self.home();
        // A rename would look to streams as if every domain had gone and others had come.
        if self.entries.is_empty() && &*home.name != host {
            *self = Self::new(Host::new(Arc::clone(&home.source), host.into()));
        }
    }

    /// An empty roster in which keys mean the same.
    pub(super) fn like(&self) -> Self {
        Self { hosts: self.hosts.clone(), ..Self::new(self.home()) }
    }

    pub(super) fn home(&self) -> Arc<Host> {
        Arc::clone(self.hosts.home())
    }

    pub(super) fn key(&mut self, domain: &Domain) -> Key {
        self.hosts.key(domain)
    }

    /// Whether the domain is known.
    pub(super) fn knows(&self, domain: &Domain) -> bool {
        self.hosts.known_key(domain).is_some_and(|key| self.entries.contains_key(&key))
    }

    /// The domains that are known and not in the list.
    pub(super) fn missing_from(&self, list: &[Listed]) -> Vec<Domain> {
        let key = |listed: &Listed| self.hosts.known_key(&listed.domain);
        let listed: HashSet<_> = list.iter().filter_map(key).collect();
        let missing = self.entries.iter().filter(|(key, _)| !listed.contains(key));
        missing.map(|(_, entry)| entry.domain.clone()).collect()
    }

    /// A list by key. Of a domain that is listed twice the first entry counts.
    pub(super) fn by_key(&mut self, list: Vec<Listed>) -> ByKey<Entry> {
        let mut listed = ByKey::with_capacity_and_hasher(list.len(), Default::default());
        for entry in list {
            let key = self.key(&entry.domain);
            // A list is a peer's: two entries for one domain would infer two starts.
            listed.entry(key).or_insert_with(|| Entry::listed(entry));
        }
        listed
    }

    /// Every domain that is listed or known, with its entry in the list: first the domains that are
    /// not listed, then the others, each by name. A list says nothing of domains that are
    /// unreachable.
    pub(super) fn compared_with(
        &self,
        listed: ByKey<Entry>,
        unreachable: &Scopes,
    ) -> Vec<(Key, Option<Entry>)> {
        // The order is documented, and the same in every run: tests and logs can be compared.
        let name = |entry: &Entry| -> Box<str> { entry.domain.name().into() };
        let mut missing: Vec<(Key, Box<str>)> = self
            .entries
            .iter()
            .filter(|(key, entry)| {
                !listed.contains_key(key) && !unreachable.contains(&entry.domain)
            })
            .map(|(key, entry)| (*key, name(entry)))
            .collect();
        missing.sort_by(|(_, one), (_, other)| one.cmp(other));
        let mut entries: Vec<(Key, Entry)> = listed.into_iter().collect();
        entries.sort_by(|(_, one), (_, other)| one.domain.name().cmp(other.domain.name()));
        let missing = missing.into_iter().map(|(key, _)| (key, None));
        missing.chain(entries.into_iter().map(|(key, entry)| (key, Some(entry)))).collect()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub(super) fn insert(&mut self, key: Key, mut entry: Entry) {
        // All domains of a host share it, so that its number is found by the pointer.
        let host = self.hosts.get(key.host);
        if !Arc::ptr_eq(host, entry.domain.shared_host()) {
            let uuid = entry.domain.uuid();
            let id = entry.domain.id();
            entry.domain = Domain::on(Arc::clone(host), uuid, entry.domain.name(), id);
        }
        self.name_bytes += entry.domain.name().len();
        if let Some(before) = self.entries.insert(key, entry) {
            self.name_bytes -= before.domain.name().len();
        }
    }

    /// Takes over the name of an event's domain.
    pub(super) fn rename(&mut self, key: Key, domain: &Domain) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.name_bytes = self.name_bytes + domain.name().len() - entry.domain.name().len();
        entry.domain = domain.with_id(entry.domain.id());
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.name_bytes -= entry.domain.name().len();
        Some(entry)
    }

    /// Forgets every domain.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.home());
    }

    /// The keys of all domains.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many domains there are in a scope.
    pub(super) fn count(&self, scope: &Scope) -> u64 {
        match scope {
            Scope::Source(_) => self.entries.len() as u64,
            scope => self.entries.values().filter(|e| scope.contains(&e.domain)).count() as u64,
        }
    }

    /// A list showed that this run has ended.
    pub(super) fn end_run(&mut self, key: Key, run: Option<u32>) {
        if let Some(run) = run {
            if self.ended.len() >= MAX_ENDED {
                self.ended.clear();
            }
            self.ended.insert(key, run);
        }
    }

    /// Whether a list showed that this run has ended.
    pub(super) fn has_ended(&self, key: Key, run: Option<u32>) -> bool {
        run.is_some() && self.ended.get(&key).copied() == run
    }

    /// Whether a list showed that a run of this domain has ended.
    pub(super) fn has_ended_any(&self, key: Key) -> bool {
        self.ended.contains_key(&key)
    }

    /// A new run begins, perhaps under an id that was used before.
    pub(super) fn begin_run(&mut self, key: Key) {
        self.ended.remove(&key);
    }

    /// Forgets which runs a list ended: the next list shows that again.
    pub(super) fn forget_ended(&mut self) {
        self.ended.clear();
    }

    /// # Errors
    /// There is more than a source may have.
    pub(super) fn check_bounds(&self) -> Result<(), Error> {
        let (limit, bound) = match () {
            () if self.entries.len() > MAX_DOMAINS => ("domains", MAX_DOMAINS),
            () if self.name_bytes > MAX_NAME_BYTES => ("bytes of domain names", MAX_NAME_BYTES),
            () if self.hosts.len() > MAX_HOSTS => ("hosts", MAX_HOSTS),
            () => return Ok(()),
        };
        Err(Error::LimitExceeded { limit, bound })
    }

    /// The domains that `wanted` accepts, by name.
    pub(super) fn selected(&self, wanted: impl Fn(&Domain) -> bool) -> Vec<&Entry> {
        let mut entries: Vec<_> = self.entries.values().filter(|e| wanted(&e.domain)).collect();
        entries.sort_by(|a, b| a.domain.name().cmp(b.domain.name()));
        entries
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{ShutoffReason, State};

    fn roster() -> Roster {
        Roster::new(Host::new("s:".into(), "h".into()))
    }

    fn domain(host: &str, uuid: u128, name: &str) -> Domain {
        Domain::new("s:", host, Uuid::from_u128(uuid), name, None)
    }

    fn insert(roster: &mut Roster, domain: &Domain) {
        let key = roster.key(domain);
        let state = State::Shutoff(ShutoffReason::Unspecified);
        roster.insert(key, Entry::seen(domain.clone(), state, None));
    }

    #[test]
    fn a_host_keeps_the_name_that_its_domains_are_known_by() {
        let mut roster = roster();
        roster.set_host("first");
        let web = domain("first", 1, "web");
        insert(&mut roster, &web);
        roster.set_host("second");
        assert_eq!(&*roster.home().name, "first");
    }

    #[test]
    fn the_same_uuid_on_two_hosts_is_two_domains() {
        let mut roster = roster();
        for host in ["h", "other"] {
            insert(&mut roster, &domain(host, 1, "web"));
        }
        assert_eq!(roster.count(&Scope::source_wide("s:")), 2);
        assert_eq!(roster.count(&Scope::on_host("s:", "other")), 1);
    }

    #[test]
    fn names_are_bounded_in_bytes() {
        let mut roster = roster();
        let name = "x".repeat(4096);
        for number in 0..=(MAX_NAME_BYTES / name.len()) as u128 {
            assert!(roster.check_bounds().is_ok());
            insert(&mut roster, &domain("h", number, &name));
        }
        let error = roster.check_bounds().unwrap_err();
        assert!(error.to_string().contains("bytes of domain names"), "{error}");
        let key = roster.key(&domain("h", 0, &name));
        roster.remove(key);
        assert!(roster.check_bounds().is_ok(), "what is removed counts no more");
    }

    #[test]
    fn the_bytes_of_names_are_counted_exactly() {
        let mut roster = roster();
        let named = |name| Domain::new("s:", "h", Uuid::from_u128(1), name, None);
        let key = roster.key(&named("web"));
        insert(&mut roster, &named("web"));
        assert_eq!(roster.name_bytes, 3);
        insert(&mut roster, &named("a longer one"));
        assert_eq!(roster.name_bytes, 12);
        roster.rename(key, &named("short"));
        assert_eq!(roster.name_bytes, 5);
        insert(&mut roster, &Domain::new("s:", "h", Uuid::from_u128(2), "db", None));
        assert_eq!(roster.name_bytes, 7);
        roster.remove(key);
        assert_eq!(roster.name_bytes, 2);
    }

    #[test]
    fn domains_and_hosts_are_bounded_in_number() {
        let mut roster = roster();
        let off = State::Shutoff(ShutoffReason::Unspecified);
        let entry = Entry::seen(domain("h", 0, ""), off, None);
        roster.entries.reserve(MAX_DOMAINS + 1);
        for uuid in 0..MAX_DOMAINS as u128 {
            roster.entries.insert(Key { host: 0, uuid }, entry.clone());
        }
        assert!(roster.check_bounds().is_ok());
        roster.entries.insert(Key { host: 0, uuid: u128::MAX }, entry);
        let error = roster.check_bounds().unwrap_err().to_string();
        assert!(error.contains("domains"), "{error}");
        roster.clear();
        for number in 1..MAX_HOSTS {
            roster.key(&domain(&number.to_string(), 1, "web"));
        }
        assert!(roster.check_bounds().is_ok());
        roster.key(&domain("one more", 1, "web"));
        let error = roster.check_bounds().unwrap_err().to_string();
        assert!(error.contains("hosts"), "{error}");
    }

    #[test]
    fn a_list_that_ended_a_run_is_forgotten_in_bounds() {
        let mut roster = roster();
        let key = |uuid| Key { host: 0, uuid };
        for uuid in 0..=MAX_ENDED as u128 {
            roster.end_run(key(uuid), Some(3));
            assert!(roster.has_ended(key(0), Some(3)) == (uuid < MAX_ENDED as u128));
        }
        assert_eq!(roster.ended.len(), 1);
        assert!(roster.has_ended(key(MAX_ENDED as u128), Some(3)));
        roster.end_run(key(MAX_ENDED as u128), None);
        assert!(roster.has_ended(key(MAX_ENDED as u128), Some(3)), "no run was over");
    }
}
