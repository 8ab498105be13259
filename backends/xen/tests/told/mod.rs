//! What a reader of a real store is told.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use virevent::driver::Driver;
use virevent::{Change, DomainEvent, EventSource, EventStream, Kind, Options, Uuid};
use virevent_testkit::assert::{Fold, next_within, nothing_within, until_synced};
use virevent_testkit::servers::Xenstored;
use virevent_xen::XenStore;

pub(crate) fn client(daemon: &Xenstored) -> Driver {
    XenStore::new(&daemon.uri()).unwrap().source()
}

/// All that a store can tell, in lines.
pub(crate) struct Told {
    pub(crate) events: EventStream,
    pub(crate) fold: Fold,
    names: BTreeMap<Uuid, String>,
    pub(crate) all: Vec<DomainEvent>,
}

impl Told {
    pub(crate) async fn by(source: &dyn EventSource) -> Self {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other).capacity(65_536);
        let events = source.subscribe_with(options).await.unwrap();
        let (fold, names) = (Fold::default(), BTreeMap::new());
        let mut told = Self { events, fold, names, all: Vec::new() };
        for event in until_synced(&mut told.events).await.unwrap() {
            told.take(&event);
        }
        told
    }

    fn take(&mut self, event: &DomainEvent) {
        self.fold.apply(event);
        if let Some(domain) = event.domain() {
            self.names.insert(domain.uuid(), domain.name().into());
        }
    }

    pub(crate) async fn next(&mut self) -> String {
        let event = next_within(&mut self.events, Duration::from_secs(10)).await;
        let event = event.unwrap_or_else(|error| panic!("{error}; so far {:?}", self.all.last()));
        self.take(&event);
        self.all.push(event.clone());
        event.to_string()
    }

    /// These come next, in this order.
    pub(crate) async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.next().await, *line);
        }
    }

    /// Reads on until so many events of this sort have come, counted from the first.
    pub(crate) async fn until(&mut self, count: usize, of: impl Fn(&DomainEvent) -> bool) {
        while self.all.iter().filter(|event| of(event)).count() < count {
            self.next().await;
        }
    }

    pub(crate) async fn nothing(&mut self) {
        nothing_within(&mut self.events, Duration::from_millis(150)).await.unwrap();
    }

    /// What is believed is what the daemon says.
    pub(crate) fn check(&self, daemon: &Xenstored) {
        let mut believed: Vec<_> = self
            .fold
            .active()
            .values()
            .map(|run| {
                let uuid = run.domain.uuid();
                (run.domain.id(), Some(uuid), self.names.get(&uuid).cloned())
            })
            .collect();
        let known = daemon.toolstack().domains().unwrap();
        let mut known: Vec<_> = known
            .into_iter()
            .filter(|known| known.introduced)
            .map(|known| (Some(known.domid), known.uuid, known.name))
            .collect();
        believed.sort();
        known.sort();
        assert_eq!(believed, known);
    }
}

pub(crate) fn started(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Started(_)))
}

pub(crate) fn stopped(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Stopped(_)))
}

pub(crate) fn asked(event: &DomainEvent) -> bool {
    matches!(event, DomainEvent::Other(_))
}
