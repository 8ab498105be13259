//! The identities of domains, made once a connection and shared by their events.

use std::sync::Arc;

use uuid::Uuid;

use super::hosts::{ByKey, Hosts, Key};
use crate::Domain;
use crate::domain::Host;

/// The length of a domain's name that is kept, in bytes. No hypervisor has longer names; an
/// untrusted server could fill every mailbox with them.
const MAX_NAME: usize = 4096;

/// The number of identities that are kept. Beyond it all are dropped, and made again as events
/// come.
const MAX_IDENTITIES: usize = 1 << 18;

/// The length of all names that are kept, in bytes.
const MAX_NAME_BYTES: usize = 16 << 20;

/// The number of identities that are kept beside twice those of the domains that exist.
const SPARE: usize = 4096;

/// The number of hosts of a fleet that are kept.
const MAX_HOSTS: usize = 1 << 16;

/// Gives all events of a domain the same shared identity, so that an event allocates nothing.
#[derive(Debug)]
pub(super) struct Interner {
    hosts: Hosts,
    domains: ByKey<Domain>,
    name_bytes: usize,
}

impl Interner {
    /// An empty one, for a connection to this host.
    pub(super) fn new(home: Arc<Host>) -> Self {
        Self { hosts: Hosts::new(home), domains: ByKey::default(), name_bytes: 0 }
    }

    /// The connection's own host.
    pub(super) fn home(&self) -> &Arc<Host> {
        self.hosts.home()
    }

    /// The domain on the connection's own host.
    pub(super) fn domain(&mut self, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        self.intern(0, uuid, name, id)
    }

    /// The domain on a host of a fleet.
    pub(super) fn domain_on(
        &mut self,
        host: &str,
        uuid: Uuid,
        name: &str,
        id: Option<u32>,
    ) -> Domain {
        if self.hosts.len() >= MAX_HOSTS {
            self.clear();
        }
        let host = Host::new(Arc::clone(&self.home().source), host.into());
        let number = self.hosts.number(&host);
        self.intern(number, uuid, name, id)
    }

    fn intern(&mut self, host: u32, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        let key = Key { host, uuid: uuid.as_u128() };
        match self.domains.get(&key) {
            Some(domain) if domain.name() == name => domain.with_id(id),
            _ => self.intern_new(key, uuid, name, id),
        }
    }

    /// Drops the identities of domains that no longer exist, if there are many: `live` is the
    /// number of those that do.
    pub(super) fn trim(&mut self, live: usize) {
        if self.domains.len() > 2 * live + SPARE {
            self.clear();
        }
    }

    /// Drops all identities, and the hosts of a fleet. Events make them again.
    fn clear(&mut self) {
        *self = Self::new(Arc::clone(self.home()));
    }

    // Apart from the lookup, so that an event of a known domain runs through a few instructions.
    #[cold]
    fn intern_new(&mut self, key: Key, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        if name.len() > MAX_NAME {
            // The shortened name fits, so this recurs once.
            return self.intern(key.host, uuid, &shortened(name), id);
        }
        let host = Arc::clone(self.hosts.get(key.host));
        if self.domains.len() >= MAX_IDENTITIES || self.name_bytes + name.len() > MAX_NAME_BYTES {
            // Events that hold an identity keep it alive; later ones only allocate again.
            self.clear();
        }
        // After a clear, hosts have other numbers.
        let key = Key { host: self.hosts.number(&host), ..key };
        let domain = Domain::on(host, uuid, name, id);
        self.name_bytes += name.len();
        if let Some(renamed) = self.domains.insert(key, domain.clone()) {
            self.name_bytes -= renamed.name().len();
        }
        domain
    }
}

/// The part of a name that is kept.
fn shortened(name: &str) -> String {
    let mut end = MAX_NAME - '…'.len_utf8();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interner() -> Interner {
        Interner::new(Host::new("s:".into(), "h".into()))
    }

    #[test]
    fn a_long_name_is_cut_to_the_same_name_each_time() {
        let mut interner = interner();
        let long = "ä".repeat(MAX_NAME);
        let domain = interner.domain(Uuid::from_u128(1), &long, Some(7));
        assert!((MAX_NAME - 1..=MAX_NAME).contains(&domain.name().len()));
        assert!(domain.name().ends_with("ä…"));
        assert_eq!(interner.domain(Uuid::from_u128(1), &long, Some(7)), domain);
        let longest = "x".repeat(MAX_NAME);
        assert_eq!(interner.domain(Uuid::from_u128(2), &longest, None).name(), longest);
    }

    #[test]
    fn the_same_uuid_on_two_hosts_is_two_domains() {
        let mut interner = interner();
        let here = interner.domain(Uuid::from_u128(1), "web", None);
        let there = interner.domain_on("other", Uuid::from_u128(1), "web", None);
        assert!(!here.is_same(&there));
        assert_eq!(interner.domain_on("other", Uuid::from_u128(1), "web", None).host(), "other");
    }

    #[test]
    fn a_full_interner_starts_over_on_any_host() {
        let mut interner = interner();
        let long = "x".repeat(MAX_NAME);
        for number in 0..=(MAX_NAME_BYTES / MAX_NAME) as u128 {
            let domain = interner.domain_on("other", Uuid::from_u128(number), &long, None);
            assert_eq!(domain.host(), "other");
        }
        assert!(interner.domains.len() < 10, "all were dropped once");
        assert_eq!(interner.domain(Uuid::from_u128(1), "web", None).host(), "h");
    }

    #[test]
    fn identities_of_domains_that_are_gone_are_dropped() {
        let mut interner = interner();
        for number in 0..SPARE as u128 + 1 {
            interner.domain(Uuid::from_u128(number), "web", None);
        }
        interner.trim(1);
        assert_eq!(interner.domains.len(), SPARE + 1, "few more than exist");
        interner.trim(0);
        assert_eq!(interner.domains.len(), 0);
        assert_eq!(interner.name_bytes, 0);
    }

    #[test]
    fn name_bytes_are_counted_exactly_and_bounded() {
        let mut interner = interner();
        interner.domain(Uuid::from_u128(1), "web", None);
        interner.domain(Uuid::from_u128(1), "a longer one", None);
        assert_eq!(interner.name_bytes, 12);
        let long = "x".repeat(MAX_NAME);
        for number in 0..=(MAX_NAME_BYTES / MAX_NAME) as u128 {
            interner.domain(Uuid::from_u128(number), &long, None);
            assert!(interner.name_bytes <= MAX_NAME_BYTES);
        }
        assert!(interner.domains.len() < 10, "all were dropped once");
    }
}
