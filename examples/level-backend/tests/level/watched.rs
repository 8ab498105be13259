//! Waiting until a source has looked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use virevent::{EventSource, Status};

/// The source that the suite asked for last.
///
/// The suite starts and stops guests one after the other, and expects to get all of it. A poll
/// misses what is shorter than its interval, so a rig must not be faster than its source.
#[derive(Default)]
pub(crate) struct Watched(Mutex<Option<Arc<dyn EventSource>>>);

impl Watched {
    pub(crate) fn set(&self, source: &Arc<dyn EventSource>) {
        *self.0.lock().unwrap() = Some(Arc::clone(source));
    }

    fn source(&self) -> Option<Arc<dyn EventSource>> {
        self.0.lock().unwrap().clone()
    }

    /// Does something, and waits until the source, if it is watched and has no gap, has delivered
    /// an event of it.
    pub(crate) async fn seen<T>(&self, deed: impl Future<Output = T>) -> T {
        let synced = self.source().filter(|source| source.health().status() == Status::Synced);
        let Some(source) = synced else { return deed.await };
        let before = source.counters().events;
        let outcome = deed.await;
        let deadline = Instant::now() + Duration::from_secs(10);
        // Without a subscriber nothing is looked at.
        while source.counters().events == before && source.health().status() == Status::Synced {
            assert!(Instant::now() < deadline, "it is not seen");
            sleep(Duration::from_millis(1)).await;
        }
        outcome
    }
}
