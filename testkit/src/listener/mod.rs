//! The accept loop that the fakes and the proxies in front of real servers share.

#[cfg(any(feature = "fake-libvirtd", feature = "fake-xenstored", feature = "servers"))]
mod unix;

use std::io;

use futures::future::BoxFuture;
use tokio::net::UnixListener;
use tokio::task::{AbortHandle, JoinSet};

#[cfg(any(feature = "fake-libvirtd", feature = "fake-xenstored", feature = "servers"))]
pub(crate) use self::unix::Listener;

/// A bound socket of any family.
pub(crate) trait Accept: Send + Sync + 'static {
    /// One accepted connection.
    type Stream: Send;

    fn next(&self) -> BoxFuture<'_, io::Result<Self::Stream>>;
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;

    fn next(&self) -> BoxFuture<'_, io::Result<Self::Stream>> {
        Box::pin(async { Ok(self.accept().await?.0) })
    }
}

/// A running accept loop. Dropping it closes the socket and every connection.
pub(crate) struct AcceptLoop(AbortHandle);

impl AcceptLoop {
    /// Accepts connections and serves each in a task, at most `limit` of them at a time.
    ///
    /// `serve` is called as soon as a connection is accepted, before its future runs: what it
    /// counts is in the order of the accepts.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn spawn<L: Accept, F>(
        listener: L,
        limit: usize,
        mut serve: impl FnMut(L::Stream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let accept = async move {
            // Owned by this task, so that aborting it ends the connections too.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.next(), if connections.len() < limit => {
                        let Ok(stream) = accepted else { return };
                        connections.spawn(serve(stream));
                    }
                    // Collects tasks that ended, so that the set does not grow.
                    Some(_) = connections.join_next() => {}
                }
            }
        };
        Self(tokio::spawn(accept).abort_handle())
    }
}

impl Drop for AcceptLoop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
