//! The waker of a mailbox's reader, called outside every lock.
//!
//! A reader's waker is the program's own code: it may panic, own the subscription that it wakes, or
//! poll the stream at once. So it is cloned, called and dropped only while no lock is held, and its
//! panic stays with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use futures::task::AtomicWaker;

/// The waker of the task that reads a mailbox.
#[derive(Debug, Default)]
pub(super) struct Reader(AtomicWaker);

impl Reader {
    /// Remembers `waker` in place of the last one. What the reader waits for is to be looked at
    /// again after this.
    pub(super) fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }

    /// Wakes the reader if it waits.
    pub(super) fn wake(&self) {
        contain_panic(|| self.0.wake());
    }
}

/// Runs code of a subscriber, a waker, and returns also when that panics: the driver's task serves
/// other subscribers, and a guard may be dropped while its thread unwinds already.
pub(crate) fn contain_panic(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("the waker of a subscriber panicked");
    }
}
