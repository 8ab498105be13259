//! Both halves of a stream that a source without a driver makes, such as the replay of a recording.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;

use crate::{DomainEvent, End};

type BoxedStream = Pin<Box<dyn Stream<Item = DomainEvent> + Send + Sync>>;

/// What both halves share.
#[derive(Default)]
struct Shared {
    end: OnceLock<End>,
    reader: AtomicWaker,
}

/// The receiving half.
pub(super) struct CustomEvents {
    source: Arc<str>,
    /// `None` after its end.
    stream: Option<BoxedStream>,
    shared: Arc<Shared>,
}

/// The guard.
pub(super) struct CustomSubscription(Arc<Shared>);

pub(super) fn halves(
    source: Arc<str>,
    stream: impl Stream<Item = DomainEvent> + Send + Sync + 'static,
) -> (CustomEvents, CustomSubscription) {
    let shared = Arc::new(Shared::default());
    let guard = CustomSubscription(Arc::clone(&shared));
    (CustomEvents { source, stream: Some(Box::pin(stream)), shared }, guard)
}

impl CustomEvents {
    pub(super) fn source(&self) -> Arc<str> {
        Arc::clone(&self.source)
    }

    pub(super) fn end(&self) -> Option<End> {
        self.shared.end.get().cloned()
    }

    pub(super) fn is_terminated(&self) -> bool {
        self.stream.is_none()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<DomainEvent>> {
        self.shared.reader.register(cx.waker());
        // After the registration: a cancel between the two wakes this task again.
        if self.shared.end.get().is_some() {
            self.stream = None;
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let polled = stream.as_mut().poll_next(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.stream = None;
            let _ = self.shared.end.set(End::Shutdown);
        }
        polled
    }
}

impl Drop for CustomEvents {
    fn drop(&mut self) {
        self.shared.cancel();
    }
}

impl Drop for CustomSubscription {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Shared {
    fn cancel(&self) {
        if self.end.set(End::Cancelled).is_ok() {
            self.reader.wake();
        }
    }
}
