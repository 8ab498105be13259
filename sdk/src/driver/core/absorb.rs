//! What a read of the session means: events, answers, and word of parts that come and go.

use tokio::time::Instant;

use super::Core;
use crate::driver::batch::Control;
use crate::driver::inference::Inference;
use crate::driver::observe::{Trust, observe_all};
use crate::driver::session::Session;
use crate::{Domain, DomainEvent, Error, Fault, Origin, Scope, State, Status, StopCause};

impl Core {
    /// Takes in what the session read.
    ///
    /// # Errors
    /// The other side is not to be believed, or has nothing for us.
    pub(in crate::driver) fn absorb<S: Session>(
        &mut self,
        session: &mut S,
        now: Instant,
    ) -> Result<(), Error> {
        let mut events = std::mem::take(&mut self.batch.events);
        if self.batch.controls.is_empty() {
            self.note(&mut events, now);
            self.tell(&mut events);
        } else {
            let controls = std::mem::take(&mut self.batch.controls);
            self.absorb_controls(session, controls, &mut events, now)?;
        }
        events.clear();
        self.batch.events = events;
        self.batch.clear();
        self.batch.roster.check_bounds()
    }

    /// Takes in a read that brought more than events.
    fn absorb_controls<S: Session>(
        &mut self,
        session: &mut S,
        controls: Vec<(usize, Control)>,
        events: &mut Vec<DomainEvent>,
        now: Instant,
    ) -> Result<(), Error> {
        let mut due = Vec::new();
        let mut done = 0;
        for (at, control) in controls {
            let mut before: Vec<_> = events.drain(..at - done).collect();
            done = at;
            self.note(&mut before, now);
            due.append(&mut before);
            match control {
                Control::State(domain, state) => self.level(domain, Ok(state), &mut due),
                Control::Gone(domain, cause) => self.level(domain, Err(cause), &mut due),
                control => {
                    self.tell(&mut due);
                    self.absorb_control(session, control, now)?;
                }
            }
        }
        self.note(events, now);
        due.append(events);
        self.tell(&mut due);
        Ok(())
    }

    /// Whether events are delivered as they come, rather than held until there is a list.
    fn is_live(&self) -> bool {
        self.synced.is_some() || self.is_overdue
    }

    /// Takes note of events, and leaves those that are to be delivered.
    pub(super) fn note(&mut self, events: &mut Vec<DomainEvent>, now: Instant) {
        if events.is_empty() {
            return;
        }
        if !self.is_live() {
            if self.is_wanted() {
                events.drain(..).for_each(|event| self.buffer.event(event));
            } else {
                events.clear();
                self.miss();
            }
            return;
        }
        if self.is_overdue {
            // The list, when it comes, is to be compared with them too.
            events.iter().for_each(|event| self.buffer.event(event.clone()));
        }
        let mut before = Inference::new(Origin::Inferred, self.batch.received());
        let verifier = &mut self.verifier;
        observe_all(&mut self.batch.roster, events, &mut before, |key, event, trust| {
            if verifier.is_busy() {
                verifier.touch(key);
            }
            match (trust, event.domain()) {
                (Trust::Doubted, Some(domain)) => verifier.doubt(key, domain, now),
                (Trust::Restored, _) => verifier.trust(key),
                _ => {}
            }
        });
    }

    /// Drops what comes after the last subscriber left. A list that was asked for before may lack it, and so
    /// does what was held.
    fn miss(&mut self) {
        self.buffer.clear();
        self.calls.is_stale = true;
    }

    pub(super) fn tell(&mut self, events: &mut Vec<DomainEvent>) {
        self.facts.add(|facts| &facts.events, events.len() as u64);
        let missed = self.fanout.deliver(events);
        self.lagged(missed);
    }

    /// Takes note that slow subscribers did not get some events.
    pub(super) fn lagged(&self, missed: u64) {
        if missed > 0 {
            tracing::debug!(source = %self.source, missed, "a subscriber reads too slowly");
            self.facts.add(|facts| &facts.missed, missed);
        }
    }

