//! What a session knows of the fleet, and what a message means to it. No I/O.
//!
//! The list is the bucket's: the state of each domain, up to a position of its relay. Messages up to
//! that position are in the list, and are dropped; so is everything that came before, however often
//! it is sent.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use virevent::driver::{Batch, Listed};
use virevent::{
    Change, Domain, DomainEvent, DomainStore, Error, Fault, GapKind, Lifecycle, RawEvent, Scope,
};

use super::Refused as Counter;
use super::reach::{Hosts, Reason, Turn};
use crate::envelope::{self, EventId, Position};
use crate::state::{BucketSnapshot, RelaySnapshot, RelayStatus};

/// The number of heartbeats that a relay may miss.
const MISSED: u32 = 3;

/// The number of hosts and of relays that are kept.
const MAX_HOSTS: usize = 1 << 16;

/// Host and uuid.
type Identity = (Arc<str>, Uuid);

#[derive(Debug)]
pub(super) struct Fleet {
    source: Arc<str>,
    relays: BTreeMap<String, Relay>,
    /// Which relay speaks of a host. Another one that does is refused: its domains would have the
    /// same identities.
    owners: HashMap<Arc<str>, String>,
    /// Every domain, as of the last message.
    store: DomainStore,
    counter: Counter,
}

#[derive(Debug)]
struct Relay {
    /// The last event that was delivered or is in the list.
    seen: Position,
    hosts: Hosts,
    heard: Instant,
    heartbeat: Duration,
    /// The last event of each domain that a list may not include yet.
    touched: HashMap<Identity, Position>,
}

impl Relay {
    fn new(now: Instant) -> Self {
        Self {
            seen: Position::default(),
            hosts: Hosts::default(),
            heard: now,
            heartbeat: Duration::from_secs(5),
            touched: HashMap::new(),
        }
    }

    fn silent_at(&self) -> Instant {
        self.heard + self.heartbeat * MISSED
    }
}

impl Fleet {
    pub(super) fn new(source: &str, counter: Counter) -> Self {
        Self {
            source: source.into(),
            relays: BTreeMap::new(),
            owners: HashMap::new(),
            store: DomainStore::new(),
            counter,
        }
    }

    /// Takes the first list.
    ///
    /// # Errors
    /// There are too many hosts.
    pub(super) fn begin(
        &mut self,
        bucket: &BucketSnapshot,
        now: Instant,
        out: &mut Batch,
    ) -> Result<(), Error> {
        let mut names: Vec<_> = bucket.relays.keys().collect();
        // So that of two relays of one host each reader takes the same.
        names.sort_unstable();
        for name in names {
            let known = &bucket.relays[name];
            let relay = self.relay(name, now)?;
            relay.seen = known.position();
            if let Some(status) = &known.status {
                self.take_status(name, status, now, out)?;
            }
            for entry in known.existing() {
                if let Some((host, _)) = entry.identity() {
                    self.claim(name, host, out)?;
                }
            }
        }
        Ok(())
    }

    /// Whether everything that the bucket includes has been delivered.
    pub(super) fn has_reached(&self, bucket: &BucketSnapshot) -> bool {
        bucket.relays.iter().all(|(name, known)| {
            self.relays.get(name).is_some_and(|relay| relay.seen >= known.position())
        })
    }

    /// The list: the bucket's, and where a later message was delivered, what that says.
    pub(super) fn list(&mut self, bucket: &BucketSnapshot, out: &mut Batch) -> Vec<Listed> {
        self.counter.add(bucket.refused);
        for (name, relay) in &mut self.relays {
            let included = bucket.relays.get(name).map(RelaySnapshot::position).unwrap_or_default();
            relay.touched.retain(|_, position| *position > included);
        }
        let relays = &self.relays;
        let owners = &self.owners;
        let store = DomainStore::new();
        let before = self.store.snapshot();
        let is_newer = |domain: &Domain| {
            let owner = owners.get(domain.host()).and_then(|owner| relays.get(owner));
            let identity = || (Arc::from(domain.host()), domain.uuid());
            owner.is_some_and(|relay| {
                !relay.touched.is_empty() && relay.touched.contains_key(&identity())
            })
        };
        let mut list = Vec::new();
        for stored in before.iter().filter(|stored| is_newer(&stored.domain)) {
            list.push(Listed::new(stored.domain.clone(), stored.state, stored.persistent));
        }
        for (name, known) in &bucket.relays {
            for entry in known.existing() {
                let Some(event) = entry.event.lifecycle() else { continue };
                let Change::Existing(state) = event.change else { continue };
                let is_owner = self.owners.get(event.domain.host()) == Some(name);
                if is_owner && !is_newer(&event.domain) {
                    let domain = own(&event.domain, out);
                    list.push(Listed::new(domain, state, event.persistent));
                }
            }
        }
        let at = out.received();
        for listed in &list {
            let change = Change::Existing(listed.state);
            let mut event = Lifecycle::new(listed.domain.clone(), change, at);
            event.persistent = listed.persistent;
            store.apply(&event.into());
        }
        self.store = store;
        list
    }

