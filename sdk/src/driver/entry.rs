//! An entry of the roster: what the driver knows of one domain.

use std::time::SystemTime;

use super::Listed;
use crate::{Change, Domain, DomainEvent, Lifecycle, State};

/// What the driver knows of a domain.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its id is `None` exactly when it is inactive.
    pub(super) domain: Domain,
    pub(super) state: State,
    pub(super) persistent: Option<bool>,
    /// A list said so, and no event of the domain came since. The first event that only repeats the
    /// list is late, and the driver drops it.
    pub(super) from_list: bool,
    /// An event other than its start showed the run: libvirt sends resumed before started. The next
    /// event decides whether the start is still to come or has to be inferred.
    pub(super) unannounced: bool,
}

impl Entry {
    /// The entry that a list shows.
    pub(super) fn listed(listed: Listed) -> Self {
        let Listed { domain, state, persistent } = listed;
        Self { domain, state, persistent, from_list: true, unannounced: false }
    }

    /// The entry that an event shows.
    pub(super) fn seen(domain: Domain, state: State, persistent: Option<bool>) -> Self {
        Self { domain, state, persistent, from_list: false, unannounced: false }
    }

    /// The event that says that it exists.
    pub(super) fn existing(&self, at: SystemTime) -> DomainEvent {
        let event = Lifecycle::new(self.domain.clone(), Change::Existing(self.state), at);
        Lifecycle { persistent: self.persistent, ..event }.into()
    }

    /// Whether both entries agree on the domain: its name, run, state and persistence. The reason
    /// of a state does not matter, since events name it more precisely than lists do.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        // A reply need not say it (libvirt's bulk statistics do not), and what is not said
        // contradicts nothing.
        let same_persistence = match (self.persistent, other.persistent) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        // Xen reports no state of a domain that waits for a processor.
        let has_state = |entry: &Self| entry.state != State::NoState;
        let same_state = !has_state(self) || !has_state(other) || self.state.is_same(other.state);
        self.domain.id() == other.domain.id()
            // The state of an inactive domain is only the reason of its last end.
            && (!self.domain.is_active() || same_state)
            && same_persistence
            && self.domain.name() == other.domain.name()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{PausedReason, RunningReason, ShutoffReason};

    #[test]
    fn a_list_agrees_in_name_run_state_and_persistence() {
        let running = State::Running(RunningReason::Booted);
        let paused = State::Paused(PausedReason::User);
        let off = State::Shutoff(ShutoffReason::Shutdown);
        let entry = |name, id, state, persistent| {
            Entry::seen(Domain::new("s:", "h", Uuid::from_u128(1), name, id), state, persistent)
        };
        let believed = entry("web", Some(3), running, Some(true));
        let agrees = |other: &Entry| {
            assert_eq!(believed.agrees(other), other.agrees(&believed));
            believed.agrees(other)
        };
        let unpaused = State::Running(RunningReason::Unpaused);
        assert!(agrees(&entry("web", Some(3), unpaused, Some(true))));
        assert!(agrees(&entry("web", Some(3), unpaused, None)));
        assert!(agrees(&entry("web", Some(3), State::NoState, Some(true))));
        assert!(!agrees(&entry("web", Some(3), paused, Some(true))));
        assert!(!agrees(&entry("web", Some(3), running, Some(false))));
        assert!(!agrees(&entry("web", Some(4), running, Some(true))));
        assert!(!agrees(&entry("www", Some(3), running, Some(true))));
        assert!(!agrees(&entry("web", None, off, Some(true))));
        let failed = State::Shutoff(ShutoffReason::Failed);
        let inactive = entry("web", None, failed, None);
        assert!(inactive.agrees(&entry("web", None, paused, None)), "an inactive one has no state");
    }
}
