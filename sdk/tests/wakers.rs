//! Tests of wakers, which are the program's code: the driver and other subscribers go on.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use virevent::{
    DomainStore, EventSource, EventSourceExt, EventStream, Events, Fleet, Scope, Subscription,
    Synced,
};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::{expect_sequence, until_synced};

/// A fake with a running domain `web`, and two streams of it that have begun.
async fn two_subscribers() -> (FakeHypervisor, EventStream, EventStream) {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let mut first = fake.subscribe().await.unwrap();
    let mut second = fake.subscribe().await.unwrap();
    until_synced(&mut first).await.unwrap();
    until_synced(&mut second).await.unwrap();
    (fake, first, second)
}

fn poll(events: &mut Events, waker: &Waker) -> Poll<Option<virevent::DomainEvent>> {
    events.poll_next_unpin(&mut Context::from_waker(waker))
}

/// Fails instead of hanging where `act` deadlocks.
fn within_ten_seconds(act: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        act();
        done.send(()).unwrap();
    });
    let outcome = finished.recv_timeout(Duration::from_secs(10));
    assert!(outcome.is_ok(), "it deadlocks, or panicked: {outcome:?}");
}

/// Counts its calls, and panics at each.
#[derive(Default)]
struct Panics(AtomicUsize);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a bug in the waker of a service");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_harms_no_other_subscriber() {
    let (fake, first, mut second) = two_subscribers().await;
    let panics = Arc::new(Panics::default());
    let waker = Waker::from(Arc::clone(&panics));
    let (mut first, _guard) = first.split();
    // Twice: a poisoned lock or a lost registration would show only at the second event.
    for (event, calls) in [("suspended", 1), ("resumed", 2)] {
        assert!(poll(&mut first, &waker).is_pending());
        match event {
            "suspended" => fake.suspend("web").unwrap(),
            _ => fake.resume("web").unwrap(),
        };
        expect_sequence(&mut second, &[format!("web[1] {event} *")]).await.unwrap();
        assert_eq!(panics.0.load(Ordering::SeqCst), calls);
        assert!(poll(&mut first, &waker).is_ready(), "its own events are delivered nevertheless");
    }
    assert!(poll(&mut first, &waker).is_pending());
    fake.shutdown().await;
    assert!(second.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_guard_whose_drop_wakes_a_panicking_waker_is_dropped() {
    let (fake, first, _second) = two_subscribers().await;
    let (mut first, guard) = first.split();
    let waker = Waker::from(Arc::new(Panics::default()));
    assert!(poll(&mut first, &waker).is_pending());
    drop(guard);
    assert!(first.next().await.is_none());
    fake.shutdown().await;
}

/// Owns the guard of the stream that it wakes.
struct Owner {
    _guard: Mutex<Option<Subscription>>,
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

fn owner_of(guard: Subscription) -> Waker {
    Waker::from(Arc::new(Owner { _guard: Mutex::new(Some(guard)) }))
}

#[test]
fn a_waker_that_owns_the_guard_may_be_replaced() {
    within_ten_seconds(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_fake, first, _second) = runtime.block_on(two_subscribers());
        let (mut first, guard) = first.split();
        let waker = owner_of(guard);
        assert!(poll(&mut first, &waker).is_pending());
        drop(waker);
        // This drops the last clone of the first waker, and with it the guard.
        let _ = poll(&mut first, Waker::noop());
        // The guard is gone, so the stream has ended.
        assert!(poll(&mut first, Waker::noop()).is_ready());
    });
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_owns_the_guard_may_be_woken() {
    let (fake, first, mut second) = two_subscribers().await;
    let (mut first, guard) = first.split();
    let waker = owner_of(guard);
    assert!(poll(&mut first, &waker).is_pending());
    drop(waker);
    // The driver's wake is what drops the guard.
    fake.suspend("web").unwrap();
    expect_sequence(&mut second, &["web[1] suspended *"]).await.unwrap();
    assert!(first.next().now_or_never().unwrap().is_none());
    // The driver's task has survived that drop.
    fake.resume("web").unwrap();
    expect_sequence(&mut second, &["web[1] resumed *"]).await.unwrap();
}

/// Polls the stream at once, on the thread that wakes.
struct Inline(Mutex<(Events, usize)>);

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let (events, seen) = &mut *self.0.lock().unwrap();
        while let Poll::Ready(Some(_)) = poll(events, &waker) {
            *seen += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_may_poll_the_stream_at_once() {
    let (fake, first, mut second) = two_subscribers().await;
    let (first, _guard) = first.split();
    let inline = Arc::new(Inline(Mutex::new((first, 0))));
    Arc::clone(&inline).wake();
    for (event, seen) in [("suspended", 1), ("resumed", 2)] {
        match event {
            "suspended" => fake.suspend("web").unwrap(),
            _ => fake.resume("web").unwrap(),
        };
        expect_sequence(&mut second, &[format!("web[1] {event} *")]).await.unwrap();
        assert_eq!(inline.0.lock().unwrap().1, seen);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_whose_waker_panics_harms_no_other_subscriber() {
    let (fake, first, mut second) = two_subscribers().await;
    let waker = Waker::from(Arc::new(Panics::default()));
    let mut close = Box::pin(first.close());
    assert!(close.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.suspend("web").unwrap();
    expect_sequence(&mut second, &["web[1] suspended *"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_health_whose_waker_panics_harms_no_subscriber() {
    let (fake, _first, mut second) = two_subscribers().await;
    let waker = Waker::from(Arc::new(Panics::default()));
    let mut health = fake.health();
    {
        let mut wait = Box::pin(health.wait_for(|status| *status == virevent::Status::Shutdown));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        fake.lose_connection();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    expect_sequence(&mut second, &["disconnected *", "synced *"]).await.unwrap();
}

/// Polls a stream at once, on the thread that wakes, unless that thread polls it already.
struct PollsInline<S>(Mutex<S>);

impl<S: futures::Stream + Send + Unpin + 'static> Wake for PollsInline<S> {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let Ok(mut stream) = self.0.try_lock() else { return };
        while let Poll::Ready(Some(_)) = stream.poll_next_unpin(&mut Context::from_waker(&waker)) {}
    }
}

#[test]
fn a_reader_of_a_store_may_poll_in_its_waker() {
    within_ten_seconds(|| {
        let store = DomainStore::new();
        Waker::from(Arc::new(PollsInline(Mutex::new(store.changed())))).wake();
        let synced = Synced::new(Scope::source_wide("s:"), 0).into();
        let domain = virevent::Domain::new("s:", "h", virevent::Uuid::nil(), "web", Some(1));
        let started = virevent::Change::Started(virevent::StartCause::Booted);
        let started = virevent::Lifecycle::new(domain, started, std::time::UNIX_EPOCH).into();
        store.extend([&started, &synced]);
        store.finish(virevent::End::Cancelled);
    });
}

#[test]
fn a_reader_of_a_fleet_may_poll_in_its_waker() {
    within_ten_seconds(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fakes: [_; 2] =
                ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
            let fleet = Fleet::new("fleet:");
            fleet.add(Arc::new(fakes[0].clone())).unwrap();
            let (events, guard) = fleet.subscribe().await.unwrap().split();
            Waker::from(Arc::new(PollsInline(Mutex::new(events)))).wake();
            fakes[0].create("web").unwrap();
            fleet.add(Arc::new(fakes[1].clone())).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            fleet.remove("fake:a").unwrap();
            drop(guard);
            fleet.shutdown().await;
        });
    });
}
