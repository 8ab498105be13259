//! What the driver's task knows: subscribers, domains, and how far the session is with what they
//! want. It decides what to ask of the session and what to deliver; the task does the waiting.

mod absorb;
mod answers;
mod deadlines;
mod steer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::steer::list_wait;
use super::batch::Batch;
use super::fanout::{Fanout, Subscriber};
use super::roster::Key;
use super::scopes::Scopes;
use super::session::{Interest, Session};
use super::sync_buffer::SyncBuffer;
use super::verify::Verifier;
use super::{Config, Facts, Ready, answer};
use crate::mailbox::contain_panic;
use crate::{Capabilities, End, Error, Fault, Kind, Kinds, Scope, Status};

#[derive(Debug)]
pub(super) struct Core {
    source: Arc<str>,
    /// The kinds that the backend has types for.
    typed: Kinds,
    call_timeout: Duration,
    pub(super) batch: Batch,
    pub(super) fanout: Fanout,
    /// Subscriptions without an answer yet: before the first sync, or until a kind is registered.
    waiting: Vec<Waiting>,
    /// Calls of `close()`: they wait for the server to confirm that nothing of theirs is registered.
    closing: Vec<Closing>,
    buffer: SyncBuffer,
    /// Why the source is out of reach. While it is set there are streams that know about it.
    pub(super) outage: Option<Fault>,
    /// The list is overdue: events are delivered all the same, inside the gap.
    is_overdue: bool,
    /// Parts of the source that are out of reach.
    scopes: Scopes,
    calls: Calls,
    verifier: Verifier,
    /// How many connections in a row were lost with a list unanswered.
    hung: u32,
    /// Before that no list is asked for: the last ones were never answered.
    list_not_before: Option<Instant>,
    /// When the domains were last known whole; `None` while they are not.
    pub(super) synced: Option<Instant>,
    status: watch::Sender<Status>,
    facts: Arc<Facts>,
}

#[derive(Debug)]
struct Waiting {
    subscriber: Subscriber,
    ready: Ready,
    /// Since when it waits for an answer of the server.
    since: Instant,
}

#[derive(Debug)]
struct Closing {
    done: oneshot::Sender<()>,
    since: Instant,
}

/// What the session was asked.
#[derive(Debug, Default)]
struct Calls {
    tag: u64,
    /// What the server has confirmed.
    registered: Interest,
    /// What it is asked to change that to.
    interest: Option<(Pending, Interest)>,
    /// The one call that may have to wait for the lock of a domain.
    blocking: Option<(Pending, Blocking)>,
    /// The answer to that is of no use any more: the question is older than the registration.
    is_stale: bool,
    /// The protocol cannot tell of a single domain.
    cannot_look: bool,
    /// Since when the list is wanted that makes the domains known.
    list_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    tag: u64,
    since: Instant,
}

/// A call that may have to wait for the lock of a domain, and what its answer is for.
#[derive(Clone, Debug)]
enum Blocking {
    /// All domains, to make them known.
    Sync,
    /// All domains, to compare with what is believed.
    Verify { asked: u64 },
    /// One domain, to compare with what is believed.
    Look { key: Key, asked: u64 },
}

impl Calls {
    fn pending(&mut self) -> Pending {
        self.tag += 1;
        Pending { tag: self.tag, since: Instant::now() }
    }

    /// On another connection nothing of this holds, but for the tags, which are never used twice.
    fn reset(&mut self) {
        *self = Self { tag: self.tag, ..Self::default() };
    }
}

impl Core {
    pub(super) fn new(
        source: Arc<str>,
        typed: Kinds,
        config: &Config,
        status: watch::Sender<Status>,
        facts: Arc<Facts>,
    ) -> Self {
        Self {
            typed,
            call_timeout: config.call_timeout,
            batch: Batch::new(&source, ""),
            fanout: Fanout::new(Arc::clone(&source)),
            waiting: Vec::new(),
            closing: Vec::new(),
            buffer: SyncBuffer::new(Arc::clone(&source)),
            outage: None,
            is_overdue: false,
            scopes: Scopes::default(),
            calls: Calls::default(),
            verifier: Verifier::new(config.verify, config.reconnect.seeded()),
            hung: 0,
            list_not_before: None,
            synced: None,
            status,
            facts,
            source,
        }
    }

    /// Whether there is a subscriber, or a subscription that waits.
    pub(super) fn is_wanted(&self) -> bool {
        !self.fanout.is_empty() || !self.waiting.is_empty()
    }

    /// Whether there is no subscriber, and the server has confirmed that nothing is registered.
    pub(super) fn is_deregistered(&self) -> bool {
        !self.is_wanted() && self.calls.interest.is_none() && self.calls.registered.is_empty()
    }

    /// Whether the connection is of no use any more. One with a call that hangs is kept: the next would only
    /// add another.
    pub(super) fn is_parked(&self) -> bool {
        self.is_deregistered() && self.calls.blocking.is_none()
    }

    pub(super) fn set_status(&self, status: Status) {
        // It wakes whoever waits for a status.
        contain_panic(|| {
            self.status.send_if_modified(|current| {
                let changed = *current != status;
                *current = status;
                changed
            });
        });
    }

    pub(super) fn subscribe(&mut self, subscriber: Subscriber, ready: Ready) {
        self.waiting.push(Waiting { subscriber, ready, since: Instant::now() });
        let fault = self.outage.as_ref().or(self.scopes.whole());
        match fault.cloned() {
            Some(fault) => self.answer_in_outage(&fault),
            None => self.admit(),
        }
    }

