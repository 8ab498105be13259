//! The core: the driver's state and decisions, without its task.
//!
//! The core decides what to request of the session and what to deliver; the task does the waiting.

mod absorb;
mod answers;
mod deadlines;
mod stage;
mod steer;
mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub(super) use self::stage::Stage;
use self::steer::list_wait;
use super::batch::Batch;
use super::config::Config;
use super::facts::Facts;
use super::fanout::Fanout;
use super::hosts::Key;
use super::roster::Roster;
use super::scopes::Scopes;
use super::session::{Interest, Session};
use super::subscribers::Subscriber;
use super::sync_buffer::SyncBuffer;
use super::verify::Verifier;
use crate::command::SubscribeReply;
use crate::domain::Host;
use crate::mailbox::contain_panic;
use crate::{Capabilities, End, Error, Fault, Kind, Kinds, Scope, Status};

#[derive(Debug)]
pub(super) struct Core {
    source: Arc<str>,
    /// The kinds that the backend can report.
    kinds: Kinds,
    call_timeout: Duration,
    stage: Stage,
    /// Why the source is unreachable, as its streams have been delivered.
    outage: Option<Fault>,
    /// The parts of the source that are unreachable, as the session says; perhaps all of it.
    scopes: Scopes,
    pub(super) batch: Batch,
    roster: Roster,
    fanout: Fanout,
    /// Subscriptions without an answer yet: before the first sync, or until a kind is registered.
    waiting: Vec<Waiting>,
    /// Calls of `close()`, which wait until the server confirms the deregistration.
    closing: Vec<Closing>,
    buffer: SyncBuffer,
    calls: Calls,
    verifier: Verifier,
    /// The number of connections in a row that were lost with a list unanswered.
    hung: u32,
    /// The driver requests no list before this time: the last ones were never answered.
    list_not_before: Option<Instant>,
    status: watch::Sender<Status>,
    facts: Arc<Facts>,
}

#[derive(Debug)]
struct Waiting {
    subscriber: Subscriber,
    ready: SubscribeReply,
    /// Since when it waits for an answer of the server.
    since: Instant,
}

#[derive(Debug)]
struct Closing {
    done: oneshot::Sender<()>,
    since: Instant,
}

/// The calls that the session was given.
#[derive(Debug, Default)]
struct Calls {
    tag: u64,
    /// What the server has confirmed.
    registered: Interest,
    /// The registration that is under way.
    interest: Option<(Pending, Interest)>,
    /// The one call that may have to wait for the lock of a domain.
    blocking: Option<(Pending, Blocking)>,
    /// The answer to that call is of no use: it was sent before the current registration.
    is_stale: bool,
    /// The protocol cannot ask for a single domain.
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

    /// Forgets all calls of a lost connection. Tags go on: none is used twice.
    fn reset(&mut self) {
        *self = Self { tag: self.tag, ..Self::default() };
    }
}

