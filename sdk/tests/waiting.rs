//! When a wait for a state ends because the domain is gone, and when it goes on.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use virevent::{
    Capabilities, Change, Counters, Domain, Error, EventSource, EventSourceExt, EventStream,
    Health, Lifecycle, Options, Selector, State, StopCause, Uuid, Waited,
};
use virevent_testkit::FakeHypervisor;

/// A fake that counts its subscriptions.
#[derive(Debug)]
struct Counted {
    fake: FakeHypervisor,
    subscriptions: AtomicUsize,
}

#[async_trait]
impl EventSource for Counted {
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
        self.subscriptions.fetch_add(1, Ordering::SeqCst);
        self.fake.subscribe_with(options).await
    }

    fn uri(&self) -> &str {
        self.fake.uri()
    }

    fn capabilities(&self) -> Capabilities {
        self.fake.capabilities()
    }

    fn health(&self) -> Health {
        self.fake.health()
    }

    fn counters(&self) -> Counters {
        self.fake.counters()
    }

    async fn shutdown(&self) {
        self.fake.shutdown().await;
    }
}

/// A wait for `domain` to be paused that is under way, and its source.
async fn waiting(
    fake: &FakeHypervisor,
    domain: impl Into<Selector>,
) -> (Arc<Counted>, JoinHandle<Waited>) {
    let source = Arc::new(Counted { fake: fake.clone(), subscriptions: AtomicUsize::new(0) });
    let domain = domain.into();
    let waits = Arc::clone(&source);
    let wait = tokio::spawn(async move {
        waits.wait_until(domain, State::is_paused, Duration::from_secs(60)).await.unwrap()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    (source, wait)
}

/// A stop of a domain that the fake does not list, so that nobody knows whether it persists.
fn stop_of_a_stranger(name: &str) -> Lifecycle {
    let domain = Domain::new("fake:", "fake", Uuid::from_u128(99), name, Some(9));
    Lifecycle::new(domain, Change::Stopped(StopCause::Shutdown), SystemTime::UNIX_EPOCH)
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_says_it_is_gone_ends_a_wait_without_a_question() {
    let fake = FakeHypervisor::new();
    fake.create("brief").unwrap();
    let (source, wait) = waiting(&fake, "brief").await;
    fake.stop("brief").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Gone(domain) if domain.id() == Some(1)));
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
async fn a_stop_that_does_not_know_is_looked_up_and_ends_a_wait() {
    let fake = FakeHypervisor::new();
    let (source, wait) = waiting(&fake, "stranger").await;
    fake.emit(stop_of_a_stranger("stranger"));
    assert!(matches!(wait.await.unwrap(), Waited::Gone(_)));
    assert_eq!(source.subscriptions.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_does_not_know_ends_no_wait_for_what_exists() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let (_source, wait) = waiting(&fake, "web").await;
    fake.emit(stop_of_a_stranger("web"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.suspend("web").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Reached(..)));
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
    fake.stop_as("web", StopCause::Recreated).unwrap();
    fake.create("web").unwrap();
    fake.suspend("web").unwrap();
    assert!(matches!(wait.await.unwrap(), Waited::Reached(domain, _) if domain.id() == Some(2)));
}
