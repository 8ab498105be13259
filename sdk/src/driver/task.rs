//! The driver's task: owns the session, and waits for whatever comes first.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

use super::backoff::Backoff;
use super::core::Core;
use super::fanout::Subscriber;
use super::{Command, Config, Connect, Session, answer};
use crate::{End, Error, Status};

/// After being synced for this long a source has proved that its troubles are over.
const PROVEN: Duration = Duration::from_secs(10);

/// How long a shutdown waits for the server to confirm that nothing is registered.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a process that was suspended may take to read what has come meanwhile.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// After a batch of this many events the task lets other tasks run, the readers of its streams among
/// them, so that a flood does not fill a mailbox that its reader is about to empty.
const YIELD_EVERY: usize = 64;

pub(super) struct Task<C: Connect> {
    connect: Arc<C>,
    config: Config,
    commands: mpsc::UnboundedReceiver<Command>,
    core: Core,
    backoff: Backoff,
    /// Since when the server has done nothing but refuse.
    refused: Option<Instant>,
    /// A command was served last: a read comes before the next, or commands would hold up events.
    is_reads_turn: bool,
    /// Those who wait for the end of the source.
    stopping: Vec<oneshot::Sender<()>>,
    /// When it ends though the server has not confirmed that nothing is registered.
    stop_at: Option<Instant>,
}

enum Phase<S> {
    Idle,
    Connecting(Pin<Box<dyn Future<Output = Result<S, Error>> + Send>>),
    Backoff(Instant),
    Up(Box<Up<S>>),
}

struct Up<S> {
    session: S,
    /// When the other side was last heard, or asked whether it lives.
    alive: Instant,
    /// When it was last heard.
    heard: Instant,
    /// How many times it was asked since then; `None` if the protocol has no way.
    pings: Option<u32>,
    /// It has been asked on this connection.
    is_probed: bool,
    /// A deadline that has passed and is put off, and until when: there was something to read.
    spared: Option<(Instant, Instant)>,
    /// Since when nobody is subscribed.
    parked: Option<Instant>,
}

impl<S> Up<S> {
    /// Whether a deadline that has passed does not count yet.
    fn is_put_off(&self, deadline: Instant, now: Instant) -> bool {
        self.spared.is_some_and(|(spared, until)| spared == deadline && now < until)
    }

    fn park(&mut self, parked: bool, now: Instant) {
        self.parked = if parked { self.parked.or(Some(now)) } else { None };
    }
}

