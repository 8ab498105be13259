//! What is known of the domains of a source, by host and uuid.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use super::Listed;
use crate::domain::Host;
use crate::{Domain, Error, Scope, State};

/// The host, as an index into the hosts seen, and the uuid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    host: u32,
    uuid: u128,
}

impl Hash for Key {
    // A uuid that lives on two hosts at once is rare: the host need not be hashed.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.uuid);
    }
}

/// A map by domain.
pub(super) type ByKey<T> = HashMap<Key, T, foldhash::fast::RandomState>;

/// More domains than any fleet has: a source that lists more makes them up.
const DOMAINS: usize = 1 << 20;

/// How many bytes the names of all domains may have together: 256 for each of 262,144 domains.
const NAMES: usize = 64 << 20;

/// More hosts than any fleet has.
const HOSTS: usize = 1 << 16;

/// Of how many domains it is kept which run a list ended.
const ENDED: usize = 1 << 16;

/// How much of a domain's name is kept, in bytes. No hypervisor has names that long; a server that is
/// not to be trusted could fill every mailbox with them.
const NAME: usize = 4096;

#[derive(Debug)]
pub(super) struct Roster {
    /// Hosts seen; the connection's own is the first.
    hosts: Vec<Arc<Host>>,
    /// Where they are in `hosts`.
    places: HashMap<Arc<Host>, u32, foldhash::fast::RandomState>,
    entries: ByKey<Entry>,
    /// The bytes of all names.
    names: usize,
    /// Every domain is known: what is not here is not defined.
    pub(super) is_whole: bool,
    /// The runs that a list, and no event, showed to be over. An event of such a run is late.
    ended: ByKey<u32>,
}

/// What is known of a domain.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its id is `None` exactly when it is inactive.
    pub(super) domain: Domain,
    pub(super) state: State,
    pub(super) persistent: Option<bool>,
    /// A list said so, and no event of the domain came since. The first event that repeats the list is
    /// late, and is dropped.
    pub(super) from_list: bool,
    /// The run was seen in an event that is not its start: libvirt sends resumed before started. What
    /// follows decides whether the start is still to come or has to be inferred.
    pub(super) unannounced: bool,
}

impl Entry {
    /// As a list said it.
    pub(super) fn listed(listed: Listed) -> Self {
        let Listed { domain, state, persistent } = listed;
        Self { domain, state, persistent, from_list: true, unannounced: false }
    }

    /// As an event said it.
    pub(super) fn seen(domain: Domain, state: State, persistent: Option<bool>) -> Self {
        Self { domain, state, persistent, from_list: false, unannounced: false }
    }

    /// Whether both say the same of the domain: its name, run, state and persistence. The reason of a
    /// state does not matter, since events name it more precisely than lists do.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let same_persistence = match (self.persistent, other.persistent) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        // A domain without a state: Xen's, between two turns on a processor.
        let says_nothing = |entry: &Self| entry.state == State::NoState;
        let same_state =
            says_nothing(self) || says_nothing(other) || self.state.is_same(other.state);
        self.domain.id() == other.domain.id()
            && (!self.domain.is_active() || same_state)
            && same_persistence
            && self.domain.name() == other.domain.name()
    }
}

impl Roster {
    pub(super) fn new(host: Arc<Host>) -> Self {
        let places = std::iter::once((Arc::clone(&host), 0)).collect();
        let hosts = vec![host];
        Self {
            hosts,
            places,
            entries: HashMap::default(),
            names: 0,
            is_whole: false,
            ended: HashMap::default(),
        }
    }

    /// The connection's own host is called that now. Where domains are known, their subscribers know the
    /// host by its former name, and it keeps that.
    pub(super) fn set_host(&mut self, host: &str) {
        let before = self.home();
        if self.entries.is_empty() && &*before.name != host {
            *self = Self::new(Host::new(Arc::clone(&before.source), host.into()));
        }
    }

    /// One without domains, whose keys mean the same.
    pub(super) fn like(&self) -> Self {
        let hosts = self.hosts.clone();
        Self { hosts, places: self.places.clone(), ..Self::new(self.home()) }
    }

    pub(super) fn home(&self) -> Arc<Host> {
        Arc::clone(&self.hosts[0])
    }

    pub(super) fn intern(&mut self, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        self.intern_at(0, uuid, name, id)
    }

    pub(super) fn intern_on(
        &mut self,
        host: &str,
        uuid: Uuid,
        name: &str,
        id: Option<u32>,
    ) -> Domain {
        let host = Host::new(Arc::clone(&self.hosts[0].source), host.into());
        let at = match self.places.get(&host) {
            Some(at) => *at,
            None => self.add_host(&host),
        };
        self.intern_at(at, uuid, name, id)
    }

    fn intern_at(&mut self, host: u32, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        if name.len() > NAME {
            return self.intern_at(host, uuid, &shortened(name), id);
        }
        match self.entries.get(&Key { host, uuid: uuid.as_u128() }) {
            Some(entry) if entry.domain.name() == name => entry.domain.with_id(id),
            _ => Domain::on(Arc::clone(&self.hosts[host as usize]), uuid, name, id),
        }
    }

