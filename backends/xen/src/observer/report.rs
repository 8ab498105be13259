//! What the observer reports to the driver.

use std::time::SystemTime;

use virevent::driver::{Batch, Listed};
use virevent::{Domain, DomainEvent, Kind, RawEvent, State, StopCause, Uuid};

use crate::decode::Request;

/// A batch, and whether anything was put into it.
pub(super) struct Report<'a> {
    batch: &'a mut Batch,
    is_used: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(batch: &'a mut Batch) -> Self {
        Self { batch, is_used: false }
    }

    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// The domain of this identity. Reports nothing.
    pub(super) fn domain(&mut self, uuid: Uuid, name: &str, domid: u16) -> Domain {
        self.batch.domain(uuid, name, Some(u32::from(domid)))
    }

    pub(super) fn received(&mut self) -> SystemTime {
        self.batch.received()
    }

    pub(super) fn interest_done(&mut self, tag: u64, refused: &[Kind]) {
        self.batch.interest_done(tag, refused);
        self.is_used = true;
    }

    pub(super) fn listed(&mut self, tag: u64, list: Vec<Listed>) {
        self.batch.listed(tag, list);
        self.is_used = true;
    }

    pub(super) fn state(&mut self, domain: Domain, state: State) {
        self.batch.state(domain, state);
        self.is_used = true;
    }

    pub(super) fn gone(&mut self, domain: &Domain, cause: StopCause) {
        self.batch.gone(domain, cause);
        self.is_used = true;
    }

    pub(super) fn event(&mut self, event: impl Into<DomainEvent>) {
        self.batch.event(event);
        self.is_used = true;
    }

    /// The event that carries a request to a guest.
    pub(super) fn request(&mut self, domain: &Domain, request: &Request) {
        let at = self.batch.received();
        let source = self.batch.source();
        let (name, data) = request.event();
        self.event(RawEvent::new(source, Some(domain.clone()), name, data, at));
    }
}
