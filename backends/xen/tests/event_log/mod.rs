//! The events of a subscriber of a real store, as lines and as a table.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use virevent::driver::Driver;
use virevent::{Change, DomainEvent, DomainStore, EventSource, EventStream, Kind, Options, Uuid};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};
use virevent_testkit::servers::Xenstored;
use virevent_xen::XenStore;

pub(crate) fn client(daemon: &Xenstored) -> Driver {
    XenStore::new(&daemon.uri()).unwrap().source()
}

/// The events that a subscriber of all kinds has received.
pub(crate) struct EventLog {
    pub(crate) stream: EventStream,
    pub(crate) store: DomainStore,
    names: BTreeMap<Uuid, String>,
    /// All events after `Synced`.
    pub(crate) events: Vec<DomainEvent>,
}

impl EventLog {
    /// Subscribes, and reads until the stream is synced.
    pub(crate) async fn of(source: &dyn EventSource) -> Self {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other).capacity(65_536);
        let stream = source.subscribe_with(options).await.unwrap();
        let store = DomainStore::new();
        let mut log = Self { stream, store, names: BTreeMap::new(), events: Vec::new() };
        for event in until_synced(&mut log.stream).await.unwrap() {
            log.apply(&event);
        }
        log
    }

    fn apply(&mut self, event: &DomainEvent) {
        self.store.apply(event);
        if let Some(domain) = event.domain() {
            self.names.insert(domain.uuid(), domain.name().into());
        }
    }

    pub(crate) async fn next(&mut self) -> String {
        let event = next_within(&mut self.stream, Duration::from_secs(10)).await;
        let event = event.unwrap_or_else(|error| panic!("{error}, after {:?}", self.events.last()));
        self.apply(&event);
        self.events.push(event.clone());
        event.to_string()
    }

    /// Checks that these events come next, in this order.
    pub(crate) async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.next().await, *line);
        }
    }

    /// Reads until `count` such events have come since `Synced`.
    pub(crate) async fn until(&mut self, count: usize, is_such: impl Fn(&DomainEvent) -> bool) {
        while self.count(&is_such) < count {
            self.next().await;
        }
    }

    pub(crate) fn count(&self, is_such: impl Fn(&DomainEvent) -> bool) -> usize {
        self.events.iter().filter(|event| is_such(event)).count()
    }

    pub(crate) async fn nothing(&mut self) {
        nothing_within(&mut self.stream, Duration::from_millis(150)).await.unwrap();
    }

    /// Checks that the table that the events fold into is what the daemon says.
    pub(crate) fn check(&self, daemon: &Xenstored) {
        let now = self.store.snapshot();
        let mut folded: Vec<_> = now
            .active()
            .map(|run| {
                let uuid = run.domain.uuid();
                (run.domain.id(), Some(uuid), self.names.get(&uuid).cloned())
            })
            .collect();
        let domains = daemon.toolstack().domains().unwrap();
        let mut introduced: Vec<_> = domains
            .into_iter()
            .filter(|domain| domain.introduced)
            .map(|domain| (Some(domain.domid), domain.uuid, domain.name))
            .collect();
        folded.sort();
        introduced.sort();
        assert_eq!(folded, introduced);
    }
}

pub(crate) fn started(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Started(_)))
}

pub(crate) fn stopped(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Stopped(_)))
}

/// Whether it is the event of a request to a guest.
pub(crate) fn requested(event: &DomainEvent) -> bool {
    matches!(event, DomainEvent::Other(_))
}
