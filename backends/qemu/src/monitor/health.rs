//! What is wrong with a monitor: when that is reported as an outage, and when it is over.

use tokio::time::Instant;
use virevent::{Domain, Error, Fault, Scope};

use super::run::QemuRun;
use super::state::State;
use super::turn::{Role, SourceContext, Turn};
use super::{CLOSE_GRACE, Monitor};
use crate::link::QmpLink;
use crate::peer::identity;

/// Whether something is wrong.
#[derive(Debug)]
pub(super) enum Health {
    Well,
    /// Something is wrong. It becomes an outage at `due` unless it is over by then.
    Suspected {
        due: Instant,
        fault: Fault,
    },
    /// The outage of this scope was reported, and lasts.
    Outage(Scope),
}

impl Health {
    pub(super) fn is_well(&self) -> bool {
        matches!(self, Self::Well)
    }

    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Outage(_))
    }

    /// Suspects this fault in place of an earlier one. An outage stays as it was reported.
    pub(super) fn suspect(&mut self, due: Instant, fault: Fault) {
        if !self.is_outage() {
            *self = Self::Suspected { due, fault };
        }
    }

    /// Nothing is wrong any more: reports the end of an outage, and the state of `run` before it.
    pub(super) fn recover(&mut self, run: Option<&mut QemuRun>, turn: &mut Turn<'_>) {
        let Self::Outage(scope) = std::mem::replace(self, Self::Well) else { return };
        match &scope {
            // The driver asks for a list after it, and derives from that what happened.
            Scope::Source(_) => turn.shared.is_listing = true,
            Scope::Domain(domain) => match run {
                Some(run) if run.uuid == domain.uuid() => run.report_state_unless_listing(turn),
                // The outage was that of a placeholder, before the QEMU behind the socket was
                // known.
                _ => turn.shared.uuids.release(domain.uuid()),
            },
            _ => {}
        }
        turn.out.restored(scope);
    }
}

impl Monitor {
    /// Ends the use of a connection; returns it, and when the next attempt may begin.
    pub(super) fn lose(
        &mut self,
        error: &Error,
        turn: &mut Turn<'_>,
    ) -> Option<(QmpLink, Instant)> {
        let now = Instant::now();
        let retry_at = self.retry_at_after_loss(now)?;
        tracing::debug!(endpoint = %self.config.endpoint, %error, "lost the monitor");
        if let Some(run) = self.state.run_mut() {
            // The answer with the cause was lost with the connection.
            run.deliver_pause(None, turn.out);
        }
        // A process that ends closes its socket some time before. A broken
        // protocol is no sign of an end.
        let is_broken = matches!(error, Error::Protocol { .. });
        let due = if is_broken { now } else { now + CLOSE_GRACE };
        // An end within the grace is what closed the connection, and could have been announced.
        let link = self.state.lose_connection(due, retry_at)?;
        self.health.suspect(due, error.to_fault());
        self.report_outage(now, turn);
        Some((link, retry_at))
    }

    /// When to connect again after a loss now; `None` without a connection.
    fn retry_at_after_loss(&mut self, now: Instant) -> Option<Instant> {
        let State::Connected(connected) = &self.state else { return None };
        if now.duration_since(connected.dialog.opened_at) >= self.config.retry {
            self.backoff.reset_pause();
            return Some(now);
        }
        // Not in a tight loop with a peer that breaks each connection.
        Some(now + self.next_pause())
    }

    /// Reports a suspected fault as an outage once that is due. True if it did.
    pub(super) fn report_outage(&mut self, now: Instant, turn: &mut Turn<'_>) -> bool {
        let fault = match &self.health {
            Health::Suspected { due, fault } if now >= *due => fault.clone(),
            _ => return false,
        };
        if !self.may_report_outage(turn.shared) {
            return false;
        }
        let scope = match self.role {
            Role::Source => turn.out.source_scope(),
            Role::Member => Scope::Domain(self.affected_domain(turn)),
        };
        // A first list does not wait any longer for a member whose outage was reported.
        self.is_settled |= self.role == Role::Member;
        turn.out.outage(scope.clone(), fault);
        self.health = Health::Outage(scope);
        true
    }

    pub(super) fn may_report_outage(&self, shared: &SourceContext) -> bool {
        let waits_for_list = self.role == Role::Source && shared.is_listing;
        // Already covered by the outage of the source.
        let is_covered = shared.is_unreadable && self.state.run().is_none();
        !self.health.is_outage() && !waits_for_list && !is_covered
    }

    /// The domain that an outage affects. Where the QEMU is not known it is a placeholder, with the
    /// name and the uuid that a QEMU without any would have.
    fn affected_domain(&self, turn: &mut Turn<'_>) -> Domain {
        if let Some(run) = self.state.run() {
            return run.domain(turn.out);
        }
        let host = &self.config.host;
        let endpoint = &self.config.origin;
        let uuid = identity::uuid(None, host, endpoint);
        let uuid = turn.shared.uuids.claim(uuid, host, endpoint);
        turn.out.domain(uuid, &self.config.name, None)
    }
}
