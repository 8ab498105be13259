//! Tests of `wait_until`: when it ends because the domain is gone, and when it goes on.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use virevent::driver::{Batch, Driver, Listed};
use virevent::{
    Capabilities, Change, Counters, Error, EventSource, EventSourceExt, EventStream, Health,
    Lifecycle, Options, RunningReason, Selector, StartCause, State, StopCause, SuspendCause,
    UndefineCause, Uuid, Waited,
};
use virevent_testkit::FakeHypervisor;

use self::common::{Hypervisor, Peer};

/// A source that counts its subscriptions.
#[derive(Debug)]
struct Counted<S> {
    source: S,
    subscriptions: AtomicUsize,
}

#[async_trait]
impl<S: EventSource> EventSource for Counted<S> {
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
        self.subscriptions.fetch_add(1, Ordering::SeqCst);
        self.source.subscribe_with(options).await
    }

    fn uri(&self) -> &str {
        self.source.uri()
    }

    fn capabilities(&self) -> Capabilities {
        self.source.capabilities()
    }

    fn health(&self) -> Health {
        self.source.health()
    }

    fn counters(&self) -> Counters {
        self.source.counters()
    }

    async fn shutdown(&self) {
        self.source.shutdown().await;
    }
}

/// Starts a wait for `domain` to be paused. Returns it with its source.
async fn waiting<S: EventSource + Clone>(
    source: &S,
    domain: impl Into<Selector>,
) -> (Arc<Counted<S>>, JoinHandle<Waited>) {
    let source = Arc::new(Counted { source: source.clone(), subscriptions: AtomicUsize::new(0) });
    let domain = domain.into();
    let waits = Arc::clone(&source);
    let wait = tokio::spawn(async move {
        waits.wait_until(domain, State::is_paused, Duration::from_secs(60)).await.unwrap()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    (source, wait)
}

const WEB: Uuid = Uuid::from_u128(1);

/// A hypervisor with one running domain, `web`, that does not report whether it is persistent.
#[derive(Clone, Debug, Default)]
struct WithoutPersistence(Arc<Mutex<Vec<Change>>>);

impl WithoutPersistence {
    fn source(&self) -> Driver {
        Driver::builder(Hypervisor(self.clone())).build()
    }

    /// Sends these changes in one batch.
    async fn send(&self, changes: &[Change]) {
        self.0.lock().unwrap().extend(changes);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Peer for WithoutPersistence {
    const URI: &'static str = "no-persistence:";

    fn list(&self, out: &mut Batch) -> Vec<Listed> {
        let web = out.domain(WEB, "web", Some(1));
        vec![Listed::new(web, State::Running(RunningReason::Booted), None)]
    }

    async fn read(&mut self, out: &mut Batch) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let at = out.received();
        for change in self.0.lock().unwrap().drain(..) {
            let id = (!matches!(change, Change::Undefined(_))).then_some(1);
            let web = out.domain(WEB, "web", id);
            out.event(Lifecycle::new(web, change, at));
        }
    }
}

const STOPPED: Change = Change::Stopped(StopCause::Shutdown);

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_gone_domain_ends_a_wait_without_a_lookup() {
    let fake = FakeHypervisor::new();
    fake.create("brief").unwrap();
    let (source, wait) = waiting(&fake, "brief").await;
    fake.stop("brief").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Gone(domain) if domain.id() == Some(1)));
    // The event itself says that the domain is gone, so no second subscription looks it up.
    assert_eq!(source.subscriptions.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_persistent_domain_ends_no_wait() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let (source, wait) = waiting(&fake, "web").await;
    fake.stop("web").unwrap();
    fake.start("web").unwrap();
    fake.suspend("web").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Reached(domain, _) if domain.id() == Some(2)));
    assert_eq!(source.subscriptions.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_persistence_ends_no_wait_for_a_domain() {
    let hypervisor = WithoutPersistence::default();
    let (source, wait) = waiting(&hypervisor.source(), "web").await;
    hypervisor.send(&[STOPPED]).await;
    assert_eq!(source.subscriptions.load(Ordering::SeqCst), 2);
    let paused = Change::Suspended(SuspendCause::Paused);
    hypervisor.send(&[Change::Started(StartCause::Booted), paused]).await;
    assert!(matches!(wait.await.unwrap(), Waited::Reached(..)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_persistence_is_looked_up() {
    let hypervisor = WithoutPersistence::default();
    let (source, wait) = waiting(&hypervisor.source(), "web").await;
    hypervisor.send(&[STOPPED, Change::Undefined(UndefineCause::Removed)]).await;
    let Waited::Gone(domain) = wait.await.unwrap() else { panic!() };
    assert_eq!(domain.id(), Some(1), "at the stop already, since a new stream lacks it");
    assert_eq!(source.subscriptions.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rename_ends_no_wait_by_uuid() {
    let fake = FakeHypervisor::new();
    let uuid = fake.define("web").unwrap().uuid();
    let (_source, wait) = waiting(&fake, uuid).await;
    fake.rename("web", "db").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.start("db").unwrap();
    fake.suspend("db").unwrap();
    let waited = wait.await.unwrap();
    assert!(matches!(&waited, Waited::Reached(domain, _) if domain.name() == "db"), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_undefinition_ends_a_wait_only_while_inactive() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let (_source, wait) = waiting(&fake, "web").await;
    fake.undefine("web").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.suspend("web").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Reached(..)));

    fake.define("db").unwrap();
    let (_source, wait) = waiting(&fake, "db").await;
    fake.undefine("db").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Gone(_)));
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_recreated_is_waited_for() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let (_source, wait) = waiting(&fake, "web").await;
    // libvirt stops and starts a domain that it re-creates under the same uuid: the wait is for the
    // next run.
    fake.stop_as("web", StopCause::Recreated).unwrap();
    fake.create("web").unwrap();
    fake.suspend("web").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Reached(domain, _) if domain.id() == Some(2)));
}
