//! The step of one domain in a store.

use std::sync::Arc;

use super::StoredDomain;
use crate::{Change, Domain, DomainEvent, Origin, State, StopCause};

/// A domain in a [`DomainStore`](super::DomainStore) before and after a change.
///
/// That a domain becomes uncertain or certain is a change, too: then only
/// [`certain`](StoredDomain::certain) differs.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// What was stored before; `None` if the domain is new.
    pub before: Option<Arc<StoredDomain>>,
    /// What is stored now; `None` if the domain is gone.
    pub after: Option<Arc<StoredDomain>>,
    /// The event that led to it. `None` where a marker did, and where a slow reader of
    /// [`changed`](super::DomainStore::changed) gets the difference between two states.
    pub event: Option<DomainEvent>,
    /// How it came to be known. What a reset shows is [`Inferred`](Origin::Inferred).
    pub origin: Origin,
    /// The domain's source was removed from its fleet. The domain may still exist, and run.
    pub is_forgotten: bool,
}

impl Transition {
    pub(super) fn new(before: Option<Arc<StoredDomain>>, after: Option<Arc<StoredDomain>>) -> Self {
        Self { before, after, event: None, origin: Origin::Inferred, is_forgotten: false }
    }

    /// The domain: as it is now, or as it was before it was gone.
    ///
    /// # Panics
    /// Never in a transition of a store: it has a domain before or after.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a store makes no transition of no domain")]
    pub fn domain(&self) -> &Domain {
        let stored = self.after.as_ref().or(self.before.as_ref());
        &stored.expect("a transition has a domain before or after").domain
    }

    /// What happened; `None` where no event says so.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        self.event.as_ref()?.change()
    }

    /// Whether the run goes on, under another id if the domains differ in it.
    fn is_reboot(&self) -> bool {
        matches!(self.event, Some(DomainEvent::Reboot(_)))
    }

    /// Whether a run of the domain began. Domains that ran already when they were first seen are
    /// not among them.
    #[must_use]
    pub fn began_run(&self) -> bool {
        let Some(after) = self.after.as_ref().filter(|after| after.domain.is_active()) else {
            return false;
        };
        match &self.before {
            Some(before) => before.domain.id() != after.domain.id() && !self.is_reboot(),
            None => match after.change {
                Change::Existing(_) => after.origin == Origin::Inferred,
                change => change.begins_run(),
            },
        }
    }

    /// Why a run of the domain ended, if it did.
    #[must_use]
    pub fn ended_run(&self) -> Option<StopCause> {
        if let Some(Change::Stopped(cause)) = self.change() {
            return Some(cause);
        }
        let run = self.before.as_ref()?.domain.id()?;
        if self.is_forgotten || self.is_reboot() {
            return None;
        }
        match &self.after {
            Some(after) if after.domain.id() == Some(run) => None,
            Some(after) => Some(match after.state {
                State::Shutoff(reason) => reason.into(),
                _ => StopCause::Unspecified,
            }),
            None => Some(StopCause::Unspecified),
        }
    }

    /// The domain with the id of the run that ended, and why it ended; `None` if none did.
    ///
    /// [`domain`](Self::domain) has no id after the end of a run, or that of the next run.
    #[must_use]
    pub fn stopped(&self) -> Option<(&Domain, StopCause)> {
        let cause = self.ended_run()?;
        let event = self.event.as_ref().filter(|_| self.change() == Some(Change::Stopped(cause)));
        let of_event = event.and_then(DomainEvent::domain);
        let of_before = self.before.as_ref().map(|before| &before.domain);
        let domain = [of_event, of_before].into_iter().flatten().find(|one| one.is_active());
        Some((domain.unwrap_or_else(|| self.domain()), cause))
    }
}
