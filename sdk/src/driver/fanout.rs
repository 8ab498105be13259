//! From the driver to its subscribers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use super::reconcile::Merged;
use super::roster::{Entry, Roster};
use super::scopes::Scopes;
use crate::mailbox::{Mailbox, Queue};
use crate::{
    Change, DomainEvent, End, Fault, Gap, GapKind, Kind, Kinds, Lifecycle, Options, Scope,
    Selector, Synced,
};

/// A subscriber, as the driver sees it.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: u64,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) options: Options,
    wanted: Wanted,
    /// Has been told what there is, so that differences make sense to it.
    told: bool,
    /// Its mailbox went stale in an outage: it is told anew, `Existing` and all, whatever it asked.
    anew: bool,
    /// Of the batch under way, the events that it gets.
    picked: Vec<u32>,
}

/// The filter of kinds, ready to be asked once an event.
#[derive(Debug)]
struct Wanted {
    lifecycle: bool,
    reboot: bool,
    other: bool,
    named: Kinds,
}

impl Wanted {
    fn new(kinds: &Kinds) -> Self {
        Self {
            lifecycle: kinds.contains(&Kind::Lifecycle),
            reboot: kinds.contains(&Kind::Reboot),
            other: kinds.contains(&Kind::Other),
            named: kinds.iter().filter(|kind| matches!(kind, Kind::Named(_))).cloned().collect(),
        }
    }

    fn has(&self, event: &DomainEvent) -> bool {
        match event {
            DomainEvent::Lifecycle(_) => self.lifecycle,
            DomainEvent::Reboot(_) => self.reboot,
            DomainEvent::Other(event) => {
                self.other
                    || (!self.named.is_empty()
                        && self.named.contains(&Kind::Named(event.name().clone())))
            }
            DomainEvent::Synced(_) | DomainEvent::Gap(_) => true,
        }
    }
}

impl Subscriber {
    pub(super) fn new(id: u64, mailbox: Arc<Mailbox>, options: Options, typed: &Kinds) -> Self {
        let wanted = Wanted::new(options.filter.kinds.as_ref().unwrap_or(typed));
        Self { id, mailbox, options, wanted, told: false, anew: false, picked: Vec::new() }
    }

    /// Of the `refused` kinds the first that it asked for by name.
    pub(super) fn misses(&self, refused: &Kinds) -> Option<Kind> {
        self.options.filter.kinds.as_ref()?.iter().find(|kind| refused.contains(kind)).cloned()
    }

    /// Whether it gets an event that happens now. One that was not told yet what there is has no use for it.
    fn takes(&self, event: &DomainEvent) -> bool {
        self.told && self.wanted.has(event)
    }

    fn has(&self, event: &DomainEvent) -> bool {
        self.wanted.has(event)
            && (event.is_marker()
                || event.domain().is_some_and(|domain| self.options.filter.selects(domain))
                || self.options.filter.domains.is_empty())
    }
}

/// The subscribers, found by what they filter for.
#[derive(Debug)]
pub(super) struct Fanout {
    /// All of the source.
    all: Scope,
    subscribers: HashMap<u64, Subscriber, foldhash::fast::RandomState>,
    /// Those that take events of every domain.
    everything: Vec<u64>,
    by_uuid: HashMap<Uuid, Vec<u64>, foldhash::fast::RandomState>,
    by_name: HashMap<Box<str>, Vec<u64>, foldhash::fast::RandomState>,
    /// Those with something picked of the batch under way.
    touched: Vec<u64>,
}

