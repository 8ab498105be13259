//! Checks without an outage.

use virevent::{Change, DomainEvent, Options, State};

use super::{Rig, Subscriber, expect, last_domain};
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
/// The check fails.
pub async fn a_new_stream_lists_the_domains_then_synced(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let events = subscriber.until_synced("web").await?;
    let only = events.len() == 2 && existing(&events[0]);
    expect(only, "web as existing, once, and then synced", &events)?;
    let runs = |event: &DomainEvent| match event.change() {
        Some(Change::Existing(state)) => matches!(state, State::Running(_) | State::Blocked),
        _ => false,
    };
    expect(runs(&events[0]), "web as running", &events)?;
    expect(
        events[0].domain().is_some_and(virevent::Domain::is_active),
        "web with its id",
        &events,
    )?;
    rig.stop("web").await
}

/// Each start and each stop is delivered once, in order, and the stop has the id of the run.
///
/// # Errors
/// The check fails.
pub async fn a_start_and_a_stop_are_delivered_in_order_once(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    subscriber.until_synced("web").await?;
    rig.start("web").await?;
    let mut events =
        subscriber.until("web", "web started", |event| about("web", event, started)).await?;
    let id = last_domain(&events).and_then(virevent::Domain::id);
    expect(id.is_some(), "a start with the id of the run", &events)?;
    rig.stop("web").await?;
    events.extend(
        subscriber.until("web", "web stopped", |event| about("web", event, stopped)).await?,
    );
    let ended = last_domain(&events).and_then(virevent::Domain::id);
    expect(ended == id, "a stop with the id of the run that ended", &events)?;
    let count = |of: fn(&DomainEvent) -> bool| events.iter().filter(|event| of(event)).count();
    expect(count(started) == 1 && count(stopped) == 1, "one start and one stop", &events)?;
    subscriber.until_silent("web", |event| started(event) || stopped(event)).await
}

/// A domain that is started again gets another id.
///
/// # Errors
/// The check fails.
pub async fn a_new_run_has_a_new_id(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let mut events = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        rig.start("web").await?;
        events.extend(
            subscriber.until("web", "web started", |event| about("web", event, started)).await?,
        );
        ids.push(last_domain(&events).and_then(virevent::Domain::id));
        rig.stop("web").await?;
        events.extend(
            subscriber.until("web", "web stopped", |event| about("web", event, stopped)).await?,
        );
    }
    // Holds for process ids too: the kernel reuses one only after it has gone through all.
    expect(ids[0] != ids[1], "two runs with two ids", &events)
}

/// A pause and a resume are delivered as such, with the id of the same run.
///
/// # Errors
/// The check fails.
pub async fn a_pause_and_a_resume_are_delivered(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let mut events = subscriber.until_synced("web").await?;
    let run = last_domain(&events).and_then(virevent::Domain::id);
    let outcome = rig.suspend("web").await;
    if outcome.is_ok() {
        let suspended = |event: &DomainEvent| matches!(event.change(), Some(Change::Suspended(_)));
        let wanted = |event: &DomainEvent| about("web", event, suspended);
        events = subscriber.until("web", "web suspended", wanted).await?;
        rig.resume("web").await?;
        let resumed = |event: &DomainEvent| matches!(event.change(), Some(Change::Resumed(_)));
        let wanted = |event: &DomainEvent| about("web", event, resumed);
        events.extend(subscriber.until("web", "web resumed", wanted).await?);
        let ids = events.iter().filter_map(DomainEvent::domain).map(virevent::Domain::id);
        expect(ids.into_iter().all(|id| id == run), "events of one run", &events)?;
    }
    rig.stop("web").await?;
    outcome
}

/// A definition and its removal are delivered, and nothing else.
///
/// # Errors
/// The check fails.
pub async fn a_definition_and_its_removal_are_delivered(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    subscriber.until_synced("db").await?;
    rig.define("db").await?;
    let defined = |event: &DomainEvent| matches!(event.change(), Some(Change::Defined(_)));
    let mut events =
        subscriber.until("db", "db defined", |event| about("db", event, defined)).await?;
    rig.undefine("db").await?;
    let undefined = |event: &DomainEvent| matches!(event.change(), Some(Change::Undefined(_)));
    events.extend(
        subscriber.until("db", "db undefined", |event| about("db", event, undefined)).await?,
    );
    expect(events.len() == 2, "defined, undefined, and nothing else", &events)
}

/// A subscriber that asks for one domain gets its events and no others.
///
/// # Errors
/// The check fails.
pub async fn a_domain_filter_passes_only_its_domain(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default().domain("web")).await?;
    rig.start("db").await?;
    rig.start("web").await?;
    rig.stop("db").await?;
    rig.stop("web").await?;
    let mut events = Vec::new();
    // All events, not only those about web: the filter is what is checked.
    while !events.last().is_some_and(stopped) {
        events.push(subscriber.next().await?);
    }
    let only = events.iter().all(|event| {
        event.is_marker() || event.domain().is_some_and(|domain| domain.name() == "web")
    });
    expect(only, "events of web alone, and markers", &events)?;
    expect(events.iter().any(started), "the start of web", &events)
}

/// Two subscribers get the same events while both are subscribed.
///
/// # Errors
/// The check fails.
pub async fn two_subscribers_get_the_same_events(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut one = Subscriber::new(rig, &source, Options::default()).await?;
    one.until_synced("web").await?;
    // Another capacity: the streams share the driver and nothing else.
    let mut two = Subscriber::new(rig, &source, Options::default().capacity(64)).await?;
    two.until_synced("web").await?;
    rig.start("web").await?;
    rig.stop("web").await?;
    let first = one.until("web", "web stopped", |event| about("web", event, stopped)).await?;
    let second = two.until("web", "web stopped", |event| about("web", event, stopped)).await?;
    expect(first == second, &format!("the same events as the first subscriber: {first:?}"), &second)
}

fn about(name: &str, event: &DomainEvent, of: impl Fn(&DomainEvent) -> bool) -> bool {
    event.domain().is_some_and(|domain| domain.name() == name) && of(event)
}

impl Subscriber {
    /// Checks that no more events of this sort come about the domain with this name.
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
