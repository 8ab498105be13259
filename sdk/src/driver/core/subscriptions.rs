//! Subscriptions: how they begin, wait, fail and end.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Closing, Core, Stage, Waiting};
use crate::command::{SubscribeReply, answer};
use crate::driver::resume;
use crate::driver::subscribers::Subscriber;
use crate::{DomainEvent, End, Error, Fault, Scope, Snapshot};

impl Core {
    pub(in crate::driver) fn subscribe(&mut self, subscriber: Subscriber, ready: SubscribeReply) {
        self.waiting.push(Waiting { subscriber, ready, since: Instant::now() });
        // The whole source may be unreachable through a session that lives: a directory of sockets,
        // all gone.
        let fault = self.outage.as_ref().or(self.scopes.whole());
        match fault.cloned() {
            Some(fault) => self.answer_in_outage(&fault),
            None => self.admit(),
        }
    }

    /// Answers the subscriptions that need nothing more than what is known and registered.
    pub(super) fn admit(&mut self) {
        if !self.stage.is_synced() || self.waiting.is_empty() {
            return;
        }
        let possible = self.facts.capabilities().kinds;
        for waiting in std::mem::take(&mut self.waiting) {
            // Otherwise `Synced` would promise events of a kind that the server does not send yet.
            if waiting.subscriber.needs(&possible).all(|kind| self.calls.is_registered(kind)) {
                let admitted = self.admit_one(waiting.subscriber);
                answer(waiting.ready, admitted);
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    /// # Errors
    /// It resumes from a snapshot of another source or host.
    fn admit_one(&mut self, mut subscriber: Subscriber) -> Result<(), Error> {
        let Some(known) = subscriber.options.resume.take() else {
            self.fanout.admit(subscriber, &self.roster, &self.scopes);
            return Ok(());
        };
        resume::check(&known, &self.roster)?;
        for scope in self.remember(&known) {
            // The subscriber itself gets it behind its `Synced`.
            if let Some(fault) = self.scopes.fault(&scope).cloned() {
                self.facts.add(|facts| &facts.gaps, 1);
                let missed = self.fanout.disconnected(&scope, &fault);
                self.lagged(missed);
            }
        }
        let inferred = self.fanout.admit_resumed(subscriber, &known, &self.roster, &self.scopes);
        self.count(&inferred);
        Ok(())
    }

    /// Takes into account what a subscriber knows that resumes. Returns the domains that count as
    /// unreachable since.
    pub(super) fn remember(&mut self, known: &Snapshot) -> Vec<Scope> {
        let before: Vec<_> = self.scopes.iter().map(|(scope, _)| scope.clone()).collect();
        resume::remember(known, &mut self.roster, &mut self.scopes);
        self.publish_scopes();
        let is_new = |scope: &&Scope| !before.contains(scope);
        self.scopes.iter().map(|(scope, _)| scope).filter(is_new).cloned().collect()
    }

    /// Counts events that one subscriber gets alone.
    pub(super) fn count(&self, events: &[DomainEvent]) {
        let happened: Vec<_> =
            events.iter().filter(|event| event.is_happening()).cloned().collect();
        self.facts.add(|facts| &facts.events, happened.len() as u64);
        self.facts.recorder.events(&happened);
    }

    pub(super) fn admit_all_in_outage(&mut self, fault: &Fault) {
        for waiting in self.waiting.drain(..) {
            self.fanout.admit_in_outage(waiting.subscriber, fault);
            answer(waiting.ready, Ok(()));
        }
    }

    /// The whole source is unreachable. Waiting subscriptions join the streams that know about it;
    /// if there are none, the driver acts as if no connection could be made.
    pub(super) fn answer_in_outage(&mut self, fault: &Fault) {
        match self.outage {
            Some(_) => self.admit_all_in_outage(fault),
            None => self.connect_failed(&Error::of_fault(&self.source, fault)),
        }
    }

    pub(in crate::driver) fn cancel(&mut self, id: u64, done: Option<oneshot::Sender<()>>) {
        // In both places: a subscription may be dropped while it still waits.
        self.fanout.subscribers.remove(id);
        self.waiting.retain(|waiting| waiting.subscriber.id != id);
        let since = Instant::now();
        // Not confirmed here: the registration may have to change first, which `steer` decides.
        self.closing.extend(done.map(|done| Closing { done, since }));
    }

    /// Fills a mailbox that was emptied with a snapshot of the roster.
    pub(in crate::driver) fn reset(&mut self, id: u64) {
        let missed = match &self.outage {
            Some(fault) => self.fanout.reset_in_outage(id, fault),
            None => self.fanout.reset(id, &self.roster, &self.scopes),
        };
        self.lagged(missed);
    }

    /// Ends all streams and all waiting subscriptions.
    pub(in crate::driver) fn end(&mut self, end: &End) {
        self.fanout.end(end);
        for waiting in self.waiting.drain(..) {
            let error = match end {
                End::Failed(error) => error.clone(),
                _ => Error::Shutdown,
            };
            answer(waiting.ready, Err(error));
        }
    }

    /// A first connection failed, and so do the waiting subscriptions. Those with `wait` begin in
    /// an outage instead, unless a retry cannot help.
    pub(in crate::driver) fn connect_failed(&mut self, error: &Error) {
        let waiting = std::mem::take(&mut self.waiting);
        self.fail(waiting, error);
    }

    pub(super) fn fail(&mut self, failed: Vec<Waiting>, error: &Error) {
        let (patient, others): (Vec<_>, Vec<_>) = failed
            .into_iter()
            .partition(|waiting| waiting.subscriber.options.wait && !error.is_refusal());
        for waiting in others {
            answer(waiting.ready, Err(error.clone()));
        }
        // The outage begins with these streams, for there was none that could have been delivered a
        // gap.
        if !patient.is_empty() {
            self.waiting.extend(patient);
            let fault = error.to_fault();
            tracing::warn!(source = %self.source, %fault, "the hypervisor is unreachable");
            self.admit_all_in_outage(&fault);
            self.outage = Some(fault);
            if matches!(self.stage, Stage::Idle | Stage::Syncing) {
                self.stage = Stage::Late;
            }
            self.publish_status();
        }
    }

    /// Nothing is registered for closed subscriptions: the server has confirmed it, or there is no
    /// connection.
    pub(in crate::driver) fn confirm_closed(&mut self) {
        for closing in self.closing.drain(..) {
            answer(closing.done, ());
        }
    }
}
