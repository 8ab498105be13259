//! The driver's task: owns the session, and waits for whatever comes first.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

use super::backoff::Backoff;
use super::core::Core;
use super::fanout::Subscriber;
use super::{Command, Config, Connect, Session};
use crate::{End, Error, Status};

/// After being synced for this long a source has proved that its troubles are over.
const PROVEN: Duration = Duration::from_secs(10);

/// After a batch of this many events the task lets its neighbours run, the readers among them, so
/// that a flood does not fill a mailbox that somebody would have emptied.
const POLITE: usize = 64;

pub(super) struct Task<C: Connect> {
    connect: Arc<C>,
    config: Config,
    commands: mpsc::UnboundedReceiver<Command>,
    core: Core,
    backoff: Backoff,
    /// Refusals in a row.
    refusals: u32,
    /// Those who wait for the end of the source.
    stopping: Vec<oneshot::Sender<()>>,
}

enum Phase<S> {
    Idle,
    Connecting(Pin<Box<dyn Future<Output = Result<S, Error>> + Send>>),
    Backoff(Instant),
    Up(Box<Up<S>>),
}

struct Up<S> {
    session: S,
    /// When the other side was last heard.
    heard: Instant,
    /// How many times it was asked since then whether it lives; `None` if the protocol has no way.
    pings: Option<u32>,
    /// Since when nobody is subscribed.
    parked: Option<Instant>,
}

impl<S> Up<S> {
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
        let (connect, stopping) = (Arc::new(connect), Vec::new());
        Self { connect, config, commands, core, backoff, refusals: 0, stopping }
    }

    pub(super) async fn run(mut self) {
        let mut phase = Phase::Idle;
        // One timer for every deadline: it may ring early, and is then set anew.
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            phase = match self.wait(&mut phase, timer.as_mut()).await {
                Woken::Command(None) => break,
                Woken::Command(Some(command)) => self.command(phase, command),
                Woken::Connected(Ok(session)) => self.up(session),
                Woken::Connected(Err(error)) => self.down(&error),
                Woken::Retry => self.connecting(),
                Woken::Read(Ok(())) => self.read(phase).await,
                Woken::Read(Err(error)) => self.down(&error),
                Woken::Timer => self.timer(phase),
            };
            if !self.stopping.is_empty() && self.is_quiet(&phase) {
                break;
            }
        }
        self.core.set_status(Status::Shutdown);
        self.core.end(&End::Shutdown);
        for done in self.stopping.drain(..) {
            let _ = done.send(());
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
                let deadline = self.config.deadline(&self.core, up);
                // Setting a timer costs more than letting it ring early once in a while.
                if deadline.is_some_and(|at| at < timer.deadline()) || timer.is_elapsed() {
                    let far = || Instant::now() + Duration::from_secs(3600);
                    timer.as_mut().reset(deadline.unwrap_or_else(far));
                }
                tokio::select! {
                    biased;
                    command = self.commands.recv() => Woken::Command(command),
                    // Before the read, which a flood of events makes ready every time.
                    () = timer => Woken::Timer,
                    outcome = up.session.advance(&mut self.core.batch) => Woken::Read(outcome),
                }
            }
        }
    }

    fn command(&mut self, mut phase: Phase<C::Session>, command: Command) -> Phase<C::Session> {
        match command {
            Command::Subscribe { id, mailbox, options, ready } => {
                if !self.stopping.is_empty() {
                    let _ = ready.send(Err(Error::Shutdown));
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
        tracing::debug!(source = self.connect.uri(), "connected");
        self.core.connected(&mut session);
        let heard = Instant::now();
        Phase::Up(Box::new(Up { session, heard, pings: Some(0), parked: None }))
    }

    /// The connection could not be made, or is lost.
    fn down(&mut self, error: &Error) -> Phase<C::Session> {
        if self.core.synced_for(Instant::now()).is_some_and(|time| time >= PROVEN) {
            self.backoff.reset();
        }
        self.core.lost(error);
        let Some(fault) = self.core.outage.clone() else { return self.idle() };
        self.refusals = if error.is_refusal() { self.refusals + 1 } else { 0 };
        if self.refusals >= 2 {
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
        self.refusals = 0;
        Phase::Idle
    }

    async fn read(&mut self, mut phase: Phase<C::Session>) -> Phase<C::Session> {
        if let Phase::Up(up) = &mut phase {
            let now = Instant::now();
            let events = self.core.batch.events.len();
            up.heard = now;
            up.pings = up.pings.map(|_| 0);
            self.core.absorb(&mut up.session, now);
            if self.core.synced.is_some() {
                self.refusals = 0;
            }
            up.park(self.core.is_parked(), now);
            if events >= POLITE {
                tokio::task::yield_now().await;
            }
        }
        phase
    }

    fn timer(&mut self, mut phase: Phase<C::Session>) -> Phase<C::Session> {
        let Phase::Up(up) = &mut phase else { return phase };
        let now = Instant::now();
        if let Some((call, since)) = self.core.oldest_call() {
            let after = self.config.call_timeout;
            if now >= since + after {
                return self.down(&Error::Timeout { call, after });
            }
        }
        if up.parked.is_some_and(|since| now >= since + self.config.idle_timeout) {
            return self.idle();
        }
        if let Some(due) = self.config.next_ping(up) {
            if now >= due {
                let pings = up.pings.unwrap_or(0);
                if pings >= self.config.keepalive_count {
                    let after = now - up.heard;
                    return self.down(&Error::Timeout { call: "a keepalive", after });
                }
                up.pings = up.session.ping().then_some(pings + 1);
            }
        }
        phase
    }

    /// Whether there is nothing left to do before the end.
    fn is_quiet(&self, phase: &Phase<C::Session>) -> bool {
        match phase {
            Phase::Up(_) => self.core.is_parked(),
            _ => true,
        }
    }
}

impl Config {
    /// When the next of the deadlines of a connection is due.
    fn deadline<S>(&self, core: &Core, up: &Up<S>) -> Option<Instant> {
        let call = core.oldest_call().map(|(_, since)| since + self.call_timeout);
        let idle = up.parked.map(|since| since + self.idle_timeout);
        call.into_iter().chain(idle).chain(self.next_ping(up)).min()
    }

    fn next_ping<S>(&self, up: &Up<S>) -> Option<Instant> {
        Some(up.heard + self.keepalive_interval? * (up.pings? + 1))
    }
}
