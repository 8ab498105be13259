//! The events of one domain.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::FusedStream;
use pin_project::pin_project;

use crate::{DomainEvent, Selector};

/// The events of one domain, and the markers: see
/// [`DomainEvents::of_domain`](crate::DomainEvents::of_domain).
///
/// # Cancel safety
/// `next()` may be dropped at any time; no event is lost.
#[pin_project]
#[derive(Clone, Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct OfDomain<S> {
    #[pin]
    stream: S,
    domain: Selector,
}

impl<S> OfDomain<S> {
    pub(super) fn new(stream: S, domain: Selector) -> Self {
        Self { stream, domain }
    }

    /// The stream behind it.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: Stream<Item = DomainEvent>> Stream for OfDomain<S> {
    type Item = DomainEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<DomainEvent>> {
        let mut this = self.project();
        loop {
            let Some(event) = ready!(this.stream.as_mut().poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let of_domain = event.domain().is_some_and(|domain| this.domain.matches(domain));
            if of_domain || event.is_marker() {
                return Poll::Ready(Some(event));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.stream.size_hint().1)
    }
}

impl<S: FusedStream<Item = DomainEvent>> FusedStream for OfDomain<S> {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}
