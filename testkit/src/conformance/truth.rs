//! Checks of which domains exist, and of changes without an event.

use virevent::{Change, DomainEvent, DomainStore, EventSource, Lifecycle, Options, Origin};

use super::{Rig, Subscriber, expect};
use crate::Failure;

fn stopped(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Stopped(_)))
}

fn about<'a>(event: &'a DomainEvent, name: &str) -> Option<&'a Lifecycle> {
    event.lifecycle().filter(|lifecycle| lifecycle.domain.name() == name)
}

/// The source's list of now. It comes from the hypervisor, since the only stream is closed before.
async fn listed(
    rig: &dyn Rig,
    source: &dyn EventSource,
    only: Subscriber,
) -> Result<DomainStore, Failure> {
    // Without it the roster of the open stream would answer, which is what is compared.
    only.stream.close().await;
    let mut subscriber = Subscriber::new(rig, source, Options::default()).await?;
    let store = DomainStore::new();
    loop {
        match subscriber.next().await? {
            DomainEvent::Synced(_) => return Ok(store),
            event => drop(store.apply(&event)),
        }
    }
}

/// Every event of a run says whether its domain is persistent, as the list does after the run. A
/// domain that is not is gone at its stop.
///
/// # Errors
/// The check fails.
pub async fn every_lifecycle_event_says_whether_its_domain_persists(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let mut events = subscriber.until_synced("web").await?;
    for round in 0..2 {
        if round > 0 {
            rig.start("web").await?;
        }
        rig.stop("web").await?;
        let ended = |event: &DomainEvent| about(event, "web").is_some() && stopped(event);
        events.extend(subscriber.until("web", "web stopped", ended).await?);
    }
    let persists = listed(rig, &source, subscriber).await?.get("web").is_some();
    for event in events.iter().filter_map(|event| about(event, "web")) {
        let said = format!("persistent: {persists} of {event:?}");
        expect(event.persistent == Some(persists), &said, &events)?;
        let is_end = matches!(event.change, Change::Stopped(_));
        let is_gone = is_end && !persists;
        expect(event.is_gone() == is_gone, &format!("is_gone: {is_gone} of {event:?}"), &events)?;
    }
    Ok(())
}

/// A definition is delivered as persistent, and its removal as the end of the domain.
///
/// # Errors
/// The check fails.
pub async fn a_definition_persists_until_it_is_removed(rig: &dyn Rig) -> Result<(), Failure> {
    rig.define("db").await?;
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let mut events = subscriber.until_synced("db").await?;
    rig.undefine("db").await?;
    let gone = |event: &DomainEvent| about(event, "db").is_some_and(Lifecycle::is_gone);
    events.extend(subscriber.until("db", "the end of db", gone).await?);
    rig.define("db").await?;
    let defined = |event: &DomainEvent| matches!(event.change(), Some(Change::Defined(_)));
    events.extend(subscriber.until("db", "db defined", defined).await?);
    rig.undefine("db").await?;
    events.extend(subscriber.until("db", "the end of db", gone).await?);
    let persistent: Vec<_> =
        events.iter().filter_map(|event| about(event, "db")?.persistent).collect();
    let expected = [true, false, true, false];
    expect(persistent == expected, &format!("persistent: {expected:?} of db"), &events)
}

/// A table that is folded from events has the same domains as the list.
///
/// # Errors
/// The check fails.
pub async fn a_table_folded_from_events_equals_the_list(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let store = DomainStore::new();
    let mut events = subscriber.until_synced("web").await?;
    // mail runs twice, db once, and web still runs; one at a time.
    for (name, starts, ends) in [("mail", 2, 2), ("db", 1, 1), ("web", 1, 0)] {
        for run in 0..starts {
            rig.start(name).await?;
            let is_end = |event: &DomainEvent| about(event, name).is_some() && stopped(event);
            let is_start = |event: &DomainEvent| {
                about(event, name).is_some_and(|event| matches!(event.change, Change::Started(_)))
            };
            events.extend(subscriber.until(name, &format!("{name} started"), is_start).await?);
            if run < ends {
                rig.stop(name).await?;
                events.extend(subscriber.until(name, &format!("{name} stopped"), is_end).await?);
            }
        }
    }
    store.extend(events.iter().filter(|event| event.lifecycle().is_some()));
    let list = listed(rig, &source, subscriber).await?;
    for name in ["mail", "db", "web"] {
        let folded = store.get(name);
        let listed = list.get(name);
        let is_same = match (&folded, &listed) {
            (Some(folded), Some(listed)) => {
                folded.domain.id() == listed.domain.id()
                    && folded.state.is_same(listed.state)
                    && folded.persistent == listed.persistent
            }
            (None, None) => true,
            _ => false,
        };
        expect(is_same, &format!("{folded:?} as in the list: {listed:?}"), &events)?;
    }
    rig.stop("web").await
}

/// The next verification delivers the end of a run that had no event, once and inferred. Only a
/// backend that finds such ends by itself ([`Rig::observes_silent_ends`]) may deliver it as
/// observed before.
///
/// # Errors
/// The check fails.
pub async fn a_silent_end_is_corrected_by_verification(rig: &dyn Rig) -> Result<(), Failure> {
    rig.start("web").await?;
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let mut events = subscriber.until_synced("web").await?;
    let corrected = source.counters().corrected;
    let silent = rig.stop_silently("web").await;
    if silent.is_err() {
        rig.stop("web").await?;
        return silent;
    }
    // The interval is jittered, and a second list may have to confirm the first.
    subscriber.patience += 3 * rig.verification();
    let ended = |event: &DomainEvent| about(event, "web").is_some() && stopped(event);
    events.extend(subscriber.until("web", "web stopped", ended).await?);
    let end = events.last().and_then(DomainEvent::lifecycle);
    let is_inferred = end.is_some_and(|event| event.origin == Origin::Inferred);
    let may_be_observed = rig.observes_silent_ends();
    expect(is_inferred || may_be_observed, "web stopped, inferred", &events)?;
    let counted = corrected + u64::from(is_inferred);
    expect(source.counters().corrected == counted, "a correction counted if inferred", &events)?;
    subscriber.silence += 3 * rig.verification();
    subscriber.nothing_about("web").await
}
