//! The driver's task: owns the session, and waits for whatever comes first.

mod liveness;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

use self::liveness::Liveness;
use super::backoff::Backoff;
use super::config::Config;
use super::core::{Core, Stage};
use super::gate::Slot;
use super::subscribers::Subscriber;
use super::{Connect, Session};
use crate::command::{Command, answer};
use crate::{End, Error, Status};

/// After this long a synced source counts as recovered, and the backoff starts over.
// A server that accepts, lists and dies each time must not be reconnected to at full speed.
const RECOVERED_AFTER: Duration = Duration::from_secs(10);

/// How long a shutdown waits until the server confirms the deregistration.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The task's timer is set to this when nothing is due.
// tokio has no timer that never fires; one that fires once an hour costs nothing.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// After a batch of this many events the task lets other tasks run, the readers of its streams
/// among them, so that a flood does not fill a mailbox that its reader is about to empty.
const YIELD_EVERY: usize = 64;

pub(super) struct Task<C: Connect> {
    connect: Arc<C>,
    config: Config,
    commands: mpsc::UnboundedReceiver<Command>,
    core: Core,
    backoff: Backoff,
    /// Since when the server has done nothing but refuse.
    refused: Option<Instant>,
    /// The last turn served a command: a read comes before the next, so that commands never delay
    /// events.
    is_reads_turn: bool,
    /// Callers that wait for the end of the source.
    stopping: Vec<oneshot::Sender<()>>,
    /// When the task ends even if the server has not confirmed the deregistration.
    stop_at: Option<Instant>,
}

/// The connection, and what the task waits for where there is none. How far the driver is with its
/// source says the core's [`Stage`].
enum Connection<S> {
    Closed,
    Opening(Pin<Box<dyn Future<Output = Result<Opened<S>, Error>> + Send>>),
    Backoff(Instant),
    Open(Box<Open<S>>),
}

/// A session that is connected, and its place in the gate.
type Opened<S> = (S, Option<Slot>);

/// An open connection.
struct Open<S> {
    session: S,
    /// The place in the gate, until the source is synced or its list is late.
    slot: Option<Slot>,
    liveness: Liveness,
    /// Since when there is no subscriber.
    idle_since: Option<Instant>,
}

impl<S> Open<S> {
    fn set_idle(&mut self, is_idle: bool, now: Instant) {
        self.idle_since = if is_idle { self.idle_since.or(Some(now)) } else { None };
    }
}

/// What the task waited for.
enum Woken<S> {
    Command(Option<Command>),
    Connected(Result<Opened<S>, Error>),
    Retry,
    Read(Result<(), Error>),
    Timer,
}

impl<C: Connect> Task<C> {
    pub(super) fn new(
        connect: C,
        config: Config,
        commands: mpsc::UnboundedReceiver<Command>,
        core: Core,
    ) -> Self {
        let backoff = Backoff::new(config.reconnect.clone());
        Self {
            connect: Arc::new(connect),
            config,
            commands,
            core,
            backoff,
            refused: None,
            is_reads_turn: false,
            stopping: Vec::new(),
            stop_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut connection = Connection::Closed;
        // One timer for all deadlines. It may fire early, and is then set again.
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let woken = self.wait(&mut connection, timer.as_mut()).await;
            // A session that always has something to read must not starve the other tasks of its
            // thread.
            tokio::task::coop::consume_budget().await;
            // Turns: 16 loops of `domains()` on 3,000 domains once delayed events by seconds.
            self.is_reads_turn = matches!(woken, Woken::Command(_));
            connection = match woken {
                Woken::Command(None) => break,
                Woken::Command(Some(command)) => self.command(connection, command),
                Woken::Connected(Ok((session, slot))) => self.opened(session, slot),
                Woken::Connected(Err(error)) => self.lost(&error),
                Woken::Retry => self.open(),
                Woken::Read(outcome) => self.read(connection, outcome).await,
                Woken::Timer => self.timer(connection).await,
            };
            if let Connection::Open(open) = &mut connection {
                if !self.core.is_syncing() {
                    open.slot = None;
                }
            }
            let is_late = self.stop_at.is_some_and(|at| at <= Instant::now());
            if !self.stopping.is_empty() && (is_late || self.is_quiet(&connection)) {
                break;
            }
        }
        self.core.set_status(Status::Shutdown);
        self.core.end(&End::Shutdown);
        for done in self.stopping.drain(..) {
            answer(done, ());
        }
    }

