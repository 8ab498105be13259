//! The entries of the state bucket. Pure.
//!
//! A lifecycle event is not a state: a `resumed` does not say whether the domain is persistent. So
//! the bucket has an entry a domain, and one a relay.
//!
//! The order in which a relay writes lets a reader take any prefix of the bucket's log for the state
//! up to one position. After the event is stored: the domain's entry; if the domain is gone, its
//! entry says so, then the relay's status has the position, and only then the entry is removed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use virevent::{Change, Domain, DomainEvent, Lifecycle, StoredDomain};

use crate::envelope::{Position, Refused};
use crate::subject;

/// The longest interval between two heartbeats that a reader believes, in milliseconds.
const MAX_HEARTBEAT: u64 = 3_600_000;

/// A domain's entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DomainEntry {
    /// The event that the state includes.
    #[serde(flatten)]
    pub(crate) position: Position,
    /// Whether the domain exists no more. The entry is removed soon.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) gone: bool,
    /// The state as an `existing` event.
    pub(crate) event: DomainEvent,
}

impl DomainEntry {
    /// The entry of a domain that exists.
    pub(crate) fn of(stored: &StoredDomain, position: Position, event: &Lifecycle) -> Self {
        Self { position, gone: false, event: existing(stored, event) }
    }

    /// The entry of a domain that exists no more.
    pub(crate) fn gone(position: Position, event: &Lifecycle) -> Self {
        Self { position, gone: true, event: event.clone().into() }
    }

    /// # Errors
    /// The entry is refused: it is no entry, or of another domain than its key.
    pub(crate) fn read(relay: &str, key: &str, body: &[u8]) -> Result<Self, Refused> {
        let entry: Self =
            serde_json::from_slice(body).map_err(|error| Refused::Body(error.to_string()))?;
        let Some(domain) = entry.event.lifecycle().map(|event| &event.domain) else {
            return Err(Refused::Body("it has no state".into()));
        };
        match subject::domain_key(relay, domain.host(), domain.uuid()) == key {
            true => Ok(entry),
            false => Err(Refused::Mismatch),
        }
    }

    /// Host and uuid.
    pub(crate) fn identity(&self) -> Option<(&str, Uuid)> {
        let domain: &Domain = self.event.domain()?;
        Some((domain.host(), domain.uuid()))
    }
}

fn existing(stored: &StoredDomain, event: &Lifecycle) -> DomainEvent {
    let mut state = Lifecycle::new(stored.domain.clone(), Change::Existing(stored.state), event.at);
    state.persistent = stored.persistent;
    state.into()
}

/// A relay's status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RelayStatus {
    /// All events up to here are in the stream, and the states in the bucket include them.
    #[serde(flatten)]
    pub(crate) position: Position,
    /// The place of that event in the stream.
    pub(crate) stream_sequence: u64,
    /// The hosts that the relay speaks of.
    pub(crate) hosts: Vec<String>,
    /// The interval of heartbeats, in milliseconds.
    pub(crate) heartbeat_ms: u64,
    /// Whether the relay was synced in this epoch.
    pub(crate) synced: bool,
    /// Whether the relay has ended in order.
    #[serde(default)]
    pub(crate) ended: bool,
    /// The gaps that are open now, as the relay's source reports them.
    #[serde(default)]
    pub(crate) gaps: Vec<DomainEvent>,
}

impl RelayStatus {
    /// # Errors
    /// It is no status.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refused> {
        let mut status: Self =
            serde_json::from_slice(body).map_err(|error| Refused::Body(error.to_string()))?;
        status.heartbeat_ms = status.heartbeat_ms.clamp(1, MAX_HEARTBEAT);
        Ok(status)
    }
}

/// What the bucket said at one point of its log.
#[derive(Debug, Default)]
pub(crate) struct BucketSnapshot {
    /// By relay.
    pub(crate) relays: HashMap<String, RelaySnapshot>,
    /// Entries that were refused.
    pub(crate) refused: u64,
}

