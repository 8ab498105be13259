//! For authors of backends: write a [`Connect`] and a [`Session`], and the [`Driver`] makes an
//! [`EventSource`] of them.
//!
//! Recovery, fan-out, lag and cancellation exist once, here. One task per source owns the session
//! and all state; it never waits for a subscriber.
//!
//! ```text
//!            first subscriber            connected             registered, listed, merged
//!   Idle ───────────────────▶ Connecting ──────────▶ Syncing ──────────────────────▶ Synced
//!    ▲                          │    ▲                  │                              │
//!    │ refused, nobody streams  │    │ backoff          │ connection lost              │
//!    ├──────────────────────────┘    └── Disconnected ◀─┴──────────────────────────────┤
//!    │                                                        no subscriber for 30 s   │
//!    └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While it is synced, the driver compares what it believes with what the hypervisor says, every minute and
//! wherever there is doubt: hypervisors end runs without a word.
//!
//! A complete backend is in `docs/writing-a-backend.md`.

mod backoff;
mod batch;
mod core;
mod fanout;
mod inference;
mod observe;
mod reconcile;
mod roster;
mod scopes;
mod session;
mod settings;
mod sync_buffer;
mod task;
mod verify;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::backoff::Reconnect;
pub use self::batch::{Batch, Listed};
use self::core::Core;
pub use self::session::{Connect, Interest, Session};
pub use self::settings::Settings;
use self::task::Task;
use crate::mailbox::{Mailbox, contain_panic};
use crate::source::Details;
use crate::{Capabilities, Counters, Error, EventSource, EventStream, Health, Options, Status};

/// An [`EventSource`] made of a [`Connect`]. Cheap to clone; all clones are the same source.
///
/// Nothing happens until the first subscription, which starts the driver's task on the runtime that
/// it is called from. The streams keep that task alive; dropping the handle ends nothing.
#[derive(Clone)]
pub struct Driver {
    shared: Arc<Shared>,
}

struct Shared {
    uri: Arc<str>,
    link: Link,
    health: watch::Receiver<Status>,
    facts: Arc<Facts>,
    /// Starts the task, once.
    start: Mutex<Option<Start>>,
}

type Start = Box<dyn FnOnce(&Handle) + Send>;

/// What the task knows and the handle tells.
#[derive(Debug, Default)]
struct Facts {
    capabilities: Mutex<Capabilities>,
    events: AtomicU64,
    missed: AtomicU64,
    gaps: AtomicU64,
    reconnects: AtomicU64,
    corrected: AtomicU64,
    subscribers: AtomicU64,
    details: Arc<Mutex<Details>>,
}