    async fn wait(
        &mut self,
        connection: &mut Connection<C::Session>,
        mut timer: Pin<&mut Sleep>,
    ) -> Woken<C::Session> {
        match connection {
            Connection::Closed => Woken::Command(self.commands.recv().await),
            Connection::Opening(attempt) => tokio::select! {
                biased;
                // Commands first: one that cancels the last subscription ends an attempt that may
                // never end by itself.
                command = self.commands.recv() => Woken::Command(command),
                outcome = attempt => Woken::Connected(outcome),
            },
            Connection::Backoff(until) => {
                timer.as_mut().reset(*until);
                tokio::select! {
                    biased;
                    command = self.commands.recv() => Woken::Command(command),
                    () = timer => Woken::Retry,
                }
            }
            Connection::Open(open) => {
                let deadline =
                    self.config.deadline(&self.core, open).into_iter().chain(self.stop_at).min();
                // Setting a timer costs more than letting it fire early once in a while.
                if deadline.is_some_and(|at| at < timer.deadline()) || timer.is_elapsed() {
                    let far = || Instant::now() + NOTHING_DUE;
                    timer.as_mut().reset(deadline.unwrap_or_else(far));
                }
                // The timer comes before the read, which is always ready during a flood of events.
                let advance = open.session.advance(&mut self.core.batch);
                if self.is_reads_turn {
                    tokio::select! {
                        biased;
                        () = timer => Woken::Timer,
                        outcome = advance => Woken::Read(outcome),
                        command = self.commands.recv() => Woken::Command(command),
                    }
                } else {
                    tokio::select! {
                        biased;
                        command = self.commands.recv() => Woken::Command(command),
                        () = timer => Woken::Timer,
                        outcome = advance => Woken::Read(outcome),
                    }
                }
            }
        }
    }

    fn command(
        &mut self,
        mut connection: Connection<C::Session>,
        command: Command,
    ) -> Connection<C::Session> {
        match command {
            Command::Subscribe { id, mailbox, options, ready } => {
                if !self.stopping.is_empty() {
                    answer(ready, Err(Error::Shutdown));
                    return connection;
                }
                // Cancelled before it was received: the cancellation found nothing to remove.
                if mailbox.is_cancelled() {
                    return connection;
                }
                let subscriber = Subscriber::new(id, mailbox, options);
                self.core.subscribe(subscriber, ready);
            }
            Command::Cancel { id, done } => self.core.cancel(id, done),
            Command::Reset { id } => self.core.reset(id),
            Command::Shutdown { done } => {
                self.stopping.push(done);
                self.stop_at.get_or_insert_with(|| Instant::now() + SHUTDOWN_TIMEOUT);
                // The streams end at once; only the deregistration is waited for.
                self.core.end(&End::Shutdown);
            }
        }
        match &mut connection {
            Connection::Open(open) => {
                self.core.steer(&mut open.session);
                open.set_idle(self.core.is_parked(), Instant::now());
                connection
            }
            Connection::Closed if self.core.is_wanted() => self.open(),
            Connection::Opening(_) | Connection::Backoff(_) | Connection::Closed => {
                self.core.confirm_closed();
                if self.core.is_wanted() { connection } else { self.close() }
            }
        }
    }

    fn open(&mut self) -> Connection<C::Session> {
        self.core.enter(Stage::Connecting);
        let connect = Arc::clone(&self.connect);
        let after = self.config.connect_timeout;
        let gate = self.config.gate.clone();
        Connection::Opening(Box::pin(async move {
            let slot = match &gate {
                Some(gate) => Some(gate.enter().await),
                None => None,
            };
            let timeout = Error::timeout("connecting", after);
            let session =
                tokio::time::timeout(after, connect.connect()).await.unwrap_or(Err(timeout))?;
            Ok((session, slot))
        }))
    }

    fn opened(&mut self, mut session: C::Session, slot: Option<Slot>) -> Connection<C::Session> {
        tracing::info!(source = self.connect.uri(), "connected");
        self.core.connected(&mut session);
        let now = Instant::now();
        let Config { keepalive_interval, keepalive_count, .. } = self.config;
        let liveness = Liveness::new(keepalive_interval, keepalive_count, now);
        let mut open = Open { session, slot, liveness, idle_since: None };
        open.set_idle(self.core.is_parked(), now);
        Connection::Open(Box::new(open))
    }

