//! A fake xenstored, with a real socket and the real protocol, for what the real daemon does not do
//! on demand.
//!
//! ```text
//!   Toolstack ──▶ FakeXenstored ══ socket ══▶ the client under test
//!                     ▲
//!                  Faults: what it does wrong
//! ```
//!
//! It has its own store and watches, and the same [`Toolstack`] as a real one. Without faults it
//! answers as the C xenstored of Xen 4.17: a test sends both the same requests and compares the
//! answers.
//!
//! The toolstack acts inside the test's process, before the client can read. As in the real daemon,
//! a watch event that is still queued is not queued again: a client does not see a `poweroff` that
//! is acknowledged at once, unless it runs in between.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use virevent_testkit::fakes::xenstored::FakeXenstored;
//! use virevent_xen::wire::Operation;
//!
//! let fake = FakeXenstored::start()?;
//! let web = fake.toolstack().introduce("web")?;
//! fake.change(|faults| {
//!     faults.piece = Some(1); // a byte at a time
//!     faults.events_before.insert(Operation::READ, 100_000); // then the reply
//! });
//! fake.toolstack().destroy(web)?;
//! let uri = fake.uri(); // xenstore:/tmp/...
//! # let _ = uri;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod answer;
mod connection;
mod daemon;
mod faults;
mod store;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use virevent_xen::wire::{Header, Operation};

use self::connection::Connection;
use self::daemon::{Client, Daemon, Out, TOOLSTACK};
pub use self::faults::{Faults, Refusal};
use self::store::Store;
use super::state::Watched;
use crate::listener::Listener;
use crate::toolstack::{Answer, RunState, Toolstack, ToolstackBackend};

/// A fake xenstored on a socket of its own. Dropping it closes the socket and all connections.
pub struct FakeXenstored {
    daemon: Arc<Watched<Daemon>>,
    toolstack: Toolstack,
    listener: Listener,
    _directory: TempDir,
}

impl FakeXenstored {
    /// Starts a daemon with an empty store.
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("vx").tempdir()?;
        let daemon = Arc::new(Watched::new(Daemon::new()));
        let toolstack = Toolstack::new(Box::new(InProcess(Arc::clone(&daemon))));
        let accepted = Arc::clone(&daemon);
        let listener = Listener::open(directory.path().join("socket"), move |stream| {
            Box::pin(Connection::new(Arc::clone(&accepted)).serve(stream))
        })?;
        Ok(Self { daemon, toolstack, listener, _directory: directory })
    }

    /// The toolstack that acts on this daemon. Its operations fail only if the store refuses them.
    pub fn toolstack(&self) -> &Toolstack {
        &self.toolstack
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.listener.path().into()
    }

    /// The URI of this daemon: `xenstore:/tmp/...`
    pub fn uri(&self) -> String {
        format!("xenstore:{}", self.socket().display())
    }
}

/// Its faults.
impl FakeXenstored {
    /// Changes its faults from now on, on open connections too.
    pub fn change<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        self.daemon.change(|daemon| change(&mut daemon.faults))
    }

    /// Hangs up on every client. New connections are served.
    pub fn cut(&self) {
        self.order(Client::cut);
    }

    /// Hangs up on every client and removes the socket, as a daemon that ends. The store and the
    /// introduced domains are kept.
    pub fn go_down(&self) {
        self.listener.go_down();
        self.cut();
    }

    /// Listens again after [`go_down`](Self::go_down), without watches.
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn come_back(&self) -> io::Result<()> {
        self.listener.come_back()
    }

    /// Empties the store and releases all domains without an event: a restart that keeps nothing,
    /// between [`go_down`](Self::go_down) and [`come_back`](Self::come_back).
    pub fn lose_store(&self) {
        self.daemon.change(|daemon| {
            daemon.store = Store::new();
            daemon.domains.clear();
        });
    }

    /// Sends every client a watch event, whether or not it has such a watch.
    pub fn emit(&self, path: impl AsRef<[u8]>, token: impl AsRef<[u8]>) {
        self.order(|client| client.send_event(path.as_ref(), token.as_ref(), 1));
    }

    /// Sends these bytes to every client.
    pub fn send(&self, bytes: &[u8]) {
        self.order(|client| client.send(Out::Bytes(bytes.to_vec())));
    }

    /// Sends every client this number of events for its own watches in turn, each with the watched
    /// path, although nothing has changed.
    pub fn flood(&self, events: usize) {
        self.order(|client| client.flood(events));
    }

    fn order(&self, mut order: impl FnMut(&mut Client)) {
        self.daemon.change(|daemon| {
            let clients = daemon.clients.iter_mut().filter(|(number, _)| **number != TOOLSTACK);
            clients.for_each(|(_, client)| order(client));
        });
    }
}

/// Counts of what its clients did.
impl FakeXenstored {
    /// The number of open connections.
    pub fn open(&self) -> usize {
        // Without the toolstack, which has no socket.
        self.daemon.lock().clients.len() - 1
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> u64 {
        self.daemon.lock().accepted
    }

    /// The watches of all clients in order, as path and token, with replacements for bytes that are
    /// not UTF-8.
    pub fn watches(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let daemon = self.daemon.lock();
        let watches = daemon.clients.values().flat_map(|client| &client.watches);
        watches.map(|watch| (text(&watch.path), text(&watch.token))).collect()
    }

    /// The number of requests for this operation so far.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.daemon.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    /// The number of requests so far that do more than read and watch, transactions included. A
    /// client of events sends none.
    pub fn meddling(&self) -> u64 {
        const READING: [Operation; 10] = [
            Operation::DIRECTORY,
            Operation::DIRECTORY_PART,
            Operation::READ,
            Operation::GET_PERMS,
            Operation::WATCH,
            Operation::UNWATCH,
            Operation::RESET_WATCHES,
            Operation::IS_DOMAIN_INTRODUCED,
            Operation::GET_DOMAIN_PATH,
            Operation::GET_FEATURE,
        ];
        let daemon = self.daemon.lock();
        let others = daemon.calls.iter().filter(|(operation, _)| !READING.contains(operation));
        others.map(|(_, count)| count).sum()
    }

    /// Waits until `reached` returns true; asks again after each action of a client.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn until(&self, mut reached: impl FnMut(&Self) -> bool) {
        self.daemon.until(|| reached(self)).await;
    }
}

impl fmt::Debug for FakeXenstored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeXenstored").field("uri", &self.uri()).finish_non_exhaustive()
    }
}

/// The toolstack's access to a fake in the same process.
#[derive(Debug)]
struct InProcess(Arc<Watched<Daemon>>);

impl ToolstackBackend for InProcess {
    fn request(&self, operation: u32, transaction: u32, payload: &[u8]) -> io::Result<Answer> {
        // Not by `receive`: faults and counts are for clients.
        let header = Header::request(Operation(operation), 0).within(transaction);
        let answer = self.0.change(|daemon| daemon.answer(TOOLSTACK, &header, payload));
        Ok(answer.map(|done| done.body).map_err(Into::into))
    }

    fn set_state(&self, domid: u32, state: Option<RunState>) -> io::Result<()> {
        self.0.change(|daemon| match state {
            Some(state) => daemon.hypervisor.insert(domid, state),
            None => daemon.hypervisor.remove(&domid),
        });
        Ok(())
    }

    fn raise_virq(&self) -> io::Result<()> {
        self.0.change(Daemon::read_states);
        Ok(())
    }
}
