//! The socket of a fake QEMU: a Unix socket file, or a TCP port.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixSocket};

use super::connection::Connection;
use super::state::State;
use crate::fakes::state::Watched;
use crate::listener::{Accept, AcceptLoop};

/// The number of clients that may wait to be served.
const BACKLOG: u32 = 1024;

/// What exists at a fake's address.
#[derive(Default)]
pub(super) struct Socket {
    /// Device and inode of the socket file, which differ from those of a later one at the same
    /// path.
    file: Option<(u64, u64)>,
    /// The socket while it has a file and does not listen yet.
    bound: Option<UnixSocket>,
    /// The accept loop, while it listens.
    listening: Option<AcceptLoop>,
}

impl Socket {
    /// Makes the socket file. Does nothing if there is one already.
    pub(super) fn bind(&mut self, path: &Path) -> io::Result<()> {
        if self.bound.is_none() && self.listening.is_none() {
            let bound = UnixSocket::new_stream()?;
            bound.bind(path)?;
            self.file = Some(identity(&std::fs::metadata(path)?));
            self.bound = Some(bound);
        }
        Ok(())
    }

    /// Listens on the bound socket, or on the port if there is none. Does nothing if it listens.
    pub(super) fn listen(
        &mut self,
        port: Option<u16>,
        state: &Arc<Watched<State>>,
    ) -> io::Result<()> {
        if self.listening.is_some() {
            return Ok(());
        }
        let listener = match self.bound.take() {
            Some(bound) => Listener::Unix(bound.listen(BACKLOG)?),
            None => {
                let listener = std::net::TcpListener::bind(("127.0.0.1", port.unwrap_or(0)))?;
                // As tokio demands of a listener that it takes over.
                listener.set_nonblocking(true)?;
                Listener::Tcp(TcpListener::from_std(listener)?)
            }
        };
        let state = Arc::clone(state);
        // One at a time, as QEMU: the others wait in the backlog, connected and without a greeting.
        self.listening = Some(AcceptLoop::spawn(listener, 1, move |stream| {
            // A task of its own: it sends what was emitted before the end, when this loop is gone.
            let connection = tokio::spawn(Connection::new(Arc::clone(&state)).serve(stream));
            async move {
                let _ = connection.await;
            }
        }));
        Ok(())
    }

    /// Removes the socket file, unless it is gone or another socket has taken its path.
    pub(super) fn remove_file(&self, path: &Path) {
        let now = std::fs::metadata(path).ok().map(|file| identity(&file));
        if now.is_some() && now == self.file {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// A connection of either family.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Accept for Listener {
    type Stream = Box<dyn Stream>;

    fn next(&self) -> BoxFuture<'_, io::Result<Self::Stream>> {
        Box::pin(async move {
            Ok(match self {
                Self::Unix(listener) => Box::new(listener.accept().await?.0) as Self::Stream,
                Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            })
        })
    }
}
