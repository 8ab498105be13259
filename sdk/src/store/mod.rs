//! A table of domains, folded from events, that the parts of a program share.
//!
//! ```text
//!  event ──▶ Table::apply ──▶ Snapshot (copy on write) ──▶ get, iter, wait_for
//!                 │
//!                 └─ Transitions ──▶ returned to a loop; queued for each `Changed`
//! ```

mod changed;
#[cfg(feature = "serde")]
mod json;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod transition;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use tokio::sync::watch;

pub use self::changed::Changed;
use self::changed::Readers;
pub use self::snapshot::{Snapshot, StoredDomain};
use self::table::Table;
pub use self::transition::Transition;
use crate::mailbox::contain_panic;
use crate::{Domain, DomainEvent, End, EventStream, Events, Filter, Scope, Selector, Subscription};

/// What is known of the domains of one source or of many, from their events.
///
/// It equals the hypervisor's own list (`virsh list --all`) whenever its scope is
/// [certain](StoredDomain::certain): after outages, lags and resets, too.
///
/// It needs the events of kind lifecycle and reboot, which a stream delivers by default: a reboot
/// may give a run another id.
///
/// A handle: clones share one table. There are two ways to fill it:
///
/// - In the background: [`EventSourceExt::store`](crate::EventSourceExt::store), or
///   [`follow`](Self::follow) for a stream. Dropping the last clone, and the last [`Changed`],
///   cancels the subscription.
/// - In a loop of your own: [`apply`](Self::apply) each event, and use the transitions that it
///   returns.
///
/// ```
/// # async fn example(source: &dyn virevent::EventSource) -> Result<(), Box<dyn std::error::Error>> {
/// use futures::StreamExt;
/// use virevent::{EventSourceExt, State};
///
/// let store = source.store().await?;
/// let web = |now: &virevent::Snapshot| now.get("web").is_some_and(|web| web.state.is_running());
/// store.wait_for(web).await?;
///
/// for domain in store.snapshot().iter() {
///     println!("{} is {}", domain.domain, domain.state);
/// }
/// let mut changed = store.changed();
/// while let Some(transition) = changed.next().await {
///     if let Some((domain, cause)) = transition.stopped() {
///         println!("{domain} stopped: {cause}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DomainStore {
    state: Arc<watch::Sender<StoreState>>,
    /// The subscription of a store that follows a stream. Dropped with the last clone.
    subscription: Arc<Mutex<Option<Subscription>>>,
}

#[derive(Debug, Default)]
struct StoreState {
    table: Table,
    readers: Readers,
    end: Option<End>,
}

impl DomainStore {
    /// An empty store, for a loop that [applies](Self::apply) events to it.
    #[must_use]
    pub fn new() -> Self {
        let state = Arc::new(watch::Sender::new(StoreState::default()));
        Self { state, subscription: Arc::default() }
    }

    /// A store that knows what the snapshot does of the sources that had been synced, all of it
    /// uncertain until the next [`Synced`](DomainEvent::Synced).
    ///
    /// It takes the events of a stream that [resumes](crate::Options::resume()) from the same
    /// snapshot. Do not [`begin`](Self::begin) that stream: it names only what has changed.
    #[must_use]
    pub fn resumed(snapshot: Snapshot) -> Self {
        let state = StoreState { table: Table::resumed(snapshot), ..StoreState::default() };
        Self { state: Arc::new(watch::Sender::new(state)), subscription: Arc::default() }
    }

