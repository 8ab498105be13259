//! The domain events that one client is registered for.

use virevent_libvirt::wire::{RemoteError, code};

use super::faults::remote_error;

/// The last event id that the calls without a callback id know (libvirt before 1.2.1).
const LAST_LEGACY_EVENT: i32 = 15;

/// One client's registrations, in the order in which they were made.
#[derive(Default)]
pub(super) struct Registrations(Vec<Registration>);

pub(super) struct Registration {
    pub(super) event: i32,
    /// `None` for a registration by a call without a callback id.
    pub(super) callback: Option<i32>,
}

impl Registrations {
    /// Registers for an event up to `last_event`. `next_callback` gives the callback id.
    pub(super) fn register(
        &mut self,
        event: i32,
        last_event: i32,
        next_callback: impl FnOnce() -> i32,
    ) -> Result<i32, RemoteError> {
        self.check(event, last_event)?;
        let callback = next_callback();
        self.0.push(Registration { event, callback: Some(callback) });
        Ok(callback)
    }

    /// Registers without a callback id.
    pub(super) fn register_legacy(
        &mut self,
        event: i32,
        last_event: i32,
    ) -> Result<(), RemoteError> {
        self.check(event, last_event.min(LAST_LEGACY_EVENT))?;
        self.0.push(Registration { event, callback: None });
        Ok(())
    }

    /// Removes the registrations that `is_meant` is true of: an error if there are none.
    pub(super) fn deregister(
        &mut self,
        is_meant: impl Fn(&Registration) -> bool,
    ) -> Result<(), RemoteError> {
        let before = self.0.len();
        self.0.retain(|known| !is_meant(known));
        match self.0.len() < before {
            true => Ok(()),
            false => Err(remote_error(code::INTERNAL_ERROR, "domain event callback not found")),
        }
    }

    /// The event ids, in order of registration.
    pub(super) fn events(&self) -> Vec<i32> {
        self.0.iter().map(|known| known.event).collect()
    }

    /// The registrations for one event.
    pub(super) fn of(&self, event: i32) -> impl Iterator<Item = &Registration> {
        self.0.iter().filter(move |known| known.event == event)
    }

    fn check(&self, event: i32, last: i32) -> Result<(), RemoteError> {
        // A refusal by error, on which the connection goes on: so clients may probe for events.
        if !(0..=last).contains(&event) {
            let message = format!("unsupported event ID {event}");
            return Err(remote_error(code::INTERNAL_ERROR, &message));
        }
        // One registration per event and connection: a client with many subscribers must share it.
        if self.of(event).next().is_some() {
            return Err(remote_error(code::INVALID_ARG, "event callback already tracked"));
        }
        Ok(())
    }
}
