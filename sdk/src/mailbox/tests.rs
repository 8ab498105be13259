//! Tests of the mailbox: when a reader is woken, and what it finds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::SystemTime;

use uuid::Uuid;

use super::queue::SLACK;
use super::{Mailbox, Taken};
use crate::{Change, Domain, DomainEvent, End, Gap, GapKind, Lifecycle, StopCause};

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A mailbox of one event, and the task that reads it.
struct Bench {
    mailbox: Mailbox,
    wakes: Arc<Wakes>,
    out: VecDeque<DomainEvent>,
}

impl Bench {
    fn new() -> Self {
        let mailbox = Mailbox::new("s:".into(), 1);
        Self { mailbox, wakes: Arc::default(), out: VecDeque::new() }
    }

    fn poll(&mut self) -> Poll<Taken> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.out.clear();
        self.mailbox.poll_take(&mut Context::from_waker(&waker), &mut self.out)
    }

    fn deliver(&self, events: u128) -> u64 {
        self.mailbox.deliver(|queue| (0..events).for_each(|uuid| queue.push(stopped(uuid))))
    }

    /// Delivers more in one batch than a queue keeps.
    fn overfill(&self) {
        self.deliver(2 * SLACK as u128 + 10);
    }

    /// How many times the reader was woken since the last call.
    fn wakes(&self) -> usize {
        self.wakes.0.swap(0, Ordering::SeqCst)
    }
}

fn stopped(uuid: u128) -> DomainEvent {
    let domain = Domain::new("s:", "h", Uuid::from_u128(uuid), "d", Some(1));
    Lifecycle::new(domain, Change::Stopped(StopCause::Shutdown), SystemTime::UNIX_EPOCH).into()
}

#[test]
fn a_reader_that_waits_is_woken_once_by_a_batch() {
    let mut bench = Bench::new();
    bench.deliver(1);
    assert_eq!(bench.wakes(), 0, "no reader waits");
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Events)));
    assert!(bench.poll().is_pending());
    bench.deliver(0);
    assert_eq!(bench.wakes(), 0, "there is nothing to read");
    bench.deliver(3);
    assert_eq!(bench.wakes(), 1);
    bench.deliver(1);
    assert_eq!(bench.wakes(), 0, "it does not wait");
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Events)));
    assert_eq!(bench.out.len(), 4);
}

#[test]
fn a_stale_queue_wakes_its_reader_to_request_one_reset() {
    let mut bench = Bench::new();
    assert!(bench.poll().is_pending());
    bench.overfill();
    assert_eq!(bench.wakes(), 1);
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Stale)));
    assert!(bench.poll().is_pending());
    assert_eq!(bench.deliver(1), 1, "a stale queue only counts");
    assert_eq!(bench.wakes(), 0, "the reset is still to come");
    assert!(bench.poll().is_pending());

    bench.mailbox.reset(1, |queue| queue.push(stopped(7)));
    assert_eq!(bench.wakes(), 1);
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Events)));
    assert_eq!(bench.out.len(), 2);

    assert!(bench.poll().is_pending());
    bench.overfill();
    assert_eq!(bench.wakes(), 1, "the next reset is requested as well");
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Stale)));
}

#[test]
fn an_end_comes_after_what_was_buffered() {
    let mut bench = Bench::new();
    assert!(bench.poll().is_pending());
    bench.deliver(1);
    bench.mailbox.end(End::Shutdown);
    assert_eq!(bench.deliver(1), 0);
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Events)));
    assert_eq!(bench.out.len(), 1);
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Ended)));
    assert!(matches!(bench.mailbox.ended(), Some(End::Shutdown)));
}

#[test]
fn an_end_wakes_and_the_first_end_counts() {
    let mut bench = Bench::new();
    assert!(bench.poll().is_pending());
    bench.mailbox.end(End::Shutdown);
    assert_eq!(bench.wakes(), 1);
    bench.mailbox.end(End::Cancelled);
    assert!(matches!(bench.mailbox.ended(), Some(End::Shutdown)));
}

#[test]
fn what_a_stale_queue_missed_comes_before_the_end() {
    let mut bench = Bench::new();
    bench.overfill();
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Stale)));
    bench.mailbox.end(End::Shutdown);
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Events)));
    let missed = 2 * SLACK as u64 + 10;
    let DomainEvent::Gap(Gap { kind, .. }) = &bench.out[0] else { panic!("{:?}", bench.out) };
    assert_eq!(*kind, GapKind::lagged(missed, false));
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Ended)));
}

#[test]
fn a_cancel_wakes_and_leaves_nothing() {
    let mut bench = Bench::new();
    assert!(bench.poll().is_pending());
    bench.overfill();
    bench.wakes();
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Stale)));
    assert!(bench.poll().is_pending());
    assert!(bench.mailbox.cancel());
    assert_eq!(bench.wakes(), 1);
    assert!(!bench.mailbox.cancel());
    assert_eq!(bench.deliver(1), 0);
    assert!(matches!(bench.poll(), Poll::Ready(Taken::Ended)));
    assert!(bench.out.is_empty());
    assert!(bench.mailbox.is_cancelled());
    assert!(matches!(bench.mailbox.ended(), Some(End::Cancelled)));
}
