//! A hypervisor inside the process, for the tests of programs that use virevent.
//!
//! It runs on the same [`Driver`] as every backend, so that what a program sees of it (order, gaps,
//! inferred events, lag, cancellation) is what it will see of a real one.

mod builder;
mod journal;
mod line;
mod session;

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use virevent::driver::{Driver, Listed};
use virevent::{
    Capabilities, Change, Counters, Domain, DomainEvent, Error, EventSource, EventStream, Fault,
    Health, Kind, Kinds, Options, Scope, StartCause, StopCause,
};

pub use self::builder::Builder;
pub use self::journal::Asked;
use self::line::{Connects, Line};
use crate::host::{Host, OpError};

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

/// What happens to domains. Each either changes the host and returns the domain as it is then, or is
/// an error and changes nothing.
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

    /// See [`Host::define`].
    ///
    /// # Errors
    /// See there.
    pub fn define(&self, name: &str) -> Result<Domain, OpError> {
        self.host().define(name)
    }

    /// Starts a transient domain: see [`Host::create`].
    ///
    /// # Errors
    /// See there.
    pub fn create(&self, name: &str) -> Result<Domain, OpError> {
        self.host().create(name)
    }

    /// See [`Host::start`].
    ///
    /// # Errors
    /// See there.
    pub fn start(&self, name: &str) -> Result<Domain, OpError> {
        self.host().start(name)
    }

    /// See [`Host::start_as`].
    ///
    /// # Errors
    /// See there.
    pub fn start_as(&self, name: &str, cause: StartCause) -> Result<Domain, OpError> {
        self.host().start_as(name, cause)
    }

    /// See [`Host::suspend`].
    ///
    /// # Errors
    /// See there.
    pub fn suspend(&self, name: &str) -> Result<Domain, OpError> {
        self.host().suspend(name)
    }

    /// See [`Host::resume`].
    ///
    /// # Errors
    /// See there.
    pub fn resume(&self, name: &str) -> Result<Domain, OpError> {
        self.host().resume(name)
    }

    /// The guest puts itself to sleep: see [`Host::pm_suspend`].
    ///
    /// # Errors
    /// See there.
    pub fn pm_suspend(&self, name: &str) -> Result<Domain, OpError> {
        self.host().pm_suspend(name)
    }

    /// See [`Host::wake_up`].
    ///
    /// # Errors
    /// See there.
    pub fn wake_up(&self, name: &str) -> Result<Domain, OpError> {
        self.host().wake_up(name)
    }

    /// The guest shuts itself down: see [`Host::shut_down`].
    ///
    /// # Errors
    /// See there.
    pub fn shut_down(&self, name: &str) -> Result<Domain, OpError> {
        self.host().shut_down(name)
    }

    /// Forces a domain off: see [`Host::stop`].
    ///
    /// # Errors
    /// See there.
    pub fn stop(&self, name: &str) -> Result<Domain, OpError> {
        self.host().stop(name)
    }

    /// See [`Host::stop_as`].
    ///
    /// # Errors
    /// See there.
    pub fn stop_as(&self, name: &str, cause: StopCause) -> Result<Domain, OpError> {
        self.host().stop_as(name, cause)
    }

    /// The guest panics and is stopped: see [`Host::crash`].
    ///
    /// # Errors
    /// See there.
    pub fn crash(&self, name: &str) -> Result<Domain, OpError> {
        self.host().crash(name)
    }

    /// See [`Host::undefine`].
    ///
    /// # Errors
    /// See there.
    pub fn undefine(&self, name: &str) -> Result<Domain, OpError> {
        self.host().undefine(name)
    }

    /// See [`Host::rename`].
    ///
    /// # Errors
    /// See there.
    pub fn rename(&self, old: &str, new: &str) -> Result<Domain, OpError> {
        self.host().rename(old, new)
    }

    /// See [`Host::reboot`].
    ///
    /// # Errors
    /// See there.
    pub fn reboot(&self, name: &str) -> Result<Domain, OpError> {
        self.host().reboot(name)
    }

    /// Emits a lifecycle event and changes nothing: see [`Host::lifecycle`].
    ///
    /// # Errors
    /// See there.
    pub fn lifecycle(&self, name: &str, change: Change) -> Result<Domain, OpError> {
        self.host().lifecycle(name, change)
    }

    /// Emits any event, as it is, and changes nothing.
    pub fn emit(&self, event: impl Into<DomainEvent>) {
        self.host().emit(event);
    }
}

/// What goes wrong with the connection, and how it is mended.
impl FakeHypervisor {
    /// Cuts the connection; the next attempt to connect succeeds, unless something else was said.
    pub fn lose_connection(&self) {
        self.line.change(line::State::lose);
    }

    /// Cuts the connection and lets none be made until [`restore`](Self::restore).
    pub fn go_down(&self) {
        let refused = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        self.refuse(Error::Unreachable {
            endpoint: self.uri().to_owned(),
            reason: "the fake hypervisor is down".into(),
            source: refused,
        });
        self.lose_connection();
    }

    /// Lets connections be made again, and everything that hangs go on.
    pub fn restore(&self) {
        self.line.change(|state| {
            state.connects = Connects::Succeed;
            (state.lists_hang, state.registrations_hang) = (false, false);
        });
    }

    /// Attempts to connect fail with this error, until [`accept`](Self::accept). A connection that
    /// there is goes on.
    pub fn refuse(&self, error: Error) {
        self.line.change(|state| state.connects = Connects::Fail(error));
    }

    /// Attempts to connect succeed again; one that hangs succeeds now.
    pub fn accept(&self) {
        self.line.change(|state| state.connects = Connects::Succeed);
    }

    /// Attempts to connect hang, until [`accept`](Self::accept).
    pub fn hang_connects(&self) {
        self.line.change(|state| state.connects = Connects::Hang);
    }

    /// The question which domains there are is not answered, until
    /// [`release_lists`](Self::release_lists). Events flow.
    pub fn hang_lists(&self) {
        self.line.change(|state| state.lists_hang = true);
    }

    /// Answers the question which domains there are, as of now.
    pub fn release_lists(&self) {
        self.line.change(|state| state.lists_hang = false);
    }

    /// Registrations and deregistrations are neither done nor confirmed, until
    /// [`release_registrations`](Self::release_registrations).
    pub fn hang_registrations(&self) {
        self.line.change(|state| state.registrations_hang = true);
    }

    /// Does and confirms registrations again.
    pub fn release_registrations(&self) {
        self.line.change(|state| state.registrations_hang = false);
    }

    /// From the next connection on the server lacks this kind, as after a downgrade.
    pub fn lack(&self, kind: Kind) {
        self.line.change(|state| state.lacking.insert(kind));
    }

    /// The connection that there is goes half-open: nothing comes over it any more, no answer to a
    /// ping either, and no end. The next one is sound.
    pub fn go_silent(&self) {
        self.line.change(|state| {
            if let Some(live) = &mut state.live {
                live.silent = true;
            }
        });
    }

    /// A part of what is behind the connection (one host of many, one domain's socket) goes out of
    /// reach: its events are not told until [`restored`](Self::restored).
    pub fn disconnected(&self, scope: Scope, fault: Fault) {
        self.line.change(|state| state.go_out(self.host(), scope, fault));
    }

    /// That part is back: says how its domains are now.
    pub fn restored(&self, scope: Scope) {
        self.line.change(|state| state.come_back(scope));
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
