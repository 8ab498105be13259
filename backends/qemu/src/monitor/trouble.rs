//! What is wrong with a monitor: when it is told as an outage, and when it is over.

use std::time::Duration;

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Domain, Error, Scope};

use super::connecting::Attempt;
use super::{GRACE, Monitor, Role, SOON, SourceContext};
use crate::link::{QmpLink, broken};
use crate::peer::identity;

impl Monitor {
    /// The connection is gone, or of no use.
    pub(super) fn lost(&mut self, error: &Error, shared: &mut SourceContext, out: &mut Batch) {
        let now = Instant::now();
        tracing::debug!(endpoint = %self.config.endpoint, %error, "lost the monitor");
        if let Some(guest) = &mut self.guest {
            guest.tell_pause(None, out);
        }
        self.forget_questions();
        let wait = match now.duration_since(self.opened_at) >= self.config.retry {
            true => {
                self.pause = SOON;
                Duration::ZERO
            }
            // Not in a tight circle with one that breaks each connection.
            false => self.patience(),
        };
        self.retry_at = now + wait;
        // A broken protocol is no sign of an end.
        let grace = if matches!(error, Error::Protocol { .. }) { Duration::ZERO } else { GRACE };
        self.unheard_from = Some(now + grace);
        self.trouble = Some((now + grace, error.to_fault()));
        self.tell_trouble(now, shared, out);
        self.desert(shared, out);
    }

    /// QEMU greets on a connection that was negotiated: its monitor was removed and made again. What
    /// happened in between is lost. The connection is kept, for another client may wait for its turn; one that greets
    /// without end is answered no faster than one that breaks each connection.
    pub(super) fn renegotiate(
        &mut self,
        link: QmpLink,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) {
        let again = "QEMU greets again: its monitor was removed and made again, and what happened \
                     in between is lost";
        self.lost(&broken(&again), shared, out);
        let way = self.guest.as_ref().and_then(|guest| guest.way.clone());
        self.attempt = Some(Attempt::again(&self.config, link, way, self.retry_at));
    }

    /// Gives up a socket that is gone, and that no QEMU was known behind. A run goes on: its process
    /// tells its end, or the [way](crate::peer::pinned_socket::PinnedSocket) to its socket.
    pub(super) fn desert(&mut self, shared: &mut SourceContext, out: &mut Batch) {
        let is_used = self.link.is_some() || self.attempt.is_some() || self.guest.is_some();
        if self.is_unlinked && !is_used {
            self.is_first = false;
            self.recovered(shared, out);
        }
    }

    /// The list of a source is due, and cannot wait until it is known whether there is a QEMU here.
    pub(crate) fn overdue(&mut self, shared: &mut SourceContext, out: &mut Batch) {
        if self.is_first && self.trouble.is_none() {
            let now = Instant::now();
            let error = match &self.attempt {
                Some(attempt) => attempt.silence(&self.config, now),
                None => self.config.held(Duration::ZERO),
            };
            self.trouble = Some((now, error.to_fault()));
            self.tell_trouble(now, shared, out);
        }
    }

    /// True if an outage was told.
    pub(super) fn tell_trouble(
        &mut self,
        now: Instant,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> bool {
        let may_tell = self.may_tell_trouble(shared);
        let Some((_, fault)) = self.trouble.take_if(|(due, _)| may_tell && now >= *due) else {
            return false;
        };
        self.trouble = Some((now, fault.clone()));
        let scope = match self.role {
            Role::Source => out.source_scope(),
            Role::Part => Scope::Domain(self.whom(shared, out)),
        };
        // Whatever it is, it is settled.
        self.is_first &= self.role == Role::Source;
        out.outage(scope.clone(), fault);
        self.outage = Some(scope);
        true
    }

    pub(super) fn may_tell_trouble(&self, shared: &SourceContext) -> bool {
        let waits_for_list = self.role == Role::Source && shared.is_listing;
        // Who cannot be reached for that reason is part of that outage.
        let is_of_source = shared.is_shut && self.guest.is_none();
        self.outage.is_none() && !waits_for_list && !is_of_source
    }

    /// The domain that an outage is of. Where it is not known who is there, it is a domain of the name
    /// and the uuid that a QEMU without any would have.
    fn whom(&self, shared: &mut SourceContext, out: &mut Batch) -> Domain {
        if let Some(guest) = &self.guest {
            return guest.domain(out);
        }
        let (host, endpoint) = (&self.config.host, &self.config.origin);
        let uuid = shared.uuids.claim(identity::uuid(None, host, endpoint), host, endpoint);
        out.domain(uuid, &self.config.name, None)
    }

    /// Tells the state of the guest. A list that is under way is newer, and tells it instead.
    pub(super) fn tell_state(&mut self, shared: &SourceContext, out: &mut Batch) {
        if let Some(guest) = self.guest.as_mut().filter(|_| !shared.is_listing) {
            guest.tell_state(out);
        }
    }

    /// All is well: what was out of reach is whole again.
    pub(super) fn recovered(&mut self, shared: &mut SourceContext, out: &mut Batch) {
        self.trouble = None;
        let Some(scope) = self.outage.take() else { return };
        match &scope {
            // The driver asks for a list, and tells from it what happened.
            Scope::Source(_) => shared.is_listing = true,
            Scope::Domain(domain) => match &self.guest {
                Some(guest) if guest.uuid == domain.uuid() => self.tell_state(shared, out),
                // It stood for somebody who was not known.
                _ => shared.uuids.release(domain.uuid()),
            },
            _ => {}
        }
        out.restored(scope);
    }
}
