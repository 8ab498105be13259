//! A fake QEMU, with a real socket and the real protocol (QMP), for what the real one does not do
//! on demand.
//!
//! ```text
//!   test ──▶ FakeQemu ══ socket, one client at a time ══▶ the client under test
//!               ▲
//!            Faults: what it does wrong
//! ```
//!
//! It is a socket at which QEMUs start and end. All of them run inside the test's own process, so a
//! client cannot watch their process: it has to infer their end from the socket.
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

/// The timeout of [`FakeQemu::until`].
const PATIENCE: Duration = Duration::from_secs(60);

/// A fake QEMU on a socket of its own. Dropping it removes the socket and hangs up on its client.
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
    /// Starts a QEMU with this name on a socket in a directory of its own, running.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(name: &str) -> io::Result<Self> {
        let qemu = Self::absent()?;
        qemu.boot(name)?;
        Ok(qemu)
    }

    /// Starts a QEMU on a port of the loopback address.
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

    /// A path for a socket in a directory of its own, without a QEMU. [`boot`](Self::boot) starts
    /// one.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn absent() -> io::Result<Self> {
        let home = tempfile::Builder::new().prefix("vq").tempdir()?;
        let mut qemu = Self::absent_at(&home.path().join("vm.sock"));
        qemu.home = Some(home);
        Ok(qemu)
    }

    /// Starts a QEMU with this name on a socket at `path`, where there must be no file yet.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn at(path: &Path, name: &str) -> io::Result<Self> {
        let qemu = Self::absent_at(path);
        qemu.boot(name)?;
        Ok(qemu)
    }

    /// A path for a socket, without a QEMU. [`boot`](Self::boot) starts one.
    #[must_use]
    pub fn absent_at(path: &Path) -> Self {
        let state = Arc::new(Watched::new(State::default()));
        Self { state, path: path.into(), home: None, port: None, socket: Mutex::default() }
    }

    /// Makes the socket file. Nothing listens there until [`boot`](Self::boot).
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(&self) -> io::Result<()> {
        match self.port {
            None => self.lock_socket().bind(&self.path),
            Some(_) => Ok(()),
        }
    }

    /// Starts a QEMU at this address, running. Its uuid is a function of the name.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn boot(&self, name: &str) -> io::Result<()> {
        self.state.change(|state| {
            // Clients identify a run by the thread of the virtual CPU.
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

    /// Advances the counter of runs, whose ids begin at 1 with each fake: for a test in which the
    /// next run must not have the id of another fake's.
    pub fn skip_runs(&self, runs: u32) {
        self.state.change(|state| state.guest.thread += runs);
    }

    /// Ends the QEMU and removes its socket, after a `SHUTDOWN` event if there is a reason.
    pub fn end(&self, reason: Option<&str>) {
        if let Some(reason) = reason {
            let guest = reason.starts_with("guest");
            self.emit("SHUTDOWN", &format!(r#"{{"guest": {guest}, "reason": "{reason}"}}"#));
        }
        // Before the cut: a client that reconnects at once must find the socket gone.
        let socket = std::mem::take(&mut *self.lock_socket());
        socket.remove_file(&self.path);
        drop(socket);
        self.cut();
    }

    /// Ends the QEMU without an event and leaves the socket file behind, as `kill -9` does.
    pub fn kill(&self) {
        *self.lock_socket() = Socket::default();
        self.cut();
    }

    /// Pauses the guest, with the event `STOP`.
    pub fn stop(&self) {
        self.state.change(|state| state.guest.status = "paused".into());
        self.emit("STOP", "");
    }

    /// Resumes the guest, with the event `RESUME`.
    pub fn cont(&self) {
        self.state.change(|state| state.guest.status = "running".into());
        self.emit("RESUME", "");
    }

    /// Sets the run state without an event.
    pub fn set_status(&self, status: &str) {
        self.state.change(|state| state.guest.status = status.into());
    }

    /// Sends an event with JSON data, or without data if `data` is empty.
    pub fn emit(&self, event: &str, data: &str) {
        // QEMU leaves the member out of an event without data; it is never an empty object.
        let data = if data.is_empty() { String::new() } else { format!(", \"data\": {data}") };
        self.send(
            format!(
                "{{\"timestamp\": {{\"seconds\": 1795333210, \"microseconds\": 380905}}, \"event\": \
                 \"{event}\"{data}}}\r\n"
            )
            .as_bytes(),
        );
    }

    /// Sends these bytes to the client.
    pub fn send(&self, bytes: &[u8]) {
        self.order(Order::Send(bytes.to_vec()));
    }

    /// Sends the client another greeting, and answers no command until it has negotiated again: as
    /// QEMU 11 does when its monitor is removed and added again (`object-del`, `object-add`).
    pub fn greet_again(&self) {
        self.order(Order::Greet);
    }

    /// Hangs up on the client. The QEMU still listens.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Changes its faults from now on.
    pub fn change<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        self.state.change(|state| change(&mut state.faults))
    }

    /// The path of its socket, whether or not there is one.
    pub fn socket(&self) -> PathBuf {
        self.path.clone()
    }

    /// The URI of its monitor.
    pub fn uri(&self) -> String {
        match self.port {
            Some(port) => format!("qmp+tcp://127.0.0.1:{port}"),
            None => format!("qmp:{}", self.path.display()),
        }
    }

    /// Whether the run state is `running`.
    pub fn is_running(&self) -> bool {
        self.state.lock().guest.status == "running"
    }

    /// Whether a client is connected and served.
    pub fn is_held(&self) -> bool {
        self.state.lock().client.is_some()
    }

    /// The number of clients served so far.
    pub fn accepted(&self) -> u64 {
        self.state.lock().accepted
    }

    /// The number of times that clients sent this command.
    pub fn calls(&self, command: &str) -> u64 {
        self.state.lock().calls.get(command).copied().unwrap_or(0)
    }

    /// Waits until `reached` returns true; asks again after each action of a client.
    ///
    /// # Panics
    /// `reached` is not true within a minute.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[allow(clippy::panic)]
    pub async fn until(&self, mut reached: impl FnMut(&Self) -> bool) {
        let waiting = self.state.until(|| reached(self));
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("{} after {PATIENCE:?}: {}", self.uri(), self.summary());
        }
    }

    /// The clients' actions so far, for a message.
    fn summary(&self) -> String {
        let state = self.state.lock();
        let held = if state.client.is_some() { "held" } else { "free" };
        format!("{held}, {} clients so far, {:?}", state.accepted, state.calls)
    }

    fn order(&self, order: Order) {
        if let Some(client) = &self.state.lock().client {
            // Fails only for a connection that is ending.
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
