//! The subscribers of a source, found by what they filter for.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, LazyLock};

use uuid::Uuid;

use crate::mailbox::Mailbox;
use crate::{Change, DefineCause, Domain, DomainEvent, Kind, Kinds, Options, Selector};

/// The kinds of a subscriber that asks for none.
static COMMON: LazyLock<Kinds> = LazyLock::new(Kinds::common);

/// A subscriber, as the driver sees it.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: u64,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) options: Options,
    wanted: WantedKinds,
    /// It knows what there is, so it gets events and differences; before that, neither.
    pub(super) is_synced: bool,
    /// Its mailbox was emptied in an outage. After the outage it gets everything that exists, even
    /// if it did not ask for `Existing`.
    pub(super) needs_reset: bool,
    /// The events of the current batch that it gets, by index.
    pub(super) picked: Vec<u32>,
}

/// The filter of kinds, in a form that is cheap to ask once an event.
#[derive(Debug)]
struct WantedKinds {
    lifecycle: bool,
    reboot: bool,
    other: bool,
    /// The kinds of notices, and events without a type by their names.
    named: Kinds,
}

impl WantedKinds {
    fn new(kinds: &Kinds) -> Self {
        Self {
            lifecycle: kinds.contains(&Kind::Lifecycle),
            reboot: kinds.contains(&Kind::Reboot),
            other: kinds.contains(&Kind::Other),
            named: kinds
                .iter()
                .filter(|kind| !matches!(kind, Kind::Lifecycle | Kind::Reboot | Kind::Other))
                .cloned()
                .collect(),
        }
    }

    fn has(&self, event: &DomainEvent) -> bool {
        match event {
            DomainEvent::Lifecycle(_) => self.lifecycle,
            DomainEvent::Reboot(_) => self.reboot,
            DomainEvent::Notice(notice) => {
                !self.named.is_empty() && self.named.contains(&notice.kind())
            }
            DomainEvent::Other(event) => {
                self.other || (!self.named.is_empty() && self.named.contains(&event.kind()))
            }
            DomainEvent::Synced(_) | DomainEvent::Gap(_) => true,
        }
    }
}

impl Subscriber {
    pub(super) fn new(id: u64, mailbox: Arc<Mailbox>, options: Options) -> Self {
        let wanted = WantedKinds::new(options.filter.kinds.as_ref().unwrap_or(&COMMON));
        Self {
            id,
            mailbox,
            options,
            wanted,
            is_synced: false,
            needs_reset: false,
            picked: Vec::new(),
        }
    }

    /// The first of the `refused` kinds that the subscriber asked for by name.
    pub(super) fn misses(&self, refused: &Kinds) -> Option<Kind> {
        let kinds = self.options.filter.kinds.as_ref()?;
        kinds.demanded().find(|kind| refused.holds(kind)).cloned()
    }

    /// The kinds to register for it, of a source that can report `possible`.
    pub(super) fn needs(&self, possible: &Kinds) -> impl Iterator<Item = &Kind> {
        let kinds = self.options.filter.kinds.as_ref();
        let demanded = kinds.into_iter().flat_map(Kinds::demanded);
        let optional = kinds.unwrap_or(&COMMON).iter().filter(|kind| possible.holds(kind));
        demanded.chain(optional)
    }

    pub(super) fn wants_lifecycle(&self) -> bool {
        self.wanted.lifecycle
    }

    /// Whether the subscriber gets a new event, as far as the event's kind decides.
    pub(super) fn takes(&self, event: &DomainEvent) -> bool {
        self.is_synced && self.wanted.has(event)
    }

    /// Whether it selects the domain by its name alone: it knows nothing of what happened to the domain
    /// under another name.
    pub(super) fn names(&self, domain: &Domain) -> bool {
        self.wanted.lifecycle && self.options.filter.selects_by_name_alone(domain)
    }

    /// Whether the event passes the subscriber's filter.
    pub(super) fn selects(&self, event: &DomainEvent) -> bool {
        self.wanted.has(event)
            && (event.is_marker()
                || event.domain().is_some_and(|domain| self.options.filter.selects(domain))
                || self.options.filter.domains.is_empty())
    }
}

