//! What a subscriber is told when the hypervisor goes out of reach and comes back.

use virevent::{Change, DomainEvent, EventSource, Gap, GapKind, Options, Origin};

use super::{Rig, Told, expect};
use crate::Failure;

fn is_disconnected(event: &DomainEvent) -> bool {
    matches!(event, DomainEvent::Gap(Gap { kind: GapKind::Disconnected { .. }, .. }))
}

fn changes(story: &[DomainEvent]) -> impl Iterator<Item = Change> {
    story.iter().filter_map(DomainEvent::change)
}

impl Told {
    /// Breaks the connection and waits until the stream says so.
    pub(super) async fn break_connection(&mut self, rig: &dyn Rig) -> Result<(), Failure> {
        rig.break_connection().await?;
        self.until("", "a gap", is_disconnected).await.map(drop)
    }
}

/// Each check first learns whether the rig can do it at all.
async fn subscribe_to_web(rig: &dyn Rig, source: &dyn EventSource) -> Result<Told, Failure> {
    let mut told = Told::by(rig, source, Options::default()).await?;
    told.until_synced("web").await?;
    Ok(told)
}

/// In an outage the stream says `Disconnected`; after it what changed, inferred, and then `Synced`.
///
/// # Errors
/// What was expected, and what came.
pub async fn an_outage_is_a_gap_then_inferred_then_synced(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut told = subscribe_to_web(rig, &source).await?;
    told.break_connection(rig).await?;
    rig.start("web").await?;
    rig.heal().await?;
    let story = told.until_synced("web").await?;
    let starts = changes(&story).filter(|change| matches!(change, Change::Started(_))).count();
    expect(starts == 1, "web as started, once, before synced", &story)?;
    let inferred = story.iter().filter_map(DomainEvent::lifecycle);
    expect(
        inferred.into_iter().all(|event| event.origin == Origin::Inferred),
        "what happened in the outage as inferred",
        &story,
    )?;
    told.nothing_about("web").await?;
    rig.stop("web").await
}

/// A domain that was stopped and started in an outage is told as both, in two runs.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_restart_in_an_outage_is_a_stop_and_a_start(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut told = subscribe_to_web(rig, &source).await?;
    let broken = told.break_connection(rig).await;
    if broken.is_ok() {
        rig.stop("web").await?;
        rig.start("web").await?;
        rig.heal().await?;
        let story = told.until_synced("web").await?;
        let runs: Vec<_> = changes(&story)
            .filter(|change| matches!(change, Change::Stopped(_) | Change::Started(_)))
            .collect();
        let both = matches!(runs[..], [Change::Stopped(_), Change::Started(_)]);
        expect(both, "web as stopped and then started", &story)?;
    }
    rig.stop("web").await?;
    broken
}

/// Nothing is told of a domain that an outage did not change, neither in the outage nor after it.
///
/// # Errors
/// What was expected, and what came.
pub async fn unreachable_is_never_stopped(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut told = subscribe_to_web(rig, &source).await?;
    let broken = told.break_connection(rig).await;
    if broken.is_ok() {
        told.nothing_about("web").await?;
        rig.heal().await?;
        let story = told.until_synced("web").await?;
        expect(story.len() == 1, "synced, and nothing about web", &story)?;
    }
    rig.stop("web").await?;
    broken
}

/// In an outage a subscription succeeds at once, and its stream opens with `Disconnected`; what
/// exists and `Synced` follow.
///
/// # Errors
/// What was expected, and what came.
pub async fn subscribing_in_an_outage_opens_with_disconnected(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut first = subscribe_to_web(rig, &source).await?;
    let broken = first.break_connection(rig).await;
    if broken.is_ok() {
        let mut told = Told::by(rig, &source, Options::default()).await?;
        let opening = told.next().await?;
        let is_gap = is_disconnected(&opening);
        expect(is_gap, "disconnected as the first event", &[opening])?;
        rig.heal().await?;
        let story = told.until_synced("web").await?;
        let exists = changes(&story).filter(|change| matches!(change, Change::Existing(_))).count();
        expect(exists == 1, "web as existing, once, and then synced", &story)?;
    }
    rig.stop("web").await?;
    broken
}

/// The first subscription to a source that cannot be reached is an error; one that asks to wait
/// succeeds, opens with `Disconnected`, and is synced once the source is there.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_first_subscription_to_a_source_out_of_reach_fails_unless_it_asks_to_wait(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    rig.break_connection().await?;
    let source = rig.source();
    if let Ok(stream) = source.subscribe_with(Options::default()).await {
        return Err(Failure::new(format!("expected an error, but got a stream: {stream:?}")));
    }
    let mut told = Told::by(rig, &source, Options::default().wait(true)).await?;
    let opening = told.next().await?;
    let is_gap = is_disconnected(&opening);
    expect(is_gap, "disconnected as the first event", &[opening])?;
    rig.heal().await?;
    told.until_synced("web").await.map(drop)
}
