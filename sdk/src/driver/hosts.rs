//! The hosts of a source, by number, and the key of a domain.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::Domain;
use crate::domain::Host;

/// A host's number, and a domain's uuid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) host: u32,
    pub(super) uuid: u128,
}

impl Hash for Key {
    // A uuid that lives on two hosts at once is rare, so the hash leaves the host out.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.uuid);
    }
}

/// A map by domain.
pub(super) type ByKey<T> = HashMap<Key, T, foldhash::fast::RandomState>;

/// The hosts of a source. The connection's own host has the number 0.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    hosts: Vec<Arc<Host>>,
    numbers: HashMap<Arc<Host>, u32, foldhash::fast::RandomState>,
}

impl Hosts {
    pub(super) fn new(home: Arc<Host>) -> Self {
        let numbers = std::iter::once((Arc::clone(&home), 0)).collect();
        Self { hosts: vec![home], numbers }
    }

    /// The connection's own host.
    pub(super) fn home(&self) -> &Arc<Host> {
        &self.hosts[0]
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The host with this number, which a key carries.
    pub(super) fn get(&self, number: u32) -> &Arc<Host> {
        &self.hosts[number as usize]
    }

    /// The number of a host; a new host gets the next one.
    pub(super) fn number(&mut self, host: &Arc<Host>) -> u32 {
        // All domains of one connection share its host, so that nearly every event stops here,
        // without a hash.
        if Arc::ptr_eq(host, self.home()) {
            return 0;
        }
        if let Some(number) = self.numbers.get(host) {
            return *number;
        }
        let number = self.hosts.len() as u32;
        self.hosts.push(Arc::clone(host));
        self.numbers.insert(Arc::clone(host), number);
        number
    }

    /// The key of a domain whose host is known.
    pub(super) fn known_key(&self, domain: &Domain) -> Option<Key> {
        let host = *self.numbers.get(domain.shared_host())?;
        Some(Key { host, uuid: domain.uuid().as_u128() })
    }

    pub(super) fn key(&mut self, domain: &Domain) -> Key {
        Key { host: self.number(domain.shared_host()), uuid: domain.uuid().as_u128() }
    }
}
