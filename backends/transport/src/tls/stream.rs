//! An established TLS connection.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

#[derive(Debug)]
pub(crate) struct TlsSocket {
    stream: TlsStream<TcpStream>,
    /// Whether the socket has all that was written. What rustls took may still be in its buffer.
    is_flushed: bool,
}

impl TlsSocket {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, is_flushed: true }
    }

    /// Reads what one read of the socket brought. An end without close_notify is an end like any
    /// other: a server that is killed sends none, and frames show where they are cut off.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match ready!(Pin::new(&mut self.stream).poll_read(cx, into)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
            outcome => outcome?,
        }
        // tokio-rustls returns one record. A server writes each event as a record of its own, and
        // one read of the socket brings many: they are one batch.
        while into.remaining() > 0 && into.filled().len() > before {
            match self.stream.get_mut().1.reader().read(into.initialize_unfilled()) {
                Ok(count) if count > 0 => into.advance(count),
                // None is left. The next poll finds out whether that is the end.
                Ok(_) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Sends close_notify, as far as the socket takes it at once: dropping cannot wait.
impl Drop for TlsSocket {
    fn drop(&mut self) {
        let (tcp, session) = self.stream.get_mut();
        session.send_close_notify();
        while session.wants_write() {
            match session.write_tls(&mut AtOnce(tcp)) {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
    }
}

/// Writes what the socket takes at once.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
