//! Events of libvirt after which the state of a domain is not certain.
//!
//! | event | what is not certain |
//! |---|---|
//! | control-error | whether the run goes on: it is the only event when a QEMU dies whose monitor hung |
//! | started (migrated) | whether the migration succeeds |
//! | reboot of a crashed guest | whether it runs again (`on_crash=restart`), or was reset and is paused |
//!
//! Each raises a doubt, and the driver asks for the state of the domain.

use std::collections::HashSet;

use virevent::driver::Listed;
use virevent::{
    Change, CrashCause, Domain, DomainEvent, NoticeBody, Scope, StartCause, State, Uuid,
};

use crate::wire::MAX_DOMAINS;

/// The most crashed domains that are remembered: as many as libvirt lists. The reset of a further
/// one is found by the next list.
const MAX_CRASHED: usize = MAX_DOMAINS;

/// What is needed to tell which events raise a doubt.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// The domains whose guest crashed and that have not stopped, started or resumed since.
    crashed: HashSet<Uuid>,
}

impl Doubts {
    /// Remembers what an event says. Returns the domain that is in doubt after it.
    #[inline]
    pub(crate) fn on_event(&mut self, event: &DomainEvent) -> Option<Scope> {
        match event {
            DomainEvent::Lifecycle(event) if !self.is_relevant(event.change) => None,
            event => self.examine(event),
        }
    }

    /// Whether a change has to be examined. Nearly all have not, and cost no more than this.
    #[inline]
    fn is_relevant(&self, change: Change) -> bool {
        match change {
            Change::Started(StartCause::Migrated) | Change::Crashed(_) => true,
            Change::Started(_) | Change::Resumed(_) | Change::Stopped(_) => {
                !self.crashed.is_empty()
            }
            _ => false,
        }
    }

    #[cold]
    fn examine(&mut self, event: &DomainEvent) -> Option<Scope> {
        let (domain, is_doubtful) = match event {
            DomainEvent::Lifecycle(event) => {
                match event.change {
                    // The guest loaded a crash kernel, and goes on running.
                    Change::Crashed(CrashCause::Crashloaded) => {}
                    Change::Crashed(_) => self.set_crashed(&event.domain, true),
                    Change::Started(_) | Change::Resumed(_) | Change::Stopped(_) => {
                        self.set_crashed(&event.domain, false);
                    }
                    _ => {}
                }
                (&event.domain, event.change == Change::Started(StartCause::Migrated))
            }
            DomainEvent::Reboot(event) => (&event.domain, self.is_crashed(&event.domain)),
            DomainEvent::Notice(event) => {
                (&event.domain, matches!(*event.body, NoticeBody::ControlError {}))
            }
            _ => return None,
        };
        is_doubtful.then(|| Scope::Domain(domain.clone()))
    }

    /// Remembers the state of a domain in a list.
    pub(crate) fn on_listed(&mut self, listed: &Listed) {
        self.set_crashed(&listed.domain, matches!(listed.state, State::Crashed(_)));
    }

    fn is_crashed(&self, domain: &Domain) -> bool {
        self.crashed.contains(&domain.uuid())
    }

    fn set_crashed(&mut self, domain: &Domain, crashed: bool) {
        // A domain that is not in the set when the set is full raises no doubt when it is reset.
        if !crashed {
            self.crashed.remove(&domain.uuid());
        } else if self.crashed.len() < MAX_CRASHED {
            self.crashed.insert(domain.uuid());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use virevent::{Lifecycle, Notice, Reboot, ResumeCause, StopCause};

    use super::*;

    /// For each event whether it raises a doubt. `None` stands for a reboot.
    fn doubted(events: &[Option<Change>]) -> Vec<bool> {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", Some(3));
        let mut doubts = Doubts::default();
        let event = |change: &Option<Change>| match change {
            Some(change) => Lifecycle::new(domain.clone(), *change, SystemTime::UNIX_EPOCH).into(),
            None => Reboot::new(domain.clone(), SystemTime::UNIX_EPOCH).into(),
        };
        events.iter().map(|change| doubts.on_event(&event(change)).is_some()).collect()
    }

    #[test]
    fn a_control_error_raises_a_doubt_of_its_domain() {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", Some(3));
        let doubted = |body| {
            let notice = Notice::new(domain.clone(), body, SystemTime::UNIX_EPOCH);
            Doubts::default().on_event(&notice.into())
        };
        assert_eq!(doubted(NoticeBody::ControlError {}), Some(Scope::Domain(domain.clone())));
        assert_eq!(doubted(NoticeBody::RtcChange { offset: 0 }), None);
    }

    #[test]
    fn of_starts_only_that_of_a_migration_raises_a_doubt() {
        let started = |cause| Some(Change::Started(cause));
        let starts = [started(StartCause::Migrated), started(StartCause::Booted)];
        assert_eq!(doubted(&starts), [true, false]);
    }

    #[test]
    fn a_reboot_raises_a_doubt_while_the_guest_is_crashed() {
        let crashed = Some(Change::Crashed(CrashCause::Panicked));
        let resumed = Some(Change::Resumed(ResumeCause::Unpaused));
        let events = [None, crashed, None, None, resumed, None];
        assert_eq!(doubted(&events), [false, false, true, true, false, false]);
        let stopped = Some(Change::Stopped(StopCause::Crashed));
        assert_eq!(doubted(&[crashed, stopped, None]), [false; 3]);
        let crashloaded = Some(Change::Crashed(CrashCause::Crashloaded));
        assert_eq!(doubted(&[crashloaded, None]), [false; 2]);
    }
}
