//! The intake of a read: events, answers, and parts of the source that are lost or restored.

use tokio::time::Instant;

use super::{Core, Stage};
use crate::driver::batch::{Control, Level};
use crate::driver::inference::Inference;
use crate::driver::observe::{Trust, observe_all};
use crate::driver::session::Session;
use crate::{Domain, DomainEvent, Error, Fault, Origin, Scope};

impl Core {
    /// Processes what the session read.
    ///
    /// # Errors
    /// The server exceeds a bound, refuses the first list, or reports no lifecycle events.
    pub(in crate::driver) fn absorb<S: Session>(
        &mut self,
        session: &mut S,
        now: Instant,
    ) -> Result<(), Error> {
        // Taken out while `self` is borrowed and put back empty: its memory serves every read.
        let mut events = std::mem::take(&mut self.batch.events);
        // Nearly every read brings events only: one pass over the roster, one delivery.
        if self.batch.controls.is_empty() {
            self.observe(&mut events, now);
            self.deliver(&mut events);
        } else {
            let controls = std::mem::take(&mut self.batch.controls);
            self.absorb_controls(session, controls, &mut events, now)?;
        }
        events.clear();
        self.batch.events = events;
        self.batch.clear();
        // Only now, so that what was read before the limit is delivered before the streams end.
        self.roster.check_bounds()
    }

    /// Processes a read that brought more than events: the order of events and answers counts.
    fn absorb_controls<S: Session>(
        &mut self,
        session: &mut S,
        controls: Vec<(usize, Control)>,
        events: &mut Vec<DomainEvent>,
        now: Instant,
    ) -> Result<(), Error> {
        let mut due = Vec::new();
        let mut done = 0;
        // An answer counts from its place among the events: a list contains what stands before it,
        // and a registration brings what stands behind it.
        for (at, control) in controls {
            let mut before: Vec<_> = events.drain(..at - done).collect();
            done = at;
            self.observe(&mut before, now);
            due.append(&mut before);
            match control {
                // No delivery for each: a scan of all domains is one read with hundreds of levels.
                Control::Level(domain, level) => self.level(domain, level, &mut due),
                control => {
                    self.deliver(&mut due);
                    self.absorb_control(session, control, now)?;
                }
            }
        }
        self.observe(events, now);
        due.append(events);
        self.deliver(&mut due);
        Ok(())
    }