    fn add_host(&mut self, host: &Arc<Host>) -> u32 {
        let at = self.hosts.len() as u32;
        self.hosts.push(Arc::clone(host));
        self.places.insert(Arc::clone(host), at);
        at
    }

    pub(super) fn key(&mut self, domain: &Domain) -> Key {
        let host = domain.home();
        let at = if Arc::ptr_eq(host, &self.hosts[0]) {
            0
        } else {
            match self.places.get(host) {
                Some(at) => *at,
                None => self.add_host(host),
            }
        };
        Key { host: at, uuid: domain.uuid().as_u128() }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub(super) fn insert(&mut self, key: Key, mut entry: Entry) {
        // What is interned shares the host with all others, by which it is recognized at a glance.
        let host = &self.hosts[key.host as usize];
        if !Arc::ptr_eq(host, entry.domain.home()) {
            let uuid = entry.domain.uuid();
            let id = entry.domain.id();
            entry.domain = Domain::on(Arc::clone(host), uuid, entry.domain.name(), id);
        }
        self.names += entry.domain.name().len();
        if let Some(before) = self.entries.insert(key, entry) {
            self.names -= before.domain.name().len();
        }
    }

    /// Takes over the name of an event's domain.
    pub(super) fn rename(&mut self, key: Key, domain: &Domain) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.names = self.names + domain.name().len() - entry.domain.name().len();
        entry.domain = domain.with_id(entry.domain.id());
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.names -= entry.domain.name().len();
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

    /// How many domains there are in a scope.
    pub(super) fn count(&self, scope: &Scope) -> u64 {
        match scope {
            Scope::Source(_) => self.entries.len() as u64,
            scope => self.entries.values().filter(|e| scope.contains(&e.domain)).count() as u64,
        }
    }

    /// A list showed that this run is over.
    pub(super) fn end_run(&mut self, key: Key, run: Option<u32>) {
        if let Some(run) = run {
            if self.ended.len() >= ENDED {
                self.ended.clear();
            }
            self.ended.insert(key, run);
        }
    }

    /// Whether a list showed that this run is over.
    pub(super) fn has_ended(&self, key: Key, run: Option<u32>) -> bool {
        run.is_some() && self.ended.get(&key).copied() == run
    }

    /// Whether a list showed a run of this domain to be over.
    pub(super) fn has_ended_any(&self, key: Key) -> bool {
        self.ended.contains_key(&key)
    }

    /// A new run begins: its id may be one that was used before.
    pub(super) fn begin_run(&mut self, key: Key) {
        self.ended.remove(&key);
    }

    /// Forgets which runs a list ended: the next list says it afresh.
    pub(super) fn forget_ended(&mut self) {
        self.ended.clear();
    }

    /// # Errors
    /// There is more than a source may have.
    pub(super) fn check_bounds(&self) -> Result<(), Error> {
        let (limit, bound) = match () {
            () if self.entries.len() > DOMAINS => ("domains", DOMAINS),
            () if self.names > NAMES => ("bytes of domain names", NAMES),
            () if self.hosts.len() > HOSTS => ("hosts", HOSTS),
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

/// As much of a name as is kept.
fn shortened(name: &str) -> String {
    let mut end = NAME - '…'.len_utf8();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShutoffReason;

    fn roster() -> Roster {
        Roster::new(Host::new("s:".into(), "h".into()))
    }

    fn insert(roster: &mut Roster, domain: &Domain) {
        let key = roster.key(domain);
        let state = State::Shutoff(ShutoffReason::Unspecified);
        roster.insert(key, Entry::seen(domain.clone(), state, None));
    }

    #[test]
    fn a_long_name_is_cut_to_the_same_name_each_time() {
        let mut roster = roster();
        let long = "ä".repeat(NAME);
        let domain = roster.intern(Uuid::from_u128(1), &long, Some(7));
        assert!((NAME - 1..=NAME).contains(&domain.name().len()));
        assert!(domain.name().ends_with("ä…"));
        assert_eq!(roster.intern(Uuid::from_u128(1), &long, Some(7)), domain);
        let most = "x".repeat(NAME);
        assert_eq!(roster.intern(Uuid::from_u128(2), &most, None).name(), most);
    }

    #[test]
    fn a_host_keeps_the_name_that_its_domains_are_known_by() {
        let mut roster = roster();
        roster.set_host("first");
        let web = roster.intern(Uuid::from_u128(1), "web", None);
        insert(&mut roster, &web);
        roster.set_host("second");
        assert_eq!(roster.intern(Uuid::from_u128(1), "web", Some(7)).host(), "first");
    }

    #[test]
    fn the_same_uuid_on_two_hosts_is_two_domains() {
        let mut roster = roster();
        for host in ["h", "other"] {
            let domain = roster.intern_on(host, Uuid::from_u128(1), "web", None);
            insert(&mut roster, &domain);
        }
        assert_eq!(roster.count(&Scope::source_wide("s:")), 2);
        assert_eq!(roster.count(&Scope::on_host("s:", "other")), 1);
    }

    #[test]
    fn names_are_bounded_in_bytes() {
        let mut roster = roster();
        for number in 0..=(NAMES / NAME) as u128 {
            assert!(roster.check_bounds().is_ok());
            let name = "x".repeat(NAME);
            let domain = roster.intern(Uuid::from_u128(number), &name, None);
            insert(&mut roster, &domain);
        }
        let error = roster.check_bounds().unwrap_err();
        assert!(error.to_string().contains("bytes of domain names"), "{error}");
        let domain = roster.intern(Uuid::from_u128(0), &"x".repeat(NAME), None);
        let key = roster.key(&domain);
        roster.remove(key);
        assert!(roster.check_bounds().is_ok(), "what is removed counts no more");
    }

    #[test]
    fn the_bytes_of_names_are_counted_exactly() {
        let mut roster = roster();
        let named = |name| Domain::new("s:", "h", Uuid::from_u128(1), name, None);
        let key = roster.key(&named("web"));
        insert(&mut roster, &named("web"));
        assert_eq!(roster.names, 3);
        insert(&mut roster, &named("a longer one"));
        assert_eq!(roster.names, 12);
        roster.rename(key, &named("short"));
        assert_eq!(roster.names, 5);
        insert(&mut roster, &Domain::new("s:", "h", Uuid::from_u128(2), "db", None));
        assert_eq!(roster.names, 7);
        roster.remove(key);
        assert_eq!(roster.names, 2);
    }

    #[test]
    fn domains_and_hosts_are_bounded_in_number() {
        let mut roster = roster();
        let entry = Entry::seen(
            roster.intern(Uuid::nil(), "", None),
            State::Shutoff(ShutoffReason::Unspecified),
            None,
        );
        roster.entries.reserve(DOMAINS + 1);
        for uuid in 0..DOMAINS as u128 {
            roster.entries.insert(Key { host: 0, uuid }, entry.clone());
        }
        assert!(roster.check_bounds().is_ok());
        roster.entries.insert(Key { host: 0, uuid: u128::MAX }, entry);
        let error = roster.check_bounds().unwrap_err().to_string();
        assert!(error.contains("domains"), "{error}");
        roster.clear();
        for number in 1..HOSTS {
            roster.intern_on(&number.to_string(), Uuid::nil(), "web", None);
        }
        assert!(roster.check_bounds().is_ok());
        roster.intern_on("one more", Uuid::nil(), "web", None);
        let error = roster.check_bounds().unwrap_err().to_string();
        assert!(error.contains("hosts"), "{error}");
    }

    #[test]
    fn a_list_agrees_in_name_run_state_and_persistence() {
        use crate::{PausedReason, RunningReason};

        let running = State::Running(RunningReason::Booted);
        let paused = State::Paused(PausedReason::User);
        let off = State::Shutoff(ShutoffReason::Shutdown);
        let entry = |name, id, state, persistent| {
            Entry::seen(Domain::new("s:", "h", Uuid::from_u128(1), name, id), state, persistent)
        };
        let believed = entry("web", Some(3), running, Some(true));
        let agrees = |other: &Entry| {
            assert_eq!(believed.agrees(other), other.agrees(&believed));
            believed.agrees(other)
        };
        let unpaused = State::Running(RunningReason::Unpaused);
        assert!(agrees(&entry("web", Some(3), unpaused, Some(true))));
        assert!(agrees(&entry("web", Some(3), unpaused, None)));
        assert!(agrees(&entry("web", Some(3), State::NoState, Some(true))));
        assert!(!agrees(&entry("web", Some(3), paused, Some(true))));
        assert!(!agrees(&entry("web", Some(3), running, Some(false))));
        assert!(!agrees(&entry("web", Some(4), running, Some(true))));
        assert!(!agrees(&entry("www", Some(3), running, Some(true))));
        assert!(!agrees(&entry("web", None, off, Some(true))));
        let failed = State::Shutoff(ShutoffReason::Failed);
        let inactive = entry("web", None, failed, None);
        assert!(inactive.agrees(&entry("web", None, paused, None)), "an inactive one has no state");
    }

    #[test]
    fn a_list_that_ended_a_run_is_forgotten_in_bounds() {
        let mut roster = roster();
        let key = |uuid| Key { host: 0, uuid };
        for uuid in 0..=ENDED as u128 {
            roster.end_run(key(uuid), Some(3));
            assert!(roster.has_ended(key(0), Some(3)) == (uuid < ENDED as u128));
        }
        assert_eq!(roster.ended.len(), 1);
        assert!(roster.has_ended(key(ENDED as u128), Some(3)));
        roster.end_run(key(ENDED as u128), None);
        assert!(roster.has_ended(key(ENDED as u128), Some(3)), "no run was over");
    }
}
