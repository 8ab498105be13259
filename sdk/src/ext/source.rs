//! Queries that a source answers by a subscription of its own.

use std::future::Future;
use std::sync::Arc;

use tokio_stream::StreamExt;

use super::Expectation;
use crate::{
    Domain, DomainEvent, DomainStore, End, Error, EventSource, EventStream, Kind, Options, Scope,
    Selector, State, StoredDomain, Synced,
};

/// Methods of every [`EventSource`].
pub trait EventSourceExt: EventSource {
    /// Subscribes to all that the source has types for.
    ///
    /// # Errors
    /// As [`EventSource::subscribe_with`].
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing registered.
    fn subscribe(&self) -> impl Future<Output = Result<EventStream, Error>> + Send {
        self.subscribe_with(Options::default())
    }

    /// The domains that exist, active and inactive, and their states. During an outage it waits for
    /// the end of it. Of a fleet: those of the members that are reachable.
    ///
    /// # Errors
    /// As [`EventSource::subscribe_with`]; or why the source ended meanwhile.
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing registered.
    fn domains(&self) -> impl Future<Output = Result<Vec<(Domain, State)>, Error>> + Send {
        async {
            let lifecycle = Options::default().kind(Kind::Lifecycle);
            existing(&mut self.subscribe_with(lifecycle).await?).await
        }
    }

    /// A table of the domains and their states, that a task of the current runtime keeps up to date.
    /// It is filled when it [is certain](crate::Snapshot::is_certain).
    ///
    /// # Errors
    /// As [`EventSource::subscribe_with`].
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing registered.
    fn store(&self) -> impl Future<Output = Result<DomainStore, Error>> + Send {
        self.store_with(Options::default())
    }

    /// The same with these options: the domains of their filter, which must not leave out lifecycle
    /// events; and what a snapshot knows of the source, or of its present members, if they
    /// [resume](Options::resume()). The existing domains are always among them.
    ///
    /// # Errors
    /// As [`EventSource::subscribe_with`].
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing registered.
    fn store_with(
        &self,
        options: Options,
    ) -> impl Future<Output = Result<DomainStore, Error>> + Send {
        async {
            // A table without them would be certain of domains that it does not have.
            let mut options = options.existing(true);
            if let Some(known) = &mut options.resume {
                // What is not watched any more would stay uncertain for ever.
                known.retain(|uri| is_part(self, uri));
            }
            let resumed = options.resume.clone().map(DomainStore::resumed);
            let filter = options.filter.clone();
            let events = self.subscribe_with(options).await?;
            let store = resumed.unwrap_or_else(|| {
                let store = DomainStore::new();
                store.begin(&Scope::Source(events.source()));
                store
            });
            store.set_filter(filter);
            store.fill_from(events);
            Ok(store)
        }
    }

    /// Subscribes to one domain before an act, to await its outcome: that the domain runs, or stops.
    ///
    /// ```
    /// # async fn start(_: &str) {}
    /// # async fn example(source: &dyn virevent::EventSource) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use virevent::EventSourceExt;
    ///
    /// let mut web = source.expect("web").await?;
    /// start("web").await;
    /// let (domain, _) = web.running(Duration::from_secs(30)).await?;
    /// println!("{domain} runs");
    /// let (domain, cause) = web.stopped(Duration::MAX).await?;
    /// println!("{domain} stopped: {cause}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EventSource::subscribe_with`].
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing registered.
    fn expect(
        &self,
        domain: impl Into<Selector> + Send,
    ) -> impl Future<Output = Result<Expectation, Error>> + Send {
        async {
            let domain = domain.into();
            let options = Options::default().domain(domain.clone());
            Ok(Expectation::new(self.subscribe_with(options).await?, domain))
        }
    }
}

impl<T: EventSource + ?Sized> EventSourceExt for T {}

/// Whether this is the URI of the source or of a member of it.
fn is_part<S: EventSource + ?Sized>(source: &S, uri: &str) -> bool {
    source.uri() == uri || source.members().iter().any(|member| is_part(&**member, uri))
}

/// What a new stream says exists.
async fn existing(events: &mut EventStream) -> Result<Vec<(Domain, State)>, Error> {
    let source = events.source();
    // A change may stand between what existed and `Synced`.
    let store = DomainStore::new();
    while let Some(event) = events.next().await {
        store.apply(&event);
        let DomainEvent::Synced(Synced { scope, .. }) = event else { continue };
        // The members of a fleet are synced one by one.
        if scope.is_source() && scope.source() == &*source {
            let entry = |stored: &Arc<StoredDomain>| (stored.domain.clone(), stored.state);
            return Ok(store.snapshot().iter().map(entry).collect());
        }
    }
    Err(match events.end() {
        Some(End::Failed(error)) => error,
        _ => Error::Shutdown,
    })
}
