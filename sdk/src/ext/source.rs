//! Queries that a source answers by a subscription of its own.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt;

use crate::{
    Change, Domain, DomainEvent, DomainStore, End, Error, EventSource, EventStream, Kind, Options,
    Selector, State, StopCause, StoredDomain, Synced,
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
        async { Ok(DomainStore::follow(self.subscribe_with(Options::default()).await?)) }
    }

    /// Waits until a domain is in a state that `wanted` accepts, or no longer exists, or until the
    /// deadline passes.
    ///
    /// It waits for a domain that does not exist yet, and through outages; a state that a domain
    /// was in only while the source was unreachable is not noticed.
    ///
    /// ```
    /// # async fn example(source: &dyn virevent::EventSource) -> Result<(), virevent::Error> {
    /// use std::time::Duration;
    /// use virevent::{EventSourceExt, State, Waited};
    ///
    /// match source.wait_until("web", State::is_running, Duration::from_secs(60)).await? {
    ///     Waited::Reached(domain, _) => println!("{domain} runs"),
    ///     Waited::Gone(domain) => println!("{domain} was undefined before it ran"),
    ///     Waited::TimedOut(state) => println!("still {state:?}"),
    ///     _ => println!("the source ended"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EventSource::subscribe_with`].
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing registered.
    fn wait_until(
        &self,
        domain: impl Into<Selector> + Send,
        wanted: impl Fn(State) -> bool + Send,
        deadline: Duration,
    ) -> impl Future<Output = Result<Waited, Error>> + Send {
        async move {
            let mut last = None;
            let options = Options::default().kind(Kind::Lifecycle).domain(domain);
            // `last` is outside the future, so that what is known survives the timeout that drops
            // it.
            let wait = wait(self, options, wanted, &mut last);
            match tokio::time::timeout(deadline, wait).await {
                Ok(outcome) => outcome,
                Err(_) => Ok(Waited::TimedOut(last)),
            }
        }
    }
}

impl<T: EventSource + ?Sized> EventSourceExt for T {}

/// How [`EventSourceExt::wait_until`] ended.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Waited {
    /// The domain is in this state, which is a wanted one.
    Reached(Domain, State),
    /// The domain existed, and no longer does: it will not reach the state.
    Gone(Domain),
    /// The deadline passed; with the state that the domain was in, if it existed.
    TimedOut(Option<State>),
    /// The source ended.
    Ended(End),
}

/// A short text for people.
impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached(domain, state) => write!(f, "{domain} is {state}"),
            Self::Gone(domain) => write!(f, "{domain} no longer exists"),
            Self::TimedOut(Some(state)) => write!(f, "timed out: it is {state}"),
            Self::TimedOut(None) => f.write_str("timed out: it does not exist"),
            Self::Ended(end) => write!(f, "{end}"),
        }
    }
}

async fn wait<S: EventSource + ?Sized>(
    source: &S,
    options: Options,
    wanted: impl Fn(State) -> bool,
    last: &mut Option<State>,
) -> Result<Waited, Error> {
    // Subscribed before anything is looked at: a change between a look and a subscription would be
    // missed.
    let mut events = source.subscribe_with(options.clone()).await?;
    while let Some(event) = events.next().await {
        let Some(event) = event.lifecycle() else { continue };
        if let Some(state) = State::after(event.change) {
            *last = Some(state);
            if wanted(state) {
                return Ok(Waited::Reached(event.domain.clone(), state));
            }
        }
        let gone = match event.change {
            // The next run is about to begin.
            Change::Stopped(StopCause::Recreated) => false,
            // The event does not say whether the domain persists: a new stream does.
            Change::Stopped(_) if event.persistent.is_none() => {
                let mut now = source.subscribe_with(options.clone()).await?;
                existing(&mut now).await?.is_empty()
            }
            _ => event.is_gone(),
        };
        if gone {
            return Ok(Waited::Gone(event.domain.clone()));
        }
    }
    Ok(Waited::Ended(events.end().unwrap_or(End::Cancelled)))
}

/// What exists at the end of a new stream's beginning.
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