impl Facts {
    fn add(&self, counter: impl Fn(&Self) -> &AtomicU64, n: u64) {
        counter(self).fetch_add(n, Ordering::Relaxed);
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_details(&self, set: impl FnOnce(&mut Details)) {
        set(&mut self.details.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn update(&self, change: impl FnOnce(&mut Capabilities)) {
        change(&mut self.capabilities.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What streams and handles ask of the task.
pub(crate) enum Command {
    Subscribe { id: u64, mailbox: Arc<Mailbox>, options: Options, ready: Ready },
    Cancel { id: u64, done: Option<oneshot::Sender<()>> },
    Retell { id: u64 },
    Shutdown { done: oneshot::Sender<()> },
}

/// Where the outcome of a subscription goes.
type Ready = oneshot::Sender<Result<(), Error>>;

/// Answers a command. It wakes whoever awaits the answer, and the panic of such a waker must not end
/// the task.
fn answer<T>(to: oneshot::Sender<T>, value: T) {
    contain_panic(|| {
        let _ = to.send(value);
    });
}

/// The way to the task. Sending needs no runtime and never blocks; each subscriber sends at most a
/// handful of commands, so the channel is bounded by their number.
#[derive(Clone)]
pub(crate) struct Link(mpsc::UnboundedSender<Command>);

impl Link {
    /// Says it to the task. When the task is gone there is nobody to tell, and nothing to do.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }
}

impl Driver {
    /// Begins to configure a driver.
    pub fn builder<C: Connect>(connect: C) -> Builder<C> {
        Builder {
            connect,
            config: Config {
                reconnect: Reconnect::local(),
                connect_timeout: Duration::from_secs(10),
                call_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(30),
                keepalive_interval: Some(Duration::from_secs(5)),
                keepalive_count: 5,
                verify: Some(Duration::from_secs(60)),
                refusal_timeout: Duration::from_secs(60),
            },
        }
    }

    fn start(&self) -> Result<(), Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let start = self.shared.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(start) = start {
            start(&runtime);
        }
        Ok(())
    }
}

#[async_trait]
impl EventSource for Driver {
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
        options.check()?;
        self.start()?;
        let id = self.shared.facts.subscribers.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(
            Mailbox::new(Arc::clone(&self.shared.uri), options.capacity).slack(options.slack),
        );
        // Made before the wait: dropping this future drops the stream, and so cancels.
        let stream = EventStream::new(id, Arc::clone(&mailbox), self.shared.link.clone());
        let (ready, outcome) = oneshot::channel();
        self.shared.link.send(Command::Subscribe { id, mailbox, options, ready });
        match outcome.await {
            Ok(outcome) => outcome.map(|()| stream),
            // The task is gone: by a shutdown, or with its runtime.
            Err(_) if *self.shared.health.borrow() == Status::Shutdown => Err(Error::Shutdown),
            Err(_) => Err(Error::DriverEnded),
        }
    }

    fn uri(&self) -> &str {
        &self.shared.uri
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.facts.capabilities()
    }

    fn health(&self) -> Health {
        Health::new(self.shared.health.clone(), Arc::clone(&self.shared.facts.details))
    }

    fn counters(&self) -> Counters {
        let facts = &self.shared.facts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            events: read(&facts.events),
            missed: read(&facts.missed),
            gaps: read(&facts.gaps),
            reconnects: read(&facts.reconnects),
            corrected: read(&facts.corrected),
        }
    }

    async fn shutdown(&self) {
        // Without a runtime nothing was ever started.
        if self.start().is_err() {
            return;
        }
        let (done, finished) = oneshot::channel();
        self.shared.link.send(Command::Shutdown { done });
        // An error says that the task was gone already.
        let _ = finished.await;
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("uri", &self.shared.uri)
            .field("status", &*self.shared.health.borrow())
            .finish_non_exhaustive()
    }
}

/// Configures a [`Driver`].
#[derive(Debug)]
#[must_use = "call build()"]
pub struct Builder<C> {
    connect: C,
    config: Config,
}

#[derive(Clone, Debug)]
struct Config {
    reconnect: Reconnect,
    connect_timeout: Duration,
    call_timeout: Duration,
    idle_timeout: Duration,
    keepalive_interval: Option<Duration>,
    keepalive_count: u32,
    verify: Option<Duration>,
    refusal_timeout: Duration,
}

/// As good as never, and still a time that a clock can be set to: ten years.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What is believed is not verified more often, whatever is asked for: each list costs the hypervisor.
const LEAST_VERIFY: Duration = Duration::from_millis(100);

impl Config {
    fn set_verify(&mut self, interval: Option<Duration>) {
        self.verify = often(interval).map(|interval| interval.max(LEAST_VERIFY));
    }

    fn set_keepalive(&mut self, interval: Option<Duration>, count: u32) {
        self.keepalive_interval = often(interval);
        self.keepalive_count = count;
    }
}

/// An interval: none is never, and so is one of zero.
fn often(interval: Option<Duration>) -> Option<Duration> {
    interval.filter(|interval| !interval.is_zero()).map(|interval| interval.min(NEVER))
}

impl<C: Connect> Builder<C> {
    /// How to reconnect. Default: [`Reconnect::local`].
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.config.reconnect = reconnect;
        self
    }

    /// How long connecting may take, the handshake included. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long the server may take to answer a call. After it a subscription that waits for the answer
    /// fails, or opens with [`Disconnected`](crate::GapKind::Disconnected); streams go on without the list that is
    /// missing. Where the server answers no keepalives, the connection is given up. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.config.call_timeout = timeout;
        self
    }

    /// How long the connection is kept when nobody is subscribed. Default: 30 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = timeout;
        self
    }

    /// After how much silence to ask whether the server lives, and how many times in a row, one
    /// interval apart, before the connection is given up: after `interval * (count + 1)` of silence.
    /// Default: 5 s, 5 times. `None` never asks.
    pub fn keepalive(mut self, interval: Option<Duration>, count: u32) -> Self {
        self.config.set_keepalive(interval, count);
        self
    }

    /// How often to compare all that is believed of the domains with a list. `None` never compares, nor
    /// looks again at a domain that is in doubt. Default: 60 s, with a jitter of a tenth; at least 100 ms.
    /// Zero is taken for `None`.
    pub fn verify(mut self, interval: Option<Duration>) -> Self {
        self.config.set_verify(interval);
        self
    }

    /// How long a server that was reached before may refuse a connection, and do nothing else, before the
    /// streams end. Default: 60 s: a certificate that is being replaced must not end a service.
    pub fn refusal_timeout(mut self, timeout: Duration) -> Self {
        self.config.refusal_timeout = timeout;
        self
    }

    /// What was chosen for the source by its user.
    pub fn settings(mut self, settings: &Settings) -> Self {
        settings.apply(&mut self.config);
        self
    }

    /// The source. Does no I/O, and needs no runtime yet.
    pub fn build(self) -> Driver {
        let (sender, commands) = mpsc::unbounded_channel();
        let (status, health) = watch::channel(Status::Idle);
        let facts = Arc::new(Facts::default());
        let typed = self.connect.kinds();
        facts.update(|capabilities| capabilities.kinds = typed.clone());
        let uri: Arc<str> = Arc::from(self.connect.uri());
        let core = Core::new(Arc::clone(&uri), typed, &self.config, status, Arc::clone(&facts));
        let task = Task::new(self.connect, self.config, commands, core);
        let start: Start = Box::new(move |runtime| {
            runtime.spawn(task.run());
        });
        let start = Mutex::new(Some(start));
        Driver { shared: Arc::new(Shared { uri, link: Link(sender), health, facts, start }) }
    }
}
