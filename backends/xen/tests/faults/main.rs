//! A store that does wrong, or does right in an awkward way.
#![allow(clippy::unwrap_used, clippy::panic)]

mod answers;
mod outages;
mod packets;

use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{DomainEvent, Error, EventSource, EventStream, Kind, Options};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};
use virevent_testkit::xen::{Blueprint, Power, RunState};
use virevent_testkit::xenstored::{FakeXenstored, Faults};
use virevent_xen::XenStore;
use virevent_xen::wire::Operation;

struct Rig {
    fake: FakeXenstored,
    source: Driver,
}

impl Rig {
    fn new() -> Self {
        let fake = FakeXenstored::start().unwrap();
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let store = XenStore::new(&fake.uri()).unwrap().reconnect(quick);
        let source = store.call_timeout(Duration::from_millis(500)).source();
        Self { fake, source }
    }

    fn with(change: impl FnOnce(&mut Faults)) -> Self {
        let rig = Self::new();
        rig.fake.change(change);
        rig
    }

    async fn subscribe(&self) -> Result<EventStream, Error> {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
        self.source.subscribe_with(options).await
    }

    /// With the patience of every day.
    fn patient() -> Self {
        let mut rig = Self::new();
        rig.source = XenStore::new(&rig.fake.uri()).unwrap().source();
        rig
    }

    async fn synced(&self) -> Told {
        let mut told = Told(self.subscribe().await.unwrap());
        until_synced(&mut told.0).await.unwrap();
        told
    }

    /// What a client that comes now is told.
    async fn refusal_to_list(&self) -> String {
        let store = XenStore::new(&self.fake.uri()).unwrap();
        store.source().subscribe_with(Options::default()).await.unwrap_err().to_line()
    }

    async fn refusal(&self) -> Error {
        self.subscribe().await.unwrap_err()
    }
}

/// Nothing that any of these tests does may have written to the store.
impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.fake.meddling(), 0);
        }
    }
}

struct Told(EventStream);

impl Told {
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

    /// The stream breaks for this reason, and is whole again.
    async fn gap(&mut self, reason: &str) {
        let event = next_within(&mut self.0, Duration::from_secs(10)).await.unwrap();
        let DomainEvent::Gap(gap) = &event else { panic!("{event}") };
        let said = format!("{gap:?}");
        assert!(said.contains(reason), "{said}");
    }
}

/// A life, told as on any other store.
async fn a_life(rig: &Rig, told: &mut Told) {
    let xl = rig.fake.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.rename(web, "www").unwrap();
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    xl.request(web, Power::Halt).unwrap();
    told.expect(&["www[1] shutting_down (host)"]).await;
    told.expect(&["www[1] event control/shutdown {\"request\":\"halt\"}"]).await;
    xl.acknowledge(web).unwrap();
    xl.destroy(web).unwrap();
    told.expect(&["www[1] stopped (shutdown)"]).await;
    told.nothing().await;
}
