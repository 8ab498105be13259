//! What a subscriber is told while all is well.

use virevent::{Change, DomainEvent, Options, State};

use super::{Rig, Told, expect, last_domain};
use crate::Failure;

fn started(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Started(_)))
}

fn stopped(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Stopped(_)))
}

fn existing(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Existing(_)))
}

/// A stream begins with one `Existing` for each domain, then `Synced`.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_new_stream_tells_what_exists_and_then_synced(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default()).await?;
    let story = told.until_synced("web").await?;
    let only = story.len() == 2 && existing(&story[0]);
    expect(only, "web as existing, once, and then synced", &story)?;
    let runs = |event: &DomainEvent| match event.change() {
        Some(Change::Existing(state)) => matches!(state, State::Running(_) | State::Blocked),
        _ => false,
    };
    expect(runs(&story[0]), "web as running", &story)?;
    expect(story[0].domain().is_some_and(virevent::Domain::is_active), "web with its id", &story)?;
    rig.stop("web").await
}

/// Each start and each stop is told once, in order, and the stop has the id of the run.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_start_and_a_stop_are_told_in_order_once(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default()).await?;
    told.until_synced("web").await?;
    rig.start("web").await?;
    let mut story = told.until("web", "web started", |event| about("web", event, started)).await?;
    let id = last_domain(&story).and_then(virevent::Domain::id);
    expect(id.is_some(), "a start with the id of the run", &story)?;
    rig.stop("web").await?;
    story.extend(told.until("web", "web stopped", |event| about("web", event, stopped)).await?);
    let ended = last_domain(&story).and_then(virevent::Domain::id);
    expect(ended == id, "a stop with the id of the run that ended", &story)?;
    let count = |of: fn(&DomainEvent) -> bool| story.iter().filter(|event| of(event)).count();
    expect(count(started) == 1 && count(stopped) == 1, "one start and one stop", &story)?;
    told.until_silent("web", |event| started(event) || stopped(event)).await
}

/// A domain that is started again has another id.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_new_run_has_a_new_id(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default()).await?;
    let mut story = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        rig.start("web").await?;
        story.extend(told.until("web", "web started", |event| about("web", event, started)).await?);
        ids.push(last_domain(&story).and_then(virevent::Domain::id));
        rig.stop("web").await?;
        story.extend(told.until("web", "web stopped", |event| about("web", event, stopped)).await?);
    }
    expect(ids[0] != ids[1], "two runs with two ids", &story)
}

/// A pause and a resume are told as such, of the same run.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_pause_and_a_resume_are_told(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default()).await?;
    let mut story = told.until_synced("web").await?;
    let run = last_domain(&story).and_then(virevent::Domain::id);
    let outcome = rig.suspend("web").await;
    if outcome.is_ok() {
        let suspended = |event: &DomainEvent| matches!(event.change(), Some(Change::Suspended(_)));
        let wanted = |event: &DomainEvent| about("web", event, suspended);
        story = told.until("web", "web suspended", wanted).await?;
        rig.resume("web").await?;
        let resumed = |event: &DomainEvent| matches!(event.change(), Some(Change::Resumed(_)));
        let wanted = |event: &DomainEvent| about("web", event, resumed);
        story.extend(told.until("web", "web resumed", wanted).await?);
        let ids = story.iter().filter_map(DomainEvent::domain).map(virevent::Domain::id);
        expect(ids.into_iter().all(|id| id == run), "events of one run", &story)?;
    }
    rig.stop("web").await?;
    outcome
}

/// A definition and its removal are told, and nothing else.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_definition_and_its_removal_are_told(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default()).await?;
    told.until_synced("db").await?;
    rig.define("db").await?;
    let defined = |event: &DomainEvent| matches!(event.change(), Some(Change::Defined(_)));
    let mut story = told.until("db", "db defined", |event| about("db", event, defined)).await?;
    rig.undefine("db").await?;
    let undefined = |event: &DomainEvent| matches!(event.change(), Some(Change::Undefined(_)));
    story.extend(told.until("db", "db undefined", |event| about("db", event, undefined)).await?);
    expect(story.len() == 2, "defined, undefined, and nothing else", &story)
}

/// Whoever asks for one domain gets its events and no others.
///
/// # Errors
/// What was expected, and what came.
pub async fn a_domain_filter_passes_only_its_domain(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default().domain("web")).await?;
    rig.start("db").await?;
    rig.start("web").await?;
    rig.stop("db").await?;
    rig.stop("web").await?;
    let mut story = Vec::new();
    while !story.last().is_some_and(stopped) {
        story.push(told.next().await?);
    }
    let only = story.iter().all(|event| {
        event.is_marker() || event.domain().is_some_and(|domain| domain.name() == "web")
    });
    expect(only, "events of web alone, and markers", &story)?;
    expect(story.iter().any(started), "the start of web", &story)
}

/// What one subscriber is told of a time in which both listen, the other is told too.
///
/// # Errors
/// What was expected, and what came.
pub async fn two_subscribers_get_the_same_events(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut one = Told::by(rig, &source, Options::default()).await?;
    one.until_synced("web").await?;
    let mut two = Told::by(rig, &source, Options::default().capacity(64)).await?;
    two.until_synced("web").await?;
    rig.start("web").await?;
    rig.stop("web").await?;
    let told = one.until("web", "web stopped", |event| about("web", event, stopped)).await?;
    let other = two.until("web", "web stopped", |event| about("web", event, stopped)).await?;
    expect(told == other, &format!("the same events; the first subscriber's {told:?}"), &other)
}

fn about(name: &str, event: &DomainEvent, of: impl Fn(&DomainEvent) -> bool) -> bool {
    event.domain().is_some_and(|domain| domain.name() == name) && of(event)
}

impl Told {
    /// That no event of this sort comes about the domain of this name any more.
    async fn until_silent(
        &mut self,
        name: &str,
        of: impl Fn(&DomainEvent) -> bool,
    ) -> Result<(), Failure> {
        while let Ok(event) = crate::assert::next_within(&mut self.stream, self.silence).await {
            if about(name, &event, &of) {
                return Err(Failure::new(format!("expected each event once, but got: {event}")));
            }
        }
        Ok(())
    }
}
