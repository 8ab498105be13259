//! What the driver's task knows: subscribers, domains, and how far the session is with what they
//! want. It decides what to ask of the session and what to tell; the task does the waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::batch::{Batch, Control};
use super::diff::Tale;
use super::echo::Echoes;
use super::fanout::{Fanout, Subscriber};
use super::roster::Entry;
use super::session::{Interest, Session};
use super::sync::{Held, merge};
use super::{Facts, Ready};
use crate::{
    Capabilities, DomainEvent, End, Error, Fault, Kind, Kinds, Origin, Scope, State, Status,
    StopCause,
};

#[derive(Debug)]
pub(super) struct Core {
    source: Arc<str>,
    /// The kinds that the backend has types for.
    typed: Kinds,
    pub(super) batch: Batch,
    pub(super) fanout: Fanout,
    /// Those who cannot be let in yet: before the first sync, or until a kind is registered.
    waiting: Vec<(Subscriber, Ready)>,
    /// Those who wait for the server to confirm that nothing of theirs is registered.
    closing: Vec<oneshot::Sender<()>>,
    echoes: Echoes,
    held: Held,
    /// Why the source is out of reach. While it is set there are streams that know about it.
    pub(super) outage: Option<Fault>,
    /// Parts of the source that are out of reach.
    scoped: Vec<(Scope, Fault)>,
    calls: Calls,
    /// When the domains were last known whole; `None` while they are not.
    pub(super) synced: Option<Instant>,
    status: watch::Sender<Status>,
    facts: Arc<Facts>,
}

/// What the session was asked.
#[derive(Debug, Default)]
struct Calls {
    tag: u64,
    /// What the server has confirmed.
    registered: Interest,
    /// What it is asked to change that to.
    interest: Option<(Pending, Interest)>,
    list: Option<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    tag: u64,
    since: Instant,
}

impl Calls {
    fn pending(&mut self) -> Pending {
        self.tag += 1;
        Pending { tag: self.tag, since: Instant::now() }
    }
}

impl Core {
    pub(super) fn new(
        source: Arc<str>,
        typed: Kinds,
        status: watch::Sender<Status>,
        facts: Arc<Facts>,
    ) -> Self {
        Self {
            typed,
            batch: Batch::new(""),
            fanout: Fanout::new(Arc::clone(&source)),
            waiting: Vec::new(),
            closing: Vec::new(),
            echoes: Echoes::default(),
            held: Held::new(Arc::clone(&source)),
            outage: None,
            scoped: Vec::new(),
            calls: Calls::default(),
            synced: None,
            status,
            facts,
            source,
        }
    }

    /// Whether anybody is subscribed or waits to be.
    pub(super) fn is_wanted(&self) -> bool {
        !self.fanout.is_empty() || !self.waiting.is_empty()
    }

    /// Whether nobody is subscribed and the server has confirmed that.
    pub(super) fn is_parked(&self) -> bool {
        !self.is_wanted() && self.calls.interest.is_none() && self.calls.registered.is_empty()
    }

