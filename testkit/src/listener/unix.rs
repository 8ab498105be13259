//! A Unix socket that can be closed and opened again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::net::{UnixListener, UnixStream};

use super::AcceptLoop;

/// Serves one connection until either side hangs up.
type Serve = dyn Fn(UnixStream) -> BoxFuture<'static, ()> + Send + Sync;

/// A listening Unix socket whose path outlives it. Dropping it closes the socket and every
/// connection.
pub(crate) struct Listener {
    path: PathBuf,
    serve: Arc<Serve>,
    accepting: Mutex<Option<AcceptLoop>>,
}

impl Listener {
    /// Binds `path` and serves each connection in a task.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn open(
        path: PathBuf,
        serve: impl Fn(UnixStream) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = Self { path, serve: Arc::new(serve), accepting: Mutex::default() };
        listener.come_back()?;
        Ok(listener)
    }

    /// The path of the socket, whether or not it is open.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes every connection and removes the socket, as a server that ends.
    pub(crate) fn go_down(&self) {
        // Only if it was open: the file may be another server's after the first call.
        if self.lock().take().is_some() {
            // A test may have removed the file already.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Binds the same path again after [`go_down`](Self::go_down). Does nothing while it is open.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn come_back(&self) -> io::Result<()> {
        let mut accepting = self.lock();
        if accepting.is_none() {
            let listener = UnixListener::bind(&self.path)?;
            let serve = Arc::clone(&self.serve);
            *accepting = Some(AcceptLoop::spawn(listener, usize::MAX, move |stream| serve(stream)));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<AcceptLoop>> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.go_down();
    }
}