/// What the task waited for.
enum Woken<S> {
    Command(Option<Command>),
    Connected(Result<S, Error>),
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
        let mut phase = Phase::Idle;
        // One timer for every deadline: it may ring early, and is then set again.
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let woken = self.wait(&mut phase, timer.as_mut()).await;
            // A session that always has something must not keep the other tasks of its thread waiting.
            tokio::task::coop::consume_budget().await;
            self.is_reads_turn = matches!(woken, Woken::Command(_));
            phase = match woken {
                Woken::Command(None) => break,
                Woken::Command(Some(command)) => self.command(phase, command),
                Woken::Connected(Ok(session)) => self.up(session),
                Woken::Connected(Err(error)) => self.down(&error),
                Woken::Retry => self.connecting(),
                Woken::Read(outcome) => self.read(phase, outcome).await,
                Woken::Timer => self.timer(phase).await,
            };
            let is_late = self.stop_at.is_some_and(|at| at <= Instant::now());
            if !self.stopping.is_empty() && (is_late || self.is_quiet(&phase)) {
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
        phase: &mut Phase<C::Session>,
        mut timer: Pin<&mut Sleep>,
    ) -> Woken<C::Session> {
        match phase {
            Phase::Idle => Woken::Command(self.commands.recv().await),
            Phase::Connecting(attempt) => tokio::select! {
                biased;
                command = self.commands.recv() => Woken::Command(command),
                outcome = attempt => Woken::Connected(outcome),
            },
            Phase::Backoff(until) => {
                timer.as_mut().reset(*until);
                tokio::select! {
                    biased;
                    command = self.commands.recv() => Woken::Command(command),
                    () = timer => Woken::Retry,
                }
            }
            Phase::Up(up) => {
                let deadline =
                    self.config.deadline(&self.core, up).into_iter().chain(self.stop_at).min();
                // Setting a timer costs more than letting it ring early once in a while.
                if deadline.is_some_and(|at| at < timer.deadline()) || timer.is_elapsed() {
                    let far = || Instant::now() + Duration::from_secs(3600);
                    timer.as_mut().reset(deadline.unwrap_or_else(far));
                }
                // The timer comes before the read, which a flood of events makes ready every time.
                let advance = up.session.advance(&mut self.core.batch);
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

    fn command(&mut self, mut phase: Phase<C::Session>, command: Command) -> Phase<C::Session> {
        match command {
            Command::Subscribe { id, mailbox, options, ready } => {
                if !self.stopping.is_empty() {
                    answer(ready, Err(Error::Shutdown));
                    return phase;
                }
                // Cancelled before we heard of it: its cancellation found nothing to remove.
                if mailbox.is_cancelled() {
                    return phase;
                }
                let subscriber = Subscriber::new(id, mailbox, options, &self.connect.kinds());
                self.core.subscribe(subscriber, ready);
            }
            Command::Cancel { id, done } => self.core.cancel(id, done),
            Command::Retell { id } => self.core.retell(id),
            Command::Shutdown { done } => {
                self.stopping.push(done);
                self.stop_at.get_or_insert_with(|| Instant::now() + SHUTDOWN_TIMEOUT);
                self.core.end(&End::Shutdown);
            }
        }
        match &mut phase {
            Phase::Up(up) => {
                self.core.steer(&mut up.session);
                up.park(self.core.is_parked(), Instant::now());
                phase
            }
            Phase::Idle if self.core.is_wanted() => self.connecting(),
            Phase::Connecting(_) | Phase::Backoff(_) | Phase::Idle => {
                self.core.confirm_closed();
                if self.core.is_wanted() { phase } else { self.idle() }
            }
        }
    }

    fn connecting(&mut self) -> Phase<C::Session> {
        if self.core.outage.is_none() {
            self.core.set_status(Status::Connecting);
        }
        let (connect, after) = (Arc::clone(&self.connect), self.config.connect_timeout);
        Phase::Connecting(Box::pin(async move {
            let timeout = Error::Timeout { call: "connecting", after };
            tokio::time::timeout(after, connect.connect()).await.unwrap_or(Err(timeout))
        }))
    }

    fn up(&mut self, mut session: C::Session) -> Phase<C::Session> {
        tracing::info!(source = self.connect.uri(), "connected");
        self.core.connected(&mut session);
        let now = Instant::now();
        let mut up = Up {
            session,
            alive: now,
            heard: now,
            pings: Some(0),
            is_probed: false,
            spared: None,
            parked: None,
        };
        up.park(self.core.is_parked(), now);
        Phase::Up(Box::new(up))
    }

    /// The connection could not be made, or is lost.
    fn down(&mut self, error: &Error) -> Phase<C::Session> {
        if self.core.synced_for(Instant::now()).is_some_and(|time| time >= PROVEN) {
            self.backoff.reset();
        }
        self.core.lost(error);
        let Some(fault) = self.core.outage.clone() else { return self.idle() };
        let now = Instant::now();
        self.refused = error.is_refusal().then(|| self.refused.unwrap_or(now));
        let is_over =
            self.refused.is_some_and(|since| is_due(since, self.config.refusal_timeout, now))
                || matches!(error, Error::LimitExceeded { .. });
        if is_over {
            tracing::error!(source = self.connect.uri(), %fault, "refused for good");
            self.core.end(&End::Failed(error.clone()));
            return self.idle();
        }
        let wait = self.backoff.next();
        tracing::debug!(source = self.connect.uri(), %fault, ?wait, "trying again");
        self.core.set_status(Status::Disconnected(fault));
        Phase::Backoff(Instant::now() + wait)
    }

    fn idle(&mut self) -> Phase<C::Session> {
        self.core.forget();
        self.backoff.reset();
        self.refused = None;
        Phase::Idle
    }

    async fn read(
        &mut self,
        mut phase: Phase<C::Session>,
        outcome: Result<(), Error>,
    ) -> Phase<C::Session> {
        let Phase::Up(up) = &mut phase else { return phase };
        let now = Instant::now();
        let events = self.core.batch.events.len();
        up.alive = now;
        up.heard = now;
        up.pings = up.pings.map(|_| 0);
        // What came before a failure was observed, and is told before it.
        let absorbed = self.core.absorb(&mut up.session, now);
        if let Err(error) = outcome.and(absorbed) {
            return self.down(&error);
        }
        if self.core.synced.is_some() {
            self.refused = None;
        }
        up.park(self.core.is_parked(), now);
        if events >= YIELD_EVERY {
            tokio::task::yield_now().await;
        }
        phase
    }

    async fn timer(&mut self, mut phase: Phase<C::Session>) -> Phase<C::Session> {
        let Phase::Up(up) = &mut phase else { return phase };
        let now = Instant::now();
        if up.parked.is_some_and(|since| is_due(since, self.config.idle_timeout, now)) {
            return self.idle();
        }
        if self.core.act_due().is_some_and(|due| due <= now) {
            self.core.act(&mut up.session, now);
        }
        // Until it has been asked, the protocol may have no keepalive.
        let has_keepalive = up.is_probed && self.config.has_keepalive(up);
        let silence = self.config.silence(up, now);
        let answer_due = self.core.answer_due(has_keepalive);
        // Keepalives go on while it is put off.
        let answer_due = answer_due.filter(|due| *due <= now && !up.is_put_off(*due, now));
        let overdue = if silence.is_some() { self.config.next_ping(up) } else { answer_due };
        let Some(overdue) = overdue else {
            if self.config.next_ping(up).is_some_and(|due| now >= due) {
                let asked = up.pings.unwrap_or(0) + 1;
                up.alive = now;
                up.is_probed = true;
                up.pings = up.session.ping().then_some(asked);
            }
            return phase;
        };
        // This process may have been suspended: read once more before a deadline counts, but only once for
        // each deadline. Events that never end are no answer.
        let unread = match up.spared {
            Some((spared, _)) if spared == overdue => Poll::Pending,
            _ => {
                let mut advance = pin!(up.session.advance(&mut self.core.batch));
                poll_fn(|cx| Poll::Ready(advance.as_mut().poll(cx))).await
            }
        };
        if let Poll::Ready(outcome) = unread {
            up.spared = Some((overdue, now + CATCHING_UP));
            return self.read(phase, outcome).await;
        }
        if let Some(error) = silence {
            return self.down(&error);
        }
        if !up.is_probed {
            // Only asking shows whether the protocol has a way to ask.
            up.is_probed = true;
            up.pings = up.pings.filter(|_| up.session.ping());
        }
        let has_keepalive = self.config.has_keepalive(up);
        match self.core.give_up(&mut up.session, has_keepalive, now) {
            Ok(()) => phase,
            Err(error) => self.down(&error),
        }
    }

    /// Whether there is nothing left to do before the end.
    fn is_quiet(&self, phase: &Phase<C::Session>) -> bool {
        match phase {
            Phase::Up(_) => self.core.is_deregistered(),
            _ => true,
        }
    }
}

impl Config {
    /// When the next of the deadlines of a connection is due.
    fn deadline<S>(&self, core: &Core, up: &Up<S>) -> Option<Instant> {
        // Until it has been asked, the protocol may have no keepalive.
        let has_keepalive = up.is_probed && self.has_keepalive(up);
        let answer = core.answer_due(has_keepalive).map(|due| match up.spared {
            Some((spared, until)) if spared == due => until,
            _ => due,
        });
        let idle = up.parked.and_then(|since| since.checked_add(self.idle_timeout));
        let others = idle.into_iter().chain(self.next_ping(up)).chain(core.act_due());
        answer.into_iter().chain(others).min()
    }

    /// Whether silence is found out by asking, so that a call without an answer need not mean it.
    fn has_keepalive<S>(&self, up: &Up<S>) -> bool {
        self.keepalive_interval.is_some() && up.pings.is_some()
    }

    /// When to ask next whether the other side lives, or to give it up.
    fn next_ping<S>(&self, up: &Up<S>) -> Option<Instant> {
        up.pings.and_then(|_| up.alive.checked_add(self.keepalive_interval?))
    }

    /// Why the connection is of no use: the other side does not even answer keepalives.
    fn silence<S>(&self, up: &Up<S>, now: Instant) -> Option<Error> {
        let silent = up.pings? >= self.keepalive_count && now >= self.next_ping(up)?;
        // To the tenth of a second: more says nothing to anybody.
        let after = Duration::from_millis((now - up.heard).as_millis() as u64 / 100 * 100);
        silent.then_some(Error::Timeout { call: "a keepalive", after })
    }
}

fn is_due(since: Instant, wait: Duration, now: Instant) -> bool {
    since.checked_add(wait).is_some_and(|due| now >= due)
}
