//! Where a subscriber's events wait: filled by the driver's task, emptied by the stream.
//!
//! Neither waits for the other. The driver takes the lock once a batch; the reader swaps the whole
//! queue out under it.

mod compact;
mod queue;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

pub(crate) use self::queue::Queue;
use crate::{DomainEvent, End};

pub(crate) struct Mailbox {
    /// Set for good when either half of the stream is dropped; read without the lock.
    cancelled: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    queue: Queue,
    waker: Option<Waker>,
    end: Option<End>,
    /// The reader has asked to be told anew.
    asked: bool,
}

/// What a reader finds.
pub(crate) enum Taken {
    /// There are events now.
    Events,
    /// There will be none any more.
    Ended,
    /// The queue is stale: ask the driver to tell anew, once.
    Stale,
}

impl Mailbox {
    pub(crate) fn new(source: Arc<str>, capacity: usize) -> Self {
        let queue = Queue::new(source, capacity);
        let inner = Inner { queue, waker: None, end: None, asked: false };
        Self { cancelled: AtomicBool::new(false), inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that runs under the lock leaves the queue half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `fill` push events and wakes the reader; returns how many were dropped for it.
    pub(crate) fn deliver(&self, fill: impl FnOnce(&mut Queue)) -> u64 {
        if self.is_cancelled() {
            return 0;
        }
        let mut inner = self.lock();
        if inner.end.is_some() {
            return 0;
        }
        let before = inner.queue.missed();
        fill(&mut inner.queue);
        let dropped = inner.queue.missed() - before;
        let ready = !inner.queue.is_empty() || (inner.queue.is_stale() && !inner.asked);
        let waker = if ready { inner.waker.take() } else { None };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        dropped
    }

    /// Begins to tell anew after the queue went stale: `fill` pushes the whole truth, `expected`
    /// events.
    pub(crate) fn renew(&self, expected: usize, fill: impl FnOnce(&mut Queue)) -> u64 {
        self.lock().asked = false;
        self.deliver(|queue| {
            queue.renew(expected);
            fill(queue);
        })
    }

    /// Moves all that waits into `out`, or leaves the waker to be called.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        out: &mut VecDeque<DomainEvent>,
    ) -> Poll<Taken> {
        if self.is_cancelled() {
            return Poll::Ready(Taken::Ended);
        }
        let mut inner = self.lock();
        if !inner.queue.is_empty() {
            inner.queue.take(out);
            return Poll::Ready(Taken::Events);
        }
        if inner.end.is_some() {
            // What a stale queue missed is still to be told.
            if inner.queue.missed() > 0 {
                inner.queue.take(out);
                return Poll::Ready(Taken::Events);
            }
            return Poll::Ready(Taken::Ended);
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if inner.queue.is_stale() && !inner.asked {
            inner.asked = true;
            return Poll::Ready(Taken::Stale);
        }
        Poll::Pending
    }

    /// Ends the stream after what is already in the queue.
    pub(crate) fn end(&self, end: End) {
        let mut inner = self.lock();
        inner.end.get_or_insert(end);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the stream at once and discards what is in the queue. False if that was done already.
    pub(crate) fn cancel(&self) -> bool {
        if self.cancelled.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut inner = self.lock();
        inner.end.get_or_insert(End::Cancelled);
        inner.queue.clear();
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// How many events are kept beyond the capacity by default.
    pub(crate) const SLACK: usize = queue::SLACK;

    /// Sets how many events are kept beyond the capacity where the truth needs them.
    pub(crate) fn slack(self, slack: usize) -> Self {
        self.lock().queue.set_slack(slack);
        self
    }

    /// Why the stream ended, if it did.
    pub(crate) fn ended(&self) -> Option<End> {
        self.lock().end.clone()
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}
