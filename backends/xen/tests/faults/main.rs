//! A fake xenstored that breaks the protocol, or keeps it in an unusual way.
#![allow(clippy::unwrap_used, clippy::panic)]

mod answers;
mod outages;
mod packets;

use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{DomainEvent, Error, EventSource, EventStream, Kind, Options};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};
use virevent_testkit::fakes::xenstored::{FakeXenstored, Faults};
use virevent_testkit::toolstack::{Blueprint, Power, RunState};
use virevent_xen::XenStore;
use virevent_xen::wire::Operation;

/// A fake store, and a source of its domains.
struct FaultyStore {
    fake: FakeXenstored,
    source: Driver,
}

impl FaultyStore {
    fn new() -> Self {
        let fake = FakeXenstored::start().unwrap();
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let store = XenStore::new(&fake.uri()).unwrap().reconnect(quick);
        let source = store.call_timeout(Duration::from_millis(500)).source();
        Self { fake, source }
    }

    fn with(change: impl FnOnce(&mut Faults)) -> Self {
        let faulty = Self::new();
        faulty.fake.change(change);
        faulty
    }

    async fn subscribe(&self) -> Result<EventStream, Error> {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
        self.source.subscribe_with(options).await
    }

    /// A store whose source has the default timeouts.
    fn patient() -> Self {
        let mut faulty = Self::new();
        faulty.source = XenStore::new(&faulty.fake.uri()).unwrap().source();
        faulty
    }

    async fn synced(&self) -> EventLines {
        let mut events = EventLines(self.subscribe().await.unwrap());
        until_synced(&mut events.0).await.unwrap();
        events
    }

    /// The error that a new client gets.
    async fn refusal_to_list(&self) -> String {
        let store = XenStore::new(&self.fake.uri()).unwrap();
        store.source().subscribe_with(Options::default()).await.unwrap_err().to_line()
    }

    async fn refusal(&self) -> Error {
        self.subscribe().await.unwrap_err()
    }
}

/// No test may have written to the store.
impl Drop for FaultyStore {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.fake.meddling(), 0);
        }
    }
}

struct EventLines(EventStream);

impl EventLines {
    async fn next(&mut self) -> String {
        let event = next_within(&mut self.0, Duration::from_secs(10)).await.unwrap();
        event.to_string()
    }

    async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.next().await, *line);
        }
    }

    async fn nothing(&mut self) {
        nothing_within(&mut self.0, Duration::from_millis(100)).await.unwrap();
    }

    /// Checks that a gap with this reason comes next.
    async fn gap(&mut self, reason: &str) {
        let event = next_within(&mut self.0, Duration::from_secs(10)).await.unwrap();
        let DomainEvent::Gap(gap) = &event else { panic!("{event}") };
        let text = format!("{gap:?}");
        assert!(text.contains(reason), "{text}");
    }
}

/// Checks that one domain is reported from start to end.
async fn a_life(faulty: &FaultyStore, events: &mut EventLines) {
    let xl = faulty.fake.toolstack();
    let web = xl.introduce("web").unwrap();
    events.expect(&["web[1] started"]).await;
    xl.rename(web, "www").unwrap();
    events.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    xl.request(web, Power::Halt).unwrap();
    events.expect(&["www[1] shutting_down (host)"]).await;
    events.expect(&["www[1] event control/shutdown {\"request\":\"halt\"}"]).await;
    xl.acknowledge(web).unwrap();
    xl.destroy(web).unwrap();
    events.expect(&["www[1] stopped (shutdown)"]).await;
    events.nothing().await;
}