    pub(super) fn set_status(&self, status: Status) {
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    pub(super) fn subscribe(&mut self, subscriber: Subscriber, ready: Ready) {
        self.waiting.push((subscriber, ready));
        match &self.outage {
            Some(fault) => {
                let fault = fault.clone();
                self.admit_all_in_outage(&fault);
            }
            None => self.admit(),
        }
    }

    /// Lets in whoever waits and needs nothing more than what is known and registered.
    fn admit(&mut self) {
        if self.synced.is_none() {
            return;
        }
        let now = self.batch.received();
        for (subscriber, ready) in std::mem::take(&mut self.waiting) {
            let wanted = kinds_of(&subscriber, &self.facts.capabilities().kinds);
            if wanted.iter().all(|kind| self.calls.registered.contains(kind)) {
                self.fanout.admit(subscriber, &self.batch.roster, &self.scoped, now);
                let _ = ready.send(Ok(()));
            } else {
                self.waiting.push((subscriber, ready));
            }
        }
    }

    fn admit_all_in_outage(&mut self, fault: &Fault) {
        for (subscriber, ready) in self.waiting.drain(..) {
            self.fanout.admit_in_outage(subscriber, fault);
            let _ = ready.send(Ok(()));
        }
    }

    pub(super) fn cancel(&mut self, id: u64, done: Option<oneshot::Sender<()>>) {
        self.fanout.remove(id);
        self.waiting.retain(|(subscriber, _)| subscriber.id != id);
        self.closing.extend(done);
    }

    pub(super) fn retell(&mut self, id: u64) {
        match &self.outage {
            Some(fault) => self.fanout.retell_in_outage(id, fault),
            None => {
                let now = self.batch.received();
                self.fanout.retell(id, &self.batch.roster, &self.scoped, now);
            }
        }
    }

    /// Ends everything: streams, and those who wait to become one.
    pub(super) fn end(&mut self, end: &End) {
        self.fanout.end(end);
        for (_, ready) in self.waiting.drain(..) {
            let error = match end {
                End::Failed(error) => error.clone(),
                _ => Error::Shutdown,
            };
            let _ = ready.send(Err(error));
        }
    }

    /// A first connection failed: so do the subscriptions that do not care to wait. Those that do
    /// begin in an outage, unless trying again cannot help.
    pub(super) fn connect_failed(&mut self, error: &Error) {
        let waiting = std::mem::take(&mut self.waiting);
        let (patient, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(subscriber, _)| subscriber.options.wait && !error.is_refusal());
        for (_, ready) in others {
            let _ = ready.send(Err(error.clone()));
        }
        if !patient.is_empty() {
            self.waiting = patient;
            let fault = error.to_fault();
            self.admit_all_in_outage(&fault);
            self.outage = Some(fault);
        }
    }

    /// A connection was made.
    pub(super) fn connected<S: Session>(&mut self, session: &mut S) {
        self.batch.clear();
        self.batch.roster.set_host(session.host());
        self.held = Held::new(Arc::clone(&self.source));
        self.calls = Calls { tag: self.calls.tag, ..Calls::default() };
        // Another server may answer than last time, with other abilities.
        self.facts.update(|capabilities| {
            *capabilities = Capabilities { kinds: self.typed.clone(), lacking: Kinds::default() };
        });
        self.set_status(Status::Syncing);
        self.steer(session);
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self, error: &Error) {
        // What the last read brought before it failed was observed, and is told.
        let mut events = std::mem::take(&mut self.batch.events);
        self.absorb_events(&mut events);
        self.batch.clear();
        self.calls = Calls { tag: self.calls.tag, ..Calls::default() };
        self.scoped.clear();
        self.echoes.clear();
        self.synced = None;
        self.confirm_closed();
        if self.fanout.is_empty() {
            self.batch.roster.clear();
            if !self.waiting.is_empty() {
                self.connect_failed(error);
            }
            return;
        }
        let fault = error.to_fault();
        if self.outage.is_none() {
            tracing::warn!(source = %self.source, %fault, "lost the hypervisor");
            self.facts.add(|facts| &facts.gaps, 1);
            self.fanout.broke(&Scope::Source, &fault);
        }
        self.admit_all_in_outage(&fault);
        self.outage = Some(fault);
    }

    /// Asks the session for whatever is still missing to serve the subscribers.
    pub(super) fn steer<S: Session>(&mut self, session: &mut S) {
        if self.calls.interest.is_some() {
            return;
        }
        let wanted = self.interest();
        if wanted != self.calls.registered {
            if self.calls.registered.is_empty() {
                // What came until now is of a registration that is over, and was followed by what we
                // did not hear.
                self.held = Held::new(Arc::clone(&self.source));
            }
            let pending = self.calls.pending();
            session.set_interest(&wanted, pending.tag);
            if wanted.is_empty() {
                self.unsync();
            }
            self.calls.interest = Some((pending, wanted));
            return;
        }
        self.confirm_closed();
        if !wanted.is_empty() && self.synced.is_none() && self.calls.list.is_none() {
            let pending = self.calls.pending();
            session.request_list(pending.tag);
            self.calls.list = Some(pending);
        }
    }

    /// The connection is dropped, and nobody cares.
    pub(super) fn forget(&mut self) {
        self.calls = Calls { tag: self.calls.tag, ..Calls::default() };
        self.outage = None;
        self.unsync();
    }

    /// Nobody listens: what is known of the domains ages from now on.
    fn unsync(&mut self) {
        self.synced = None;
        self.calls.list = None;
        self.batch.roster.clear();
        self.scoped.clear();
        self.echoes.clear();
        self.held = Held::new(Arc::clone(&self.source));
        self.set_status(Status::Idle);
    }

    /// Nothing is registered for those who left: by the server's word, or for want of a connection.
    pub(super) fn confirm_closed(&mut self) {
        for done in self.closing.drain(..) {
            let _ = done.send(());
        }
    }

    fn interest(&self) -> Interest {
        let mut kinds = Kinds::default();
        let mut typed = false;
        let waiting = self.waiting.iter().map(|(subscriber, _)| subscriber);
        for subscriber in self.fanout.iter().chain(waiting) {
            match &subscriber.options.filter.kinds {
                Some(named) => kinds.extend(named.iter().cloned()),
                None => typed = true,
            }
        }
        if typed {
            kinds.extend(self.facts.capabilities().kinds.iter().cloned());
        }
        if self.is_wanted() {
            kinds.insert(Kind::Lifecycle);
        }
        Interest { kinds }
    }

    /// The first of the calls under way to have been asked, and when.
    pub(super) fn oldest_call(&self) -> Option<(&'static str, Instant)> {
        let interest = self.calls.interest.as_ref().map(|(p, _)| ("the registration", p.since));
        let list = self.calls.list.as_ref().map(|p| ("the list of domains", p.since));
        interest.into_iter().chain(list).min_by_key(|(_, since)| *since)
    }

    /// Takes in what the session read.
    pub(super) fn absorb<S: Session>(&mut self, session: &mut S, now: Instant) {
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

    fn absorb_events(&mut self, events: &mut Vec<DomainEvent>) {
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

    fn level(&mut self, domain: crate::Domain, level: Result<State, StopCause>) {
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

    /// How long the source has been synced.
    pub(super) fn synced_for(&self, now: Instant) -> Option<Duration> {
        self.synced.map(|since| now - since)
    }
}

/// Ends what is left when the task is dropped with its runtime. After an orderly end nothing is.
impl Drop for Core {
    fn drop(&mut self) {
        self.end(&End::Failed(Error::RuntimeEnded));
    }
}

/// The kinds that a subscriber needs registered.
fn kinds_of(subscriber: &Subscriber, typed: &Kinds) -> Kinds {
    subscriber.options.filter.kinds.as_ref().unwrap_or(typed).clone()
}
