//! The daemon's socket: read whenever bytes arrive, or at intervals while no subscriber waits for a reply.
//!
//! xenstored writes each reply on its own. A socket that is registered with the runtime wakes the runtime's
//! thread for each of them, even when the task does not read: tokio's registration is edge-triggered. So
//! a socket that is to be read at intervals is taken out of the runtime, and put back afterwards.

use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::net::UnixStream as DetachedStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// A socket, and whether the runtime watches it.
#[derive(Debug)]
pub(crate) enum StoreSocket {
    /// The runtime wakes the task when bytes arrive.
    Attached(UnixStream),
    /// The runtime does not watch the socket: the code that polls it sets a timer.
    Detached(DetachedStream),
    /// The runtime refused the change from one to the other.
    Broken,
}

impl StoreSocket {
    pub(crate) fn is_detached(&self) -> bool {
        matches!(self, Self::Detached(_))
    }

    /// Takes the socket out of the runtime.
    pub(crate) fn detach(&mut self) -> io::Result<()> {
        // The stream has to be taken out of `self` to be converted. If that fails it is closed.
        *self = match mem::replace(self, Self::Broken) {
            Self::Attached(stream) => Self::Detached(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Puts the socket back into the runtime. What has arrived meanwhile wakes the task.
    pub(crate) fn attach(&mut self) -> io::Result<()> {
        *self = match mem::replace(self, Self::Broken) {
            Self::Detached(stream) => Self::Attached(UnixStream::from_std(stream)?),
            other => other,
        };
        Ok(())
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Attached(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Detached(stream) => {
                let read = retry(|| stream.read(into.initialize_unfilled()));
                read.map_ok(|bytes| into.advance(bytes))
            }
            Self::Broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Attached(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Detached(stream) => retry(|| stream.write(bytes)),
            Self::Broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// Runs an operation of a socket that does not block, again when a signal interrupts it.
fn retry(mut operation: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            outcome => return Poll::Ready(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn read(socket: &mut StoreSocket) -> Vec<u8> {
        let mut buffer = [0; 16];
        let mut into = ReadBuf::new(&mut buffer);
        poll_fn(|cx| socket.poll_read(cx, &mut into)).await.unwrap();
        into.filled().to_vec()
    }

    #[tokio::test]
    async fn a_detached_socket_reads_and_writes_without_waiting() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let mut socket = StoreSocket::Attached(ours);
        socket.detach().unwrap();
        assert!(socket.is_detached());
        let mut buffer = [0; 16];
        let mut into = ReadBuf::new(&mut buffer);
        let is_pending = poll_fn(|cx| Poll::Ready(socket.poll_read(cx, &mut into).is_pending()));
        assert!(is_pending.await);
        peer.write_all(b"reply").await.unwrap();
        assert_eq!(read(&mut socket).await, b"reply");
        assert_eq!(poll_fn(|cx| socket.poll_write(cx, b"request")).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn bytes_that_came_while_detached_wake_an_attached_socket() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let mut socket = StoreSocket::Attached(ours);
        socket.detach().unwrap();
        peer.write_all(b"reply").await.unwrap();
        socket.attach().unwrap();
        assert!(!socket.is_detached());
        assert_eq!(read(&mut socket).await, b"reply");
    }
}
