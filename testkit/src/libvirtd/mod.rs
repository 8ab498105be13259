//! A fake libvirtd: a real socket and the real protocol, for what the real daemon will not do on
//! demand.
//!
//! ```text
//!   Host ──▶ FakeLibvirtd ══ socket ══▶ the client under test
//!               ▲
//!            Faults: what it does wrong
//! ```
//!
//! It serves a [`Host`], the same state that is behind a [`FakeHypervisor`](crate::FakeHypervisor):
//! what is done to the host's domains is told to every client that is registered for it. Without
//! faults it behaves as libvirtd 9.0 does, as far as a client that receives domain events can see.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use virevent_libvirt::wire::procs;
//! use virevent_testkit::libvirtd::FakeLibvirtd;
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
mod faults;
mod notice;
mod tell;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use self::connection::{Connection, Order};
pub use self::faults::Faults;
use crate::Host;

/// A fake libvirtd on a socket of its own. Dropping it closes the socket and all connections.
pub struct FakeLibvirtd {
    shared: Arc<Shared>,
    directory: TempDir,
    accepting: Mutex<Option<AbortHandle>>,
}

struct Shared {
    host: Host,
    state: Mutex<State>,
    /// Counts changes of the state.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    /// The open connections, by number.
    connections: BTreeMap<u64, Open>,
    /// Connections accepted so far.
    accepted: u64,
    calls: BTreeMap<i32, u64>,
    pongs: u64,
    next_callback: i32,
}

struct Open {
    orders: mpsc::UnboundedSender<Order>,
    /// The event ids that it is registered for.
    registered: Vec<i32>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        outcome
    }
}

impl FakeLibvirtd {
    /// Starts one that serves a host without domains.
    ///
    /// # Errors
    /// No socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start() -> io::Result<Self> {
        Self::serve(Host::new("fake-libvirtd"))
    }

    /// Starts one that serves this host.
    ///
    /// # Errors
    /// No socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn serve(host: Host) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("vf").tempdir()?;
        let (changes, _) = watch::channel(0);
        let shared = Arc::new(Shared { host, state: Mutex::default(), changes });
        let daemon = Self { shared, directory, accepting: Mutex::default() };
        daemon.come_back()?;
        Ok(daemon)
    }

    /// The host that it serves.
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("libvirt-sock")
    }

    /// The URI that leads here: `test+unix:///default?socket=...`
    pub fn uri(&self) -> String {
        format!("test+unix:///default?socket={}", self.socket().display())
    }

    /// Changes what it does wrong, from now on, on connections that there are, too.
    pub fn change<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        let (outcome, silent) = self.shared.change(|state| {
            let outcome = change(&mut state.faults);
            (outcome, state.faults.silent)
        });
        if silent {
            self.order(|| Order::Silence);
        }
        outcome
    }

    /// Hangs up on every client. The next connection is sound.
    pub fn cut(&self) {
        self.order(|| Order::Cut);
    }

    /// Hangs up on every client, and removes the socket, as a daemon that ends.
    pub fn go_down(&self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
        }
        self.cut();
        // Gone already is as good.
        let _ = std::fs::remove_file(self.socket());
    }

    /// Listens again after [`go_down`](Self::go_down).
    ///
    /// # Errors
    /// No socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn come_back(&self) -> io::Result<()> {
        let mut accepting = lock(&self.accepting);
        if accepting.is_none() {
            let listener = UnixListener::bind(self.socket())?;
            let accept = accept(listener, Arc::clone(&self.shared));
            *accepting = Some(tokio::spawn(accept).abort_handle());
        }
        Ok(())
    }

    /// Sends these bytes as they are to every client.
    pub fn send(&self, bytes: &[u8]) {
        self.order(|| Order::Send(bytes.to_vec()));
    }

    /// Asks every client whether it lives: see [`pongs`](Self::pongs).
    pub fn ping(&self) {
        self.order(|| Order::Ping);
    }

    /// Sends the replies that were [`held`](Faults::held), and holds no more. They say how things
    /// were when the client asked.
    pub fn release(&self) {
        self.change(|faults| faults.held.clear());
        self.order(|| Order::Release);
    }

    fn order(&self, order: impl Fn() -> Order) {
        for connection in self.shared.lock().connections.values() {
            // One that is gone needs no order.
            let _ = connection.orders.send(order());
        }
    }
}

/// What its clients did.
impl FakeLibvirtd {
    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// How many connections there were so far.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How often this procedure was called so far.
    pub fn calls(&self, procedure: i32) -> u64 {
        self.shared.lock().calls.get(&procedure).copied().unwrap_or(0)
    }

    /// How many pings of ours were answered so far.
    pub fn pongs(&self) -> u64 {
        self.shared.lock().pongs
    }

    /// The event ids that clients are registered for now, in order, one entry a registration.
    pub fn registered(&self) -> Vec<i32> {
        let mut ids: Vec<i32> = self
            .shared
            .lock()
            .connections
            .values()
            .flat_map(|open| &open.registered)
            .copied()
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Waits until `reached` is true of this daemon; looks whenever a client has done something.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn until(&self, mut reached: impl FnMut(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !reached(self) {
            // Cannot fail: we hold the sender.
            let _ = changes.changed().await;
        }
    }
}

impl fmt::Debug for FakeLibvirtd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeLibvirtd").field("uri", &self.uri()).finish_non_exhaustive()
    }
}

impl Drop for FakeLibvirtd {
    fn drop(&mut self) {
        self.go_down();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    // Dropped with this task, and its tasks with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let most = shared.lock().faults.max_clients;
                if most.is_some_and(|most| shared.lock().connections.len() >= most) {
                    // What libvirtd does with one that it accepted over its limit; one that it did
                    // not accept yet waits until another client leaves.
                    shared.change(|state| state.accepted += 1);
                    continue;
                }
                let connection = Connection::new(Arc::clone(&shared));
                connections.spawn(connection.serve(stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