impl Core {
    pub(super) fn new(
        source: Arc<str>,
        kinds: Kinds,
        config: &Config,
        status: watch::Sender<Status>,
        facts: Arc<Facts>,
    ) -> Self {
        Self {
            kinds,
            call_timeout: config.call_timeout,
            stage: Stage::Idle,
            outage: None,
            scopes: Scopes::default(),
            batch: Batch::new(&source, ""),
            roster: Roster::new(Host::new(Arc::clone(&source), "".into())),
            fanout: Fanout::new(Arc::clone(&source)),
            waiting: Vec::new(),
            closing: Vec::new(),
            buffer: SyncBuffer::new(Arc::clone(&source)),
            calls: Calls::default(),
            verifier: Verifier::new(config.verify, config.reconnect.seeded()),
            hung: 0,
            list_not_before: None,
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

    /// Whether the connection is unused. While a call hangs on it the driver keeps it: the server
    /// would keep a worker for each connection that a list hangs on.
    pub(super) fn is_parked(&self) -> bool {
        self.is_deregistered() && self.calls.blocking.is_none()
    }

    /// Whether streams have been delivered that the source is unreachable.
    pub(super) fn outage(&self) -> Option<&Fault> {
        self.outage.as_ref()
    }

    /// Enters a stage, and publishes it in the source's health.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.publish_status();
    }

    fn publish_status(&self) {
        self.set_status(self.current_status());
    }

    fn current_status(&self) -> Status {
        let disconnected = |fault: Option<&Fault>| fault.cloned().map(Status::Disconnected);
        let unreachable = || disconnected(self.scopes.whole());
        match self.stage {
            Stage::Idle => Status::Idle,
            Stage::Connecting => disconnected(self.outage()).unwrap_or(Status::Connecting),
            Stage::Syncing => unreachable().unwrap_or(Status::Syncing),
            Stage::Late | Stage::Overdue => disconnected(self.outage()).unwrap_or(Status::Syncing),
            Stage::Synced { .. } => unreachable().unwrap_or(Status::Synced),
        }
    }

    pub(super) fn set_status(&self, status: Status) {
        // A watcher's waker is the program's own code.
        contain_panic(|| {
            // A plain send would wake every watcher of the health, also for the status that it
            // knows.
            self.status.send_if_modified(|current| {
                let changed = *current != status;
                *current = status;
                changed
            });
        });
    }

    /// A connection was made.
    pub(super) fn connected<S: Session>(&mut self, session: &mut S) {
        let now = Instant::now();
        // The roster first: it may keep the name that subscribers know the host by, and the batch
        // shares its pointer, by which keys are found.
        self.roster.set_host(session.host());
        self.batch.connected(self.roster.home());
        self.buffer.clear();
        self.calls.reset();
        // The time that connecting took does not count: the deadline is for the server's answer.
        self.waiting.iter_mut().for_each(|waiting| waiting.since = now);
        // The server may be another one than last time, with other capabilities.
        self.facts.change_capabilities(|capabilities| {
            *capabilities = Capabilities { kinds: self.kinds.clone(), lacking: Kinds::default() };
        });
        self.enter(Stage::Syncing);
        self.steer(session);
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self, error: &Error) {
        self.batch.clear();
        // Read first: `reset` forgets the call. It counts only where it had hung for as long as a
        // call may take: a list that was just sent has cost the server nothing.
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
        self.stage = Stage::Connecting;
        self.roster.is_whole = false;
        self.confirm_closed();
        // No stream spans this outage: the next subscription begins from nothing, and the error is
        // the answer to those that wait.
        if self.fanout.is_empty() {
            self.roster.clear();
            self.outage = None;
            if !self.waiting.is_empty() {
                self.connect_failed(error);
            }
            return;
        }
        let fault = error.to_fault();
        // The gap goes to the streams there are; those that are admitted after it get one of their
        // own. The other way round they would get two.
        self.begin_outage(fault.clone());
        self.admit_all_in_outage(&fault);
        self.publish_status();
    }

    /// Delivers the gap that begins an outage, unless the streams are in one already.
    fn begin_outage(&mut self, fault: Fault) {
        if self.outage.is_none() {
            tracing::warn!(source = %self.source, %fault, "the hypervisor is unreachable");
            self.facts.add(|facts| &facts.gaps, 1);
            let source = Scope::Source(Arc::clone(&self.source));
            let missed = self.fanout.disconnected(&source, &fault);
            self.lagged(missed);
        }
        self.outage = Some(fault);
    }

    /// Publishes in the source's health which parts are unreachable.
    fn publish_scopes(&self) {
        let unreachable = self.scopes.iter().filter(|(scope, _)| !scope.is_source()).cloned();
        self.facts.change_details(|details| details.unreachable = unreachable.collect());
    }

    /// The driver drops the connection, and no subscriber is left.
    pub(super) fn forget(&mut self) {
        self.calls.reset();
        self.unsync();
    }

    /// No subscriber is left, so what is known of the domains ages from now on.
    fn unsync(&mut self) {
        self.outage = None;
        // A list that is under way is older than the next registration.
        self.calls.is_stale = true;
        self.calls.list_since = None;
        self.roster.clear();
        self.scopes.clear();
        self.publish_scopes();
        self.verifier.stop();
        self.buffer.clear();
        self.enter(Stage::Idle);
    }

    pub(super) fn is_synced(&self) -> bool {
        self.stage.is_synced()
    }

    /// Whether the driver awaits the list, in time.
    pub(super) fn is_syncing(&self) -> bool {
        self.stage == Stage::Syncing
    }

    /// How long the source has been synced.
    pub(super) fn synced_for(&self, now: Instant) -> Option<Duration> {
        match self.stage {
            Stage::Synced { since } => Some(now - since),
            _ => None,
        }
    }
}

impl Calls {
    /// Whether this kind is registered and stays so: a deregistration that is under way counts.
    fn is_registered(&self, kind: &Kind) -> bool {
        self.registered.contains(kind)
            && self.interest.as_ref().is_none_or(|(_, changed)| changed.contains(kind))
    }
}

/// Ends the streams when the task is dropped with its runtime. After an orderly end there are none.
impl Drop for Core {
    fn drop(&mut self) {
        self.end(&End::Failed(Error::DriverEnded));
        if *self.status.borrow() != Status::Shutdown {
            self.set_status(Status::Ended);
        }
    }
}
