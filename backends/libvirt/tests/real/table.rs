//! The store of one stream's events, compared with virsh's list.

use std::sync::Arc;
use std::time::Instant;

use virevent::{DomainStore, State, StoredDomain};
use virevent_testkit::servers::Virsh;

use super::*;

/// A domain's name, its state as virsh calls it, and whether it is persistent.
pub(crate) type Row = (String, &'static str, bool);

#[derive(Debug, Default)]
pub(crate) struct Table {
    store: DomainStore,
    /// All delivered events, for messages of failures.
    delivered: Vec<String>,
}

impl From<DomainStore> for Table {
    fn from(store: DomainStore) -> Self {
        Self { store, delivered: Vec::new() }
    }
}

impl Table {
    /// Applies an event.
    pub(crate) fn apply(&mut self, event: &DomainEvent) {
        self.delivered.push(event.to_string());
        self.store.apply(event);
    }

    /// Reads until this event has been delivered.
    pub(crate) async fn until_delivered(&mut self, events: &mut EventStream, event: &str) {
        let since = Instant::now();
        while !self.delivered.iter().any(|delivered| delivered == event) {
            assert!(since.elapsed() < PATIENCE, "no {event}; delivered was {:#?}", self.delivered);
            if let Ok(event) = next_within(events, Duration::from_millis(50)).await {
                self.apply(&event);
            }
        }
    }

    /// Reads until the table equals virsh's list.
    pub(crate) async fn until_equal(&mut self, events: &mut EventStream, virsh: &Virsh) {
        self.until_equal_within(events, virsh, PATIENCE).await;
    }

    /// Asserts that the table equals virsh's list now.
    pub(crate) async fn assert_equal(&self, virsh: &Virsh) {
        assert_eq!(self.sorted_rows(), virsh_rows(virsh).await);
    }

    fn sorted_rows(&self) -> Vec<Row> {
        let row = |stored: &Arc<StoredDomain>| {
            let persistent = stored.persistent.unwrap_or(true);
            (stored.domain.name().into(), name(stored.state), persistent)
        };
        let mut rows: Vec<Row> = self.store.snapshot().iter().map(row).collect();
        rows.sort();
        rows
    }

    pub(crate) async fn until_equal_within(
        &mut self,
        events: &mut EventStream,
        virsh: &Virsh,
        within: Duration,
    ) {
        let since = Instant::now();
        loop {
            while let Ok(event) = next_within(events, Duration::from_millis(50)).await {
                self.apply(&event);
            }
            let expected = virsh_rows(virsh).await;
            let rows = self.sorted_rows();
            if rows == expected {
                return;
            }
            assert!(
                since.elapsed() < within,
                "after {within:?} the table is {rows:#?}, virsh has {expected:#?}; delivered: {:#?}",
                self.delivered
            );
        }
    }
}

/// Every domain, as virsh lists it.
async fn virsh_rows(virsh: &Virsh) -> Vec<Row> {
    let names = virsh.run(&["list", "--all", "--persistent", "--name"]).await.unwrap();
    let is_persistent = |name: &str| names.lines().any(|line| line.trim() == name);
    let all = virsh.list().await.unwrap().into_iter();
    let row = |(name, state): (String, String)| {
        let persistent = is_persistent(&name);
        (name, known(&state), persistent)
    };
    let mut rows: Vec<Row> = all.map(row).collect();
    rows.sort();
    rows
}

/// The name that virsh has for a state.
fn name(state: State) -> &'static str {
    match state {
        State::Running(_) => "running",
        State::Blocked => "idle",
        State::Paused(_) => "paused",
        State::ShuttingDown(_) => "in shutdown",
        State::Shutoff(_) => "shut off",
        State::Crashed(_) => "crashed",
        State::PmSuspended => "pmsuspended",
        _ => "no state",
    }
}

/// The same name, with a static lifetime.
fn known(state: &str) -> &'static str {
    ["running", "idle", "paused", "in shutdown", "shut off", "crashed", "pmsuspended"]
        .into_iter()
        .find(|known| *known == state)
        .unwrap_or("no state")
}
