//! The fan-out: delivers events and markers to the mailboxes of the subscribers.
//!
//! Each method that delivers returns how many events were dropped for slow subscribers.

use std::sync::Arc;
use std::time::SystemTime;

use super::entry::Entry;
use super::reconcile::Merged;
use super::resume;
use super::roster::Roster;
use super::scopes::Scopes;
use super::subscribers::{Subscriber, Subscribers};
use crate::mailbox::Queue;
use crate::{Domain, DomainEvent, End, Fault, Gap, GapKind, Scope, Snapshot, Synced};

/// Delivers events and markers to the mailboxes of the subscribers.
#[derive(Debug)]
pub(super) struct Fanout {
    /// All of the source.
    source: Scope,
    pub(super) subscribers: Subscribers,
}

impl Fanout {
    pub(super) fn new(source: Arc<str>) -> Self {
        Self { source: Scope::Source(source), subscribers: Subscribers::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Whether a subscriber knows the domains, and so gets what changes and what has changed.
    pub(super) fn has_synced(&self) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.is_synced)
    }

    /// Ends every stream.
    pub(super) fn end(&mut self, end: &End) {
        for subscriber in self.subscribers.iter() {
            subscriber.mailbox.end(end.clone());
        }
        self.subscribers = Subscribers::default();
    }

    /// Delivers a batch of events to every subscriber that wants them, takes each mailbox's lock
    /// once, and leaves `events` empty.
    pub(super) fn deliver(&mut self, events: &mut Vec<DomainEvent>) -> u64 {
        if events.is_empty() {
            return 0;
        }
        // Filtered subscribers first: they copy from `events`, which the last of the others drains.
        let mut missed = 0;
        self.subscribers.pick(events, |subscriber, picked| {
            missed += subscriber.mailbox.deliver(|queue| {
                picked.iter().for_each(|index| queue.push(events[*index as usize].clone()));
            });
        });
        // The last subscriber gets the events themselves instead of copies.
        let mut others = self.subscribers.of_all_domains();
        if let Some(last) = others.next_back() {
            for subscriber in others {
                missed += subscriber.mailbox.deliver(|queue| {
                    events
                        .iter()
                        .filter(|event| subscriber.takes(event))
                        .for_each(|event| queue.push(event.clone()));
                });
            }
            missed += last.mailbox.deliver(|queue| {
                events
                    .drain(..)
                    .filter(|event| last.takes(event))
                    .for_each(|event| queue.push(event));
            });
        }
        events.clear();
        missed
    }

    /// A domain has got this name: those that select it by the name get its state, for they know
    /// nothing of what happened to it before.
    pub(super) fn introduce(&self, entry: &Entry, at: SystemTime) -> u64 {
        let subscribers = self.subscribers.by_name(&entry.domain).filter(|one| one.is_synced);
        let deliver =
            |one: &Subscriber| one.mailbox.deliver(|queue| queue.push(entry.existing(at)));
        subscribers.map(deliver).sum()
    }

    /// The source, or a part of it, is unreachable.
    pub(super) fn disconnected(&self, scope: &Scope, fault: &Fault) -> u64 {
        self.deliver_marker(&disconnected(scope, fault))
    }

    /// A part of the source is whole again.
    pub(super) fn restored(&self, scope: &Scope, roster: &Roster) -> u64 {
        self.deliver_marker(&synced(scope, roster))
    }

    fn deliver_marker(&self, marker: &DomainEvent) -> u64 {
        let mailboxes = self.subscribers.iter().map(|subscriber| &subscriber.mailbox);
        mailboxes.map(|mailbox| mailbox.deliver(|queue| queue.push(marker.clone()))).sum()
    }

    /// Events were lost before they came here: every subscriber missed them.
    pub(super) fn missed(&self, missed: u64) -> u64 {
        let mailboxes = self.subscribers.iter().map(|subscriber| &subscriber.mailbox);
        mailboxes.map(|mailbox| mailbox.deliver(|queue| queue.add_missed(missed))).sum()
    }

    /// The list came. Subscribers that knew the domains get what has changed, the others what
    /// exists; then all get what was observed after the list, `Synced`, and which parts are
    /// unreachable.
    pub(super) fn synced(
        &mut self,
        merged: &Merged,
        roster: &Roster,
        scopes: &Scopes,
        at: SystemTime,
    ) -> (u64, Vec<DomainEvent>) {
        let markers = self.markers(roster, scopes);
        let mut inferred = Vec::new();
        // A source of 10,000 domains would make as many events after each outage, that no stream
        // gets.
        let all_know = self.subscribers.iter().all(|subscriber| subscriber.is_synced);
        let existing = if all_know { Vec::new() } else { existing(merged.listed.iter(), at) };
        let renamed = self.subscribers.renamed(&merged.difference);
        let entry = |domain: &Domain| merged.listed.iter().find(|e| e.domain.is_same(domain));
        let introduced: Vec<_> =
            renamed.filter_map(entry).map(|entry| entry.existing(at)).collect();
        let mut missed = 0;
        for subscriber in self.subscribers.iter_mut() {
            // A reset comes instead of what was lost, so it shows what exists also to a subscriber
            // that did not ask for it.
            let wants_existing = subscriber.options.existing || subscriber.needs_reset;
            let existing: &[_] = if wants_existing { &existing } else { &[] };
            let resume = subscriber.options.resume.take().filter(|_| !subscriber.needs_reset);
            let resumed = resume.map(|known| {
                let entries = merged.listed.iter().collect();
                resume::events(&known, &self.source, subscriber, entries, scopes, at)
            });
            let first: &[_] = match &resumed {
                _ if subscriber.is_synced => &merged.difference,
                Some(resumed) => resumed,
                None => existing,
            };
            let events = first.iter().chain(&merged.observed);
            let introduced = introduced.iter().filter(|event| {
                subscriber.is_synced
                    && event.domain().is_some_and(|domain| subscriber.names(domain))
            });
            let events = events.filter(|event| subscriber.selects(event));
            let events = events.chain(introduced).chain(&markers);
            let fill = |queue: &mut Queue| {
                queue.expect(resumed.as_ref().map_or(0, Vec::len));
                queue.add_missed(merged.missed);
                events.for_each(|event| queue.push(event.clone()));
            };
            missed += match subscriber.needs_reset {
                // The queue makes room for what refills it, else the reset would be the cause of
                // the next one.
                true => subscriber.mailbox.reset(first.len(), fill),
                false => subscriber.mailbox.deliver(fill),
            };
            subscriber.is_synced = true;
            subscriber.needs_reset = false;
            inferred.extend(resumed.into_iter().flatten());
        }
        (missed, inferred)
    }

