//! The events of a simulated host.

use std::time::SystemTime;

use virevent::driver::Listed;
use virevent::{Change, Domain, DomainEvent, Lifecycle};

use super::{Emitted, Host, Inner, OpError, uuid_of};

/// Events without a change.
impl Host {
    /// Emits a lifecycle event of this domain without changing it: a change that no other operation
    /// makes, a repeated event, or an unknown number.
    ///
    /// # Errors
    /// There is no such domain.
    pub fn lifecycle(&self, name: &str, change: Change) -> Result<Domain, OpError> {
        self.operate(|inner| inner.emit_by_name("emit an event of", name, change))
    }

    /// Emits any event as it is, without changing a domain.
    pub fn emit(&self, event: impl Into<DomainEvent>) {
        let event = event.into();
        let mut inner = self.lock();
        let now = event.domain().and_then(|domain| inner.domains.get(domain.name())).cloned();
        inner.emit(&Emitted { event, now });
        drop(inner);
        self.shared.emitted.send_modify(|count| *count += 1);
    }
}

impl Host {
    pub(super) fn operate(
        &self,
        operation: impl FnOnce(&mut Inner) -> Result<Domain, OpError>,
    ) -> Result<Domain, OpError> {
        // After the lock is released: the sessions that this wakes take it.
        let domain = operation(&mut self.lock())?;
        self.shared.emitted.send_modify(|count| *count += 1);
        Ok(domain)
    }

    pub(super) fn fresh(&self, inner: &Inner, name: &str, id: Option<u32>) -> Domain {
        // A renamed domain keeps the uuid of its old name, so that may be taken.
        let mut uuids = (0..).map(|nth| uuid_of(name, nth));
        let uuid = uuids.find(|uuid| !inner.uuids.contains(uuid)).unwrap_or_default();
        Domain::new(self.source(), self.name(), uuid, name, id)
    }
}

impl Inner {
    pub(super) fn add(&mut self, name: &str, entry: Listed) {
        self.uuids.insert(entry.domain.uuid());
        self.domains.insert(name.into(), entry);
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(entry) = self.domains.remove(name) {
            self.uuids.remove(&entry.domain.uuid());
        }
    }

    pub(super) fn find(
        &mut self,
        operation: &'static str,
        name: &str,
    ) -> Result<&mut Listed, OpError> {
        self.domains
            .get_mut(name)
            .ok_or_else(|| OpError::NoSuchDomain { operation, name: name.into() })
    }

    pub(super) fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        self.last_id
    }

    /// Emits a change of an existing domain, and returns the domain.
    pub(super) fn emit_by_name(
        &mut self,
        operation: &'static str,
        name: &str,
        change: Change,
    ) -> Result<Domain, OpError> {
        let domain = self.find(operation, name)?.domain.clone();
        self.emit_change(&domain, change);
        Ok(domain)
    }

    pub(super) fn emit_change(&mut self, domain: &Domain, change: Change) {
        let now = self.domains.get(domain.name()).cloned();
        // libvirt sends -1 in a stop, since the run is over by then.
        let ended = matches!(change, Change::Stopped(_));
        let domain = if ended { domain.with_id(None) } else { domain.clone() };
        let at = SystemTime::now();
        self.emit(&Emitted { event: Lifecycle::new(domain, change, at).into(), now });
    }

    pub(super) fn emit(&mut self, emitted: &Emitted) {
        // The change itself is made: only a list shows it.
        if self.silent > 0 {
            return;
        }
        // Drops the observers whose connection is gone.
        self.observers.retain(|observer| observer.send(emitted.clone()).is_ok());
    }
}
