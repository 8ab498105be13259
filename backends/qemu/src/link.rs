//! One connection to one QEMU: the only file with sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::net::{TcpStream, UnixStream};
use virevent::Error;
use virevent_transport::{Outbox, Socket};

use crate::config::MonitorConfig;
use crate::peer::advice::{is_other_kind, unreachable};
use crate::peer::blocking::blocking;
use crate::peer::handshake::Progress;
use crate::peer::pinned_socket::{self, FileId, PinnedSocket};
use crate::peer::process::{Process, SocketOwner};
use crate::uri::Endpoint;
use crate::wire::{self, Lines};

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub(crate) struct QmpLink {
    socket: Socket,
    endpoint: Endpoint,
    lines: Lines,
    pub(crate) outbox: Outbox,
    next_id: u64,
}

impl QmpLink {
    /// A connection to what the test holds: the other half of a pair.
    #[cfg(test)]
    pub(crate) fn over(stream: UnixStream, endpoint: Endpoint) -> Self {
        Self::new(stream.into(), endpoint)
    }

    fn new(socket: Socket, endpoint: Endpoint) -> Self {
        let lines = Lines::new();
        Self { socket, endpoint, lines, outbox: Outbox::default(), next_id: 1 }
    }

    /// Connects, by the pinned socket if there is one already. Returns the pinned socket that was
    /// used.
    ///
    /// # Errors
    /// The endpoint is unreachable.
    pub(crate) async fn connect(
        config: &MonitorConfig,
        pinned: Option<Arc<PinnedSocket>>,
        progress: &Progress,
    ) -> Result<(Self, Option<Arc<PinnedSocket>>), Error> {
        let endpoint = config.endpoint.clone();
        let connected = match &endpoint {
            Endpoint::Unix(path) => {
                let stream = connect_unix(path, config.file, pinned).await;
                stream.map(|(stream, pinned)| (Socket::from(stream), pinned))
            }
            Endpoint::Tcp(host, port) => {
                let stream = TcpStream::connect((&**host, *port)).await;
                stream.map(|stream| (Socket::from(stream), None))
            }
        };
        let (socket, pinned) = connected.map_err(|error| {
            progress.is_foreign.store(is_other_kind(&error), Ordering::Relaxed);
            unreachable(&endpoint, error)
        })?;
        Ok((Self::new(socket, endpoint), pinned))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Queues a command; returns its id.
    pub(crate) fn send(&mut self, name: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        wire::command(self.outbox.appending(), name, id);
        id
    }

    /// Writes what can be written, and reads once. All that a pending poll leaves undone is in
    /// `self`.
    pub(crate) fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // QEMU closes its socket after SHUTDOWN, which may still be unread: a write fails then, and
        // the end is reported by the read.
        match ready!(self.socket.poll_io(cx, &mut self.outbox, self.lines.spare())) {
            Ok(bytes @ 1..) => {
                self.lines.filled(bytes);
                Poll::Ready(Ok(()))
            }
            // A QEMU that is killed with unread bytes in its socket resets the connection: the same
            // end.
            Ok(_) | Err(_) => Poll::Ready(Err(Error::closed(self.endpoint.to_string(), ""))),
        }
    }

    /// The next line that was read.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, Error> {
        self.lines.next_line().map_err(|error| broken(&error))
    }

    /// What was read, and is not a whole line yet.
    pub(crate) fn rest(&self) -> &[u8] {
        self.lines.rest()
    }

    /// The process that made the socket, where it can be watched.
    ///
    /// # Errors
    /// There are no open files left.
    pub(crate) fn owner(&self) -> Result<Option<SocketOwner>, Error> {
        let Some(stream) = self.socket.as_unix() else { return Ok(None) };
        let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
        let owner = pid.map_or(Ok(None), SocketOwner::new);
        owner.map_err(|error| unreachable(&self.endpoint, error))
    }

    /// The QEMU that serves the socket, if this proves that the owner is it.
    ///
    /// # Errors
    /// There are no open files left.
    pub(crate) async fn proved(
        &self,
        proof: impl FnOnce(&Path) -> io::Result<Option<Process>> + Send + 'static,
    ) -> Result<Option<Process>, Error> {
        let path = self.bound_to().unwrap_or_default();
        let proved = blocking(move || proof(&path)).await;
        proved.map_err(|error| unreachable(&self.endpoint, error))
    }

    /// The path that the socket was bound to, as the process that made it gave it.
    fn bound_to(&self) -> Option<PathBuf> {
        Some(self.socket.as_unix()?.peer_addr().ok()?.as_pathname()?.to_owned())
    }
}

/// Connects to a socket; if that is to be a certain file, to no other that has taken its path.
async fn connect_unix(
    path: &Path,
    file: Option<FileId>,
    pinned: Option<Arc<PinnedSocket>>,
) -> io::Result<(UnixStream, Option<Arc<PinnedSocket>>)> {
    let owned = path.to_owned();
    // `connect` follows the path on this thread, and hangs with the file system. So another thread
    // has followed it before.
    let Some(file) = file else {
        blocking(move || pinned_socket::check_socket(&owned)).await?;
        return Ok((UnixStream::connect(path).await?, None));
    };
    let pinned = match pinned {
        Some(pinned) => pinned,
        None => Arc::new(blocking(move || PinnedSocket::open(&owned, file)).await?),
    };
    let stream = UnixStream::connect(pinned.path()).await;
    // Afterwards, for the file may have been replaced before the connection was made.
    if !pinned.is_lasting() {
        let owned = path.to_owned();
        blocking(move || file.check(&owned)).await?;
    }
    Ok((stream?, Some(pinned)))
}

/// The error that what was read is not QMP.
pub(crate) fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::protocol(error.to_string())
}
