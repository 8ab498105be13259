//! The stream of one subscription, and the guard that cancels it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::FusedStream;
use tokio::sync::oneshot;
use tokio::task::coop::RestoreOnPending;

use crate::command::{Command, CommandSender};
use crate::mailbox::{Mailbox, Taken};
use crate::{DomainEvent, End};

/// After this many events a reader that always finds more has used up as much of its task's turn as
/// by one read of a socket.
const YIELD_EVERY: usize = 64;

/// The events of one subscription, in order. Dropping it cancels the subscription.
///
/// It begins with an [`Existing`](crate::Change::Existing) event for each domain and
/// [`Synced`](DomainEvent::Synced); then it delivers what happens, for as long as the program
/// likes: an outage is a [`Gap`](DomainEvent::Gap) in it, not its end.
///
/// # Cancel safety
/// `next()` may be dropped at any time, in a `select!` for one; no event is lost.
#[derive(Debug)]
pub struct EventStream {
    events: Events,
    subscription: Subscription,
}

impl EventStream {
    pub(crate) fn new(id: u64, mailbox: Arc<Mailbox>, commands: CommandSender) -> Self {
        let guard = Subscription { id, mailbox: Arc::clone(&mailbox), commands: commands.clone() };
        let events = Events { id, mailbox, commands, taken: VecDeque::new(), terminated: false };
        Self { events, subscription: guard }
    }

    /// Separates the stream from the guard that cancels it, so that one task can read and another
    /// cancel.
    pub fn split(self) -> (Events, Subscription) {
        (self.events, self.subscription)
    }

    /// Cancels, and waits until the hypervisor has confirmed it: see [`Subscription::close`].
    ///
    /// # Cancel safety
    /// The subscription is cancelled at the first poll, whether or not this future is driven
    /// further.
    pub async fn close(self) {
        self.subscription.close().await;
    }

    /// Why the stream ended; `None` while it goes on. What is still buffered comes before the end.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.events.end()
    }
}

impl Stream for EventStream {
    type Item = DomainEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<DomainEvent>> {
        Pin::new(&mut self.events).poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl FusedStream for EventStream {
    fn is_terminated(&self) -> bool {
        self.events.is_terminated()
    }
}

/// The receiving half of an [`EventStream`]. Dropping it cancels the subscription, too.
///
/// # Cancel safety
/// `next()` may be dropped at any time; no event is lost.
pub struct Events {
    id: u64,
    mailbox: Arc<Mailbox>,
    commands: CommandSender,
    taken: VecDeque<DomainEvent>,
    terminated: bool,
}

impl Events {
    /// The URI of the source, without secrets.
    #[must_use]
    pub fn source(&self) -> Arc<str> {
        self.mailbox.source()
    }

    /// Why the stream ended; `None` while it goes on. What is still buffered comes before the end.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.mailbox.ended()
    }
}

impl Stream for Events {
    type Item = DomainEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<DomainEvent>> {
        let this = &mut *self;
        if this.mailbox.is_cancelled() {
            this.taken = VecDeque::new();
            this.terminated = true;
            // Discarded rather than drained: after a cancel nothing is delivered, and the buffer
            // may be long.
            return Poll::Ready(None);
        }
        loop {
            // A reader that always finds events lets its neighbours run now and then.
            // The budget is tokio's own, which a socket read spends as well, once for 64 events:
            // taking an event is much cheaper than a system call.
            let coop = match this.taken.len() % YIELD_EVERY {
                0 => Some(ready!(tokio::task::coop::poll_proceed(cx))),
                _ => None,
            };
            if let Some(event) = this.taken.pop_front() {
                coop.iter().for_each(RestoreOnPending::made_progress);
                return Poll::Ready(Some(event));
            }
            if this.terminated {
                return Poll::Ready(None);
            }
            match ready!(this.mailbox.poll_take(cx, &mut this.taken)) {
                Taken::Events => coop.iter().for_each(RestoreOnPending::made_progress),
                Taken::Ended => this.terminated = true,
                // The next look leaves the waker for what the driver answers.
                Taken::Stale => this.commands.send(Command::Reset { id: this.id }),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (if self.mailbox.is_cancelled() { 0 } else { self.taken.len() }, None)
    }
}

impl FusedStream for Events {
    fn is_terminated(&self) -> bool {
        self.terminated
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        cancel(&self.mailbox, &self.commands, self.id);
    }
}

/// Keeps a subscription alive. Dropping it cancels: synchronously, on any thread, without a
/// runtime.
///
/// What was buffered is discarded: the next poll of its [`Events`] is `None`. The last subscriber
/// for a kind of event deregisters it at the hypervisor.
#[must_use = "dropping it cancels the subscription"]
pub struct Subscription {
    id: u64,
    mailbox: Arc<Mailbox>,
    commands: CommandSender,
}

impl Subscription {
    /// Cancels, and waits until the hypervisor has confirmed that nothing is registered for this
    /// subscription any more, also when its [`Events`] were dropped before.
    ///
    /// Returns at once in an outage and where other subscribers still need the registration, and
    /// after 5 seconds at the latest: the driver keeps that time, so this works on any executor
    /// while the runtime of the source runs. Nothing is delivered after the first poll.
    ///
    /// # Cancel safety
    /// The subscription is cancelled at the first poll, whether or not this future is driven
    /// further.
    pub async fn close(self) {
        let (done, confirmed) = oneshot::channel();
        self.mailbox.cancel();
        // Also where that did nothing: the driver may still wait for the server's confirmation.
        self.commands.send(Command::Cancel { id: self.id, done: Some(done) });
        // An error means that the driver has ended, and with it the connection.
        let _ = confirmed.await;
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        cancel(&self.mailbox, &self.commands, self.id);
    }
}

fn cancel(mailbox: &Mailbox, commands: &CommandSender, id: u64) {
    // The second half of a stream to go has nothing left to cancel.
    if mailbox.cancel() {
        commands.send(Command::Cancel { id, done: None });
    }
}