    /// Admits a subscriber while the source is synced: it gets what exists.
    pub(super) fn admit(&mut self, subscriber: Subscriber, roster: &Roster, scopes: &Scopes) {
        let events = self.snapshot(&subscriber, subscriber.options.existing, roster, scopes);
        self.begin(subscriber, events);
    }

    /// The same of one that resumes: it gets what changed since, which is returned.
    pub(super) fn admit_resumed(
        &mut self,
        subscriber: Subscriber,
        known: &Snapshot,
        roster: &Roster,
        scopes: &Scopes,
    ) -> Vec<DomainEvent> {
        let entries = roster.selected(|_| true);
        let at = SystemTime::now();
        let inferred = resume::events(known, &self.source, &subscriber, entries, scopes, at);
        let events = inferred.iter().cloned().chain(self.markers(roster, scopes)).collect();
        self.begin(subscriber, events);
        inferred
    }

    fn begin(&mut self, mut subscriber: Subscriber, events: Vec<DomainEvent>) {
        subscriber.mailbox.deliver(|queue| {
            queue.expect(events.len());
            events.into_iter().for_each(|event| queue.push(event));
        });
        subscriber.is_synced = true;
        self.subscribers.insert(subscriber);
    }

    /// What subscribers know that began in an outage and resume. Ends those whose snapshot is of
    /// another source or host.
    pub(super) fn resuming(&mut self, roster: &Roster) -> Vec<Snapshot> {
        let resumes = |one: &Subscriber| Some((one.id, one.options.resume.clone()?));
        let resuming: Vec<_> = self.subscribers.iter().filter_map(resumes).collect();
        let mut known = Vec::new();
        for (id, snapshot) in resuming {
            match resume::check(&snapshot, roster) {
                Ok(()) => known.push(snapshot),
                Err(error) => {
                    if let Some(subscriber) = self.subscribers.remove(id) {
                        subscriber.mailbox.end(End::Failed(error));
                    }
                }
            }
        }
        known
    }

    /// Admits a subscriber during an outage.
    pub(super) fn admit_in_outage(&mut self, subscriber: Subscriber, fault: &Fault) {
        let gap = disconnected(&self.source, fault);
        subscriber.mailbox.deliver(|queue| queue.push(gap));
        // Not synced: the next list makes it so, and `Existing` comes then.
        self.subscribers.insert(subscriber);
    }

    /// Fills a mailbox that was emptied with everything that exists.
    pub(super) fn reset(&self, id: u64, roster: &Roster, scopes: &Scopes) -> u64 {
        let Some(subscriber) = self.subscribers.get(id) else { return 0 };
        let events = self.snapshot(subscriber, true, roster, scopes);
        subscriber.mailbox.reset(events.len(), |queue| {
            events.into_iter().for_each(|event| queue.push(event));
        })
    }

    /// The same during an outage: what exists follows at the next sync.
    pub(super) fn reset_in_outage(&mut self, id: u64, fault: &Fault) -> u64 {
        let gap = disconnected(&self.source, fault);
        let Some(subscriber) = self.subscribers.get_mut(id) else { return 0 };
        subscriber.options.resume = None;
        subscriber.is_synced = false;
        subscriber.needs_reset = true;
        subscriber.mailbox.reset(1, |queue| queue.push(gap))
    }

    fn snapshot(
        &self,
        subscriber: &Subscriber,
        with_existing: bool,
        roster: &Roster,
        scopes: &Scopes,
    ) -> Vec<DomainEvent> {
        let mut events = Vec::new();
        if with_existing && subscriber.wants_lifecycle() {
            let filter = &subscriber.options.filter;
            let entries = roster.selected(|domain| filter.selects(domain));
            events = existing(entries.into_iter(), SystemTime::now());
        }
        events.extend(self.markers(roster, scopes));
        events
    }

    /// `Synced`, then a gap for each part that is unreachable.
    fn markers(&self, roster: &Roster, scopes: &Scopes) -> Vec<DomainEvent> {
        let gaps = scopes.iter().map(|(scope, fault)| disconnected(scope, fault));
        // In this order: `Synced` of the source ends every gap within it, so the parts that are
        // still unreachable come behind it.
        std::iter::once(synced(&self.source, roster)).chain(gaps).collect()
    }
}

fn synced(scope: &Scope, roster: &Roster) -> DomainEvent {
    Synced::new(scope.clone(), roster.count(scope)).into()
}

fn disconnected(scope: &Scope, fault: &Fault) -> DomainEvent {
    Gap::new(scope.clone(), GapKind::disconnected(fault.clone())).into()
}

fn existing<'a>(entries: impl Iterator<Item = &'a Entry>, at: SystemTime) -> Vec<DomainEvent> {
    entries.map(|entry| entry.existing(at)).collect()
}
