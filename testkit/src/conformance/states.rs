//! How domains are, in lists.

use virevent::{Change, DomainEvent, EventSource, Options, State};

use super::{Rig, Told, expect};
use crate::Failure;

/// That a new stream says that web exists, in this state, and nothing else of it.
async fn is_listed(rig: &dyn Rig, source: &dyn EventSource, state: &str) -> Result<(), Failure> {
    let mut told = Told::by(rig, source, Options::default()).await?;
    let story = told.until_synced("web").await?;
    let existing: Vec<_> = story.iter().filter_map(existing).collect();
    let is_so = matches!(existing[..], [only] if only.as_str() == state);
    expect(is_so && story.len() == 2, &format!("web existing, {state}, and then synced"), &story)
}

fn existing(event: &DomainEvent) -> Option<State> {
    match event.change() {
        Some(Change::Existing(state)) => Some(state),
        _ => None,
    }
}

/// A domain that is paused is in the first list of a source, as paused.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_list_has_paused_domains_as_paused(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let outcome = async {
        rig.suspend("web").await?;
        let source = rig.source();
        let mut told = Told::by(rig, &source, Options::default()).await?;
        is_listed(rig, &source, "paused").await?;
        told.until_synced("web").await?;
        rig.resume("web").await?;
        let resumed = |event: &DomainEvent| matches!(event.change(), Some(Change::Resumed(_)));
        told.until("web", "web resumed", resumed).await?;
        is_listed(rig, &source, "running").await
    };
    let outcome = outcome.await;
    rig.stop("web").await?;
    outcome
}

/// A domain that was paused in an outage is delivered as suspended, once, and then listed as paused;
/// the same for a resume.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_pause_in_an_outage_is_delivered_and_then_listed(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    rig.start("web").await?;
    let outcome = async {
        let source = rig.source();
        let mut told = Told::by(rig, &source, Options::default()).await?;
        told.until_synced("web").await?;
        told.break_connection(rig).await?;
        // Whether the rig can, it says now.
        let paused = rig.suspend("web").await;
        rig.heal().await?;
        paused?;
        let story = told.until_synced("web").await?;
        let suspended = |event: &DomainEvent| matches!(event.change(), Some(Change::Suspended(_)));
        let is_so = story.len() == 2 && suspended(&story[0]);
        expect(is_so, "web suspended, once, and then synced", &story)?;
        is_listed(rig, &source, "paused").await?;
        told.break_connection(rig).await?;
        rig.resume("web").await?;
        rig.heal().await?;
        let story = told.until_synced("web").await?;
        let resumed = |event: &DomainEvent| matches!(event.change(), Some(Change::Resumed(_)));
        let is_so = story.len() == 2 && resumed(&story[0]);
        expect(is_so, "web resumed, once, and then synced", &story)
    };
    let outcome = outcome.await;
    rig.stop("web").await?;
    outcome
}

/// Nothing is delivered of a paused domain that an outage did not change.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_paused_domain_is_the_same_after_an_outage(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let outcome = async {
        rig.suspend("web").await?;
        let source = rig.source();
        let mut told = Told::by(rig, &source, Options::default()).await?;
        told.until_synced("web").await?;
        told.break_connection(rig).await?;
        rig.heal().await?;
        let story = told.until_synced("web").await?;
        expect(story.len() == 1, "synced, and nothing about web", &story)?;
        is_listed(rig, &source, "paused").await
    };
    let outcome = outcome.await;
    rig.stop("web").await?;
    outcome
}
