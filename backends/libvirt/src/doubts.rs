//! Events of libvirt's that leave open how a domain is.
//!
//! | event | what it leaves open |
//! |---|---|
//! | control-error | whether the run goes on: nothing else reports a QEMU that died while its monitor hung |
//! | started (migrated) | whether the migration succeeds |
//! | reboot of a crashed guest | whether it runs again (`on_crash=restart`), or was reset and is paused |
//!
//! Each raises a doubt, and the driver asks how the domain is.

use std::collections::HashSet;

use virevent::driver::Listed;
use virevent::{
    Change, CrashCause, Domain, DomainEvent, EventName, Scope, StartCause, State, Uuid,
};

use crate::registrations::CONTROL_ERROR;
use crate::wire::MAX_DOMAINS;

/// More than libvirt lists. Of what is beyond, a reset is seen by the next list.
const MAX_CRASHED: usize = MAX_DOMAINS;

/// What is known of domains that an event may leave open.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// The domains whose guest crashed, and that have neither stopped nor gone on since.
    crashed: HashSet<Uuid>,
}

impl Doubts {
    /// Takes note of an event. Returns what it leaves open.
    #[inline]
    pub(crate) fn hear(&mut self, event: &DomainEvent) -> Option<Scope> {
        match event {
            DomainEvent::Lifecycle(event) if !self.matters(event.change) => None,
            event => self.weigh(event),
        }
    }

    /// Nearly all changes do not.
    #[inline]
    fn matters(&self, change: Change) -> bool {
        match change {
            Change::Started(StartCause::Migrated) | Change::Crashed(_) => true,
            Change::Started(_) | Change::Resumed(_) | Change::Stopped(_) => {
                !self.crashed.is_empty()
            }
            _ => false,
        }
    }

    #[cold]
    fn weigh(&mut self, event: &DomainEvent) -> Option<Scope> {
        let (domain, is_open) = match event {
            DomainEvent::Lifecycle(event) => {
                match event.change {
                    Change::Crashed(CrashCause::Crashloaded) => {}
                    Change::Crashed(_) => self.note(&event.domain, true),
                    Change::Started(_) | Change::Resumed(_) | Change::Stopped(_) => {
                        self.note(&event.domain, false);
                    }
                    _ => {}
                }
                (&event.domain, event.change == Change::Started(StartCause::Migrated))
            }
            DomainEvent::Reboot(event) => (&event.domain, self.is_crashed(&event.domain)),
            DomainEvent::Other(event) => {
                let is_control_error = *event.name() == EventName::Number(CONTROL_ERROR);
                (event.domain.as_ref()?, is_control_error)
            }
            _ => return None,
        };
        is_open.then(|| Scope::Domain(domain.clone()))
    }

    /// Takes note of how a domain is.
    pub(crate) fn see(&mut self, listed: &Listed) {
        self.note(&listed.domain, matches!(listed.state, State::Crashed(_)));
    }

    fn is_crashed(&self, domain: &Domain) -> bool {
        self.crashed.contains(&domain.uuid())
    }

    fn note(&mut self, domain: &Domain, crashed: bool) {
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

    use virevent::{EventData, Lifecycle, RawEvent, Reboot, ResumeCause, StopCause};

    use super::*;

    /// For each event whether it raises a doubt. `None` stands for a reboot.
    fn doubted(events: &[Option<Change>]) -> Vec<bool> {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", Some(3));
        let mut doubts = Doubts::default();
        let event = |change: &Option<Change>| match change {
            Some(change) => Lifecycle::new(domain.clone(), *change, SystemTime::UNIX_EPOCH).into(),
            None => Reboot::new(domain.clone(), SystemTime::UNIX_EPOCH).into(),
        };
        events.iter().map(|change| doubts.hear(&event(change)).is_some()).collect()
    }

    #[test]
    fn a_control_error_raises_a_doubt_of_its_domain() {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", Some(3));
        let doubted = |id, about: Option<&Domain>| {
            let data = EventData::Bytes([].into());
            let name = EventName::Number(id);
            let at = SystemTime::UNIX_EPOCH;
            Doubts::default().hear(&RawEvent::new("s:", about.cloned(), name, data, at).into())
        };
        assert_eq!(doubted(7, Some(&domain)), Some(Scope::Domain(domain.clone())));
        assert_eq!(doubted(8, Some(&domain)), None);
        assert_eq!(doubted(7, None), None);
    }

    #[test]
    fn only_the_start_of_a_migration_raises_a_doubt() {
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