/// The subscribers, indexed by the domains that they select.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    by_id: HashMap<u64, Subscriber, foldhash::fast::RandomState>,
    /// Those that take events of every domain.
    of_all_domains: Vec<u64>,
    by_uuid: HashMap<Uuid, Vec<u64>, foldhash::fast::RandomState>,
    by_name: HashMap<Box<str>, Vec<u64>, foldhash::fast::RandomState>,
    /// Those with something picked of the current batch.
    with_picked: Vec<u64>,
}

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Subscriber> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Subscriber> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.by_id.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscriber> {
        self.by_id.values_mut()
    }

    /// Those that take events of every domain.
    pub(super) fn of_all_domains(&self) -> impl DoubleEndedIterator<Item = &Subscriber> {
        self.of_all_domains.iter().filter_map(|id| self.by_id.get(id))
    }

    pub(super) fn insert(&mut self, subscriber: Subscriber) {
        let id = subscriber.id;
        if subscriber.options.filter.domains.is_empty() {
            self.of_all_domains.push(id);
        }
        for selector in &subscriber.options.filter.domains {
            match selector {
                Selector::Uuid(uuid) => self.by_uuid.entry(*uuid).or_default().push(id),
                Selector::Name(name) => self.by_name.entry(name.clone()).or_default().push(id),
            }
        }
        self.by_id.insert(id, subscriber);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Subscriber> {
        let subscriber = self.by_id.remove(&id)?;
        if subscriber.options.filter.domains.is_empty() {
            self.of_all_domains.retain(|other| *other != id);
        }
        for selector in &subscriber.options.filter.domains {
            match selector {
                Selector::Uuid(uuid) => remove_id(&mut self.by_uuid, uuid, id),
                Selector::Name(name) => remove_id(&mut self.by_name, name, id),
            }
        }
        Some(subscriber)
    }

    /// The domains that get a name by these events, if any subscriber selects by name.
    pub(super) fn renamed<'a>(
        &self,
        events: &'a [DomainEvent],
    ) -> impl Iterator<Item = &'a Domain> {
        let events = if self.by_name.is_empty() { &[] } else { events };
        let is_renamed =
            |event: &&DomainEvent| event.change() == Some(Change::Defined(DefineCause::Renamed));
        events.iter().filter(is_renamed).filter_map(DomainEvent::domain)
    }

    /// The subscribers that select a domain by its name alone.
    pub(super) fn by_name(&self, domain: &Domain) -> impl Iterator<Item = &Subscriber> {
        let ids = self.by_name.get(domain.name()).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id)).filter(|subscriber| subscriber.names(domain))
    }

    /// Calls `deliver` with each subscriber that filters by domain and the events that it gets.
    pub(super) fn pick(
        &mut self,
        events: &[DomainEvent],
        mut deliver: impl FnMut(&Subscriber, &[u32]),
    ) {
        if self.by_uuid.is_empty() && self.by_name.is_empty() {
            return;
        }
        for (index, event) in (0u32..).zip(events) {
            let Some(domain) = event.domain() else { continue };
            let by_uuid = self.by_uuid.get(&domain.uuid());
            // Names are hashed only where a filter needs it: a uuid is cheaper.
            let by_name =
                if self.by_name.is_empty() { None } else { self.by_name.get(domain.name()) };
            for id in by_uuid.into_iter().chain(by_name).flatten() {
                let Some(subscriber) = self.by_id.get_mut(id) else { continue };
                // A subscriber that names a domain by name and by uuid gets its events once.
                if subscriber.takes(event) && subscriber.picked.last() != Some(&index) {
                    if subscriber.picked.is_empty() {
                        self.with_picked.push(*id);
                    }
                    subscriber.picked.push(index);
                }
            }
        }
        for id in self.with_picked.drain(..) {
            if let Some(subscriber) = self.by_id.get_mut(&id) {
                deliver(subscriber, &subscriber.picked);
                // Keeps its memory: a subscriber that filters gets events in most batches.
                subscriber.picked.clear();
            }
        }
    }
}

fn remove_id<K, Q, S>(index: &mut HashMap<K, Vec<u64>, S>, key: &Q, id: u64)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
    S: BuildHasher,
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
    use std::time::SystemTime;

    use super::*;
    use crate::{EventData, EventName, RawEvent};

    #[test]
    fn an_event_of_unknown_layout_reaches_those_that_want_its_kind() {
        let event = |id| -> DomainEvent {
            let name = EventName::Number(id);
            let data = EventData::Bytes([].into());
            RawEvent::new("s:", None, name, data, SystemTime::UNIX_EPOCH).into()
        };
        let wanted = |kinds: &[Kind]| WantedKinds::new(&kinds.iter().cloned().collect());
        let block_jobs = wanted(&[Kind::BlockJob]);
        assert!(block_jobs.has(&event(8)) && block_jobs.has(&event(16)));
        assert!(!block_jobs.has(&event(4)) && !block_jobs.has(&event(99)));
        let others = wanted(&[Kind::Named(EventName::Number(99))]);
        assert!(others.has(&event(99)) && !others.has(&event(8)));
    }

    #[test]
    fn a_removed_subscriber_leaves_no_trace_in_the_index() {
        let mut subscribers = Subscribers::default();
        for id in 0..4 {
            let options = match id {
                0 => Options::default(),
                _ => Options::default().domain("web").domain(Uuid::from_u128(id.into())),
            };
            let mailbox = Arc::new(Mailbox::new("s:".into(), 1));
            subscribers.insert(Subscriber::new(id, mailbox, options));
        }
        subscribers.remove(1);
        assert_eq!(subscribers.by_name["web"], [2, 3]);
        assert_eq!(subscribers.by_uuid.len(), 2);
        for id in [0, 2, 3, 9] {
            subscribers.remove(id);
        }
        assert!(subscribers.is_empty() && subscribers.of_all_domains.is_empty());
        assert!(subscribers.by_name.is_empty() && subscribers.by_uuid.is_empty());
    }
}
