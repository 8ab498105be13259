//! What a read of the session means: events, answers, and word of parts that come and go.

use std::sync::Arc;

use tokio::time::Instant;

use super::Core;
use crate::driver::batch::Control;
use crate::driver::diff::Tale;
use crate::driver::roster::Entry;
use crate::driver::session::Session;
use crate::driver::sync::{Held, merge};
use crate::{Domain, DomainEvent, End, Error, Kind, Kinds, Origin, State, Status, StopCause};

impl Core {
    /// Takes in what the session read.
    pub(in crate::driver) fn absorb<S: Session>(&mut self, session: &mut S, now: Instant) {
        self.echoes.expire(now);
        let mut events = std::mem::take(&mut self.batch.events);
        if self.batch.controls.is_empty() {
            self.absorb_events(&mut events);
        } else {
            let mut done = 0;
            for (at, control) in std::mem::take(&mut self.batch.controls) {
                let mut before: Vec<_> = events.drain(..at - done).collect();
                done = at;
                self.absorb_events(&mut before);
                self.absorb_control(session, control, now);
            }
            self.absorb_events(&mut events);
        }
        events.clear();
        self.batch.events = events;
        self.batch.clear();
    }

    pub(super) fn absorb_events(&mut self, events: &mut Vec<DomainEvent>) {
        if self.synced.is_none() {
            // What comes after the last subscriber left is for nobody.
            if self.is_wanted() {
                events.drain(..).for_each(|event| self.held.event(event));
            }
            return;
        }
        let (roster, echoes) = (&mut self.batch.roster, &mut self.echoes);
        events.retain_mut(|event| {
            let DomainEvent::Lifecycle(event) = event else { return true };
            let echo = echoes.is_echo(event);
            roster.apply(event);
            !echo
        });
        self.tell(events);
    }

    fn tell(&mut self, events: &mut Vec<DomainEvent>) {
        self.facts.add(|facts| &facts.events, events.len() as u64);
        let missed = self.fanout.deliver(events);
        if missed > 0 {
            self.facts.add(|facts| &facts.missed, missed);
        }
    }

    fn absorb_control<S: Session>(&mut self, session: &mut S, control: Control, now: Instant) {
        match control {
            Control::InterestDone(tag, refused) => self.interest_done(session, tag, refused),
            Control::Listed(tag, list) => self.listed(session, tag, list, now),
            Control::State(domain, state) => self.level(domain, Ok(state)),
            Control::Gone(domain, cause) => self.level(domain, Err(cause)),
            Control::Outage(scope, fault) => {
                if self.synced.is_some() {
                    self.facts.add(|facts| &facts.gaps, 1);
                    self.fanout.broke(&scope, &fault);
                }
                self.scoped.retain(|(known, _)| !known.is_same(&scope));
                self.scoped.push((scope, fault));
            }
            Control::Restored(scope) => {
                self.scoped.retain(|(known, _)| !known.is_same(&scope));
                if self.synced.is_some() {
                    self.facts.add(|facts| &facts.reconnects, 1);
                    self.fanout.restored(&scope, &self.batch.roster);
                }
            }
        }
    }

    fn level(&mut self, domain: Domain, level: Result<State, StopCause>) {
        if self.synced.is_none() {
            if self.is_wanted() {
                self.held.level(domain, level);
            }
            return;
        }
        // What happened in a part that was out of reach was not seen when it happened.
        let origin = match self.scoped.iter().any(|(scope, _)| scope.contains(&domain)) {
            true => Origin::Inferred,
            false => Origin::Observed,
        };
        let mut tale = Tale::new(origin, self.batch.received());
        match level {
            Ok(state) => tale.level(&mut self.batch.roster, domain, state),
            Err(cause) => tale.gone_level(&mut self.batch.roster, &domain, cause),
        }
        let mut events = tale.events.into_iter().map(DomainEvent::from).collect();
        self.tell(&mut events);
    }

    fn interest_done<S: Session>(&mut self, session: &mut S, tag: u64, refused: Vec<Kind>) {
        // An answer to a question of the past is nobody's.
        let Some((_, interest)) = self.calls.interest.take_if(|(pending, _)| pending.tag == tag)
        else {
            return;
        };
        self.calls.registered = interest;
        let refused: Kinds = refused.into_iter().collect();
        if !refused.is_empty() {
            self.refuse(&refused);
        }
        self.admit();
        self.steer(session);
    }

    /// The server lacks these kinds: so fails whoever asked for one of them by name.
    fn refuse(&mut self, refused: &Kinds) {
        self.facts.update(|capabilities| {
            for kind in refused.iter() {
                capabilities.lacking.insert(kind.clone());
                capabilities.kinds.remove(kind);
            }
        });
        let unsupported = |kind| Error::Unsupported { uri: self.source.to_string(), kind };
        for (subscriber, ready) in std::mem::take(&mut self.waiting) {
            match subscriber.misses(refused) {
                Some(kind) => {
                    let _ = ready.send(Err(unsupported(kind)));
                }
                None => self.waiting.push((subscriber, ready)),
            }
        }
        let failed: Vec<_> =
            self.fanout.iter().filter_map(|s| Some((s.id, s.misses(refused)?))).collect();
        for (id, kind) in failed {
            if let Some(subscriber) = self.fanout.remove(id) {
                subscriber.mailbox.end(End::Failed(unsupported(kind)));
            }
        }
    }

    fn listed<S: Session>(&mut self, session: &mut S, tag: u64, list: Vec<Entry>, now: Instant) {
        if self.calls.list.take_if(|pending| pending.tag == tag).is_none() {
            return;
        }
        if self.held.is_stale() {
            // More happened meanwhile than can be told apart from the list: ask again.
            self.held = Held::new(Arc::clone(&self.source));
            return self.steer(session);
        }
        let at = self.batch.received();
        let merged = merge(&mut self.batch.roster, list, &mut self.held, at);
        self.echoes.arm(now);
        let before: Vec<Entry> = self.batch.roster.sorted().into_iter().cloned().collect();
        let known = self.fanout.knows();
        for entry in before.iter().filter(|_| !known) {
            self.echoes.existing(entry);
        }
        for event in merged.inferred.iter().filter(|_| known) {
            self.echoes.inferred(event);
        }
        let mut observed = merged.observed;
        for event in &mut observed {
            if let DomainEvent::Lifecycle(event) = event {
                self.batch.roster.apply(event);
                self.echoes.overtaken(event);
            }
        }
        self.synced = Some(now);
        let inferred: Vec<_> = merged.inferred.into_iter().map(DomainEvent::from).collect();
        let told = observed.len() + if known { inferred.len() } else { 0 };
        self.facts.add(|facts| &facts.events, told as u64);
        let (roster, scoped) = (&self.batch.roster, &self.scoped);
        let missed = self.fanout.synced_with(&before, &inferred, &observed, roster, scoped, at);
        self.facts.add(|facts| &facts.missed, missed);
        if self.outage.take().is_some() {
            self.facts.add(|facts| &facts.reconnects, 1);
        }
        tracing::info!(source = %self.source, domains = before.len(), "synced");
        self.set_status(Status::Synced);
        self.admit();
    }
}
