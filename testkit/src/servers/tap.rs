//! A proxy before a daemon's socket that counts what passes: what a test asserts "on the wire".
//!
//! It knows no more of the protocol than the 28 bytes that begin each message, so that it does not
//! share a mistake with the client under test.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

use super::libvirtd::with_socket;
use super::{LaunchError, Libvirtd, check_socket_path};

/// `REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY` and its opposite, and their elders of
/// before libvirt 1.2.1.
const REGISTER: [i32; 3] = [316, 167, 105];
const DEREGISTER: [i32; 3] = [317, 168, 106];

/// Counts what passes between clients and a daemon. Dropping it cuts the connections.
#[derive(Debug)]
pub struct Tap {
    directory: TempDir,
    daemon: PathBuf,
    seen: Arc<Mutex<Seen>>,
    accepting: Mutex<Option<AbortHandle>>,
}

/// What has passed so far.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections that are open.
    pub open: u64,
    /// Connections made, those that are closed again included.
    pub connections: u64,
    /// Registrations of domain events that the daemon has confirmed and holds still: deregistering
    /// ends them, and so does the end of the connection.
    pub registered: usize,
    /// Registrations that the daemon has confirmed.
    pub registrations: u64,
    /// Deregistrations that the daemon has confirmed.
    pub deregistrations: u64,
    /// Calls by procedure number.
    pub calls: BTreeMap<i32, u64>,
    /// Messages that answer no call: events, and keepalive.
    pub messages: u64,
}

impl Tap {
    /// Listens on a socket of its own, and passes each connection on to the daemon. It goes on when
    /// the daemon is started again; as long as that is down it hangs up at once.
    ///
    /// # Errors
    /// That no socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn before(daemon: &Libvirtd) -> Result<Self, LaunchError> {
        let directory = tempfile::Builder::new()
            .prefix("vt")
            .tempdir()
            .map_err(LaunchError::io("make a temporary directory"))?;
        let (seen, accepting) = (Arc::default(), Mutex::default());
        let tap = Self { directory, daemon: daemon.socket(), seen, accepting };
        check_socket_path(&tap.socket())?;
        tap.come_back()?;
        Ok(tap)
    }

    /// Cuts the connections, and removes the socket: to its clients the daemon is gone.
    pub fn go_down(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // Gone already is as good.
            let _ = std::fs::remove_file(self.socket());
        }
    }

    /// Listens again after [`go_down`](Self::go_down).
    ///
    /// # Errors
    /// That no socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn come_back(&self) -> Result<(), LaunchError> {
        let mut accepting = lock(&self.accepting);
        if accepting.is_none() {
            let listener = UnixListener::bind(self.socket()).map_err(LaunchError::io("listen"))?;
            let accept = accept(listener, self.daemon.clone(), Arc::clone(&self.seen));
            *accepting = Some(tokio::spawn(accept).abort_handle());
        }
        Ok(())
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("tap")
    }

    /// `uri` (`test:///default`) by way of this tap: `test+unix:///default?socket=...`
    pub fn uri(&self, uri: &str) -> String {
        with_socket(uri, &self.socket().display().to_string())
    }

    /// What has passed so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.go_down();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: UnixListener, daemon: PathBuf, seen: Arc<Mutex<Seen>>) {
    // Dropped with this task, and its tasks with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let connection = Connection::new(Arc::clone(&seen));
                let daemon = daemon.clone();
                connections.spawn(async move { connection.relay(client, &daemon).await });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, counted as open while it lives.
struct Connection {
    seen: Arc<Mutex<Seen>>,
    registered: Mutex<usize>,
}

impl Connection {
    fn new(seen: Arc<Mutex<Seen>>) -> Self {
        let mut now = lock(&seen);
        now.open += 1;
        now.connections += 1;
        drop(now);
        Self { seen, registered: Mutex::new(0) }
    }

    async fn relay(&self, mut client: UnixStream, daemon: &Path) -> io::Result<()> {
        let mut daemon = UnixStream::connect(daemon).await?;
        let (from_client, to_client) = client.split();
        let (from_daemon, to_daemon) = daemon.split();
        // When either side hangs up the other is hung up on.
        tokio::select! {
            end = self.copy(from_client, to_daemon) => end,
            end = self.copy(from_daemon, to_client) => end,
        }
    }

    async fn copy(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 65_536];
        let mut headers = Headers::default();
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            headers.push(&buffer[..read], |header| self.note(header));
            to.write_all(&buffer[..read]).await?;
        }
    }

    fn note(&self, header: &Header) {
        let mut seen = lock(&self.seen);
        let mut registered = lock(&self.registered);
        match (header.kind, header.status) {
            (0, _) => *seen.calls.entry(header.procedure).or_default() += 1,
            (1, 0) if REGISTER.contains(&header.procedure) => {
                seen.registrations += 1;
                seen.registered += 1;
                *registered += 1;
            }
            (1, 0) if DEREGISTER.contains(&header.procedure) => {
                seen.deregistrations += 1;
                seen.registered = seen.registered.saturating_sub(1);
                *registered = registered.saturating_sub(1);
            }
            (2, _) => seen.messages += 1,
            _ => {}
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        seen.open -= 1;
        let registered = lock(&self.registered);
        seen.registered = seen.registered.saturating_sub(*registered);
    }
}

/// The part of a message's header that is of interest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    procedure: i32,
    /// 0 call, 1 reply, 2 message.
    kind: i32,
    /// 0 ok, 1 error.
    status: i32,
}

/// Finds the headers in a stream of messages that comes in pieces.
#[derive(Debug, Default)]
struct Headers {
    header: Vec<u8>,
    /// Bytes of the present message that are still to come.
    skip: usize,
}

const HEADER: usize = 28;

impl Headers {
    fn push(&mut self, mut bytes: &[u8], mut found: impl FnMut(&Header)) {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let (begun, rest) = bytes.split_at(bytes.len().min(HEADER - self.header.len()));
            self.header.extend_from_slice(begun);
            bytes = rest;
            if self.header.len() == HEADER {
                let word = |at: usize| {
                    let bytes = [0, 1, 2, 3].map(|byte| self.header[4 * at + byte]);
                    i32::from_be_bytes(bytes)
                };
                found(&Header { procedure: word(3), kind: word(4), status: word(6) });
                // Of broken framing the two ends will take notice; here nothing more is counted.
                self.skip = usize::try_from(word(0)).unwrap_or(0).saturating_sub(HEADER);
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(procedure: i32, kind: i32, payload: usize) -> Vec<u8> {
        let length = i32::try_from(HEADER + payload).unwrap();
        let mut bytes: Vec<u8> = [length, 0x2000_8086, 1, procedure, kind, 7, 0]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        bytes.resize(HEADER + payload, 0xff);
        bytes
    }

    #[test]
    fn headers_are_found_however_the_stream_is_cut() {
        let stream = [message(316, 0, 8), message(66, 1, 0), message(318, 2, 61)].concat();
        for size in 1..stream.len() {
            let (mut headers, mut found) = (Headers::default(), Vec::new());
            for piece in stream.chunks(size) {
                headers.push(piece, |header| found.push((header.procedure, header.kind)));
            }
            assert_eq!(found, [(316, 0), (66, 1), (318, 2)], "in pieces of {size}");
        }
    }
}
