//! A fake QEMU: a real socket and the real protocol (QMP), for what the real one will not do on demand.
//!
//! ```text
//!   test ──▶ FakeQemu ══ socket, one client at a time ══▶ the client under test
//!               ▲
//!            Faults: what it does wrong
//! ```
//!
//! It is a socket behind which QEMUs come and go. All are inside the test's own process, so that a
//! client cannot watch a process of theirs, and has to go by whether anybody listens.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use virevent_testkit::fakes::qemu::FakeQemu;
//!
//! let qemu = FakeQemu::start("web")?;
//! qemu.change(|faults| faults.piece = Some(1)); // a byte at a time
//! qemu.stop(); // the event, and the run state
//! qemu.end(Some("guest-shutdown"));
//! let uri = qemu.uri(); // qmp:/tmp/...
//! # let _ = uri;
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```

mod connection;
mod faults;
mod socket;
mod state;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

pub use self::faults::Faults;
use self::socket::Socket;
use self::state::{Order, State};
use super::state::Watched;

/// How long [`FakeQemu::until`] waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fake QEMU on a socket of its own. Dropping it removes the socket and hangs up.
pub struct FakeQemu {
    state: Arc<Watched<State>>,
    path: PathBuf,
    /// The directory of the socket, if the fake made it.
    home: Option<TempDir>,
    /// The TCP port on the loopback address, if it listens there instead.
    port: Option<u16>,
    socket: Mutex<Socket>,
}

impl FakeQemu {
    /// A running QEMU of this name.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(name: &str) -> io::Result<Self> {
        let qemu = Self::absent()?;
        qemu.boot(name)?;
        Ok(qemu)
    }

    /// The same on a port of the loopback instead of a socket.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start_tcp(name: &str) -> io::Result<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut qemu = Self::absent()?;
        qemu.port = Some(free);
        qemu.boot(name)?;
        Ok(qemu)
    }

    /// A socket's place at which there is none yet.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn absent() -> io::Result<Self> {
        let home = tempfile::Builder::new().prefix("vq").tempdir()?;
        let mut qemu = Self::absent_at(&home.path().join("vm.sock"));
        qemu.home = Some(home);
        Ok(qemu)
    }

    /// A running QEMU of this name whose socket has this path. There must be none yet.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn at(path: &Path, name: &str) -> io::Result<Self> {
        let qemu = Self::absent_at(path);
        qemu.boot(name)?;
        Ok(qemu)
    }

    /// A socket of this path that there is not yet.
    pub fn absent_at(path: &Path) -> Self {
        let state = Arc::new(Watched::new(State::default()));
        Self { state, path: path.into(), home: None, port: None, socket: Mutex::default() }
    }

    /// Makes the file of the socket, at which nobody listens until it is [booted](Self::boot).
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(&self) -> io::Result<()> {
        match self.port {
            None => self.lock_socket().bind(&self.path),
            Some(_) => Ok(()),
        }
    }

    /// Starts a QEMU there, running. One uuid belongs to one name.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn boot(&self, name: &str) -> io::Result<()> {
        self.state.change(|state| {
            state.guest.thread += 1;
            state.guest.status = "running".into();
            state.guest.name = name.into();
            let number =
                name.bytes().fold(1u64, |sum, byte| sum.wrapping_mul(257) + u64::from(byte));
            state.guest.uuid =
                format!("00000000-0000-4000-8000-{:012x}", number & 0xffff_ffff_ffff);
        });
        self.bind()?;
        self.lock_socket().listen(self.port, &self.state)
    }

    /// Takes it that so many runs were before the next, as by other fakes: the ids of runs begin at 1
    /// with each.
    pub fn skip_runs(&self, runs: u32) {
        self.state.change(|state| state.guest.thread += runs);
    }

    /// Its end: announced as a shutdown for this reason, or by nothing.
    pub fn end(&self, reason: Option<&str>) {
        if let Some(reason) = reason {
            let guest = reason.starts_with("guest");
            self.emit("SHUTDOWN", &format!(r#"{{"guest": {guest}, "reason": "{reason}"}}"#));
        }
        let socket = std::mem::take(&mut *self.lock_socket());
        socket.remove_file(&self.path);
        drop(socket);
        self.cut();
    }

    /// Its end without a word, and with the file of the socket left behind, as that of `kill -9`.
    pub fn kill(&self) {
        *self.lock_socket() = Socket::default();
        self.cut();
    }

    /// Pauses it.
    pub fn stop(&self) {
        self.state.change(|state| state.guest.status = "paused".into());
        self.emit("STOP", "");
    }

    /// Resumes it.
    pub fn cont(&self) {
        self.state.change(|state| state.guest.status = "running".into());
        self.emit("RESUME", "");
    }

    /// Puts it into a run state, without a word.
    pub fn set_status(&self, status: &str) {
        self.state.change(|state| state.guest.status = status.into());
    }

    /// Sends an event; without data if `data` is empty.
    pub fn emit(&self, event: &str, data: &str) {
        let data = if data.is_empty() { String::new() } else { format!(", \"data\": {data}") };
        self.send(
            format!(
                "{{\"timestamp\": {{\"seconds\": 1795333210, \"microseconds\": 380905}}, \"event\": \
                 \"{event}\"{data}}}\r\n"
            )
            .as_bytes(),
        );
    }

    /// Sends these bytes to the client that is served.
    pub fn send(&self, bytes: &[u8]) {
        self.order(Order::Send(bytes.to_vec()));
    }

    /// Greets the client that is served once more, and answers nothing until that has negotiated again:
    /// as QEMU 11 does when its monitor is removed and made again (`object-del`, `object-add`).
    pub fn greet_again(&self) {
        self.order(Order::Greet);
    }

    /// Hangs up on the client that is served. It goes on to listen.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Has it do something wrong from now on, or right again.
    pub fn change<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        self.state.change(|state| change(&mut state.faults))
    }

    /// Where it listens, while there is one.
    pub fn socket(&self) -> PathBuf {
        self.path.clone()
    }

    /// The URI of where it listens.
    pub fn uri(&self) -> String {
        match self.port {
            Some(port) => format!("qmp+tcp://127.0.0.1:{port}"),
            None => format!("qmp:{}", self.path.display()),
        }
    }

    /// Whether its run state is `running`.
    pub fn is_running(&self) -> bool {
        self.state.lock().guest.status == "running"
    }

    /// Whether a client is served.
    pub fn is_held(&self) -> bool {
        self.state.lock().client.is_some()
    }

    /// How many clients have been served so far.
    pub fn accepted(&self) -> u64 {
        self.state.lock().accepted
    }

    /// How often a command was given.
    pub fn calls(&self, command: &str) -> u64 {
        self.state.lock().calls.get(command).copied().unwrap_or(0)
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// It is not so within a minute.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[allow(clippy::panic)]
    pub async fn until(&self, mut reached: impl FnMut(&Self) -> bool) {
        let waiting = self.state.until(|| reached(self));
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("{} after {PATIENCE:?}: {}", self.uri(), self.story());
        }
    }

    /// What its client has done so far, for a message.
    fn story(&self) -> String {
        let state = self.state.lock();
        let held = if state.client.is_some() { "held" } else { "free" };
        format!("{held}, {} clients so far, {:?}", state.accepted, state.calls)
    }

    fn order(&self, order: Order) {
        if let Some(client) = &self.state.lock().client {
            // One that is gone needs no order.
            let _ = client.send(order);
        }
    }

    fn lock_socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FakeQemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeQemu").field("uri", &self.uri()).finish_non_exhaustive()
    }
}

impl Drop for FakeQemu {
    fn drop(&mut self) {
        self.end(None);
    }
}