    /// The connection could not be made, or is lost.
    fn lost(&mut self, error: &Error) -> Connection<C::Session> {
        // Read before the core forgets that it was synced.
        let synced_for = self.core.synced_for(Instant::now());
        if synced_for.is_some_and(|time| time >= RECOVERED_AFTER) {
            self.backoff.reset();
        }
        self.core.lost(error);
        let Some(fault) = self.core.outage().cloned() else { return self.close() };
        let now = Instant::now();
        self.refused = error.is_refusal().then(|| self.refused.unwrap_or(now));
        // A source beyond a bound is so after each reconnect as well, and each would read all of
        // it.
        let is_over =
            self.refused.is_some_and(|since| is_due(since, self.config.refusal_timeout, now))
                || matches!(error, Error::LimitExceeded { .. });
        if is_over {
            tracing::error!(source = self.connect.uri(), %fault, "refused for good");
            self.core.end(&End::Failed(error.clone()));
            return self.close();
        }
        let wait = self.backoff.next();
        tracing::debug!(source = self.connect.uri(), %fault, ?wait, "reconnects");
        Connection::Backoff(Instant::now() + wait)
    }

    fn close(&mut self) -> Connection<C::Session> {
        self.core.forget();
        self.backoff.reset();
        self.refused = None;
        Connection::Closed
    }

    async fn read(
        &mut self,
        mut connection: Connection<C::Session>,
        outcome: Result<(), Error>,
    ) -> Connection<C::Session> {
        let Connection::Open(open) = &mut connection else { return connection };
        let now = Instant::now();
        // Before `absorb`, which empties the batch.
        let events = self.core.batch.events.len();
        open.liveness.heard(now);
        // What came before a failure was observed, and is delivered before the gap.
        let absorbed = self.core.absorb(&mut open.session, now);
        if let Err(error) = outcome.and(absorbed) {
            return self.lost(&error);
        }
        // Only a list proves that the server serves us; a connection alone may be refused at its
        // first call.
        if self.core.is_synced() {
            self.refused = None;
        }
        open.set_idle(self.core.is_parked(), now);
        if events >= YIELD_EVERY {
            tokio::task::yield_now().await;
        }
        connection
    }

    async fn timer(&mut self, mut connection: Connection<C::Session>) -> Connection<C::Session> {
        let Connection::Open(open) = &mut connection else { return connection };
        let now = Instant::now();
        if open.idle_since.is_some_and(|since| is_due(since, self.config.idle_timeout, now)) {
            return self.close();
        }
        if self.core.act_due().is_some_and(|due| due <= now) {
            self.core.act(&mut open.session, now);
        }
        let liveness = &mut open.liveness;
        let silence = liveness.silence(now);
        // Pings go on while the deadline of an answer is put off.
        let answer_due = self
            .core
            .answer_due(liveness.has_keepalive())
            .filter(|due| liveness.effective(*due) <= now);
        let overdue = if silence.is_some() { liveness.next_ping() } else { answer_due };
        let Some(overdue) = overdue else {
            if liveness.is_ping_due(now) {
                liveness.ping(now, || open.session.ping());
            }
            return connection;
        };
        // After a suspend of this process: read once more before the deadline counts. But only once
        // for each deadline, since events that never end are no answer.
        if !liveness.was_put_off(overdue) {
            let unread = {
                let mut advance = pin!(open.session.advance(&mut self.core.batch));
                poll_fn(|cx| Poll::Ready(advance.as_mut().poll(cx))).await
            };
            if let Poll::Ready(outcome) = unread {
                liveness.put_off(overdue, now);
                return self.read(connection, outcome).await;
            }
        }
        if let Some(error) = silence {
            return self.lost(&error);
        }
        liveness.probe(|| open.session.ping());
        let has_keepalive = liveness.has_keepalive();
        match self.core.give_up(&mut open.session, has_keepalive, now) {
            Ok(()) => connection,
            Err(error) => self.lost(&error),
        }
    }

    /// Whether there is nothing left to do before the end.
    fn is_quiet(&self, connection: &Connection<C::Session>) -> bool {
        match connection {
            Connection::Open(_) => self.core.is_deregistered(),
            _ => true,
        }
    }
}

impl Config {
    /// When the next deadline of an open connection is due.
    fn deadline<S>(&self, core: &Core, open: &Open<S>) -> Option<Instant> {
        let liveness = &open.liveness;
        let answer = core.answer_due(liveness.has_keepalive()).map(|due| liveness.effective(due));
        let idle = open.idle_since.and_then(|since| since.checked_add(self.idle_timeout));
        let others = idle.into_iter().chain(liveness.next_ping()).chain(core.act_due());
        answer.into_iter().chain(others).min()
    }
}

fn is_due(since: Instant, wait: Duration, now: Instant) -> bool {
    since.checked_add(wait).is_some_and(|due| now >= due)
}