    /// The list, as of the last message.
    pub(super) fn delivered(&self) -> Vec<Listed> {
        let snapshot = self.store.snapshot();
        let listed = snapshot
            .iter()
            .map(|stored| Listed::new(stored.domain.clone(), stored.state, stored.persistent));
        listed.collect()
    }

    /// Takes a message of the stream.
    ///
    /// # Errors
    /// Events before it are missing in the stream.
    pub(super) fn take(
        &mut self,
        subject: &str,
        body: &[u8],
        now: Instant,
        out: &mut Batch,
    ) -> Result<(), Error> {
        let (subject, EventId { relay: name, position }, event) =
            match envelope::read(subject, body) {
                Ok(read) => read,
                Err(refused) => {
                    tracing::warn!(subject, %refused, "a message of the stream is refused");
                    self.counter.add(1);
                    return Ok(());
                }
            };
        let relay = self.relay(&name, now)?;
        let seen = relay.seen;
        // Sent twice, or in the list already; or by a relay that another one replaced.
        if position <= seen {
            return Ok(());
        }
        let next = if position.epoch == seen.epoch { seen.sequence + 1 } else { 1 };
        if position.sequence != next {
            let missing = format!("events of the relay {name} are no longer in the stream");
            return Err(Error::protocol(missing));
        }
        relay.heard = now;
        if position.epoch > seen.epoch {
            self.new_epoch(&name, out);
        }
        if let Some(relay) = self.relays.get_mut(&name) {
            relay.seen = position;
        }
        if !self.claim(&name, &subject.host, out)? {
            self.counter.add(1);
            return Ok(());
        }
        self.apply(&name, &subject.host, position, event, out);
        Ok(())
    }

    /// Takes the status of a relay.
    pub(super) fn take_status(
        &mut self,
        name: &str,
        status: &RelayStatus,
        now: Instant,
        out: &mut Batch,
    ) -> Result<(), Error> {
        let relay = self.relay(name, now)?;
        if status.position.epoch < relay.seen.epoch {
            return Ok(());
        }
        relay.heard = now;
        relay.heartbeat = Duration::from_millis(status.heartbeat_ms);
        let is_new = status.position.epoch > relay.seen.epoch;
        if is_new {
            self.new_epoch(name, out);
            if let Some(relay) = self.relays.get_mut(name) {
                relay.seen = Position { epoch: status.position.epoch, sequence: 0 };
            }
        }
        for host in &status.hosts {
            self.claim(name, host, out)?;
        }
        let Some(relay) = self.relays.get_mut(name) else { return Ok(()) };
        let mut turns = Vec::new();
        if status.ended {
            turns = relay.hosts.lose_all(Reason::Silent, &Reason::Silent.fault(name));
        } else if status.position <= relay.seen {
            // What it sent before this heartbeat has been delivered.
            turns.append(&mut relay.hosts.restore_all(Reason::Silent));
        }
        // An older status may come behind the events that followed it.
        let is_current = status.position >= relay.seen;
        if is_current && !status.synced && !relay.hosts.has(Reason::Unsynced) {
            turns
                .append(&mut relay.hosts.lose_all(Reason::Unsynced, &Reason::Unsynced.fault(name)));
        }
        // Each gap behind this position comes as a message too.
        if is_current {
            for gap in &status.gaps {
                let DomainEvent::Gap(gap) = gap else { continue };
                if let Scope::Host { host, .. } = &gap.scope {
                    turns.extend(relay.hosts.lose(host, Reason::Relayed, fault_of(&gap.kind)));
                }
            }
        }
        self.turn(turns, out);
        Ok(())
    }

    /// Forgets what every later list includes. Not while a list is read: it may be older.
    pub(super) fn forget_included(&mut self, name: &str, status: &RelayStatus) {
        if let Some(relay) = self.relays.get_mut(name) {
            relay.touched.retain(|_, position| *position > status.position);
        }
    }

