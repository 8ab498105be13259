//! A proxy in front of a real server that counts what passes: the taps are made of it.
//!
//! ```text
//!   client ══ its own socket ══▶ Proxy ══▶ server's socket
//!                                  └──▶ Sniffer, one a connection ──▶ counts
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{LaunchError, check_socket_path};
use crate::listener::Listener;

/// The end of a connection that sent some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// Reads what passes on one connection; dropped when it is closed.
pub(super) trait Sniffer: Send + 'static {
    /// Appends to `out`, which is empty, what of these bytes is passed on.
    fn pass(&mut self, side: Side, bytes: &[u8], out: &mut Vec<u8>);
}

/// A proxy in front of a real server's socket, with counts of what passed. Dropping it cuts the
/// connections.
///
/// It passes connections on again after a restart of the server; while that is down, it hangs up on
/// clients at once. The proxy can also go down while the server runs on: an outage with changes.
pub struct Proxy<C> {
    listener: Listener,
    counts: Arc<Mutex<C>>,
    _directory: TempDir,
}

impl<C: Clone + Default + Send + 'static> Proxy<C> {
    /// Listens on a socket of its own and passes each connection on to the socket `server`.
    pub(super) fn open<S: Sniffer>(
        server: PathBuf,
        sniffer: impl Fn(Arc<Mutex<C>>) -> S + Send + Sync + 'static,
    ) -> Result<Self, LaunchError> {
        let directory = tempfile::Builder::new()
            .prefix("vt")
            .tempdir()
            .map_err(LaunchError::io("make a temporary directory"))?;
        let socket = directory.path().join("tap");
        check_socket_path(&socket)?;
        let counts = Arc::<Mutex<C>>::default();
        let counted = Arc::clone(&counts);
        let server: Arc<Path> = server.into();
        let listener = Listener::open(socket, move |client| {
            let server = Arc::clone(&server);
            let sniffer = Mutex::new(sniffer(Arc::clone(&counted)));
            Box::pin(async move {
                // The end of a connection says nothing about the proxy.
                let _ = relay(client, &server, &sniffer).await;
            })
        })
        .map_err(LaunchError::io("listen"))?;
        Ok(Self { listener, counts, _directory: directory })
    }

    /// Cuts the connections and removes the socket: to its clients the server is gone.
    pub fn go_down(&self) {
        self.listener.go_down();
    }

    /// Listens again after [`go_down`](Self::go_down).
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn come_back(&self) -> Result<(), LaunchError> {
        self.listener.come_back().map_err(LaunchError::io("listen"))
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.listener.path().into()
    }

    /// The counts so far.
    pub fn seen(&self) -> C {
        self.counts().clone()
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, C> {
        lock(&self.counts)
    }
}

impl<C: fmt::Debug> fmt::Debug for Proxy<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("counts", &self.counts).finish_non_exhaustive()
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn relay<S: Sniffer>(
    mut client: UnixStream,
    server: &Path,
    sniffer: &Mutex<S>,
) -> io::Result<()> {
    let mut server = connect(server).await?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // When either side hangs up, both streams are dropped, and so the other side is hung up on.
    tokio::select! {
        end = copy(from_client, to_server, Side::Client, sniffer) => end,
        end = copy(from_server, to_client, Side::Server, sniffer) => end,
    }
}

/// Connects to the server, again while its queue of clients to accept is full (`EAGAIN`).
async fn connect(server: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(server).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn copy<S: Sniffer>(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    side: Side,
    sniffer: &Mutex<S>,
) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let mut out = Vec::new();
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        out.clear();
        // Counted before they are passed on: a test that has seen their effect finds them counted.
        lock(sniffer).pass(side, &buffer[..read], &mut out);
        to.write_all(&out).await?;
    }
}
