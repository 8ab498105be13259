//! The check of a slow subscriber.

use std::sync::Arc;

use virevent::{Change, DomainEvent, DomainStore, Gap, GapKind, Options, StoredDomain};

use super::{Rig, Subscriber, expect};
use crate::Failure;

/// The number of starts and stops.
const ROUNDS: usize = 12;

/// A subscriber that does not read gets the exact number of missed events and the final state.
///
/// # Errors
/// The check fails.
pub async fn a_slow_subscriber_gets_lagged_and_the_final_state(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    let source = rig.source();
    let options = Options::default().domain("web");
    // The witness has room for all events: what it gets is what the slow one must account for.
    let mut witness = Subscriber::new(rig, &source, options.clone()).await?;
    let mut slow = Subscriber::new(rig, &source, options.capacity(4)).await?;
    witness.until_synced("web").await?;
    slow.until_synced("web").await?;
    for _ in 0..ROUNDS {
        rig.start("web").await?;
        rig.stop("web").await?;
    }
    rig.start("web").await?;

    let mut all = Vec::new();
    for _ in 0..=ROUNDS {
        let started = |event: &DomainEvent| matches!(event.change(), Some(Change::Started(_)));
        all.extend(witness.until("web", "a start", started).await?);
    }
    let gap = slow.next().await?;
    let DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, .. }, .. }) = gap else {
        return Err(Failure::new(format!("expected lagged as the first event, but got: {gap}")));
    };
    let mut events = Vec::new();
    let store = DomainStore::new();
    let truth = DomainStore::new();
    truth.extend(&all);
    let total = missed as usize;
    while total + events.len() < all.len() {
        events.push(slow.next().await?);
    }
    store.extend(&events);
    let [states, expected] = [&store, &truth].map(|store| {
        let state =
            |stored: &Arc<StoredDomain>| (stored.domain.clone(), stored.state, stored.persistent);
        store.snapshot().iter().map(state).collect::<Vec<_>>()
    });
    expect(states == expected, &format!("the final state {expected:?}"), &events)?;
    expect(
        events.iter().any(|event| matches!(event.change(), Some(Change::Stopped(_)))),
        "the last ending",
        &events,
    )?;
    expect(total + events.len() == all.len(), &format!("{} events in all", all.len()), &events)?;
    slow.nothing_about("web").await?;
    rig.stop("web").await
}
