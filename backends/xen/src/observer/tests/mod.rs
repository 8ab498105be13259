//! The observer between a store in memory and a driver, without a socket and on paused time. The test decides in
//! which order requests are served and packets are read.

mod bounds;
mod lives;
mod random;
mod requests;
mod states;
mod store;
mod verify;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use virevent::driver::{self, Batch, Connect, Driver, Interest, Reconnect};
use virevent::{DomainEvent, Error, EventSource, EventStream, Kind, Kinds, Options};

use self::store::MemoryStore;
use super::domains::INCOMPLETE_LIMIT;
use super::{Observer, PreviousRuns};
use crate::wire::Decoder;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A store and its client, which take turns.
#[derive(Clone, Debug, Default)]
struct Harness {
    store: Arc<Mutex<MemoryStore>>,
    changed: Arc<Notify>,
    previous: Arc<Mutex<PreviousRuns>>,
    /// Decides whose turn it is. Without it everything is served at once and read at once.
    random: Option<Arc<Mutex<fastrand::Rng>>>,
    with_dom0: bool,
    is_device: bool,
    /// The driver's interval of verification; zero disables it.
    verify: Duration,
    /// The seed of the driver's jitter.
    seed: u64,
}

impl Harness {
    /// Changes the store, and wakes its client.
    fn act<T>(&self, act: impl FnOnce(&mut MemoryStore) -> T) -> T {
        let done = act(&mut self.store.lock().unwrap());
        self.changed.notify_one();
        done
    }

    /// Adds running domains without any event.
    fn fill(&self, domains: u16) {
        self.act(|store| {
            store.nodes.insert("/local/domain".into(), Vec::new());
            for domid in 1..=domains {
                let home = format!("/local/domain/{domid}");
                let vm = format!("/vm/{}", virevent::Uuid::from_u128(domid.into()));
                store.nodes.insert(format!("{home}/vm"), vm.into());
                store.nodes.insert(format!("{home}/name"), format!("vm{domid}").into());
                store.nodes.insert(home, Vec::new());
                store.introduced.insert(domid);
            }
        });
    }

    fn source(&self) -> Driver {
        let reconnect = Reconnect::local().seed(self.seed);
        Driver::builder(self.clone()).reconnect(reconnect).verify(Some(self.verify)).build()
    }

    async fn events(&self) -> EventStream {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other).capacity(100_000);
        self.source().subscribe_with(options).await.unwrap()
    }

    /// A stream that is synced.
    async fn synced(&self) -> EventLines {
        let mut events = EventLines(self.events().await);
        let lines = events.lines().await;
        assert!(lines.last().unwrap().starts_with("synced"), "{lines:?}");
        events
    }
}

struct EventLines(EventStream);

impl EventLines {
    /// The events until none comes for 50 ms, as text.
    async fn lines(&mut self) -> Vec<String> {
        self.within(Duration::from_millis(50)).await
    }

    /// The events until none comes for so long, as text.
    async fn within(&mut self, time: Duration) -> Vec<String> {
        self.received(time).await.iter().map(ToString::to_string).collect()
    }

    async fn received(&mut self, time: Duration) -> Vec<DomainEvent> {
        use futures::StreamExt;
        let mut events = Vec::new();
        while let Ok(event) = tokio::time::timeout(time, self.0.next()).await {
            events.push(event.unwrap());
        }
        events
    }
}

impl Connect for Harness {
    type Session = Session;

    fn uri(&self) -> &str {
        "xenstore:"
    }

    fn kinds(&self) -> Kinds {
        [Kind::Lifecycle].into_iter().collect()
    }

    async fn connect(&self) -> Result<Session, Error> {
        let previous = std::mem::take(&mut *self.previous.lock().unwrap());
        let observer = Observer::new("h".into(), self.with_dom0, self.is_device, previous);
        Ok(Session { harness: self.clone(), observer, decoder: Decoder::new() })
    }
}

struct Session {
    harness: Harness,
    observer: Observer,
    decoder: Decoder,
}

