//! A limit on how many sources connect at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A limit on how many sources connect and read their first list at once. Clones share it: give one
/// to the [`Settings`](super::Settings) of all sources of a program.
///
/// When a network comes back, a thousand sources reconnect together. Each connection costs a
/// handshake and a list of domains, on both sides; the gate lets so many through at a time, first
/// come, first served. A source holds its place from the attempt to connect until it is synced,
/// fails, or its list is late: an attempt at a source that does not answer keeps others waiting for
/// one connect timeout and one call timeout at most.
#[derive(Clone, Debug)]
pub struct Gate {
    slots: Arc<Semaphore>,
}

/// A place in a [`Gate`]; dropping it frees it.
#[derive(Debug)]
pub(super) struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// A gate that lets so many sources through at a time; at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> Slot {
        // The semaphore is never closed.
        Slot { _permit: Arc::clone(&self.slots).acquire_owned().await.ok() }
    }
}
