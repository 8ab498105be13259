//! The stream of one subscription, and the guard that cancels it.
//!
//! Of a source, both halves hold the mailbox that its driver fills; of a fleet, they hold the
//! subscriptions to its members.

mod custom;
mod member;
mod single;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::FusedStream;

use self::custom::{CustomEvents, CustomSubscription};
pub(crate) use self::member::{MemberEvents, MemberItem};
use self::single::{SourceEvents, SourceSubscription};
use crate::command::CommandSender;
use crate::fleet::{FleetEvents, FleetSubscription};
use crate::mailbox::Mailbox;
use crate::{DomainEvent, End};

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
        let guard = SourceSubscription::new(id, Arc::clone(&mailbox), commands.clone());
        let events = SourceEvents::new(id, mailbox, commands);
        Self {
            events: Events(EventsOf::Source(events)),
            subscription: Subscription(SubscriptionOf::Source(guard)),
        }
    }

    pub(crate) fn of_fleet(events: FleetEvents, subscription: FleetSubscription) -> Self {
        Self {
            events: Events(EventsOf::Fleet(Box::new(events))),
            subscription: Subscription(SubscriptionOf::Fleet(subscription)),
        }
    }

    /// Makes a stream of events that no driver delivers, for an [`EventSource`](crate::EventSource)
    /// that knows its events already, such as the replay of a recording.
    ///
    /// There is no mailbox: the reader polls `events`, so nothing is dropped, compacted or inferred.
    /// Where `events` ends, the stream ends with [`End::Shutdown`]. A hypervisor's backend uses the
    /// [`Driver`](crate::driver::Driver) instead.
    #[must_use]
    pub fn from_events(
        source: Arc<str>,
        events: impl Stream<Item = DomainEvent> + Send + Sync + 'static,
    ) -> Self {
        let (events, guard) = custom::halves(source, events);
        Self {
            events: Events(EventsOf::Custom(events)),
            subscription: Subscription(SubscriptionOf::Custom(guard)),
        }
    }

    /// The URI of the source, without secrets.
    #[must_use]
    pub fn source(&self) -> Arc<str> {
        self.events.source()
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
pub struct Events(EventsOf);

enum EventsOf {
    Source(SourceEvents),
    Fleet(Box<FleetEvents>),
    Custom(CustomEvents),
}

impl Events {
    /// The URI of the source, without secrets.
    #[must_use]
    pub fn source(&self) -> Arc<str> {
        match &self.0 {
            EventsOf::Source(events) => events.source(),
            EventsOf::Fleet(events) => events.source(),
            EventsOf::Custom(events) => events.source(),
        }
    }

    /// Why the stream ended; `None` while it goes on. What is still buffered comes before the end.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match &self.0 {
            EventsOf::Source(events) => events.end(),
            EventsOf::Fleet(events) => events.end(),
            EventsOf::Custom(events) => events.end(),
        }
    }
}

impl Stream for Events {
    type Item = DomainEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<DomainEvent>> {
        match &mut self.0 {
            EventsOf::Source(events) => events.poll(cx),
            EventsOf::Fleet(events) => events.poll(cx),
            EventsOf::Custom(events) => events.poll(cx),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            EventsOf::Source(events) => (events.buffered(), None),
            EventsOf::Fleet(_) | EventsOf::Custom(_) => (0, None),
        }
    }
}

impl FusedStream for Events {
    fn is_terminated(&self) -> bool {
        match &self.0 {
            EventsOf::Source(events) => events.is_terminated(),
            EventsOf::Fleet(events) => events.is_terminated(),
            EventsOf::Custom(events) => events.is_terminated(),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match &self.0 {
            EventsOf::Source(events) => Some(events.id()),
            EventsOf::Fleet(_) | EventsOf::Custom(_) => None,
        };
        f.debug_struct("Events").field("id", &id).finish_non_exhaustive()
    }
}

/// Keeps a subscription alive. Dropping it cancels: synchronously, on any thread, without a
/// runtime.
///
/// What was buffered is discarded: the next poll of its [`Events`] is `None`. The last subscriber
/// for a kind of event deregisters it at the hypervisor.
#[must_use = "dropping it cancels the subscription"]
pub struct Subscription(SubscriptionOf);

enum SubscriptionOf {
    Source(SourceSubscription),
    Fleet(FleetSubscription),
    Custom(CustomSubscription),
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
        match self.0 {
            SubscriptionOf::Source(subscription) => subscription.close().await,
            SubscriptionOf::Fleet(subscription) => subscription.close().await,
            // Its drop cancels; there is no hypervisor to confirm it.
            SubscriptionOf::Custom(subscription) => drop(subscription),
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match &self.0 {
            SubscriptionOf::Source(subscription) => Some(subscription.id()),
            SubscriptionOf::Fleet(_) | SubscriptionOf::Custom(_) => None,
        };
        f.debug_struct("Subscription").field("id", &id).finish_non_exhaustive()
    }
}
