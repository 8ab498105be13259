//! The count of clients that are being synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the clients that have connected and not been answered their first list, over all fakes
/// that share it: see [`FakeLibvirtd::count_syncs`](super::FakeLibvirtd::count_syncs). Clones share
/// the count.
#[derive(Clone, Debug, Default)]
pub struct SyncCount {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A client that is being synced, until it is dropped.
pub(super) struct Syncing(SyncCount);

impl SyncCount {
    /// The largest number of clients at once, since the last call.
    #[must_use]
    pub fn take_most(&self) -> usize {
        let now = self.counts.now.load(Ordering::SeqCst);
        self.counts.most.swap(now, Ordering::SeqCst)
    }

    pub(super) fn begin(&self) -> Syncing {
        let now = self.counts.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.counts.most.fetch_max(now, Ordering::SeqCst);
        Syncing(self.clone())
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.0.counts.now.fetch_sub(1, Ordering::SeqCst);
    }
}
