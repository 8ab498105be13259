//! The mailbox of a subscriber: the driver's task fills it, the stream empties it.
//!
//! Neither waits for the other. The driver takes the lock once a batch; the reader swaps the whole
//! queue out under it. No code of the program runs under the lock: wakers are cloned, called and
//! dropped outside it.

mod compact;
mod queue;
#[cfg(test)]
mod tests;
mod waking;
mod weight;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

pub(crate) use self::queue::Queue;
use self::waking::Reader;
pub(crate) use self::waking::contain_panic;
use crate::{DomainEvent, End};

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Set once, when either half of the stream is dropped; read without the lock.
    cancelled: AtomicBool,
    reader: Reader,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    end: Option<End>,
    /// The reader has requested the reset of its stale queue.
    is_reset_requested: bool,
}

/// What a reader finds.
pub(crate) enum Taken {
    /// Events.
    Events,
    /// The end of the stream.
    Ended,
    /// A stale queue: request a reset from the driver, then poll again. Returned once.
    Stale,
}

impl Mailbox {
    pub(crate) fn new(source: Arc<str>, capacity: usize) -> Self {
        let inner =
            Inner { queue: Queue::new(source, capacity), end: None, is_reset_requested: false };
        Self {
            cancelled: AtomicBool::new(false),
            reader: Reader::default(),
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that runs under the lock leaves the queue half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `fill` push events and wakes the reader; returns how many were dropped for it.
    pub(crate) fn deliver(&self, fill: impl FnOnce(&mut Queue)) -> u64 {
        self.fill(|inner| fill(&mut inner.queue))
    }

    /// Refills the queue after it went stale: `fill` pushes everything that exists, `expected`
    /// events.
    pub(crate) fn reset(&self, expected: usize, fill: impl FnOnce(&mut Queue)) -> u64 {
        self.fill(|inner| {
            inner.is_reset_requested = false;
            inner.queue.reset(expected);
            fill(&mut inner.queue);
        })
    }

    fn fill(&self, fill: impl FnOnce(&mut Inner)) -> u64 {
        // Without the lock: a subscriber that is gone costs the driver nothing until its command
        // arrives.
        if self.is_cancelled() {
            return 0;
        }
        let mut inner = self.lock();
        if inner.end.is_some() {
            return 0;
        }
        let before = inner.queue.missed();
        fill(&mut inner);
        let dropped = inner.queue.missed() - before;
        let ready = inner.is_ready();
        drop(inner);
        if ready {
            self.reader.wake();
        }
        dropped
    }

    /// Moves all events into `out`, which is empty, or registers the waker.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        out: &mut VecDeque<DomainEvent>,
    ) -> Poll<Taken> {
        if let Some(taken) = self.take(out) {
            return Poll::Ready(taken);
        }
        self.reader.register(cx.waker());
        // The driver may have filled the queue before it could see the waker.
        self.take(out).map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&self, out: &mut VecDeque<DomainEvent>) -> Option<Taken> {
        let mut inner = self.lock();
        // A stale queue still has to say what it missed before the end.
        let ended = inner.end.is_some();
        if !inner.queue.is_empty() || (ended && inner.queue.missed() > 0) {
            inner.queue.take(out);
            return Some(Taken::Events);
        }
        if ended {
            return Some(Taken::Ended);
        }
        let stale = inner.is_ready();
        inner.is_reset_requested |= stale;
        stale.then_some(Taken::Stale)
    }

    /// Ends the stream after what is already in the queue.
    pub(crate) fn end(&self, end: End) {
        let mut inner = self.lock();
        let spare = if inner.end.is_none() { inner.end.replace(end) } else { Some(end) };
        drop(inner);
        // Outside the lock: an error may own a value of the program.
        drop(spare);
        self.reader.wake();
    }

    /// Ends the stream at once and discards its events. False if it was cancelled already.
    pub(crate) fn cancel(&self) -> bool {
        // Before the lock is taken: from here on the stream ends, also while the driver fills the
        // queue.
        if self.cancelled.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut inner = self.lock();
        inner.end.get_or_insert(End::Cancelled);
        let discarded = inner.queue.clear();
        drop(inner);
        // Outside the lock: a long queue takes a while to drop, and the driver must not wait for
        // that.
        drop(discarded);
        self.reader.wake();
        true
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// How many events are kept beyond the capacity by default.
    pub(crate) const SLACK: usize = queue::SLACK;

    /// Sets how many events are kept beyond the capacity where the final states need them.
    pub(crate) fn slack(self, slack: usize) -> Self {
        self.lock().queue.set_slack(slack);
        self
    }

    /// The URI of the source whose events it holds.
    pub(crate) fn source(&self) -> Arc<str> {
        Arc::clone(self.lock().queue.source())
    }

    /// Why the stream ended, if it did.
    pub(crate) fn ended(&self) -> Option<End> {
        self.lock().end.clone()
    }
}

impl Inner {
    /// Whether there is something for the reader to do: events to take, or a reset to request.
    fn is_ready(&self) -> bool {
        !self.queue.is_empty() || (self.queue.is_stale() && !self.is_reset_requested)
    }
}
