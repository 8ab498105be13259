//! The lifecycle events of a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::FusedStream;
use pin_project::pin_project;

use crate::{Change, DomainEvent, Lifecycle};

/// The lifecycle events of a stream, or some of them: see [`DomainEvents`](crate::DomainEvents).
///
/// # Cancel safety
/// `next()` may be dropped at any time; no event is lost.
#[pin_project]
#[derive(Clone, Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Lifecycles<S> {
    #[pin]
    stream: S,
    wanted: fn(Change) -> bool,
}

impl<S> Lifecycles<S> {
    pub(super) fn new(stream: S, wanted: fn(Change) -> bool) -> Self {
        Self { stream, wanted }
    }

    /// The stream behind it.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: Stream<Item = DomainEvent>> Stream for Lifecycles<S> {
    type Item = Lifecycle;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lifecycle>> {
        let mut this = self.project();
        loop {
            match ready!(this.stream.as_mut().poll_next(cx)) {
                Some(DomainEvent::Lifecycle(event)) if (this.wanted)(event.change) => {
                    return Poll::Ready(Some(event));
                }
                Some(_) => {}
                None => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.stream.size_hint().1)
    }
}

impl<S: FusedStream<Item = DomainEvent>> FusedStream for Lifecycles<S> {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}