    /// Answers the subscriptions that need nothing more than what is known and registered.
    fn admit(&mut self) {
        if self.synced.is_none() || self.waiting.is_empty() {
            return;
        }
        let typed = self.facts.capabilities().kinds;
        for waiting in std::mem::take(&mut self.waiting) {
            let wanted = waiting.subscriber.options.filter.kinds.as_ref().unwrap_or(&typed);
            if wanted.iter().all(|kind| self.calls.is_registered(kind)) {
                self.fanout.admit(waiting.subscriber, &self.batch.roster, &self.scopes);
                answer(waiting.ready, Ok(()));
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    fn admit_all_in_outage(&mut self, fault: &Fault) {
        for waiting in self.waiting.drain(..) {
            self.fanout.admit_in_outage(waiting.subscriber, fault);
            answer(waiting.ready, Ok(()));
        }
    }

    /// All is out of reach. Where streams know about it, waiting subscriptions join them; otherwise it is as if
    /// no connection could be made.
    fn answer_in_outage(&mut self, fault: &Fault) {
        match self.outage {
            Some(_) => self.admit_all_in_outage(fault),
            None => self.connect_failed(&Error::of_fault(&self.source, fault)),
        }
    }

    pub(super) fn cancel(&mut self, id: u64, done: Option<oneshot::Sender<()>>) {
        self.fanout.remove(id);
        self.waiting.retain(|waiting| waiting.subscriber.id != id);
        let since = Instant::now();
        self.closing.extend(done.map(|done| Closing { done, since }));
    }

    pub(super) fn retell(&mut self, id: u64) {
        let missed = match &self.outage {
            Some(fault) => self.fanout.retell_in_outage(id, fault),
            None => self.fanout.retell(id, &self.batch.roster, &self.scopes),
        };
        self.lagged(missed);
    }

    /// Ends everything: streams, and those who wait to become one.
    pub(super) fn end(&mut self, end: &End) {
        self.fanout.end(end);
        for waiting in self.waiting.drain(..) {
            let error = match end {
                End::Failed(error) => error.clone(),
                _ => Error::Shutdown,
            };
            answer(waiting.ready, Err(error));
        }
    }

    /// A first connection failed: so do the subscriptions that do not care to wait. Those that do
    /// begin in an outage, unless trying again cannot help.
    pub(super) fn connect_failed(&mut self, error: &Error) {
        let waiting = std::mem::take(&mut self.waiting);
        self.fail(waiting, error);
    }

    fn fail(&mut self, failed: Vec<Waiting>, error: &Error) {
        let (patient, others): (Vec<_>, Vec<_>) = failed
            .into_iter()
            .partition(|waiting| waiting.subscriber.options.wait && !error.is_refusal());
        for waiting in others {
            answer(waiting.ready, Err(error.clone()));
        }
        if !patient.is_empty() {
            self.waiting.extend(patient);
            let fault = error.to_fault();
            self.admit_all_in_outage(&fault);
            self.set_status(Status::Disconnected(fault.clone()));
            self.outage = Some(fault);
        }
    }

    /// A connection was made.
    pub(super) fn connected<S: Session>(&mut self, session: &mut S) {
        let now = Instant::now();
        self.batch.clear();
        self.batch.roster.set_host(session.host());
        self.buffer.clear();
        self.calls.reset();
        self.waiting.iter_mut().for_each(|waiting| waiting.since = now);
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
        let has_hung = self
            .calls
            .blocking
            .as_ref()
            .is_some_and(|(pending, _)| pending.since.elapsed() >= self.call_timeout);
        if has_hung {
            self.hung = self.hung.saturating_add(1);
            self.list_not_before = Instant::now().checked_add(list_wait(self.hung));
        }
        self.calls.reset();
        self.scopes.clear();
        self.publish_scopes();
        self.verifier.stop();
        self.is_overdue = false;
        self.synced = None;
        self.batch.roster.is_whole = false;
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
        self.broke(&fault);
        self.admit_all_in_outage(&fault);
        self.outage = Some(fault);
    }

    /// Tells the streams of an outage of the whole source, unless they know.
    fn broke(&mut self, fault: &Fault) {
        if self.outage.is_none() {
            tracing::warn!(source = %self.source, %fault, "lost the hypervisor");
            self.facts.add(|facts| &facts.gaps, 1);
            let missed = self.fanout.broke(&Scope::Source(Arc::clone(&self.source)), fault);
            self.lagged(missed);
        }
    }

    /// Health says which parts are out of reach.
    fn publish_scopes(&self) {
        let unreachable = self.scopes.iter().filter(|(scope, _)| !scope.is_source()).cloned();
        self.facts.set_details(|details| details.unreachable = unreachable.collect());
    }

    /// The connection is dropped, and no subscriber is left.
    pub(super) fn forget(&mut self) {
        self.calls.reset();
        self.unsync();
    }

    /// No subscriber is left: what is known of the domains ages from now on.
    fn unsync(&mut self) {
        self.synced = None;
        self.outage = None;
        self.is_overdue = false;
        self.calls.is_stale = true;
        self.calls.list_since = None;
        self.batch.roster.clear();
        self.scopes.clear();
        self.publish_scopes();
        self.verifier.stop();
        self.buffer.clear();
        self.set_status(Status::Idle);
    }

    /// Nothing is registered for the subscribers that left: by the server's word, or for want of a connection.
    pub(super) fn confirm_closed(&mut self) {
        for closing in self.closing.drain(..) {
            answer(closing.done, ());
        }
    }

    /// How long the source has been synced.
    pub(super) fn synced_for(&self, now: Instant) -> Option<Duration> {
        self.synced.map(|since| now - since)
    }
}

impl Calls {
    /// Whether events of this kind come, and go on to: a registration that is being taken back is none.
    fn is_registered(&self, kind: &Kind) -> bool {
        self.registered.contains(kind)
            && self.interest.as_ref().is_none_or(|(_, changed)| changed.contains(kind))
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
