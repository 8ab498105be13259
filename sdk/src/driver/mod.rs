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
//!    │ refused, no stream       │    │ backoff          │ connection lost              │
//!    ├──────────────────────────┘    └── Disconnected ◀─┴──────────────────────────────┤
//!    │                                                        no subscriber for 30 s   │
//!    └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `Disconnected` is the pause before the next attempt. A list that does not come in time has two
//! stages of its own, which `core/stage.rs` describes.
//!
//! While it is synced, the driver compares what it believes with what the hypervisor says, every
//! minute and wherever there is doubt: hypervisors end runs without an event.
//!
//! A complete backend is in `docs/writing-a-backend.md`.

mod backoff;
mod batch;
mod config;
mod core;
mod entry;
mod facts;
mod fanout;
mod gate;
mod hosts;
mod inference;
mod interner;
mod observe;
mod reconcile;
mod recorder;
mod resume;
mod roster;
mod scopes;
mod session;
mod settings;
mod subscribers;
mod sync_buffer;
mod task;
mod verify;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

pub(crate) use self::backoff::Backoff;
pub use self::backoff::Reconnect;
pub use self::batch::{Batch, Listed};
pub use self::config::Builder;
use self::facts::Facts;
pub use self::gate::Gate;
pub(crate) use self::resume::check_source;
pub use self::session::{Connect, Interest, Session};
pub use self::settings::Settings;
use crate::command::{Command, CommandSender};
use crate::mailbox::Mailbox;
use crate::{
    Capabilities, Counters, Error, EventSource, EventStream, Health, Options, Statistics, Status,
};

/// An [`EventSource`] made of a [`Connect`]. Cheap to clone; all clones are the same source.
///
/// Nothing happens until the first subscription, which starts the driver's task on the runtime that
/// it is called from. The streams keep that task alive; dropping the handle ends nothing.
#[derive(Clone)]
pub struct Driver {
    handle: Arc<SourceHandle>,
}

/// What all clones of a driver share.
struct SourceHandle {
    uri: Arc<str>,
    commands: CommandSender,
    status: watch::Receiver<Status>,
    facts: Arc<Facts>,
    /// Starts the task, once.
    start: Mutex<Option<Start>>,
}

type Start = Box<dyn FnOnce(&Handle) + Send>;

impl Driver {
    /// Begins to configure a driver.
    pub fn builder<C: Connect>(connect: C) -> Builder<C> {
        Builder::new(connect)
    }

    fn start(&self) -> Result<(), Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        // The lock is released before the task is spawned: two first subscriptions may race here,
        // and only one finds the closure.
        let start = self.handle.start.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        if let Some(known) = &options.resume {
            check_source(known, self)?;
        }
        self.start()?;
        let SourceHandle { uri, commands, status, facts, .. } = &*self.handle;
        let id = facts.subscribers.fetch_add(1, Ordering::Relaxed);
        let mailbox = Mailbox::new(Arc::clone(uri), options.capacity).slack(options.slack);
        let mailbox = Arc::new(mailbox);
        // Made before the wait: dropping this future drops the stream, and so cancels.
        let stream = EventStream::new(id, Arc::clone(&mailbox), commands.clone());
        let (ready, outcome) = oneshot::channel();
        commands.send(Command::Subscribe { id, mailbox, options, ready });
        match outcome.await {
            Ok(outcome) => outcome.map(|()| stream),
            // The task has ended: by a shutdown, or with its runtime.
            Err(_) if *status.borrow() == Status::Shutdown => Err(Error::Shutdown),
            Err(_) => Err(Error::DriverEnded),
        }
    }

    fn uri(&self) -> &str {
        &self.handle.uri
    }

    fn capabilities(&self) -> Capabilities {
        self.handle.facts.capabilities()
    }

    fn health(&self) -> Health {
        Health::new(self.handle.status.clone(), Arc::clone(&self.handle.facts.details))
    }

    fn counters(&self) -> Counters {
        self.handle.facts.counters()
    }

    fn statistics(&self) -> Statistics {
        self.handle.facts.recorder.statistics()
    }

    async fn shutdown(&self) {
        // Without a runtime nothing was ever started.
        if self.start().is_err() {
            return;
        }
        let (done, finished) = oneshot::channel();
        self.handle.commands.send(Command::Shutdown { done });
        // An error says that the task had ended already.
        let _ = finished.await;
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("uri", &self.handle.uri)
            .field("status", &*self.handle.status.borrow())
            .finish_non_exhaustive()
    }
}