    fn absorb_control<S: Session>(
        &mut self,
        session: &mut S,
        control: Control,
        now: Instant,
    ) -> Result<(), Error> {
        match control {
            Control::InterestDone(tag, refused) => self.interest_done(session, tag, refused)?,
            Control::Listed(tag, list) => self.listed(session, tag, list, now),
            Control::ListFailed(tag, error) => self.list_failed(session, tag, error, now)?,
            Control::Looked(tag, found) => self.looked(session, tag, Ok(found), now),
            Control::LookFailed(tag) => self.looked(session, tag, Err(()), now),
            Control::Doubt(scope) => self.doubt(&scope, now),
            Control::Outage(scope, fault) => self.part_lost(session, scope, fault),
            Control::Restored(scope) => self.part_restored(session, &scope),
            Control::State(..) | Control::Gone(..) => {}
        }
        Ok(())
    }

    fn doubt(&mut self, scope: &Scope, now: Instant) {
        if self.synced.is_none() {
            return;
        }
        match scope {
            Scope::Domain(domain) => {
                let key = self.batch.roster.key(domain);
                self.verifier.doubt(key, domain, now);
            }
            Scope::Source(_) | Scope::Host { .. } => self.verifier.doubt_all(now),
        }
    }

    /// A part of the source, or all of it, is out of reach while the session lives on.
    fn part_lost<S: Session>(&mut self, session: &mut S, scope: Scope, fault: Fault) {
        let is_whole = scope.is_source();
        // Streams that are in an outage already know.
        let is_repeated = is_whole && self.scopes.whole().is_some();
        let is_untold = is_whole && self.outage.is_none() && self.fanout.knows();
        let is_news = !is_repeated && (self.synced.is_some() || is_untold);
        if is_news {
            self.facts.add(|facts| &facts.gaps, 1);
            let missed = self.fanout.broke(&scope, &fault);
            self.lagged(missed);
        }
        self.scopes.insert(scope, fault.clone());
        self.publish_scopes();
        if is_whole {
            if is_news {
                self.outage = Some(fault.clone());
            }
            // A list of now would say that nothing is there: it is asked for when all is back.
            self.calls.blocking = None;
            self.calls.list_since = None;
            if std::mem::take(&mut self.is_overdue) {
                // It has been delivered.
                self.buffer.clear();
            }
            self.verifier.stop();
            self.answer_in_outage(&fault);
            self.set_status(Status::Disconnected(fault));
            self.steer(session);
        }
    }

    fn part_restored<S: Session>(&mut self, session: &mut S, scope: &Scope) {
        self.scopes.remove(scope);
        self.publish_scopes();
        if scope.is_source() {
            // Subscribers that came in the outage know nothing yet: a list tells them, too.
            self.synced = None;
            self.batch.roster.is_whole = false;
            self.steer(session);
        } else if self.synced.is_some() {
            self.facts.add(|facts| &facts.reconnects, 1);
            let missed = self.fanout.restored(scope, &self.batch.roster);
            self.lagged(missed);
        }
    }

    /// Takes note of how a domain is; what must have happened is `due` to be delivered.
    pub(super) fn level(
        &mut self,
        domain: Domain,
        level: Result<State, StopCause>,
        due: &mut Vec<DomainEvent>,
    ) {
        if !self.is_live() {
            match self.is_wanted() {
                true => self.buffer.level(domain, level),
                false => self.miss(),
            }
            return;
        }
        if self.is_overdue {
            self.buffer.level(domain.clone(), level);
        }
        // What happened in a part that was out of reach was not seen when it happened.
        let origin =
            if self.scopes.contains(&domain) { Origin::Inferred } else { Origin::Observed };
        if self.verifier.is_busy() {
            self.verifier.touch(self.batch.roster.key(&domain));
        }
        let mut inference = Inference::new(origin, self.batch.received());
        match level {
            Ok(state) => inference.level(&mut self.batch.roster, domain, state),
            Err(cause) => inference.gone_level(&mut self.batch.roster, &domain, cause),
        }
        due.append(&mut inference.events);
    }
}