/// What the bucket said of one relay.
#[derive(Debug, Default)]
pub(crate) struct RelaySnapshot {
    pub(crate) status: Option<RelayStatus>,
    /// By key. Those of domains that are gone too.
    pub(crate) domains: HashMap<String, DomainEntry>,
}

impl BucketSnapshot {
    /// Takes an entry of the bucket's log. What is refused is left out and counted.
    pub(crate) fn take(&mut self, key: &str, body: &[u8]) {
        let Some((kind, rest)) = key.split_once('.') else {
            return self.refuse(key, &Refused::Subject);
        };
        let token = rest.split('.').next().unwrap_or_default();
        let Some(relay) = subject::unescape(token) else {
            return self.refuse(key, &Refused::Subject);
        };
        let outcome = match kind {
            "relay" => RelayStatus::read(body).map(|status| {
                self.relays.entry(relay).or_default().status = Some(status);
            }),
            "domain" => DomainEntry::read(&relay, key, body).map(|entry| {
                self.relays.entry(relay).or_default().domains.insert(key.to_owned(), entry);
            }),
            _ => Err(Refused::Subject),
        };
        if let Err(refused) = outcome {
            self.refuse(key, &refused);
        }
    }

    fn refuse(&mut self, key: &str, refused: &Refused) {
        tracing::warn!(key, %refused, "an entry of the state bucket is left out");
        self.refused += 1;
    }
}

impl RelaySnapshot {
    /// The last event that these states include.
    pub(crate) fn position(&self) -> Position {
        let status = self.status.as_ref().map(|status| status.position);
        let domains = self.domains.values().map(|entry| entry.position);
        domains.chain(status).max().unwrap_or_default()
    }

    /// The domains that exist.
    pub(crate) fn existing(&self) -> impl Iterator<Item = &DomainEntry> {
        self.domains.values().filter(|entry| !entry.gone)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use virevent::{DomainStore, StartCause};

    use super::*;

    fn entry(host: &str, sequence: u64) -> (String, Vec<u8>) {
        let domain = Domain::new("s:", host, Uuid::from_u128(1), "web", Some(3));
        let change = Change::Started(StartCause::Booted);
        let event = Lifecycle::new(domain.clone(), change, SystemTime::UNIX_EPOCH).persistent(true);
        let store = DomainStore::new();
        store.apply(&event.clone().into());
        let position = Position { epoch: 2, sequence };
        let entry = DomainEntry::of(&store.same(&domain).unwrap(), position, &event);
        let key = subject::domain_key("r", host, domain.uuid());
        (key, serde_json::to_vec(&entry).unwrap())
    }

    #[test]
    fn an_entry_has_state_persistence_and_position() {
        let (key, body) = entry("h.1", 7);
        let read = DomainEntry::read("r", &key, &body).unwrap();
        let event = read.event.lifecycle().unwrap();
        assert!(matches!(event.change, Change::Existing(_)));
        assert_eq!(event.persistent, Some(true));
        assert_eq!(read.position, Position { epoch: 2, sequence: 7 });
        assert_eq!(read.identity(), Some(("h.1", Uuid::from_u128(1))));
    }

    #[test]
    fn an_entry_under_the_key_of_another_host_is_refused() {
        let (_, body) = entry("other", 7);
        let (key, _) = entry("h", 7);
        let mut bucket = BucketSnapshot::default();
        bucket.take(&key, &body);
        bucket.take("domain", &body);
        bucket.take("what.r", &body);
        bucket.take("relay.r", b"{}");
        assert_eq!(bucket.refused, 4);
        assert!(bucket.relays.values().all(|relay| relay.domains.is_empty()));
    }

    #[test]
    fn the_newest_entry_says_what_the_states_include() {
        let mut bucket = BucketSnapshot::default();
        for (host, sequence) in [("a", 3), ("b", 9), ("c", 5)] {
            let (key, body) = entry(host, sequence);
            bucket.take(&key, &body);
        }
        assert_eq!(bucket.relays["r"].position(), Position { epoch: 2, sequence: 9 });
    }
}