    /// When the next relay falls silent.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        let heard = self.relays.values().filter(|relay| !relay.hosts.has(Reason::Silent));
        heard.map(Relay::silent_at).min()
    }

    /// Relays that sent no heartbeat in time have fallen silent: their hosts are unreachable, and
    /// nothing is known to have stopped.
    pub(super) fn check_silent(&mut self, now: Instant, out: &mut Batch) {
        let mut turns = Vec::new();
        for (name, relay) in &mut self.relays {
            if !relay.hosts.has(Reason::Silent) && relay.silent_at() <= now {
                tracing::warn!(relay = name, "the relay has fallen silent");
                let fault = Reason::Silent.fault(name);
                turns.append(&mut relay.hosts.lose_all(Reason::Silent, &fault));
            }
        }
        self.turn(turns, out);
    }

    /// The connection was lost, and is there again: no relay was silent for that reason.
    pub(super) fn reconnected(&mut self, now: Instant) {
        self.relays.values_mut().for_each(|relay| relay.heard = now);
    }

    /// The first event of a relay that began again. What it did not send before its end is lost.
    fn new_epoch(&mut self, name: &str, out: &mut Batch) {
        let Some(relay) = self.relays.get_mut(name) else { return };
        let mut turns = relay.hosts.lose_all(Reason::Unsynced, &Reason::Unsynced.fault(name));
        turns.append(&mut relay.hosts.restore_all(Reason::Silent));
        self.turn(turns, out);
    }

    fn relay(&mut self, name: &str, now: Instant) -> Result<&mut Relay, Error> {
        if self.relays.len() >= MAX_HOSTS && !self.relays.contains_key(name) {
            return Err(Error::limit_exceeded("relays", MAX_HOSTS));
        }
        Ok(self.relays.entry(name.to_owned()).or_insert_with(|| Relay::new(now)))
    }

    /// A relay speaks of a host. False if another one does already.
    fn claim(&mut self, name: &str, host: &str, out: &mut Batch) -> Result<bool, Error> {
        if let Some(owner) = self.owners.get(host) {
            return Ok(owner == name);
        }
        if self.owners.len() >= MAX_HOSTS {
            return Err(Error::limit_exceeded("hosts", MAX_HOSTS));
        }
        self.owners.insert(host.into(), name.to_owned());
        let turn = self.relays.get_mut(name).and_then(|relay| relay.hosts.add(host));
        self.turn(turn, out);
        Ok(true)
    }

    fn turn(&self, turns: impl IntoIterator<Item = Turn>, out: &mut Batch) {
        let scope = |host| Scope::on_host(Arc::clone(&self.source), host);
        for turn in turns {
            match turn {
                Turn::Lost(host, fault) => out.outage(scope(host), fault),
                Turn::Restored(host) => out.restored(scope(host)),
            }
        }
    }

    fn apply(
        &mut self,
        name: &str,
        host: &str,
        position: Position,
        event: DomainEvent,
        out: &mut Batch,
    ) {
        match event {
            DomainEvent::Lifecycle(mut event) => {
                event.domain = own(&event.domain, out);
                if let Some(relay) = self.relays.get_mut(name) {
                    relay.touched.insert((host.into(), event.domain.uuid()), position);
                }
                self.store.apply(&event.clone().into());
                match event.change {
                    Change::Existing(state) => out.state(event.domain, state),
                    _ => out.event(event),
                }
            }
            DomainEvent::Reboot(mut event) => {
                event.domain = own(&event.domain, out);
                out.event(event);
            }
            DomainEvent::Notice(mut notice) => {
                notice.domain = own(&notice.domain, out);
                out.event(notice);
            }
            DomainEvent::Other(event) => {
                let domain = event.domain.as_ref().map(|domain| own(domain, out));
                let source = Arc::clone(&self.source);
                let data = event.data().clone();
                let mut own = RawEvent::new(source, domain, event.name().clone(), data, event.at);
                own.origin = event.origin;
                out.event(own);
            }
            DomainEvent::Synced(synced) => match synced.scope {
                Scope::Domain(domain) => {
                    let scope = Scope::Domain(own(&domain, out));
                    out.restored(scope);
                }
                _ => {
                    let ended = [Reason::Relayed, Reason::Unsynced];
                    let relay = self.relays.get_mut(name);
                    let turn = relay.and_then(|relay| {
                        relay.hosts.end(Reason::Unsynced);
                        relay.hosts.restore(host, &ended)
                    });
                    self.turn(turn, out);
                }
            },
            DomainEvent::Gap(gap) => {
                let fault = fault_of(&gap.kind);
                match gap.scope {
                    Scope::Domain(domain) => {
                        let scope = Scope::Domain(own(&domain, out));
                        out.outage(scope, fault);
                    }
                    _ => {
                        let relay = self.relays.get_mut(name);
                        let turn =
                            relay.and_then(|relay| relay.hosts.lose(host, Reason::Relayed, fault));
                        self.turn(turn, out);
                    }
                }
            }
            // Of a later version: the envelope could not be read.
            _ => self.counter.add(1),
        }
    }
}

/// The domain as one of this source's.
fn own(domain: &Domain, out: &mut Batch) -> Domain {
    out.domain_on(domain.host(), domain.uuid(), domain.name(), domain.id())
}

fn fault_of(kind: &GapKind) -> Fault {
    match kind {
        GapKind::Disconnected { fault, .. } => fault.clone(),
        kind => {
            let missed = match kind {
                GapKind::Lagged { missed, .. } => *missed,
                _ => 0,
            };
            let message = format!("the relay dropped {missed} events while it had no broker");
            Fault::new(virevent::FaultKind::Other, &message)
        }
    }
}
