//! A fake libvirtd, with a real socket and the real protocol, for what the real daemon does not do
//! on demand.
//!
//! ```text
//!   Host ──▶ FakeLibvirtd ══ socket ══▶ the client under test
//!               ▲
//!            Faults: what it does wrong
//! ```
//!
//! It serves a [`Host`], the same state that is behind a [`FakeHypervisor`](crate::FakeHypervisor):
//! every client gets the events of the host's domains that it is registered for. Without faults it
//! behaves as libvirtd 9.0, as far as a client of domain events can see.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use virevent_libvirt::wire::procs;
//! use virevent_testkit::fakes::libvirtd::FakeLibvirtd;
//!
//! let daemon = FakeLibvirtd::start()?;
//! daemon.host().define("web")?;
//! daemon.change(|faults| {
//!     faults.lacks.insert(procs::CONNECT_GET_ALL_DOMAIN_STATS); // as before libvirt 1.2.8
//! });
//! let uri = daemon.uri(); // test+unix:///default?socket=...
//! # let _ = uri;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod answer;
mod connection;
mod encode;
mod event;
mod faults;
mod notice;
mod registrations;
mod state;
mod sync_count;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::UnixStream;

use self::connection::Connection;
pub use self::faults::Faults;
use self::state::{Order, Shared, State};
pub use self::sync_count::SyncCount;
use super::state::Watched;
use crate::Host;
use crate::listener::Listener;

/// A fake libvirtd on a socket of its own. Dropping it closes the socket and all connections.
pub struct FakeLibvirtd {
    shared: Arc<Shared>,
    listener: Listener,
    _directory: TempDir,
}

impl FakeLibvirtd {
    /// Starts a daemon for a host without domains.
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start() -> io::Result<Self> {
        Self::serve(Host::new("fake-libvirtd"))
    }

    /// Starts a daemon for this host.
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn serve(host: Host) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("vf").tempdir()?;
        let shared = Arc::new(Shared { host, state: Watched::new(State::default()) });
        let accepted = Arc::clone(&shared);
        let listener = Listener::open(directory.path().join("libvirt-sock"), move |stream| {
            Box::pin(serve(&accepted, stream))
        })?;
        Ok(Self { shared, listener, _directory: directory })
    }

    /// The host that it serves.
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.listener.path().into()
    }

    /// The URI of this daemon: `test+unix:///default?socket=...`
    pub fn uri(&self) -> String {
        format!("test+unix:///default?socket={}", self.socket().display())
    }

    /// Changes its faults from now on, on open connections too.
    pub fn change<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        let (outcome, silent) = self.shared.state.change(|state| {
            let outcome = change(&mut state.faults);
            (outcome, state.faults.silent)
        });
        // Of open connections as well: they stay silent even if the fault is taken back.
        if silent {
            self.order(|| Order::Silence);
        }
        outcome
    }

    /// Hangs up on every client. New connections are served.
    pub fn cut(&self) {
        self.order(|| Order::Cut);
    }

    /// Hangs up on every client and removes the socket, as a daemon that ends.
    pub fn go_down(&self) {
        self.listener.go_down();
        self.cut();
    }

    /// Listens again after [`go_down`](Self::go_down).
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn come_back(&self) -> io::Result<()> {
        self.listener.come_back()
    }

    /// Sends these bytes as they are to every client.
    pub fn send(&self, bytes: &[u8]) {
        self.order(|| Order::Send(bytes.to_vec()));
    }

    /// Sends every client a keepalive ping: see [`pongs`](Self::pongs).
    pub fn ping(&self) {
        self.order(|| Order::Ping);
    }

    /// Sends the replies that were [`held`](Faults::held), and holds no more. They contain the
    /// state at the time of the call.
    pub fn release(&self) {
        // Before the order: a reply that comes in between is not held any more.
        self.change(|faults| faults.held.clear());
        self.order(|| Order::Release);
    }

    fn order(&self, order: impl Fn() -> Order) {
        for connection in self.shared.state.lock().connections.values() {
            // Fails only for a connection that is ending.
            let _ = connection.orders.send(order());
        }
    }
}

/// Counts of what its clients did.
impl FakeLibvirtd {
    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.shared.state.lock().connections.len()
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> u64 {
        self.shared.state.lock().accepted
    }

    /// The number of calls of this procedure so far.
    pub fn calls(&self, procedure: i32) -> u64 {
        self.shared.state.lock().calls.get(&procedure).copied().unwrap_or(0)
    }

    /// The number of replies to its pings so far.
    pub fn pongs(&self) -> u64 {
        self.shared.state.lock().pongs
    }

    /// Has its clients from now on counted while they are being synced.
    pub fn count_syncs(&self, count: &SyncCount) {
        self.shared.state.change(|state| state.sync_count = Some(count.clone()));
    }

    /// The event ids of all registrations now, sorted.
    pub fn registered(&self) -> Vec<i32> {
        let mut ids: Vec<i32> = self
            .shared
            .state
            .lock()
            .connections
            .values()
            .flat_map(|open| &open.registered)
            .copied()
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Waits until `reached` returns true; asks again after each action of a client.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn until(&self, mut reached: impl FnMut(&Self) -> bool) {
        self.shared.state.until(|| reached(self)).await;
    }
}

impl fmt::Debug for FakeLibvirtd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeLibvirtd").field("uri", &self.uri()).finish_non_exhaustive()
    }
}

/// Serves one client, or hangs up at once if there are too many.
///
/// libvirtd does so with a client that it accepted over its limit. One that it has not accepted yet
/// waits until another client leaves.
fn serve(shared: &Arc<Shared>, stream: UnixStream) -> impl Future<Output = ()> + Send + use<> {
    let state = shared.state.lock();
    let is_full = state.faults.max_clients.is_some_and(|most| state.connections.len() >= most);
    drop(state);
    let connection = match is_full {
        true => {
            shared.state.change(|state| state.accepted += 1);
            None
        }
        false => Some(Connection::new(Arc::clone(shared))),
    };
    async move {
        if let Some(connection) = connection {
            connection.serve(stream).await;
        }
    }
}