impl Session {
    /// Lets the store serve and the client read: one of each at random, or everything.
    fn turn(&mut self) -> (bool, Option<usize>) {
        let mut store = self.harness.store.lock().unwrap();
        let unwritten = self.observer.pipeline.unwritten();
        let bytes = unwritten.len();
        store.take(unwritten);
        self.observer.pipeline.wrote(bytes);
        let Some(random) = &self.harness.random else {
            while store.serve() {}
            let mut read = 0;
            while let Some(bytes) = store.give() {
                read += bytes.len();
                assert_eq!(self.decoder.push(&bytes), bytes.len());
                if read > 30_000 {
                    break;
                }
            }
            return (bytes > 0, Some(read).filter(|read| *read > 0));
        };
        let mut random = random.lock().unwrap();
        let served = random.bool() && store.serve();
        if random.bool() {
            store.overtake();
        }
        let bytes = if random.bool() { store.give() } else { None };
        let is_busy = served || !store.inbox.is_empty() || !store.outbox.is_empty();
        (is_busy, bytes.map(|bytes| self.decoder.push(&bytes)))
    }
}

impl driver::Session for Session {
    fn host(&self) -> &str {
        "h"
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.observer.set_interest(interest, tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.observer.request_list(tag);
    }

    fn is_ordered(&self) -> bool {
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            if self.observer.pump(now, out) {
                return Ok(());
            }
            match self.turn() {
                (_, Some(_)) => {
                    while let Some(packet) = self.decoder.next_packet().unwrap() {
                        self.observer.receive(&packet, now, out)?;
                    }
                    self.observer.pump(now, out);
                    return Ok(());
                }
                (true, None) => tokio::task::yield_now().await,
                (false, None) => {
                    let at = self.observer.deadline(TIMEOUT).unwrap_or(now + TIMEOUT);
                    tokio::select! {
                        () = self.harness.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {
                            self.observer.ring(Instant::now(), TIMEOUT)?;
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        *self.harness.previous.lock().unwrap() = self.observer.take_previous();
    }
}

#[tokio::test(start_paused = true)]
async fn spurious_watch_events_report_nothing() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    let mut events = harness.synced().await;
    harness.act(|store| {
        for path in ["vm", "name", "control/shutdown"] {
            let path = format!("/local/domain/3/{path}");
            let value = String::from_utf8(store.nodes[&path].clone()).unwrap();
            store.write(&path, &value);
        }
        store.special_events();
    });
    assert!(events.within(Duration::from_secs(6)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn domain_0_has_the_nil_uuid() {
    let harness = Harness { with_dom0: true, ..Harness::default() };
    let mut events = EventLines(harness.events().await);
    let first = events.received(Duration::from_millis(50)).await;
    assert_eq!(first[0].to_string(), "Domain-0[0] existing (running)");
    assert!(first[0].domain().unwrap().uuid().is_nil());
    harness.act(|store| store.write("/local/domain/0/name", "Domain-zero"));
    assert_eq!(events.lines().await.len(), 2);
    // A guest with the nil uuid counts as one without: it gets a derived one.
    harness.act(|store| store.start(3, 0, "nil"));
    assert_eq!(events.within(Duration::from_secs(8)).await, ["nil[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn all_of_10_000_domains_are_listed_and_unwatched() {
    let harness = Harness::default();
    harness.fill(10_000);
    let mut events = EventLines(harness.events().await);
    assert_eq!(events.lines().await.len(), 10_001);
    assert_eq!(harness.act(|store| store.watches.len()), 30_002);
    events.0.close().await;
    assert!(harness.act(|store| store.watches.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_device_gets_one_request_at_a_time_and_no_reset() {
    let harness = Harness { is_device: true, ..Harness::default() };
    harness.act(|store| store.start(3, 3, "web"));
    let mut events = harness.synced().await;
    harness.act(|store| store.start(4, 4, "db"));
    assert_eq!(events.lines().await, ["db[4] started"]);
    events.0.close().await;
    assert!(harness.act(|store| store.watches.is_empty()));
    assert!(!harness.act(|store| store.asked.contains(&crate::wire::Operation::RESET_WATCHES)));
}

#[tokio::test(start_paused = true)]
async fn dropping_watches_one_by_one_takes_linear_time() {
    let harness = Harness { is_device: true, ..Harness::default() };
    harness.fill(4_000);
    let mut events = EventLines(harness.events().await);
    assert_eq!(events.lines().await.len(), 4_001);
    let begun = std::time::Instant::now();
    events.0.close().await;
    assert!(harness.act(|store| store.watches.is_empty()));
    // It takes a tenth of a second. Going through all domains for each watch takes more than ten.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
