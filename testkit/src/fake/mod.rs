//! A hypervisor inside the process, for tests of programs that use virevent.
//!
//! It runs on the same [`Driver`] as every backend, so that a program sees the same order, gaps,
//! inferred events, lag and cancellation as with a real one.

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
    Statistics,
};

pub use self::builder::Builder;
pub use self::journal::Asked;
use self::line::Line;
use crate::host::Host;

/// A hypervisor inside the process. Cheap to clone; all clones are the same hypervisor.
///
/// Its operations emit the events that libvirt would emit. None of them waits, so that a test acts
/// in one line and asserts in the next:
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
/// During an outage of the connection operations still change the host: the driver infers the
/// changes after its reconnect.
#[derive(Clone)]
pub struct FakeHypervisor {
    line: Arc<Line>,
    driver: Driver,
}

impl FakeHypervisor {
    /// A hypervisor without domains, with the URI `fake:`, on the host `fake`.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A builder for another configuration.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The simulated host, which another fake can serve too.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.line.host
    }

    /// The domain with this name, with the id of its run if it is active.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<Domain> {
        self.host().domain(name)
    }

    /// Every domain, active or not, by name: the truth to compare with.
    #[must_use]
    pub fn domains(&self) -> Vec<Listed> {
        self.host().domains()
    }
}

/// Single-step mode.
impl FakeHypervisor {
    /// Holds events from now on, until [`step`](Self::step) delivers one or
    /// [`release`](Self::release) all. Replies are not held: so a list can overtake events that it
    /// contains, as on a busy server.
    pub fn single_step(&self) {
        self.line.change(|state| state.stepping = true);
    }

    /// Delivers one held event. False if there is none.
    pub fn step(&self) -> bool {
        self.line.change(line::State::step)
    }

    /// Delivers all held events and ends single-step mode.
    pub fn release(&self) {
        self.line.change(line::State::release);
    }
}

/// The driver's requests.
impl FakeHypervisor {
    /// The driver's requests in order: the latest 65,536.
    #[must_use]
    pub fn journal(&self) -> Vec<Asked> {
        self.line.lock().journal.entries().cloned().collect()
    }

    /// Empties the journal.
    pub fn clear_journal(&self) {
        self.line.change(|state| state.journal.clear());
    }

    /// Waits until the journal has an entry for which `wanted` is true, and returns it.
    ///
    /// # Cancel safety
    /// Cancel safe: it removes nothing from the journal.
    pub async fn asked(&self, mut wanted: impl FnMut(&Asked) -> bool) -> Asked {
        let mut changes = self.line.changes();
        loop {
            // Before the look: an entry that comes during the look must wake the wait below.
            changes.mark_unchanged();
            if let Some(entry) = self.line.lock().journal.entries().find(|entry| wanted(entry)) {
                return entry.clone();
            }
            // Cannot fail: `self.line` holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Waits until the driver has read all events, if it is connected.
    pub(crate) async fn delivered(&self) {
        // Bounded, since a driver whose runtime is gone reads no more.
        for _ in 0..100_000 {
            if self.line.lock().is_delivered() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The kinds that are registered now. None without a connection.
    #[must_use]
    pub fn registered(&self) -> Kinds {
        let state = self.line.lock();
        state.live.as_ref().map(|live| live.registered.kinds().clone()).unwrap_or_default()
    }

    /// Whether there is a connection now.
    #[must_use]
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

    fn statistics(&self) -> Statistics {
        self.driver.statistics()
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
