//! What all browsers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures::StreamExt;
use tokio::sync::watch;
use virevent::{DomainStore, Error, EventSource, EventSourceExt, Fleet};

/// The hosts, the store of their domains, and since when each host has its status. A handle.
#[derive(Clone, Debug)]
pub struct Board {
    pub(crate) fleet: Fleet,
    pub(crate) store: DomainStore,
    since: Arc<Mutex<HashMap<String, SystemTime>>>,
    closed: watch::Sender<bool>,
}

impl Board {
    /// Follows these sources, each once. One that is unreachable is shown as such.
    ///
    /// # Errors
    /// Two sources have the same URI.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn of(sources: Vec<Arc<dyn EventSource>>) -> Result<Self, Error> {
        let fleet = Fleet::new("fleet:dashboard");
        let since = Arc::<Mutex<HashMap<_, _>>>::default();
        for source in sources {
            fleet.add(Arc::clone(&source))?;
            let since = Arc::clone(&since);
            tokio::spawn(async move {
                let mut statuses = source.health().stream();
                while statuses.next().await.is_some() {
                    let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
                    since.insert(source.uri().to_owned(), SystemTime::now());
                }
            });
        }
        let store = fleet.store().await?;
        Ok(Self { fleet, store, since, closed: watch::Sender::new(false) })
    }

    /// Since when the source with this URI has its status.
    pub(crate) fn since(&self, uri: &str) -> Option<SystemTime> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).get(uri).copied()
    }

    /// Ends every browser's stream of events, which would otherwise go on for ever, and the
    /// subscriptions.
    pub async fn close(&self) {
        self.closed.send_replace(true);
        self.store.close().await;
    }

    /// Resolves when the board is closed.
    pub(crate) async fn closed(self) {
        // The sender lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}
