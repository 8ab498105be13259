//! What is known of the domains of a source, by host and uuid.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use super::Listed;
use crate::domain::Host;
use crate::{Change, Domain, Lifecycle, Scope, ShutoffReason, State, UndefineCause};

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

/// More domains than any fleet has: a source that tells of more makes them up.
pub(super) const DOMAINS: usize = 1 << 20;

/// How much of a domain's name is kept, in bytes. No hypervisor has names that long; a server that is
/// not to be trusted could fill every mailbox with them.
const NAME: usize = 4096;

#[derive(Debug)]
pub(super) struct Roster {
    /// Hosts seen; the connection's own is the first.
    hosts: Vec<Arc<Host>>,
    /// Where they are in `hosts`.
    places: HashMap<Arc<Host>, u32, foldhash::fast::RandomState>,
    entries: HashMap<Key, Entry, foldhash::fast::RandomState>,
}

/// What is known of a domain. Its id is `None` exactly when it is inactive.
pub(super) type Entry = Listed;

impl Roster {
    pub(super) fn new(host: Arc<Host>) -> Self {
        let places = std::iter::once((Arc::clone(&host), 0)).collect();
        Self { hosts: vec![host], places, entries: HashMap::default() }
    }

    /// The connection's own host is called that now; so are its domains.
    pub(super) fn set_host(&mut self, host: &str) {
        let before = self.home();
        if &*before.name == host {
            return;
        }
        let host = Host::new(Arc::clone(&before.source), host.into());
        let entries = self.take();
        *self = Self::new(Arc::clone(&host));
        for mut entry in entries {
            let domain = &entry.domain;
            if *domain.home() == before {
                let (uuid, id) = (domain.uuid(), domain.id());
                entry.domain = Domain::on(Arc::clone(&host), uuid, domain.name(), id);
            }
            self.insert(entry);
        }
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

    pub(super) fn find(&mut self, domain: &Domain) -> Option<&Entry> {
        let key = self.key(domain);
        self.entries.get(&key)
    }

    pub(super) fn insert(&mut self, mut entry: Entry) {
        let key = self.key(&entry.domain);
        // What is interned shares the host's name with all others, by which it is told at a glance.
        let host = &self.hosts[key.host as usize];
        if !Arc::ptr_eq(host, entry.domain.home()) {
            let (uuid, id) = (entry.domain.uuid(), entry.domain.id());
            entry.domain = Domain::on(Arc::clone(host), uuid, entry.domain.name(), id);
        }
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&mut self, domain: &Domain) -> Option<Entry> {
        let key = self.key(domain);
        self.entries.remove(&key)
    }

    /// Forgets every domain.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.home());
    }

    /// Takes every domain out.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        self.entries.drain().map(|(_, entry)| entry).collect()
    }

    /// How many domains there are in a scope.
    pub(super) fn count(&self, scope: &Scope) -> u64 {
        match scope {
            Scope::Source(_) => self.entries.len() as u64,
            scope => self.entries.values().filter(|e| scope.contains(&e.domain)).count() as u64,
        }
    }

    pub(super) fn is_overfull(&self) -> bool {
        self.entries.len() > DOMAINS
    }

    /// Every domain, by name.
    pub(super) fn sorted(&self) -> Vec<&Entry> {
        self.selected(|_| true)
    }

    /// The domains that `wanted` accepts, by name.
    pub(super) fn selected(&self, wanted: impl Fn(&Domain) -> bool) -> Vec<&Entry> {
        let mut entries: Vec<_> = self.entries.values().filter(|e| wanted(&e.domain)).collect();
        entries.sort_by(|a, b| a.domain.name().cmp(b.domain.name()));
        entries
    }

    /// Takes note of what happened, and lends an ending the id of the run that ended where the
    /// hypervisor left it out.
    pub(super) fn apply(&mut self, event: &mut Lifecycle) {
        let key = self.key(&event.domain);
        self.apply_at(key, event);
    }

    /// The same, to the domain with this key.
    pub(super) fn apply_at(&mut self, key: Key, event: &mut Lifecycle) {
        let before = self.entries.get(&key).and_then(|entry| entry.persistent);
        self.change_at(key, event);
        event.persistent = match self.entries.get(&key) {
            Some(entry) => entry.persistent,
            None if matches!(event.change, Change::Undefined(_)) => Some(false),
            None => before,
        };
    }

    fn change_at(&mut self, key: Key, event: &mut Lifecycle) {
        let known = self.entries.get_mut(&key);
        match event.change {
            Change::Existing(_) | Change::Unknown { .. } => {}
            Change::Stopped(_) => {
                let Some(entry) = known else { return };
                if event.domain.id().is_none() {
                    event.domain = event.domain.with_id(entry.domain.id());
                }
                if entry.persistent == Some(false) {
                    self.entries.remove(&key);
                } else {
                    entry.domain.become_run(&event.domain, None);
                    entry.state = after(event.change, entry.state);
                }
            }
            Change::Undefined(cause) => {
                let Some(entry) = known else { return };
                if entry.domain.is_active() && cause != UndefineCause::Renamed {
                    // It lives on until it stops.
                    entry.persistent = Some(false);
                } else {
                    self.entries.remove(&key);
                }
            }
            Change::Defined(_) => {
                let (id, state) = match known {
                    Some(entry) => (entry.domain.id(), entry.state),
                    None if event.domain.is_active() => (event.domain.id(), State::NoState),
                    None => (None, State::Shutoff(ShutoffReason::Unspecified)),
                };
                let domain = event.domain.with_id(id);
                self.entries.insert(key, Entry { domain, state, persistent: Some(true) });
            }
            // A change of run state.
            change => match known {
                Some(entry) => {
                    let id = event.domain.id().or(entry.domain.id());
                    entry.domain.become_run(&event.domain, id);
                    entry.state = after(change, entry.state);
                }
                None if event.domain.is_active() => {
                    let state = after(change, State::NoState);
                    // What runs without having been listed or defined is transient. Not only a start
                    // tells of it: libvirt's QEMU driver says resumed before it.
                    let domain = event.domain.clone();
                    self.entries.insert(key, Entry { domain, state, persistent: Some(false) });
                }
                None => {}
            },
        }
    }
}

