//! Streams of many sources as one.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::join_all;
use futures::stream::{FusedStream, SelectAll};
use futures::{Stream, StreamExt};

use crate::stream::{MemberEvents, MemberItem};
use crate::{DomainEvent, DomainStore, End, EventStream, Scope, Subscription, Transition};

/// Merges streams, of many sources or of one, into one stream. Each item names its source, and the
/// end of a stream is an item.
///
/// ```
/// # use virevent::{EventSource, Error};
/// # async fn example(a: &dyn EventSource, b: &dyn EventSource) -> Result<(), Error> {
/// use futures::StreamExt;
/// use virevent::{EventSourceExt, MergedItem, merge};
///
/// let mut merged = merge([a.subscribe().await?, b.subscribe().await?]);
/// while let Some(item) = merged.next().await {
///     match item {
///         MergedItem::Event(event) => println!("{}: {event}", event.source()),
///         MergedItem::Ended { source, end, .. } => println!("{source} ended: {end}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn merge(streams: impl IntoIterator<Item = EventStream>) -> Merged {
    let mut merged = Merged::default();
    merged.extend(streams);
    merged
}

/// The streams that [`merge`] makes one. Dropping it cancels all of their subscriptions.
///
/// A stream that is always ready does not keep the others from being read. When all have ended, it
/// ends, too; a stream that is [pushed](Self::push) later goes on with it.
///
/// # Cancel safety
/// `next()` may be dropped at any time; no event is lost.
#[derive(Debug, Default)]
#[must_use = "streams do nothing unless polled"]
pub struct Merged {
    streams: SelectAll<MemberEvents>,
    subscriptions: HashMap<u64, Subscription>,
    next: u64,
}

/// An item of [`Merged`].
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum MergedItem {
    /// An event; [`DomainEvent::source`] says of which source.
    Event(DomainEvent),
    /// A stream ended. It delivers nothing more; the others go on.
    #[non_exhaustive]
    Ended {
        /// The URI of its source, without secrets.
        source: Arc<str>,
        /// Why.
        end: End,
    },
}

impl MergedItem {
    /// Applies it to a store: an event; or the end of a stream, after which nothing of its source is
    /// certain. Returns what changed by it.
    ///
    /// Of two streams of one source the end of either counts. The domains of a fleet's members stay
    /// as they are when the fleet's stream ends.
    #[expect(clippy::must_use_candidate, reason = "a loop may need the table alone")]
    pub fn apply_to(&self, store: &DomainStore) -> Vec<Transition> {
        match self {
            Self::Event(event) => store.apply(event),
            Self::Ended { source, .. } => store.begin(&Scope::Source(Arc::clone(source))),
        }
    }
}

impl Merged {
    /// Adds a stream.
    pub fn push(&mut self, stream: EventStream) {
        let id = self.next;
        self.next += 1;
        let (events, subscription) = stream.split();
        self.streams.push(MemberEvents::new(id, events));
        self.subscriptions.insert(id, subscription);
    }

    /// The number of streams that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether every stream has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Cancels all subscriptions, at once, and waits until the hypervisors have confirmed it: see
    /// [`Subscription::close`].
    ///
    /// # Cancel safety
    /// The subscriptions are cancelled at the first poll, whether or not this future is driven
    /// further.
    pub async fn close(self) {
        join_all(self.subscriptions.into_values().map(Subscription::close)).await;
    }
}

impl Extend<EventStream> for Merged {
    fn extend<I: IntoIterator<Item = EventStream>>(&mut self, streams: I) {
        streams.into_iter().for_each(|stream| self.push(stream));
    }
}

impl Stream for Merged {
    type Item = MergedItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MergedItem>> {
        let Some(item) = ready!(self.streams.poll_next_unpin(cx)) else {
            return Poll::Ready(None);
        };
        let MemberItem { source, number, event } = item;
        Poll::Ready(Some(match event {
            Ok(event) => MergedItem::Event(event),
            Err(end) => {
                self.subscriptions.remove(&number);
                MergedItem::Ended { source, end }
            }
        }))
    }
}

impl FusedStream for Merged {
    fn is_terminated(&self) -> bool {
        self.streams.is_terminated()
    }
}
