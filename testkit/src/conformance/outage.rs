//! Checks of an outage of the connection.

use virevent::{Change, DomainEvent, EventSource, Gap, GapKind, Options, Origin};

use super::{Rig, Subscriber, expect};
use crate::Failure;

fn is_disconnected(event: &DomainEvent) -> bool {
    matches!(event, DomainEvent::Gap(Gap { kind: GapKind::Disconnected { .. }, .. }))
}

fn changes(events: &[DomainEvent]) -> impl Iterator<Item = Change> {
    events.iter().filter_map(DomainEvent::change)
}

impl Subscriber {
    /// Breaks the connection and waits for the gap in the stream.
    pub(super) async fn break_connection(&mut self, rig: &dyn Rig) -> Result<(), Failure> {
        rig.break_connection().await?;
        self.until("", "a gap", is_disconnected).await.map(drop)
    }
}

/// Subscribes and reads up to `Synced`.
async fn subscribe_to_web(rig: &dyn Rig, source: &dyn EventSource) -> Result<Subscriber, Failure> {
    let mut subscriber = Subscriber::new(rig, source, Options::default()).await?;
    subscriber.until_synced("web").await?;
    Ok(subscriber)
}

/// An outage delivers `Disconnected`; after it come the changes, inferred, and then `Synced`.
///
/// # Errors
/// The check fails.
pub async fn an_outage_is_a_gap_then_inferred_events_then_synced(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = subscribe_to_web(rig, &source).await?;
    subscriber.break_connection(rig).await?;
    rig.start("web").await?;
    rig.heal().await?;
    let events = subscriber.until_synced("web").await?;
    let starts = changes(&events).filter(|change| matches!(change, Change::Started(_))).count();
    expect(starts == 1, "web as started, once, before synced", &events)?;
    let inferred = events.iter().filter_map(DomainEvent::lifecycle);
    expect(
        inferred.into_iter().all(|event| event.origin == Origin::Inferred),
        "what happened in the outage as inferred",
        &events,
    )?;
    subscriber.nothing_about("web").await?;
    rig.stop("web").await
}

/// A stop and a start in an outage are delivered as both.
///
/// # Errors
/// The check fails.
pub async fn a_restart_in_an_outage_is_a_stop_and_a_start(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut subscriber = subscribe_to_web(rig, &source).await?;
    let broken = subscriber.break_connection(rig).await;
    if broken.is_ok() {
        rig.stop("web").await?;
        rig.start("web").await?;
        rig.heal().await?;
        let events = subscriber.until_synced("web").await?;
        let runs: Vec<_> = changes(&events)
            .filter(|change| matches!(change, Change::Stopped(_) | Change::Started(_)))
            .collect();
        let both = matches!(runs[..], [Change::Stopped(_), Change::Started(_)]);
        expect(both, "web as stopped and then started", &events)?;
    }
    // Also if the rig does not support outages: the domain was started before that was known.
    rig.stop("web").await?;
    broken
}

/// No event is delivered for a domain that does not change in an outage, neither during it nor
/// after.
///
/// # Errors
/// The check fails.
pub async fn unreachable_is_never_stopped(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut subscriber = subscribe_to_web(rig, &source).await?;
    let broken = subscriber.break_connection(rig).await;
    if broken.is_ok() {
        subscriber.nothing_about("web").await?;
        rig.heal().await?;
        let events = subscriber.until_synced("web").await?;
        expect(events.len() == 1, "synced, and nothing about web", &events)?;
    }
    rig.stop("web").await?;
    broken
}

/// In an outage a subscription succeeds at once, and its stream begins with `Disconnected`; after
/// the outage come the existing domains and `Synced`.
///
/// # Errors
/// The check fails.
pub async fn subscribing_in_an_outage_opens_with_disconnected(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut first = subscribe_to_web(rig, &source).await?;
    let broken = first.break_connection(rig).await;
    if broken.is_ok() {
        let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
        let opening = subscriber.next().await?;
        let is_gap = is_disconnected(&opening);
        expect(is_gap, "disconnected as the first event", &[opening])?;
        rig.heal().await?;
        let events = subscriber.until_synced("web").await?;
        let exists =
            changes(&events).filter(|change| matches!(change, Change::Existing(_))).count();
        expect(exists == 1, "web as existing, once, and then synced", &events)?;
    }
    rig.stop("web").await?;
    broken
}

/// The first subscription to an unreachable source is an error. With `wait` it succeeds, begins
/// with `Disconnected` and is synced once the source is reachable.
///
/// # Errors
/// The check fails.
pub async fn first_subscribe_to_an_unreachable_source_fails_without_wait(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    // Before the source is made, so that it never had a connection.
    rig.break_connection().await?;
    let source = rig.source();
    if let Ok(stream) = source.subscribe_with(Options::default()).await {
        return Err(Failure::new(format!("expected an error, but got a stream: {stream:?}")));
    }
    let mut subscriber = Subscriber::new(rig, &source, Options::default().wait(true)).await?;
    let opening = subscriber.next().await?;
    let is_gap = is_disconnected(&opening);
    expect(is_gap, "disconnected as the first event", &[opening])?;
    rig.heal().await?;
    subscriber.until_synced("web").await.map(drop)
}
