//! What keeps a stream of a fleet subscribed to each member, and the guard that cancels it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use futures::task::AtomicWaker;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::driver::{Backoff, Reconnect};
use crate::{Error, EventSource, EventStream, Events, Fault, Options, Subscription};

/// A stream of a fleet, as the fleet, the reader and the tasks that subscribe share it.
pub(super) struct FleetStream {
    runtime: Handle,
    options: Options,
    arrivals: mpsc::UnboundedSender<Arrival>,
    joined: Mutex<Joined>,
    reader: AtomicWaker,
}

/// The subscriptions, and the tasks that make them, by the member's URI.
#[derive(Default)]
struct Joined {
    is_cancelled: bool,
    guards: HashMap<Arc<str>, Subscription>,
    tasks: HashMap<Arc<str>, AbortHandle>,
}

/// What the reader of a stream learns.
pub(super) enum Arrival {
    /// A subscription to a member begins.
    Joined(Arc<str>, Events),
    /// Subscribing to a member failed.
    Failed(Arc<str>, Fault),
    /// A member was added.
    Added(Arc<str>),
    /// A member was removed.
    Removed(Arc<str>),
    /// The fleet was shut down: the members' streams end.
    Shutdown,
}

impl FleetStream {
    pub(super) fn new(
        runtime: Handle,
        options: Options,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Arrival>) {
        let (arrivals, receiver) = mpsc::unbounded_channel();
        let joined = Mutex::default();
        let reader = AtomicWaker::new();
        // An unreachable member is a gap of its own, and no failure.
        let options = options.wait(true);
        (Arc::new(Self { runtime, options, arrivals, joined, reader }), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Joined> {
        // Nothing that runs under the lock leaves the maps half changed.
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, arrival: Arrival) {
        // An error says that the reader is gone, and with it the stream.
        let _ = self.arrivals.send(arrival);
    }

    pub(super) fn reader(&self) -> &AtomicWaker {
        &self.reader
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// Subscribes to a member, in a task, again and again until it succeeds.
    pub(super) fn join(self: &Arc<Self>, source: &Arc<dyn EventSource>) {
        let uri = Arc::<str>::from(source.uri());
        let mut joined = self.lock();
        if joined.is_cancelled {
            return;
        }
        self.send(Arrival::Added(Arc::clone(&uri)));
        let task = subscribe(Arc::clone(self), Arc::clone(source), Arc::clone(&uri));
        joined.tasks.insert(uri, self.runtime.spawn(task).abort_handle());
    }

    /// Subscribes to a member again whose stream has ended.
    pub(super) fn join_again(self: &Arc<Self>, source: Arc<dyn EventSource>) {
        let uri = Arc::<str>::from(source.uri());
        let mut joined = self.lock();
        if joined.is_cancelled {
            return;
        }
        joined.guards.remove(&uri);
        let task = subscribe(Arc::clone(self), source, Arc::clone(&uri));
        joined.tasks.insert(uri, self.runtime.spawn(task).abort_handle());
    }

    /// A subscription was made.
    fn joined(&self, uri: Arc<str>, stream: EventStream) {
        let mut joined = self.lock();
        // If it was cancelled, or the member has left, in the meantime, the stream is dropped.
        if joined.tasks.remove(&uri).is_some() {
            let (events, subscription) = stream.split();
            joined.guards.insert(Arc::clone(&uri), subscription);
            self.send(Arrival::Joined(uri, events));
        }
    }

    /// The member was removed from the fleet.
    pub(super) fn leave(&self, uri: &Arc<str>) {
        let guard = {
            let mut joined = self.lock();
            if let Some(task) = joined.tasks.remove(uri) {
                task.abort();
            }
            joined.guards.remove(uri)
        };
        // Before the reader is told: nothing of the member comes behind its removal.
        drop(guard);
        self.send(Arrival::Removed(Arc::clone(uri)));
    }

    /// The fleet was shut down.
    pub(super) fn end(&self) {
        self.lock().tasks.drain().for_each(|(_, task)| task.abort());
        self.send(Arrival::Shutdown);
    }

    /// Cancels. The reader drops its streams of the members, and so cancels those; the guards stay
    /// for a `close` that waits for the hypervisors.
    pub(super) fn cancel(&self) {
        {
            let mut joined = self.lock();
            joined.is_cancelled = true;
            joined.tasks.drain().for_each(|(_, task)| task.abort());
        }
        self.reader.wake();
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
        stream.send(Arrival::Failed(Arc::clone(&uri), error.to_fault()));
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
