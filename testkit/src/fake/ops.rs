//! The operations on the domains of a fake hypervisor.

use virevent::{Change, Domain, DomainEvent, StartCause, StopCause};

use super::FakeHypervisor;
use crate::host::OpError;

/// Each operation changes the host and returns the domain after it, or fails and changes nothing.
impl FakeHypervisor {
    /// See [`Host::define`](crate::Host::define).
    ///
    /// # Errors
    /// See there.
    pub fn define(&self, name: &str) -> Result<Domain, OpError> {
        self.host().define(name)
    }

    /// Starts a transient domain: see [`Host::create`](crate::Host::create).
    ///
    /// # Errors
    /// See there.
    pub fn create(&self, name: &str) -> Result<Domain, OpError> {
        self.host().create(name)
    }

    /// See [`Host::start`](crate::Host::start).
    ///
    /// # Errors
    /// See there.
    pub fn start(&self, name: &str) -> Result<Domain, OpError> {
        self.host().start(name)
    }

    /// See [`Host::start_as`](crate::Host::start_as).
    ///
    /// # Errors
    /// See there.
    pub fn start_as(&self, name: &str, cause: StartCause) -> Result<Domain, OpError> {
        self.host().start_as(name, cause)
    }

    /// See [`Host::suspend`](crate::Host::suspend).
    ///
    /// # Errors
    /// See there.
    pub fn suspend(&self, name: &str) -> Result<Domain, OpError> {
        self.host().suspend(name)
    }

    /// See [`Host::resume`](crate::Host::resume).
    ///
    /// # Errors
    /// See there.
    pub fn resume(&self, name: &str) -> Result<Domain, OpError> {
        self.host().resume(name)
    }

    /// The guest suspends itself to memory: see [`Host::pm_suspend`](crate::Host::pm_suspend).
    ///
    /// # Errors
    /// See there.
    pub fn pm_suspend(&self, name: &str) -> Result<Domain, OpError> {
        self.host().pm_suspend(name)
    }

    /// See [`Host::wake_up`](crate::Host::wake_up).
    ///
    /// # Errors
    /// See there.
    pub fn wake_up(&self, name: &str) -> Result<Domain, OpError> {
        self.host().wake_up(name)
    }

    /// The guest shuts itself down: see [`Host::shut_down`](crate::Host::shut_down).
    ///
    /// # Errors
    /// See there.
    pub fn shut_down(&self, name: &str) -> Result<Domain, OpError> {
        self.host().shut_down(name)
    }

    /// Forces a domain off: see [`Host::stop`](crate::Host::stop).
    ///
    /// # Errors
    /// See there.
    pub fn stop(&self, name: &str) -> Result<Domain, OpError> {
        self.host().stop(name)
    }

    /// See [`Host::stop_as`](crate::Host::stop_as).
    ///
    /// # Errors
    /// See there.
    pub fn stop_as(&self, name: &str, cause: StopCause) -> Result<Domain, OpError> {
        self.host().stop_as(name, cause)
    }

    /// The guest panics and is stopped: see [`Host::crash`](crate::Host::crash).
    ///
    /// # Errors
    /// See there.
    pub fn crash(&self, name: &str) -> Result<Domain, OpError> {
        self.host().crash(name)
    }

    /// See [`Host::undefine`](crate::Host::undefine).
    ///
    /// # Errors
    /// See there.
    pub fn undefine(&self, name: &str) -> Result<Domain, OpError> {
        self.host().undefine(name)
    }

    /// See [`Host::rename`](crate::Host::rename).
    ///
    /// # Errors
    /// See there.
    pub fn rename(&self, old: &str, new: &str) -> Result<Domain, OpError> {
        self.host().rename(old, new)
    }

    /// See [`Host::reboot`](crate::Host::reboot).
    ///
    /// # Errors
    /// See there.
    pub fn reboot(&self, name: &str) -> Result<Domain, OpError> {
        self.host().reboot(name)
    }

    /// Emits a lifecycle event without changing a domain: see
    /// [`Host::lifecycle`](crate::Host::lifecycle).
    ///
    /// # Errors
    /// See there.
    pub fn lifecycle(&self, name: &str, change: Change) -> Result<Domain, OpError> {
        self.host().lifecycle(name, change)
    }

    /// Runs `act` without emitting events: see [`Host::silently`](crate::Host::silently).
    pub fn silently<T>(&self, act: impl FnOnce(&Self) -> T) -> T {
        self.host().silently(|_| act(self))
    }

    /// Emits any event as it is: see [`Host::emit`](crate::Host::emit).
    pub fn emit(&self, event: impl Into<DomainEvent>) {
        self.host().emit(event);
    }
}