    /// Applies events to the roster, and leaves those that are to be delivered.
    pub(super) fn observe(&mut self, events: &mut Vec<DomainEvent>, now: Instant) {
        if events.is_empty() {
            return;
        }
        // The list that is awaited may contain these events or not. Only the merge can tell, so
        // they wait for it.
        if !self.stage.delivers() {
            if self.is_wanted() {
                events.drain(..).for_each(|event| self.buffer.event(event));
            } else {
                events.clear();
                self.miss();
            }
            return;
        }
        if self.stage == Stage::Overdue {
            // The list may contain them, or not, so the merge needs them too.
            events.iter().for_each(|event| self.buffer.event(event.clone()));
        }
        let mut before = Inference::new(Origin::Inferred, self.batch.received());
        let verifier = &mut self.verifier;
        observe_all(&mut self.roster, events, &mut before, |key, event, trust| {
            // Costs a map insert an event, and only a reply that is still to come can be misread.
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

    /// An event came after the last subscriber left, and is dropped. A list that was requested
    /// before, and the buffer, may lack it.
    fn miss(&mut self) {
        self.buffer.clear();
        self.calls.is_stale = true;
    }

    pub(super) fn deliver(&mut self, events: &mut Vec<DomainEvent>) {
        self.facts.add(|facts| &facts.events, events.len() as u64);
        self.facts.recorder.events(events);
        let renamed: Vec<_> = self.fanout.subscribers.renamed(events).cloned().collect();
        let mut missed = self.fanout.deliver(events);
        for domain in renamed {
            let key = self.roster.key(&domain);
            if let Some(entry) = self.roster.get(key) {
                missed += self.fanout.introduce(entry, self.batch.received());
            }
        }
        self.lagged(missed);
    }

    /// Counts events that were dropped for slow subscribers.
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
            Control::Restored(scope) => self.part_restored(session, &scope, now),
            // Handled with the events, whose order it shares.
            Control::Level(..) => {}
        }
        Ok(())
    }

    fn doubt(&mut self, scope: &Scope, now: Instant) {
        if !self.is_synced() {
            return;
        }
        match scope {
            Scope::Domain(domain) => {
                let key = self.roster.key(domain);
                self.verifier.doubt(key, domain, now);
            }
            Scope::Source(_) | Scope::Host { .. } | Scope::Fleet { .. } => {
                self.verifier.doubt_all(now);
            }
        }
    }

    /// A part of the source, or all of it, is unreachable while the session lives on.
    fn part_lost<S: Session>(&mut self, session: &mut S, scope: Scope, fault: Fault) {
        if scope.is_source() {
            return self.all_lost(session, scope, &fault);
        }
        // Before the list no stream believes anything of this part: the markers behind `Synced`
        // name it.
        if self.is_synced() {
            self.facts.add(|facts| &facts.gaps, 1);
            let missed = self.fanout.disconnected(&scope, &fault);
            self.lagged(missed);
        }
        self.scopes.insert(scope, fault);
        self.publish_scopes();
    }

    fn all_lost<S: Session>(&mut self, session: &mut S, scope: Scope, fault: &Fault) {
        // Streams that are in an outage already know.
        let is_unknown = self.outage.is_none() && self.fanout.has_synced();
        let is_news = is_unknown || (self.is_synced() && self.scopes.whole().is_none());
        self.scopes.insert(scope, fault.clone());
        self.publish_scopes();
        // Before `answer_in_outage`, which adds streams that get a gap of their own.
        if is_news {
            self.begin_outage(fault.clone());
        }
        // A list of now would say that no domain exists. It is requested when the source is
        // reachable again. A reply that comes all the same has a tag that no call waits for.
        self.calls.blocking = None;
        self.calls.list_since = None;
        if self.stage == Stage::Overdue {
            // The buffer holds events that have been delivered.
            self.buffer.clear();
            self.stage = Stage::Syncing;
        }
        self.verifier.stop();
        self.answer_in_outage(fault);
        self.publish_status();
        self.steer(session);
    }

    fn part_restored<S: Session>(&mut self, session: &mut S, scope: &Scope, now: Instant) {
        let was_unreachable = self.scopes.remove(scope);
        if self.scopes.has_hidden() {
            // It may have shown what it hid, or that this is gone: a list says so.
            self.verifier.doubt_all(now);
        }
        self.publish_scopes();
        if scope.is_source() {
            // Subscribers that came during the outage do not know the domains yet, so a list is
            // needed.
            self.roster.is_whole = false;
            if self.stage != Stage::Idle {
                self.enter(Stage::Syncing);
            }
            self.steer(session);
        } else if was_unreachable && self.is_synced() {
            self.facts.add(|facts| &facts.reconnects, 1);
            let missed = self.fanout.restored(scope, &self.roster);
            self.lagged(missed);
        }
    }

    /// Applies a level to the roster; the changes that lead there are `due` for delivery.
    pub(super) fn level(&mut self, domain: Domain, level: Level, due: &mut Vec<DomainEvent>) {
        if !self.stage.delivers() {
            match self.is_wanted() {
                true => self.buffer.level(domain, level),
                false => self.miss(),
            }
            return;
        }
        if self.stage == Stage::Overdue {
            self.buffer.level(domain.clone(), level);
        }
        // The session did not see when it happened if the domain was unreachable.
        let origin =
            if self.scopes.contains(&domain) { Origin::Inferred } else { Origin::Observed };
        // As for an event: a reply that was sent before this level says nothing about it.
        if self.verifier.is_busy() {
            self.verifier.touch(self.roster.key(&domain));
        }
        let mut inference = Inference::new(origin, self.batch.received());
        inference.level(&mut self.roster, domain, level);
        due.append(&mut inference.events);
    }
}
