//! What keeps a stream of a fleet subscribed to each member, and the guard that cancels it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// Of the waits, in a test.
    seed: Option<u64>,
    is_cancelled: AtomicBool,
    joined: Mutex<Joined>,
    reader: AtomicWaker,
}

#[derive(Default)]
struct Joined {
    /// What the reader has not taken yet.
    arrivals: VecDeque<Arrival>,
    /// The subscriptions, by the member's URI, with their numbers.
    guards: HashMap<Arc<str>, (u64, Subscription)>,
    /// The tasks that subscribe, by the member's URI.
    tasks: HashMap<Arc<str>, AbortHandle>,
    /// The members that have resumed. One that comes again begins with what exists: when it left, the
    /// reader forgot its domains.
    resumed: HashSet<Arc<str>>,
    /// How many subscriptions there were.
    count: u64,
}

/// What the reader of a stream learns.
pub(super) enum Arrival {
    /// A member was added.
    Added(Arc<str>),
    /// A subscription to a member begins, with its number.
    Joined(Arc<str>, u64, Events),
    /// Subscribing to a member failed.
    Failed(Arc<str>, Fault),
    /// The snapshot to resume from is of another host than the member: its stream begins from
    /// nothing.
    Unfit(Arc<str>),
    /// A member was removed.
    Removed(Arc<str>),
    /// The fleet was shut down: the members' streams end.
    Shutdown,
}

impl FleetStream {
    pub(super) fn new(runtime: Handle, options: Options, seed: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            // An unreachable member is a gap of its own, and no failure.
            options: options.wait(true),
            seed,
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

    /// How long to wait before each further attempt at a member.
    pub(super) fn backoff(&self, uri: &str) -> Backoff {
        let reconnect = Reconnect::of_member();
        Backoff::new(match self.seed {
            // Of its own: with one for all, members would be tried again in step.
            Some(seed) => reconnect.seed(uri.bytes().fold(seed, mix)),
            None => reconnect,
        })
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
        self.start(&mut joined, uri, source, None);
    }

    /// Subscribes again to a member whose stream has ended, unless it was removed, or added again,
    /// in the meantime. What it returns is to be dropped outside all locks.
    #[must_use]
    pub(super) fn join_again(
        self: &Arc<Self>,
        source: &Arc<dyn EventSource>,
        ended: u64,
        pause: Duration,
    ) -> Option<(u64, Subscription)> {
        let uri = Arc::<str>::from(source.uri());
        let mut joined = self.lock();
        if joined.guards.get(&uri).is_none_or(|(number, _)| *number != ended) {
            return None;
        }
        let ended = joined.guards.remove(&uri);
        self.start(&mut joined, uri, source, Some(pause));
        ended
    }

    /// Starts the task that subscribes; after a pause to a member that had a stream.
    fn start(
        self: &Arc<Self>,
        joined: &mut Joined,
        uri: Arc<str>,
        source: &Arc<dyn EventSource>,
        again: Option<Duration>,
    ) {
        // Under the lock that `cancel` takes, so that it finds every task.
        if !self.is_cancelled() {
            let task = subscribe(Arc::clone(self), Arc::clone(source), Arc::clone(&uri), again);
            let replaced = joined.tasks.insert(uri, self.runtime.spawn(task).abort_handle());
            replaced.iter().for_each(AbortHandle::abort);
        }
    }

    /// True the first time for each member.
    fn resumes_once(&self, uri: &Arc<str>) -> bool {
        self.lock().resumed.insert(Arc::clone(uri))
    }

    /// A subscription was made.
    fn joined(&self, uri: Arc<str>, stream: EventStream) {
        let (events, subscription) = stream.split();
        {
            let mut joined = self.lock();
            // If it was cancelled, or the member has left, the stream is dropped, outside the lock.
            if joined.tasks.remove(&uri).is_some() {
                joined.count += 1;
                let number = joined.count;
                joined.guards.insert(Arc::clone(&uri), (number, subscription));
                joined.arrivals.push_back(Arrival::Joined(uri, number, events));
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

    fn unfit(&self, uri: Arc<str>) {
        let mut joined = self.lock();
        if joined.tasks.contains_key(&uri) {
            // The stream that follows wakes the reader.
            joined.arrivals.push_back(Arrival::Unfit(uri));
        }
    }

    /// The member was removed from the fleet. What it returns is to be dropped outside all locks.
    #[must_use]
    pub(super) fn leave(&self, uri: &Arc<str>) -> Option<Subscription> {
        let mut joined = self.lock();
        if let Some(task) = joined.tasks.remove(uri) {
            task.abort();
        }
        joined.arrivals.push_back(Arrival::Removed(Arc::clone(uri)));
        joined.guards.remove(uri).map(|(_, guard)| guard)
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
        self.lock().guards.drain().map(|(_, (_, guard))| guard).collect()
    }
}

async fn subscribe(
    stream: Arc<FleetStream>,
    source: Arc<dyn EventSource>,
    uri: Arc<str>,
    again: Option<Duration>,
) {
    let mut options = stream.options.clone();
    if let Some(known) = options.resume.take() {
        // What a member begins with that the snapshot does not know, the reader does not know either.
        options.existing = true;
        let is_first = again.is_none() && stream.resumes_once(&uri);
        options.resume = Some(known).filter(|known| is_first && known.knows_any(&*source));
    }
    if let Some(pause) = again {
        tokio::time::sleep(pause).await;
        // The reset before it empties the reader's table, also that of a reader that asked for no
        // existing domains.
        options.existing = true;
    }
    let mut backoff = stream.backoff(&uri);
    let mut has_failed = false;
    loop {
        let error = match source.subscribe_with(options.clone()).await {
            Ok(events) => return stream.joined(uri, events),
            Err(error) => error,
        };
        if matches!(error, Error::UnfitSnapshot { .. }) && options.resume.take().is_some() {
            tracing::warn!(source = %uri, %error, "begins without the snapshot");
            stream.unfit(Arc::clone(&uri));
            continue;
        }
        // The reader takes it for one outage.
        if !std::mem::replace(&mut has_failed, true) {
            tracing::warn!(source = %uri, %error, "cannot subscribe to the member");
            stream.failed(&uri, error.to_fault());
        }
        // It will not come back.
        if matches!(error, Error::Shutdown | Error::DriverEnded) {
            return;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// One step of FNV-1a: unlike the standard library's hash, the same in every release of Rust.
fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
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
