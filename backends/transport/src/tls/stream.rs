//! An established TLS connection.

use std::io::{self, Write};
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
}

impl TlsSocket {
    pub(super) fn new(stream: TlsStream<BufReader<TcpStream>>) -> Self {
        Self { stream }
    }

    /// The TCP connection, as the handshake and this socket need it.
    pub(super) fn buffered(tcp: TcpStream) -> BufReader<TcpStream> {
        BufReader::with_capacity(READ, tcp)
    }

    /// Reads what has arrived: many records, where a server writes each event as one of its own
    /// (tokio-rustls reads until `into` is full or the socket is empty, since 0.26.6).
    ///
    /// An end without close_notify is an end like any other: a server that is killed sends none,
    /// and frames show where they are cut off.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_read(cx, into)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Gives the socket what rustls has encrypted: writes that the socket did not take, and what the
    /// protocol itself demands.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.has_unsent() {
            true => Pin::new(&mut self.stream).poll_flush(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Whether rustls has encrypted bytes that the socket does not have.
    pub(crate) fn has_unsent(&self) -> bool {
        self.stream.get_ref().1.wants_write()
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
