//! The stream of a check.

use std::time::Duration;

use virevent::{Domain, DomainEvent, EventSource, EventStream, Options};

use super::Rig;
use crate::Failure;
use crate::assert::next_within;

/// A stream with the timeouts of its rig.
pub(super) struct Subscriber {
    pub(super) stream: EventStream,
    pub(super) patience: Duration,
    pub(super) silence: Duration,
}

impl Subscriber {
    pub(super) async fn new(
        rig: &dyn Rig,
        source: &dyn EventSource,
        options: Options,
    ) -> Result<Self, Failure> {
        let stream = source
            .subscribe_with(options)
            .await
            .map_err(|error| Failure::new(format!("cannot subscribe: {}", error.to_line())))?;
        Ok(Self { stream, patience: rig.patience(), silence: rig.silence() })
    }

    pub(super) async fn next(&mut self) -> Result<DomainEvent, Failure> {
        next_within(&mut self.stream, self.patience).await
    }

    /// Reads events up to one for which `last` is true. Returns those about the domain with this
    /// name, and the last one.
    pub(super) async fn until(
        &mut self,
        name: &str,
        what: &str,
        mut last: impl FnMut(&DomainEvent) -> bool,
    ) -> Result<Vec<DomainEvent>, Failure> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.map_err(|failure| {
                Failure::new(format!("expected {what}, but {failure}; {}", came(&events)))
            })?;
            // The host may have other domains: their events are read and left out.
            let end = last(&event);
            if end || event.domain().is_some_and(|domain| domain.name() == name) {
                events.push(event);
            }
            if end {
                return Ok(events);
            }
        }
    }

    /// Reads events up to `Synced`. Returns those about the domain with this name, and `Synced`.
    pub(super) async fn until_synced(&mut self, name: &str) -> Result<Vec<DomainEvent>, Failure> {
        self.until(name, "synced", |event| matches!(event, DomainEvent::Synced(_))).await
    }

    /// Checks that no event comes about the domain with this name.
    pub(super) async fn nothing_about(&mut self, name: &str) -> Result<(), Failure> {
        while let Ok(event) = next_within(&mut self.stream, self.silence).await {
            if event.domain().is_some_and(|domain| domain.name() == name) {
                return Err(Failure::new(format!(
                    "expected no event about {name}, but got: {event}"
                )));
            }
        }
        Ok(())
    }
}

/// The events so far, for a message.
fn came(events: &[DomainEvent]) -> String {
    match events {
        [] => "no event came before".into(),
        events => {
            let lines: Vec<_> = events.iter().map(ToString::to_string).collect();
            format!("events before: {}", lines.join("; "))
        }
    }
}

/// A failure unless `holds`.
pub(super) fn expect(holds: bool, expected: &str, events: &[DomainEvent]) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(format!("expected {expected}; {}", came(events)))) }
}

/// The domain of the last event that has one.
pub(super) fn last_domain(events: &[DomainEvent]) -> Option<&Domain> {
    events.iter().rev().find_map(DomainEvent::domain)
}
