//! The facts that the task knows and the source's handles report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::recorder::Recorder;
use crate::source::Details;
use crate::{Capabilities, Counters};

/// What the task knows and the source's handles report.
#[derive(Debug, Default)]
pub(super) struct Facts {
    capabilities: Mutex<Capabilities>,
    pub(super) events: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) corrected: AtomicU64,
    /// The number of subscriptions so far, from which each gets its id.
    pub(super) subscribers: AtomicU64,
    pub(super) recorder: Recorder,
    pub(super) details: Arc<Mutex<Details>>,
}

impl Facts {
    pub(super) fn add(&self, counter: impl Fn(&Self) -> &AtomicU64, n: u64) {
        // Statistics: nothing is ordered by them.
        counter(self).fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            events: read(&self.events),
            missed: read(&self.missed),
            gaps: read(&self.gaps),
            reconnects: read(&self.reconnects),
            corrected: read(&self.corrected),
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change_capabilities(&self, change: impl FnOnce(&mut Capabilities)) {
        change(&mut self.capabilities.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn change_details(&self, change: impl FnOnce(&mut Details)) {
        change(&mut self.details.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