    /// A store that a task of the current tokio runtime keeps up to date, from a stream that has
    /// just begun, until the stream ends or the last clone of the store is dropped. For a stream that
    /// resumes see [`store_with`](crate::EventSourceExt::store_with).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn follow(events: EventStream) -> Self {
        let store = Self::new();
        store.begin(&Scope::Source(events.source()));
        store.fill_from(events);
        store
    }

    /// The filter of the events that are to come.
    pub(crate) fn set_filter(&self, filter: Filter) {
        self.state.send_modify(|state| state.table.set_filter(filter));
    }

    /// Keeps the store up to date from a stream, in a task.
    pub(crate) fn fill_from(&self, events: EventStream) {
        let (events, subscription) = events.split();
        *self.subscription.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscription);
        tokio::spawn(fill(Arc::clone(&self.state), events));
    }

    /// Applies an event, and returns what changed by it, in order: nothing, one domain, or at a
    /// marker all domains of its scope.
    #[expect(clippy::must_use_candidate, reason = "a loop may need the table alone")]
    pub fn apply(&self, event: &DomainEvent) -> Vec<Transition> {
        apply(&self.state, event)
    }

    /// [Applies](Self::apply) these events, in order.
    pub fn extend<'a>(&self, events: impl IntoIterator<Item = &'a DomainEvent>) {
        for event in events {
            self.apply(event);
        }
    }

    /// Announces a stream of this scope: the scope is uncertain until its first
    /// [`Synced`](DomainEvent::Synced). If it comes in place of an earlier stream, what its
    /// [`Existing`](crate::Change::Existing) events do not name is gone then. Returns the domains
    /// that become uncertain.
    ///
    /// A loop of your own calls it with [`Scope::source_wide`] before it applies the first event;
    /// otherwise a source counts as uncertain from its first event on. A later stream of a fleet is
    /// announced by a [`Scope::fleet`] with the fleet's members.
    #[expect(clippy::must_use_candidate, reason = "a loop may need the table alone")]
    pub fn begin(&self, scope: &Scope) -> Vec<Transition> {
        change(&self.state, |table| table.begin(scope))
    }

    /// Tells the store that its events have ended, for a loop that applies them: from now on nothing
    /// is certain, further events are ignored, and [`changed`](Self::changed) and [`wait_for`](Self::wait_for) end.
    pub fn finish(&self, end: End) {
        finish(&self.state, end);
    }

    /// What is known now. It is cheap, and does not change any more.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.borrow().table.snapshot()
    }

    /// One domain, by uuid or name; see [`Snapshot::get`].
    #[must_use]
    pub fn get(&self, domain: impl Into<Selector>) -> Option<Arc<StoredDomain>> {
        self.snapshot().get(domain).cloned()
    }

    /// The domain with the same source, host and uuid.
    #[must_use]
    pub fn same(&self, domain: &Domain) -> Option<Arc<StoredDomain>> {
        self.snapshot().same(domain).cloned()
    }

    /// Waits until `predicate` accepts a state of the table, and returns that state; at once if it
    /// accepts the present one. It sees the newest state whenever it runs, not each state between.
    ///
    /// # Errors
    /// The events have ended, for this reason.
    ///
    /// # Cancel safety
    /// Cancel safe: it changes nothing.
    pub async fn wait_for(
        &self,
        mut predicate: impl FnMut(&Snapshot) -> bool,
    ) -> Result<Snapshot, End> {
        let mut state = self.state.subscribe();
        loop {
            // The predicate runs outside of the lock, so that it may call the store.
            let (snapshot, end) = {
                let state = state.borrow_and_update();
                (state.table.snapshot(), state.end.clone())
            };
            if predicate(&snapshot) {
                return Ok(snapshot);
            }
            if let Some(end) = end {
                return Err(end);
            }
            // While it is alive, a change has to copy what it changes.
            drop(snapshot);
            // The sender lives as long as `self`.
            let _ = state.changed().await;
        }
    }

    /// What changes from now on.
    #[must_use]
    pub fn changed(&self) -> Changed {
        Changed::new(self.clone())
    }

    /// Why the events have ended; `None` while they go on. From their end on nothing in the store is
    /// certain.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.state.borrow().end.clone()
    }

    /// Cancels the subscription of a store that follows a stream, and waits until the hypervisor
    /// has confirmed it: see [`Subscription::close`].
    ///
    /// # Cancel safety
    /// The subscription is cancelled at the first poll, whether or not this future is driven
    /// further.
    pub async fn close(&self) {
        let taken = self.subscription.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(subscription) = taken {
            subscription.close().await;
        }
    }
}

impl Default for DomainStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DomainStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("DomainStore")
            .field("domains", &state.table.snapshot().len())
            .field("end", &state.end)
            .finish_non_exhaustive()
    }
}

/// Applies the events of a stream, until its end. Dropping the store's subscription ends it.
async fn fill(state: Arc<watch::Sender<StoreState>>, mut events: Events) {
    while let Some(event) = events.next().await {
        apply(&state, &event);
    }
    finish(&state, events.end().unwrap_or(End::Cancelled));
}

fn finish(state: &watch::Sender<StoreState>, end: End) {
    change(state, Table::end);
    let mut wakers = Vec::new();
    state.send_modify(|state| {
        state.end.get_or_insert(end);
        wakers = state.readers.wakers();
    });
    wakers.into_iter().for_each(|waker| contain_panic(|| waker.wake()));
}

fn apply(state: &watch::Sender<StoreState>, event: &DomainEvent) -> Vec<Transition> {
    change(state, |table| table.apply(event))
}

fn change(
    state: &watch::Sender<StoreState>,
    change: impl FnOnce(&mut Table) -> Vec<Transition>,
) -> Vec<Transition> {
    let mut transitions = Vec::new();
    let mut wakers = Vec::new();
    // A marker may change what is certain of a source without domains, so its reader is woken, too.
    state.send_modify(|state| {
        transitions = change(&mut state.table);
        if !transitions.is_empty() {
            state.readers.push(&transitions);
            wakers = state.readers.wakers();
        }
    });
    wakers.into_iter().for_each(|waker| contain_panic(|| waker.wake()));
    transitions
}
