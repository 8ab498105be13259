//! Checks of the states in lists.

use virevent::{Change, DomainEvent, EventSource, Options, State};

use super::{Rig, Subscriber, expect};
use crate::Failure;

/// Checks that a new stream has web as existing in this state, and nothing else about it.
async fn is_listed(rig: &dyn Rig, source: &dyn EventSource, state: &str) -> Result<(), Failure> {
    let mut subscriber = Subscriber::new(rig, source, Options::default()).await?;
    let events = subscriber.until_synced("web").await?;
    let existing: Vec<_> = events.iter().filter_map(existing).collect();
    let is_so = matches!(existing[..], [only] if only.as_str() == state);
    expect(is_so && events.len() == 2, &format!("web existing, {state}, and then synced"), &events)
}

fn existing(event: &DomainEvent) -> Option<State> {
    match event.change() {
        Some(Change::Existing(state)) => Some(state),
        _ => None,
    }
}

/// A paused domain is in the first list of a source, as paused.
///
/// # Errors
/// The check fails.
pub async fn a_paused_domain_is_listed_as_paused(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let outcome = async {
        rig.suspend("web").await?;
        let source = rig.source();
        let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
        is_listed(rig, &source, "paused").await?;
        subscriber.until_synced("web").await?;
        rig.resume("web").await?;
        let resumed = |event: &DomainEvent| matches!(event.change(), Some(Change::Resumed(_)));
        subscriber.until("web", "web resumed", resumed).await?;
        is_listed(rig, &source, "running").await
    };
    let outcome = outcome.await;
    // After a failure too: a rig on a real server leaves its domain to the next check otherwise.
    rig.stop("web").await?;
    outcome
}

/// A pause in an outage is delivered as suspended, once, and then listed as paused; the same for a
/// resume.
///
/// # Errors
/// The check fails.
pub async fn a_pause_in_an_outage_is_delivered_once_and_listed(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    rig.start("web").await?;
    let outcome = async {
        let source = rig.source();
        let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
        subscriber.until_synced("web").await?;
        subscriber.break_connection(rig).await?;
        // The outage ends even if the rig does not support pauses.
        let paused = rig.suspend("web").await;
        rig.heal().await?;
        paused?;
        let events = subscriber.until_synced("web").await?;
        let suspended = |event: &DomainEvent| matches!(event.change(), Some(Change::Suspended(_)));
        let is_so = events.len() == 2 && suspended(&events[0]);
        expect(is_so, "web suspended, once, and then synced", &events)?;
        is_listed(rig, &source, "paused").await?;
        subscriber.break_connection(rig).await?;
        rig.resume("web").await?;
        rig.heal().await?;
        let events = subscriber.until_synced("web").await?;
        let resumed = |event: &DomainEvent| matches!(event.change(), Some(Change::Resumed(_)));
        let is_so = events.len() == 2 && resumed(&events[0]);
        expect(is_so, "web resumed, once, and then synced", &events)
    };
    let outcome = outcome.await;
    rig.stop("web").await?;
    outcome
}

/// No event is delivered for a paused domain that does not change in an outage.
///
/// # Errors
/// The check fails.
pub async fn an_outage_does_not_change_a_paused_domain(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let outcome = async {
        rig.suspend("web").await?;
        let source = rig.source();
        let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
        subscriber.until_synced("web").await?;
        subscriber.break_connection(rig).await?;
        rig.heal().await?;
        let events = subscriber.until_synced("web").await?;
        expect(events.len() == 1, "synced, and nothing about web", &events)?;
        is_listed(rig, &source, "paused").await
    };
    let outcome = outcome.await;
    rig.stop("web").await?;
    outcome
}
