//! The state of a fake, shared by its handle and its connections.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// A state behind a lock, with a count of its changes for tests that wait.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    state: Mutex<T>,
    changes: watch::Sender<u64>,
}

impl<T> Watched<T> {
    pub(crate) fn new(state: T) -> Self {
        let (changes, _) = watch::channel(0);
        Self { state: Mutex::new(state), changes }
    }

    /// The state, to be read. Changes made here wake no test: use [`change`](Self::change).
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the tests that wait.
    pub(crate) fn change<O>(&self, change: impl FnOnce(&mut T) -> O) -> O {
        let outcome = change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        outcome
    }

    /// Waits until `reached` returns true; asks again after each change.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn until(&self, mut reached: impl FnMut() -> bool) {
        // Subscribed before the first look, so that a change in between is not missed.
        let mut changes = self.changes.subscribe();
        while !reached() {
            // Cannot fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }
}
