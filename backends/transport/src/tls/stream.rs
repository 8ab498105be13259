//! An established TLS connection.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How much one read of the socket takes. rustls itself reads 4 KiB at a time.
const READ: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) struct TlsSocket {
    stream: TlsStream<BufReader<TcpStream>>,
    /// Whether the socket has all that was written. What rustls took may still be in its buffer.
    is_flushed: bool,
}

impl TlsSocket {
    pub(super) fn new(stream: TlsStream<BufReader<TcpStream>>) -> Self {
        Self { stream, is_flushed: true }
    }

    /// The TCP connection, as the handshake and this socket need it.
    pub(super) fn buffered(tcp: TcpStream) -> BufReader<TcpStream> {
        BufReader::with_capacity(READ, tcp)
    }

    /// Reads what one read of the socket brought. An end without close_notify is an end like any
    /// other: a server that is killed sends none, and frames show where they are cut off.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        // tokio-rustls returns one record. A server writes each event as a record of its own, and
        // one read of the socket brings many: they are one batch.
        loop {
            let start = into.filled().len();
            match Pin::new(&mut self.stream).poll_read(cx, into) {
                Poll::Ready(Ok(())) => {}
                // What was read first is returned first. The next poll meets the same end: rustls
                // keeps its errors, and a closed socket stays closed.
                _ if start > before => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                outcome => return outcome,
            }
            if into.filled().len() == start {
                return Poll::Ready(Ok(()));
            }
            let (socket, session) = self.stream.get_mut();
            while into.remaining() > 0 {
                match session.reader().read(into.initialize_unfilled()) {
                    Ok(count) if count > 0 => into.advance(count),
                    // None is left. The next poll finds out whether that is the end.
                    Ok(_) | Err(_) => break,
                }
            }
            if into.remaining() == 0 || socket.buffer().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
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
        let (socket, session) = self.stream.get_mut();
        session.send_close_notify();
        while session.wants_write() {
            match session.write_tls(&mut AtOnce(socket.get_ref())) {
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
