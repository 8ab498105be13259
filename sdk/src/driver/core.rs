//! What the driver's task knows: subscribers, domains, and how far the session is with what they
//! want. It decides what to ask of the session and what to tell; the task does the waiting.

mod absorb;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::batch::Batch;
use super::echo::Echoes;
use super::fanout::{Fanout, Subscriber};
use super::held::Held;
use super::scopes::Scopes;
use super::session::{Interest, Session};
use super::{Facts, Ready};
use crate::{Capabilities, End, Error, Fault, Kind, Kinds, Scope, Status};

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
    scopes: Scopes,
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
    /// The answer to that list is for nobody any more: it is older than the registration.
    list_is_old: bool,
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
            batch: Batch::new(&source, ""),
            fanout: Fanout::new(Arc::clone(&source)),
            waiting: Vec::new(),
            closing: Vec::new(),
            echoes: Echoes::default(),
            held: Held::new(Arc::clone(&source)),
            outage: None,
            scopes: Scopes::default(),
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
        let fault = self.outage.as_ref().or(self.scopes.whole());
        match fault.cloned() {
            Some(fault) => self.answer_in_outage(&fault),
            None => self.admit(),
        }
    }

    /// Lets in whoever waits and needs nothing more than what is known and registered.
    fn admit(&mut self) {
        if self.synced.is_none() {
            return;
        }
        for (subscriber, ready) in std::mem::take(&mut self.waiting) {
            let wanted = kinds_of(&subscriber, &self.facts.capabilities().kinds);
            if wanted.iter().all(|kind| self.calls.registered.contains(kind)) {
                self.fanout.admit(subscriber, &self.batch.roster, &self.scopes);
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

    /// All is out of reach: where streams know about it whoever waits joins them, and else it is as if no
    /// connection could be made.
    fn answer_in_outage(&mut self, fault: &Fault) {
        match self.outage {
            Some(_) => self.admit_all_in_outage(fault),
            None => self.connect_failed(&Error::of_fault(&self.source, fault)),
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
            None => self.fanout.retell(id, &self.batch.roster, &self.scopes),
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
        self.batch.clear();
        self.calls = Calls { tag: self.calls.tag, ..Calls::default() };
        self.scopes.clear();
        self.echoes.clear();
        self.synced = None;
        self.confirm_closed();
        if self.fanout.is_empty() {
            self.batch.roster.clear();
            self.outage = None;
            if !self.waiting.is_empty() {
                self.connect_failed(error);
            }
            return;
        }
        let fault = error.to_fault();
        if self.outage.is_none() {
            tracing::warn!(source = %self.source, %fault, "lost the hypervisor");
            self.facts.add(|facts| &facts.gaps, 1);
            self.fanout.broke(&Scope::Source(Arc::clone(&self.source)), &fault);
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
        let may_list = self.synced.is_none() && self.scopes.whole().is_none();
        if !wanted.is_empty() && may_list && self.calls.list.is_none() {
            let pending = self.calls.pending();
            session.request_list(pending.tag);
            self.calls.list = Some(pending);
            self.calls.list_is_old = false;
            self.set_status(Status::Syncing);
        }
    }

    /// The connection is dropped, and nobody cares.
    pub(super) fn forget(&mut self) {
        self.calls = Calls { tag: self.calls.tag, ..Calls::default() };
        self.unsync();
    }

    /// Nobody listens: what is known of the domains ages from now on.
    fn unsync(&mut self) {
        self.synced = None;
        self.outage = None;
        self.calls.list_is_old = true;
        self.batch.roster.clear();
        self.scopes.clear();
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

    /// How long the source has been synced.
    pub(super) fn synced_for(&self, now: Instant) -> Option<Duration> {
        self.synced.map(|since| now - since)
    }
}

/// Ends what is left when the task is dropped with its runtime. After an orderly end nothing is.
impl Drop for Core {
    fn drop(&mut self) {
        self.end(&End::Failed(Error::DriverEnded));
        if *self.status.borrow() != Status::Shutdown {
            self.set_status(Status::Ended);
        }
    }
}

/// The kinds that a subscriber needs registered.
fn kinds_of(subscriber: &Subscriber, typed: &Kinds) -> Kinds {
    subscriber.options.filter.kinds.as_ref().unwrap_or(typed).clone()
}
