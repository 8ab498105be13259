//! A stream among others: its events, then its end as an item.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt};

use super::Events;
use crate::{DomainEvent, End};

/// One of several streams that are read as one.
#[derive(Debug)]
pub(crate) struct MemberEvents {
    source: Arc<str>,
    number: u64,
    /// `None` after its end.
    events: Option<Events>,
}

/// What it delivers.
pub(crate) struct MemberItem {
    /// The URI of its source.
    pub(crate) source: Arc<str>,
    /// The number that it was given.
    pub(crate) number: u64,
    /// An event, or at last the end.
    pub(crate) event: Result<DomainEvent, End>,
}

impl MemberEvents {
    pub(crate) fn new(number: u64, events: Events) -> Self {
        Self { source: events.source(), number, events: Some(events) }
    }
}

impl Stream for MemberEvents {
    type Item = MemberItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MemberItem>> {
        let this = &mut *self;
        let Some(events) = &mut this.events else { return Poll::Ready(None) };
        let event = match ready!(events.poll_next_unpin(cx)) {
            Some(event) => Ok(event),
            None => {
                let end = events.end().unwrap_or(End::Cancelled);
                this.events = None;
                Err(end)
            }
        };
        let source = Arc::clone(&this.source);
        Poll::Ready(Some(MemberItem { source, number: this.number, event }))
    }
}