impl Fanout {
    pub(super) fn new(source: Arc<str>) -> Self {
        Self {
            all: Scope::Source(source),
            subscribers: HashMap::default(),
            everything: Vec::new(),
            by_uuid: HashMap::default(),
            by_name: HashMap::default(),
            touched: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.subscribers.values()
    }

    /// Whether anybody has been told what there is, and so is to be told the difference.
    pub(super) fn knows(&self) -> bool {
        self.subscribers.values().any(|subscriber| subscriber.told)
    }

    pub(super) fn add(&mut self, subscriber: Subscriber) {
        let id = subscriber.id;
        if subscriber.options.filter.domains.is_empty() {
            self.everything.push(id);
        }
        for selector in &subscriber.options.filter.domains {
            match selector {
                Selector::Uuid(uuid) => self.by_uuid.entry(*uuid).or_default().push(id),
                Selector::Name(name) => self.by_name.entry(name.clone()).or_default().push(id),
            }
        }
        self.subscribers.insert(id, subscriber);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Subscriber> {
        let subscriber = self.subscribers.remove(&id)?;
        if subscriber.options.filter.domains.is_empty() {
            self.everything.retain(|other| *other != id);
        }
        for selector in &subscriber.options.filter.domains {
            match selector {
                Selector::Uuid(uuid) => unlist(&mut self.by_uuid, uuid, id),
                Selector::Name(name) => unlist(&mut self.by_name, name, id),
            }
        }
        Some(subscriber)
    }

    /// Ends every stream.
    pub(super) fn end(&mut self, end: &End) {
        for subscriber in self.subscribers.values() {
            subscriber.mailbox.end(end.clone());
        }
        *self = Self::new(self.all.source().into());
    }

    /// Hands a batch of events to everyone who wants them, takes each lock once, and leaves `events`
    /// empty. Returns how many were dropped for slow subscribers.
    pub(super) fn deliver(&mut self, events: &mut Vec<DomainEvent>) -> u64 {
        if events.is_empty() {
            return 0;
        }
        let mut missed = self.deliver_picked(events);
        // The last one gets the events themselves instead of copies.
        if let Some((last, others)) = self.everything.split_last() {
            for id in others {
                let Some(subscriber) = self.subscribers.get(id) else { continue };
                missed += subscriber.mailbox.deliver(|queue| {
                    events
                        .iter()
                        .filter(|event| subscriber.takes(event))
                        .for_each(|event| queue.push(event.clone()));
                });
            }
            if let Some(subscriber) = self.subscribers.get(last) {
                missed += subscriber.mailbox.deliver(|queue| {
                    events
                        .drain(..)
                        .filter(|event| subscriber.takes(event))
                        .for_each(|event| queue.push(event));
                });
            }
        }
        events.clear();
        missed
    }

    /// Hands out to those who filter by domain.
    fn deliver_picked(&mut self, events: &[DomainEvent]) -> u64 {
        if self.by_uuid.is_empty() && self.by_name.is_empty() {
            return 0;
        }
        for (index, event) in events.iter().enumerate() {
            let Some(domain) = event.domain() else { continue };
            let by_uuid = self.by_uuid.get(&domain.uuid());
            let by_name =
                if self.by_name.is_empty() { None } else { self.by_name.get(domain.name()) };
            for id in by_uuid.into_iter().chain(by_name).flatten() {
                let Some(subscriber) = self.subscribers.get_mut(id) else { continue };
                // One that names a domain by name and by uuid gets its events once.
                if subscriber.takes(event) && subscriber.picked.last() != Some(&(index as u32)) {
                    if subscriber.picked.is_empty() {
                        self.touched.push(*id);
                    }
                    subscriber.picked.push(index as u32);
                }
            }
        }
        let mut missed = 0;
        for id in self.touched.drain(..) {
            let Some(subscriber) = self.subscribers.get_mut(&id) else { continue };
            let picked = std::mem::take(&mut subscriber.picked);
            missed += subscriber.mailbox.deliver(|queue| {
                picked.iter().for_each(|index| queue.push(events[*index as usize].clone()));
            });
            subscriber.picked = picked;
            subscriber.picked.clear();
        }
        missed
    }

    /// Tells everyone that the source, or a part of it, is out of reach.
    /// Returns how many events were dropped for slow subscribers.
    pub(super) fn broke(&self, scope: &Scope, fault: &Fault) -> u64 {
        self.mark(&disconnected(scope, fault))
    }

    fn mark(&self, marker: &DomainEvent) -> u64 {
        let mailboxes = self.subscribers.values().map(|subscriber| &subscriber.mailbox);
        mailboxes.map(|mailbox| mailbox.deliver(|queue| queue.push(marker.clone()))).sum()
    }

    /// Tells everyone that so many events were lost before they came here. Returns how many that is for all.
    pub(super) fn missed(&self, missed: u64) -> u64 {
        let mailboxes = self.subscribers.values().map(|subscriber| &subscriber.mailbox);
        mailboxes.map(|mailbox| mailbox.deliver(|queue| queue.add_missed(missed))).sum()
    }

    /// Tells everyone that a part of the source is whole again.
    pub(super) fn restored(&self, scope: &Scope, roster: &Roster) -> u64 {
        self.mark(&synced(scope, roster))
    }

    /// After a sync: tells those who knew the domains before what has changed, and the others what
    /// there is; then everyone what else was observed, `Synced`, and which parts are out of reach.
    /// Returns how many events slow subscribers did not get.
    pub(super) fn synced_with(
        &mut self,
        merged: &Merged,
        roster: &Roster,
        scopes: &Scopes,
        at: SystemTime,
    ) -> u64 {
        let end = self.synced_but(roster, scopes);
        let existing = if self.subscribers.values().all(|subscriber| subscriber.told) {
            Vec::new()
        } else {
            existing(merged.listed.iter(), at)
        };
        let mut missed = 0;
        for subscriber in self.subscribers.values_mut() {
            let tell = subscriber.options.existing || subscriber.anew;
            let existing: &[_] = if tell { &existing } else { &[] };
            let first: &[_] = if subscriber.told { &merged.difference } else { existing };
            let all = first.iter().chain(&merged.observed);
            let all = all.filter(|event| subscriber.has(event)).chain(&end);
            let fill = |queue: &mut Queue| {
                queue.add_missed(merged.missed);
                all.for_each(|event| queue.push(event.clone()));
            };
            missed += match subscriber.anew {
                true => subscriber.mailbox.renew(first.len(), fill),
                false => subscriber.mailbox.deliver(fill),
            };
            subscriber.told = true;
            subscriber.anew = false;
        }
        missed
    }

    /// Lets a subscriber in while the source is synced: tells it what there is.
    pub(super) fn admit(&mut self, mut subscriber: Subscriber, roster: &Roster, scopes: &Scopes) {
        let tell_existing = subscriber.options.existing;
        let told = self.whole_truth(&subscriber, tell_existing, roster, scopes);
        subscriber.mailbox.deliver(|queue| told.into_iter().for_each(|event| queue.push(event)));
        subscriber.told = true;
        self.add(subscriber);
    }

    /// Lets a subscriber in during an outage.
    pub(super) fn admit_in_outage(&mut self, subscriber: Subscriber, fault: &Fault) {
        let gap = disconnected(&self.all, fault);
        subscriber.mailbox.deliver(|queue| queue.push(gap));
        self.add(subscriber);
    }

    /// Tells a subscriber anew whose mailbox went stale.
    pub(super) fn retell(&self, id: u64, roster: &Roster, scopes: &Scopes) -> u64 {
        let Some(subscriber) = self.subscribers.get(&id) else { return 0 };
        let told = self.whole_truth(subscriber, true, roster, scopes);
        subscriber.mailbox.renew(told.len(), |queue| {
            told.into_iter().for_each(|event| queue.push(event));
        })
    }

    /// The same during an outage: the rest of the truth follows at the next sync.
    pub(super) fn retell_in_outage(&mut self, id: u64, fault: &Fault) -> u64 {
        let gap = disconnected(&self.all, fault);
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return 0 };
        subscriber.told = false;
        subscriber.anew = true;
        subscriber.mailbox.renew(1, |queue| queue.push(gap))
    }

    fn whole_truth(
        &self,
        subscriber: &Subscriber,
        tell_existing: bool,
        roster: &Roster,
        scopes: &Scopes,
    ) -> Vec<DomainEvent> {
        let mut told = Vec::new();
        if tell_existing && subscriber.wanted.lifecycle {
            let filter = &subscriber.options.filter;
            let entries = roster.selected(|domain| filter.selects(domain));
            told = existing(entries.into_iter(), SystemTime::now());
        }
        told.extend(self.synced_but(roster, scopes));
        told
    }

    /// `Synced`, but for the parts that are out of reach.
    fn synced_but(&self, roster: &Roster, scopes: &Scopes) -> Vec<DomainEvent> {
        let gaps = scopes.iter().map(|(scope, fault)| disconnected(scope, fault));
        std::iter::once(synced(&self.all, roster)).chain(gaps).collect()
    }
}

fn synced(scope: &Scope, roster: &Roster) -> DomainEvent {
    Synced::new(scope.clone(), roster.count(scope)).into()
}

fn disconnected(scope: &Scope, fault: &Fault) -> DomainEvent {
    Gap::new(scope.clone(), GapKind::Disconnected { fault: fault.clone() }).into()
}

fn existing<'a>(entries: impl Iterator<Item = &'a Entry>, at: SystemTime) -> Vec<DomainEvent> {
    let event = |entry: &Entry| {
        let event = Lifecycle::new(entry.domain.clone(), Change::Existing(entry.state), at);
        Lifecycle { persistent: entry.persistent, ..event }.into()
    };
    entries.map(event).collect()
}

fn unlist<K, Q, S>(index: &mut HashMap<K, Vec<u64>, S>, key: &Q, id: u64)
where
    K: std::borrow::Borrow<Q> + Eq + std::hash::Hash,
    Q: Eq + std::hash::Hash + ?Sized,
    S: std::hash::BuildHasher,
{
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_that_leaves_leaves_no_trace() {
        let mut fanout = Fanout::new("s:".into());
        let kinds = Kinds::typed();
        for id in 0..4 {
            let options = match id {
                0 => Options::default(),
                _ => Options::default().domain("web").domain(Uuid::from_u128(id.into())),
            };
            let mailbox = Arc::new(Mailbox::new("s:".into(), 1));
            fanout.add(Subscriber::new(id, mailbox, options, &kinds));
        }
        fanout.remove(1);
        assert_eq!(fanout.by_name["web"], [2, 3]);
        assert_eq!(fanout.by_uuid.len(), 2);
        for id in [0, 2, 3, 9] {
            fanout.remove(id);
        }
        assert!(fanout.is_empty() && fanout.everything.is_empty());
        assert!(fanout.by_name.is_empty() && fanout.by_uuid.is_empty());
    }
}