fn after(change: Change, before: State) -> State {
    State::after(change).unwrap_or(before)
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
    use crate::{DefineCause, StartCause, StopCause};

    fn roster() -> Roster {
        Roster::new(Host::new("s:".into(), "h".into()))
    }

    fn apply(roster: &mut Roster, id: Option<u32>, change: Change) -> Lifecycle {
        let domain = roster.intern(Uuid::from_u128(1), "web", id);
        let at = std::time::SystemTime::UNIX_EPOCH;
        let mut event = Lifecycle::new(domain, change, at);
        roster.apply(&mut event);
        event
    }

    #[test]
    fn a_name_without_measure_is_cut_and_is_the_same_name_each_time() {
        let mut roster = roster();
        let long = "ä".repeat(NAME);
        let domain = roster.intern(Uuid::from_u128(1), &long, Some(7));
        assert!(domain.name().len() <= NAME && domain.name().ends_with("ä…"));
        assert_eq!(roster.intern(Uuid::from_u128(1), &long, Some(7)), domain);
        let most = "x".repeat(NAME);
        assert_eq!(roster.intern(Uuid::from_u128(2), &most, None).name(), most);
    }

    #[test]
    fn a_stop_without_an_id_carries_the_id_of_the_run_that_ended() {
        let mut roster = roster();
        apply(&mut roster, None, Change::Defined(DefineCause::Added));
        apply(&mut roster, Some(7), Change::Started(StartCause::Booted));
        let stopped = apply(&mut roster, None, Change::Stopped(StopCause::Destroyed));
        assert_eq!(stopped.domain.id(), Some(7));
        assert_eq!(roster.sorted()[0].domain.id(), None);
    }

    #[test]
    fn a_domain_is_forgotten_when_it_is_undefined_or_stops_as_a_transient_one() {
        let mut roster = roster();
        apply(&mut roster, Some(7), Change::Started(StartCause::Booted));
        apply(&mut roster, None, Change::Stopped(StopCause::Destroyed));
        assert_eq!(roster.count(&Scope::source_wide("s:")), 0);

        apply(&mut roster, None, Change::Defined(DefineCause::Added));
        apply(&mut roster, Some(8), Change::Started(StartCause::Booted));
        apply(&mut roster, Some(8), Change::Undefined(UndefineCause::Removed));
        assert_eq!(roster.count(&Scope::source_wide("s:")), 1, "it lives on until it stops");
        apply(&mut roster, None, Change::Stopped(StopCause::Destroyed));
        assert_eq!(roster.count(&Scope::source_wide("s:")), 0);
    }

    #[test]
    fn a_transient_domain_whose_start_is_told_as_resumed_and_started_is_forgotten_too() {
        let mut roster = roster();
        apply(&mut roster, Some(7), Change::Resumed(crate::ResumeCause::Unpaused));
        apply(&mut roster, Some(7), Change::Started(StartCause::Booted));
        apply(&mut roster, None, Change::Stopped(StopCause::Destroyed));
        assert_eq!(roster.count(&Scope::source_wide("s:")), 0);
    }

    #[test]
    fn a_host_that_is_called_something_else_now_keeps_its_domains() {
        let mut roster = roster();
        apply(&mut roster, Some(7), Change::Started(StartCause::Booted));
        roster.set_host("renamed");
        let known = roster.sorted()[0].domain.clone();
        assert_eq!((known.host(), known.id()), ("renamed", Some(7)));
        assert_eq!(
            apply(&mut roster, None, Change::Stopped(StopCause::Shutdown)).domain.id(),
            Some(7)
        );
    }

    #[test]
    fn the_same_uuid_on_two_hosts_is_two_domains() {
        let mut roster = roster();
        for host in ["h", "other"] {
            let domain = roster.intern_on(host, Uuid::from_u128(1), "web", None);
            let state = State::Shutoff(ShutoffReason::Unspecified);
            roster.insert(Entry { domain, state, persistent: None });
        }
        assert_eq!(roster.count(&Scope::source_wide("s:")), 2);
        assert_eq!(roster.count(&Scope::on_host("s:", "other")), 1);
    }
}
