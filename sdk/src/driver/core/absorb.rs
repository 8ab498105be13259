//! What a read of the session means: events, answers, and word of parts that come and go.

use tokio::time::Instant;

use super::Core;
use crate::driver::batch::Control;
use crate::driver::diff::Tale;
use crate::driver::roster::{DOMAINS, Entry};
use crate::driver::session::Session;
use crate::driver::sync::{Merged, merge};
use crate::{Domain, DomainEvent, End, Error, Kind, Kinds, Origin, State, Status, StopCause};

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
        self.echoes.expire(now);
        let mut events = std::mem::take(&mut self.batch.events);
        if self.batch.controls.is_empty() {
            self.note(&mut events);
            self.tell(&mut events);
        } else {
            let controls = std::mem::take(&mut self.batch.controls);
            self.absorb_controls(session, controls, &mut events, now)?;
        }
        events.clear();
        self.batch.events = events;
        self.batch.clear();
        if self.batch.roster.is_overfull() {
            let detail = format!("the server tells of more than {DOMAINS} domains");
            return Err(Error::Protocol { detail });
        }
        Ok(())
    }

    /// Takes in a read that brought more than events.
    fn absorb_controls<S: Session>(
        &mut self,
        session: &mut S,
        controls: Vec<(usize, Control)>,
        events: &mut Vec<DomainEvent>,
        now: Instant,
    ) -> Result<(), Error> {
        let (mut due, mut done) = (Vec::new(), 0);
        for (at, control) in controls {
            let mut before: Vec<_> = events.drain(..at - done).collect();
            done = at;
            self.note(&mut before);
            due.append(&mut before);
            match control {
                Control::State(domain, state) => self.level(domain, Ok(state), &mut due),
                Control::Gone(domain, cause) => self.level(domain, Err(cause), &mut due),
                control => {
                    self.tell(&mut due);
                    self.absorb_answer(session, control, now)?;
                }
            }
        }
        self.note(events);
        due.append(events);
        self.tell(&mut due);
        Ok(())
    }

    /// Takes note of events, and leaves those that are to be told.
    fn note(&mut self, events: &mut Vec<DomainEvent>) {
        if self.synced.is_none() {
            // What comes after the last subscriber left is for nobody.
            let wanted = self.is_wanted();
            events.drain(..).filter(|_| wanted).for_each(|event| self.held.event(event));
            return;
        }
        let (roster, echoes) = (&mut self.batch.roster, &mut self.echoes);
        events.retain_mut(|event| {
            let DomainEvent::Lifecycle(event) = event else { return true };
            let key = roster.key(&event.domain);
            let echo = echoes.is_armed() && echoes.is_echo(key, event);
            roster.apply_at(key, event);
            !echo
        });
    }

    fn tell(&mut self, events: &mut Vec<DomainEvent>) {
        self.facts.add(|facts| &facts.events, events.len() as u64);
        let missed = self.fanout.deliver(events);
        self.lagged(missed);
    }

    /// Takes note that slow subscribers did not get some events.
    fn lagged(&self, missed: u64) {
        if missed > 0 {
            tracing::debug!(source = %self.source, missed, "a subscriber reads too slowly");
            self.facts.add(|facts| &facts.missed, missed);
        }
    }

    fn absorb_answer<S: Session>(
        &mut self,
        session: &mut S,
        control: Control,
        now: Instant,
    ) -> Result<(), Error> {
        match control {
            Control::InterestDone(tag, refused) => self.interest_done(session, tag, refused)?,
            Control::Listed(tag, list) => self.listed(session, tag, list, now),
            Control::Outage(scope, fault) => {
                let is_whole = scope.is_source();
                // Streams that are in an outage already know.
                if self.synced.is_some()
                    || (is_whole && self.outage.is_none() && self.fanout.knows())
                {
                    self.facts.add(|facts| &facts.gaps, 1);
                    self.fanout.broke(&scope, &fault);
                    if is_whole {
                        self.outage = Some(fault.clone());
                    }
                }
                self.scopes.insert(scope, fault.clone());
                if is_whole {
                    // A list of now would tell that nothing is there: it is asked for when all is back.
                    self.calls.list = None;
                    self.answer_in_outage(&fault);
                    self.set_status(Status::Disconnected(fault));
                    self.steer(session);
                }
            }
            Control::Restored(scope) => {
                self.scopes.remove(&scope);
                if scope.is_source() {
                    // Those who came in the outage know nothing yet: a list tells them, too.
                    self.synced = None;
                    self.steer(session);
                } else if self.synced.is_some() {
                    self.facts.add(|facts| &facts.reconnects, 1);
                    self.fanout.restored(&scope, &self.batch.roster);
                }
            }
            Control::Looked(..) | Control::LookFailed(..) | Control::Doubt(..) => {}
            Control::State(..) | Control::Gone(..) => {}
        }
        Ok(())
    }

    /// Takes note of how a domain is; what must have happened is `due` to be told.
    fn level(
        &mut self,
        domain: Domain,
        level: Result<State, StopCause>,
        due: &mut Vec<DomainEvent>,
    ) {
        if self.synced.is_none() {
            if self.is_wanted() {
                self.held.level(domain, level);
            }
            return;
        }
        // What happened in a part that was out of reach was not seen when it happened.
        let origin =
            if self.scopes.contains(&domain) { Origin::Inferred } else { Origin::Observed };
        // What comes after it repeats nothing of the sync.
        self.echoes.overtaken(self.batch.roster.key(&domain));
        let mut tale = Tale::new(origin, self.batch.received());
        match level {
            Ok(state) => tale.level(&mut self.batch.roster, domain, state),
            Err(cause) => tale.gone_level(&mut self.batch.roster, &domain, cause),
        }
        due.extend(tale.events.into_iter().map(DomainEvent::from));
    }

    fn interest_done<S: Session>(
        &mut self,
        session: &mut S,
        tag: u64,
        refused: Vec<Kind>,
    ) -> Result<(), Error> {
        // An answer to a question of the past is nobody's.
        let Some((_, mut interest)) =
            self.calls.interest.take_if(|(pending, _)| pending.tag == tag)
        else {
            return Ok(());
        };
        if refused.contains(&Kind::Lifecycle) {
            // All that is known of the domains rests on it.
            return Err(self.unsupported(Kind::Lifecycle));
        }
        refused.iter().for_each(|kind| interest.kinds.remove(kind));
        self.calls.registered = interest;
        if !refused.is_empty() {
            self.refuse(&refused.into_iter().collect());
        }
        self.admit();
        self.steer(session);
        Ok(())
    }

    fn unsupported(&self, kind: Kind) -> Error {
        Error::Unsupported { uri: self.source.to_string(), kind }
    }

    /// The server lacks these kinds: so fails whoever asked for one of them by name.
    fn refuse(&mut self, refused: &Kinds) {
        self.facts.update(|capabilities| {
            for kind in refused.iter() {
                capabilities.lacking.insert(kind.clone());
                capabilities.kinds.remove(kind);
            }
        });
        for (subscriber, ready) in std::mem::take(&mut self.waiting) {
            match subscriber.misses(refused) {
                Some(kind) => {
                    let _ = ready.send(Err(self.unsupported(kind)));
                }
                None => self.waiting.push((subscriber, ready)),
            }
        }
        let failed: Vec<_> =
            self.fanout.iter().filter_map(|s| Some((s.id, s.misses(refused)?))).collect();
        for (id, kind) in failed {
            if let Some(subscriber) = self.fanout.remove(id) {
                subscriber.mailbox.end(End::Failed(self.unsupported(kind)));
            }
        }
    }

    fn listed<S: Session>(&mut self, session: &mut S, tag: u64, list: Vec<Entry>, now: Instant) {
        if self.calls.list.take_if(|pending| pending.tag == tag).is_none() {
            return;
        }
        if self.calls.list_is_old {
            return self.steer(session);
        }
        if self.held.is_stale() {
            // More happened meanwhile than can be told apart from the list: ask again.
            self.held.renew();
            return self.steer(session);
        }
        let at = self.batch.received();
        let merged = merge(&mut self.batch.roster, list, &mut self.held, &self.scopes, at);
        let knows = self.fanout.knows();
        self.await_echoes(&merged, knows, now);
        self.synced = Some(now);
        let told = if knows { merged.contained.len() + merged.inferred.len() } else { 0 };
        let seen = if self.fanout.is_empty() { 0 } else { merged.observed.len() };
        self.facts.add(|facts| &facts.events, (told + seen) as u64);
        let missed = self.fanout.synced_with(&merged, &self.batch.roster, &self.scopes, at);
        self.lagged(missed);
        if self.outage.take().is_some() {
            self.facts.add(|facts| &facts.reconnects, 1);
        }
        tracing::info!(source = %self.source, domains = merged.listed.len(), "synced");
        self.set_status(Status::Synced);
        self.admit();
        self.steer(session);
    }

    /// Listens from now on for events that only repeat what this sync tells.
    fn await_echoes(&mut self, merged: &Merged, knows: bool, now: Instant) {
        let roster = &mut self.batch.roster;
        self.echoes.arm(now);
        for entry in merged.listed.iter().filter(|_| !knows) {
            self.echoes.existing(roster.key(&entry.domain), entry);
        }
        for event in merged.inferred.iter().filter(|_| knows) {
            if let DomainEvent::Lifecycle(event) = event {
                self.echoes.inferred(roster.key(&event.domain), event);
            }
        }
        for event in &merged.observed {
            if let DomainEvent::Lifecycle(event) = event {
                self.echoes.overtaken(roster.key(&event.domain));
            }
        }
    }
}
