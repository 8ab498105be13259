//! A proxy before a server's socket, which listens to what passes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

use super::{LaunchError, check_socket_path};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// Listens to one connection; dropped when it is closed.
pub(super) trait Ear: Send + 'static {
    /// The next bytes that one side said.
    fn hear(&mut self, side: Side, bytes: &[u8]);

    /// Appends to `out`, which is empty, what of these bytes is passed on. All by default.
    fn pass(&mut self, side: Side, bytes: &[u8], out: &mut Vec<u8>) {
        self.hear(side, bytes);
        out.extend_from_slice(bytes);
    }
}

/// Makes an ear for each connection.
type Ears = Arc<dyn Fn() -> Box<dyn Ear> + Send + Sync>;

/// Passes connections on to a server. Dropping it cuts them.
pub(super) struct Relay {
    directory: TempDir,
    server: PathBuf,
    ears: Ears,
    accepting: Mutex<Option<AbortHandle>>,
}

impl Relay {
    /// Listens on a socket of its own, and passes each connection on to the server. It goes on when
    /// that is started again; as long as it is down clients are hung up on at once.
    pub(super) fn before(
        server: PathBuf,
        ears: impl Fn() -> Box<dyn Ear> + Send + Sync + 'static,
    ) -> Result<Self, LaunchError> {
        let directory = tempfile::Builder::new()
            .prefix("vt")
            .tempdir()
            .map_err(LaunchError::io("make a temporary directory"))?;
        let relay = Self { directory, server, ears: Arc::new(ears), accepting: Mutex::default() };
        check_socket_path(&relay.socket())?;
        relay.come_back()?;
        Ok(relay)
    }

    pub(super) fn go_down(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // Gone already is as good.
            let _ = std::fs::remove_file(self.socket());
        }
    }

    pub(super) fn come_back(&self) -> Result<(), LaunchError> {
        let mut accepting = lock(&self.accepting);
        if accepting.is_none() {
            let listener = UnixListener::bind(self.socket()).map_err(LaunchError::io("listen"))?;
            let accept = accept(listener, self.server.clone(), Arc::clone(&self.ears));
            *accepting = Some(tokio::spawn(accept).abort_handle());
        }
        Ok(())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("tap")
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.go_down();
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: UnixListener, server: PathBuf, ears: Ears) {
    // Dropped with this task, and its tasks with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let (server, ear) = (server.clone(), Mutex::new(ears()));
                connections.spawn(async move { relay(client, &server, &ear).await });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: UnixStream, server: &Path, ear: &Mutex<Box<dyn Ear>>) -> io::Result<()> {
    let mut server = connect(server).await?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // When either side hangs up the other is hung up on.
    tokio::select! {
        end = copy(from_client, to_server, Side::Client, ear) => end,
        end = copy(from_server, to_client, Side::Server, ear) => end,
    }
}

/// A server that lets few clients wait to be accepted asks others to come again.
async fn connect(server: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(server).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    side: Side,
    ear: &Mutex<Box<dyn Ear>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let mut out = Vec::new();
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        out.clear();
        lock(ear).pass(side, &buffer[..read], &mut out);
        to.write_all(&out).await?;
    }
}
