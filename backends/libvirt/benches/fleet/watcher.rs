//! A fleet of all daemons, a table of its domains, and what was delivered.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join;
use virevent::driver::{Gate, Listed, Settings};
use virevent::{
    Change, Counters, Domain, DomainEvent, DomainStore, EventSource, EventSourceExt, EventStream,
    Fleet, Gap, GapKind, Origin, State, Synced,
};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::check_store;

use super::daemons::{Orders, since};

/// What a stream of the fleet delivered.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Observed changes.
    pub(crate) observed: usize,
    /// Changes that were inferred.
    pub(crate) inferred: usize,
    /// Ends of runs, observed or not.
    pub(crate) stopped: usize,
    /// Members that were lost.
    pub(crate) lost: usize,
    /// Members that were synced.
    pub(crate) synced: usize,
    /// The fleet was synced.
    pub(crate) is_whole: bool,
}

impl Seen {
    fn add(&mut self, event: &DomainEvent) {
        match event {
            DomainEvent::Synced(Synced { scope, .. }) if scope.source() == URI => {
                self.is_whole = true;
            }
            DomainEvent::Synced(_) => self.synced += 1,
            DomainEvent::Gap(Gap { kind: GapKind::Disconnected { .. }, .. }) => self.lost += 1,
            DomainEvent::Lifecycle(event) => {
                self.stopped += usize::from(matches!(event.change, Change::Stopped(_)));
                match event.change {
                    Change::Existing(_) => {}
                    _ if event.origin == Origin::Inferred => self.inferred += 1,
                    _ => self.observed += 1,
                }
            }
            event => panic!("{event}"),
        }
    }
}

const URI: &str = "fleet:bench";

/// A stream of the fleet, with what came of it.
pub(crate) struct Reader {
    events: EventStream,
    /// Kept up to date with each event, if there is one.
    pub(crate) store: Option<DomainStore>,
    pub(crate) seen: Seen,
}

impl Reader {
    /// Reads the stream until then.
    pub(crate) async fn until(&mut self, is_done: impl Fn(&Seen) -> bool) {
        while !is_done(&self.seen) {
            let event = self.events.next().await.unwrap();
            self.seen.add(&event);
            if let Some(store) = &self.store {
                store.apply(&event);
            }
        }
    }
}

pub(crate) struct Watcher {
    fleet: Fleet,
    pub(crate) reader: Reader,
    pub(crate) orders: Orders,
}

impl Watcher {
    /// Watches all daemons, as soon as they are synced; no more than `limit` of them connect and
    /// list at once.
    pub(crate) async fn start(home: &Path, limit: usize, store: Option<DomainStore>) -> Self {
        let mut orders = Orders::connect(home).await;
        let fleet = Fleet::new(URI);
        let settings = Settings::default().gate(Gate::new(limit));
        for uri in orders.give("uris").await {
            let source = Libvirt::new(&uri).unwrap().settings(settings.clone()).source();
            fleet.add(Arc::new(source)).unwrap();
        }
        orders.give("delay 1").await;
        let events = fleet.subscribe().await.unwrap();
        let mut reader = Reader { events, store, seen: Seen::default() };
        reader.until(|seen| seen.is_whole).await;
        orders.give("delay 0").await;
        Self { fleet, reader, orders }
    }

    /// Has the daemons send events as an order says, and reads them all.
    pub(crate) async fn read_events(&mut self, order: &str, count: usize) {
        self.reader.seen = Seen::default();
        join(self.orders.give(order), self.reader.until(|seen| seen.observed == count)).await;
    }

    /// Has all daemons restart at once, and reads until all are synced. Returns how long that took
    /// from their return on.
    pub(crate) async fn outlast_restart(&mut self, outage: Duration) -> Duration {
        self.orders.give("delay 1").await;
        self.orders.give("syncs").await;
        self.reader.seen = Seen::default();
        let members = self.fleet.members().len();
        let order = format!("restart {}", outage.as_millis());
        let synced = self.reader.until(|seen| seen.synced == members);
        let (returned, ()) = join(self.orders.ask(&order), synced).await;
        let time = since(returned);
        self.orders.give("delay 0").await;
        time
    }

    pub(crate) fn counters(&self) -> Counters {
        self.fleet.counters()
    }

    /// Compares the store with what the daemons hold. Returns how many domains that is.
    pub(crate) async fn check(&mut self) -> usize {
        let truth: Vec<_> =
            self.orders.give("domains").await.iter().map(|line| parse(line)).collect();
        let store = self.reader.store.as_ref().unwrap();
        assert!(store.snapshot().is_certain(), "something is uncertain");
        check_store(store, &truth).unwrap();
        truth.len()
    }
}

/// A line that describes a domain, as a daemon lists it.
fn parse(line: &str) -> Listed {
    let words: Vec<_> = line.split(' ').collect();
    let [uri, host, uuid, name, id, state, reason] = words[..] else { panic!("{line}") };
    let domain = Domain::new(uri, host, uuid.parse().unwrap(), name, Some(id.parse().unwrap()));
    let state = State::from_codes(state.parse().unwrap(), reason.parse().unwrap());
    Listed::new(domain, state, Some(false))
}
