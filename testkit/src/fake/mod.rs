//! A hypervisor inside the process, for the tests of programs that use virevent.
//!
//! It runs on the same [`Driver`] as every backend, so that what a program sees of it (order, gaps,
//! inferred events, lag, cancellation) is what it will see of a real one.

mod builder;
mod faults;
mod journal;
mod line;
mod ops;
mod session;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use virevent::driver::{Driver, Listed};
use virevent::{
    Capabilities, Counters, Domain, Error, EventSource, EventStream, Health, Kinds, Options,
};

pub use self::builder::Builder;
pub use self::journal::Asked;
use self::line::Line;
use crate::host::Host;

/// A hypervisor inside the process. Cheap to clone; all clones are the same hypervisor.
///
/// What is done to its domains is told to subscribers as libvirt would tell it. None of the methods
/// waits, so that a test does in one line what it wants to see reported in the next:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use virevent::{EventSource, Options};
/// use virevent_testkit::{FakeHypervisor, assert};
///
/// let fake = FakeHypervisor::new();
/// fake.define("web").unwrap();
/// let mut events = fake.subscribe_with(Options::default()).await.unwrap();
/// assert::until_synced(&mut events).await.unwrap();
///
/// fake.start("web").unwrap();
/// assert::expect_sequence(&mut events, &["web[1] started (booted)"]).await.unwrap();
/// # });
/// ```
///
/// While the connection is away the host goes on: operations change it, and the driver finds out when
/// it is back.
#[derive(Clone)]
pub struct FakeHypervisor {
    line: Arc<Line>,
    driver: Driver,
}

impl FakeHypervisor {
    /// A hypervisor without domains, with the URI `fake:`, on the host `fake`.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Begins to configure one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The host behind it, to serve it in another way too.
    pub fn host(&self) -> &Host {
        &self.line.host
    }

    /// The domain of that name, with the id of its run if it has one.
    pub fn domain(&self, name: &str) -> Option<Domain> {
        self.host().domain(name)
    }

    /// Every domain as it is, active or not, by name: the truth to compare with.
    pub fn domains(&self) -> Vec<Listed> {
        self.host().domains()
    }
}

/// One event at a time.
impl FakeHypervisor {
    /// From now on events wait until [`step`](Self::step) lets one through, or
    /// [`release`](Self::release) all. Answers to what the driver asks do not wait: a list can so
    /// overtake the events that it contains, as it does on a busy server.
    pub fn single_step(&self) {
        self.line.change(|state| state.stepping = true);
    }

    /// Lets one event through; false if none waits.
    pub fn step(&self) -> bool {
        self.line.change(line::State::step)
    }

    /// Lets all events through, now and from now on.
    pub fn release(&self) {
        self.line.change(line::State::release);
    }
}

/// What the driver asked.
impl FakeHypervisor {
    /// What the driver asked, in order: the latest 65,536 entries.
    pub fn journal(&self) -> Vec<Asked> {
        self.line.lock().journal.entries().cloned().collect()
    }

    /// Empties the journal.
    pub fn clear_journal(&self) {
        self.line.change(|state| state.journal.clear());
    }

    /// Waits until the journal has an entry that is `wanted`, and returns it; at once if it has.
    ///
    /// # Cancel safety
    /// Cancel safe: it takes nothing out of the journal.
    pub async fn asked(&self, mut wanted: impl FnMut(&Asked) -> bool) -> Asked {
        let mut changes = self.line.changes();
        loop {
            changes.mark_unchanged();
            if let Some(entry) = self.line.lock().journal.entries().find(|entry| wanted(entry)) {
                return entry.clone();
            }
            // The line outlives this: it holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Waits until the driver has taken in all that happened, if it listens.
    pub(crate) async fn delivered(&self) {
        // It takes a bufferful at a time; a bound, in case it is gone with its runtime.
        for _ in 0..100_000 {
            if self.line.lock().is_delivered() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The kinds that are registered now: none without a connection.
    pub fn registered(&self) -> Kinds {
        let state = self.line.lock();
        state.live.as_ref().map(|live| live.registered.kinds().clone()).unwrap_or_default()
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.line.lock().live.is_some()
    }
}

#[async_trait]
impl EventSource for FakeHypervisor {
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
        self.driver.subscribe_with(options).await
    }

    fn uri(&self) -> &str {
        self.driver.uri()
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    fn health(&self) -> Health {
        self.driver.health()
    }

    fn counters(&self) -> Counters {
        self.driver.counters()
    }

    async fn shutdown(&self) {
        self.driver.shutdown().await;
    }
}

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FakeHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHypervisor")
            .field("uri", &self.driver.uri())
            .field("status", &self.driver.health().status())
            .finish_non_exhaustive()
    }
}
