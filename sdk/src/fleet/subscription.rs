//! What keeps a stream of a fleet subscribed to each member, and the guard that cancels it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use futures::task::AtomicWaker;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::driver::{Backoff, Reconnect};
use crate::mailbox::contain_panic;
use crate::{Error, EventSource, EventStream, Events, Fault, Options, Subscription};

/// A stream of a fleet, as the fleet, the reader and the tasks that subscribe share it.
///
/// A waker is the program's code: none runs, and no subscription is dropped, under a lock. What
/// changes under the fleet's lock is therefore followed by [`wake`](Self::wake) after it.
pub(super) struct FleetStream {
    runtime: Handle,
    options: Options,
    is_cancelled: AtomicBool,
    joined: Mutex<Joined>,
    reader: AtomicWaker,
}

#[derive(Default)]
struct Joined {
    /// What the reader has not taken yet.
    arrivals: VecDeque<Arrival>,
    /// The subscriptions, by the member's URI.
    guards: HashMap<Arc<str>, Subscription>,
    /// The tasks that subscribe, by the member's URI.
    tasks: HashMap<Arc<str>, AbortHandle>,
}

/// What the reader of a stream learns.
pub(super) enum Arrival {
    /// A member was added.
    Added(Arc<str>),
    /// A subscription to a member begins.
    Joined(Arc<str>, Events),
    /// Subscribing to a member failed.
    Failed(Arc<str>, Fault),
    /// A member was removed.
    Removed(Arc<str>),
    /// The fleet was shut down: the members' streams end.
    Shutdown,
}

impl FleetStream {
    pub(super) fn new(runtime: Handle, options: Options) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            // An unreachable member is a gap of its own, and no failure.
            options: options.wait(true),
            is_cancelled: AtomicBool::new(false),
            joined: Mutex::default(),
            reader: AtomicWaker::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Joined> {
        // Nothing that runs under the lock leaves the maps half changed.
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reader(&self) -> &AtomicWaker {
        &self.reader
    }

    /// Wakes the reader.
    pub(super) fn wake(&self) {
        contain_panic(|| self.reader.wake());
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// What the reader has not taken yet.
    pub(super) fn take_arrivals(&self) -> VecDeque<Arrival> {
        std::mem::take(&mut self.lock().arrivals)
    }

    /// Subscribes to a new member, in a task, again and again until it succeeds.
    pub(super) fn join(self: &Arc<Self>, source: &Arc<dyn EventSource>) {
        let uri = Arc::<str>::from(source.uri());
        let mut joined = self.lock();
        // Under one lock: it arrives before its events.
        joined.arrivals.push_back(Arrival::Added(Arc::clone(&uri)));
        self.start(&mut joined, uri, source);
    }

    /// Subscribes again to a member whose stream has ended.
    pub(super) fn join_again(self: &Arc<Self>, uri: &Arc<str>, source: &Arc<dyn EventSource>) {
        let ended = {
            let mut joined = self.lock();
            self.start(&mut joined, Arc::clone(uri), source);
            joined.guards.remove(uri)
        };
        drop(ended);
    }

    fn start(self: &Arc<Self>, joined: &mut Joined, uri: Arc<str>, source: &Arc<dyn EventSource>) {
        // Under the lock that `cancel` takes, so that it finds every task.
        if !self.is_cancelled() {
            let task = subscribe(Arc::clone(self), Arc::clone(source), Arc::clone(&uri));
            joined.tasks.insert(uri, self.runtime.spawn(task).abort_handle());
        }
    }

    /// A subscription was made.
    fn joined(&self, uri: Arc<str>, stream: EventStream) {
        let (events, subscription) = stream.split();
        {
            let mut joined = self.lock();
            // If it was cancelled, or the member has left, the stream is dropped, outside the lock.
            if joined.tasks.remove(&uri).is_some() {
                joined.guards.insert(Arc::clone(&uri), subscription);
                joined.arrivals.push_back(Arrival::Joined(uri, events));
            }
        }
        self.wake();
    }

    fn failed(&self, uri: &Arc<str>, fault: Fault) {
        {
            let mut joined = self.lock();
            if !joined.tasks.contains_key(uri) {
                return;
            }
            joined.arrivals.push_back(Arrival::Failed(Arc::clone(uri), fault));
        }
        self.wake();
    }

    /// The member was removed from the fleet. What it returns is to be dropped outside all locks.
    #[must_use]
    pub(super) fn leave(&self, uri: &Arc<str>) -> Option<Subscription> {
        let mut joined = self.lock();
        if let Some(task) = joined.tasks.remove(uri) {
            task.abort();
        }
        joined.arrivals.push_back(Arrival::Removed(Arc::clone(uri)));
        joined.guards.remove(uri)
    }

    /// The fleet was shut down.
    pub(super) fn end(&self) {
        let mut joined = self.lock();
        joined.tasks.drain().for_each(|(_, task)| task.abort());
        joined.arrivals.push_back(Arrival::Shutdown);
    }

    /// Cancels. The reader drops its streams of the members, and so cancels those; the guards stay
    /// for a `close` that waits for the hypervisors.
    pub(super) fn cancel(&self) {
        let arrivals = {
            let mut joined = self.lock();
            self.is_cancelled.store(true, Ordering::Release);
            joined.tasks.drain().for_each(|(_, task)| task.abort());
            std::mem::take(&mut joined.arrivals)
        };
        // Among them may be streams.
        drop(arrivals);
        self.wake();
    }

    fn take_guards(&self) -> Vec<Subscription> {
        self.lock().guards.drain().map(|(_, guard)| guard).collect()
    }
}

async fn subscribe(stream: Arc<FleetStream>, source: Arc<dyn EventSource>, uri: Arc<str>) {
    let mut backoff = Backoff::new(Reconnect::of_member());
    loop {
        let error = match source.subscribe_with(stream.options.clone()).await {
            Ok(events) => return stream.joined(uri, events),
            Err(error) => error,
        };
        stream.failed(&uri, error.to_fault());
        // It will not come back.
        if matches!(error, Error::Shutdown | Error::DriverEnded) {
            return;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// The guard of a fleet's stream.
pub(crate) struct FleetSubscription {
    stream: Arc<FleetStream>,
}

impl FleetSubscription {
    pub(super) fn new(stream: Arc<FleetStream>) -> Self {
        Self { stream }
    }

    pub(crate) async fn close(self) {
        self.stream.cancel();
        // Boxed, since a member may be a fleet.
        join_all(self.stream.take_guards().into_iter().map(|guard| Box::pin(guard.close()))).await;
    }
}

impl Drop for FleetSubscription {
    fn drop(&mut self) {
        self.stream.cancel();
        drop(self.stream.take_guards());
    }
}
