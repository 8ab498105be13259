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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;
    use tokio::time::timeout_at;
    use virevent_testkit::tls::{Clients, Leaf, Pki, TlsFront};

    use super::*;
    use crate::{Outbox, Socket, TlsFiles, deadline_after};

    /// The peer reads late, so that the socket is full when the outbox becomes empty. No further
    /// write gives it what rustls has.
    #[tokio::test]
    async fn what_rustls_has_encrypted_is_flushed_without_a_write() {
        let pki = Pki::new().unwrap();
        let files = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
        let path = files.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let front = TlsFront::before(&path, &files, Clients::Any).await.unwrap();
        let ca = Some(files.join("cacert.pem"));
        let client = TlsFiles { ca, ..TlsFiles::default() }.load().unwrap();
        let deadline = deadline_after(Duration::from_secs(20));
        let tcp = TcpStream::connect(("127.0.0.1", front.port())).await.unwrap();
        let mut stream = client.handshake("localhost", tcp, deadline).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();

        // A message as the front passes it on: its length, and the rest.
        let message = [1024_u32.to_be_bytes().to_vec(), vec![7; 1020]].concat();
        let mut written = 0;
        // The front, on the same thread, reads nothing before this waits.
        while !stream.has_unsent() {
            let write = poll_fn(|cx| stream.poll_write(cx, &message)).await;
            assert_eq!(write.unwrap(), message.len());
            written += message.len();
        }
        let reading = tokio::spawn(async move {
            let mut got = vec![0; written];
            peer.read_exact(&mut got).await.unwrap();
            peer.write_all(b"all").await.unwrap();
        });
        let mut socket = Socket::from(stream);
        let mut outbox = Outbox::default();
        let mut received = Vec::new();
        while received.len() < 4 {
            let mut spare = [0; 4];
            let read = poll_fn(|cx| socket.poll_io(cx, &mut outbox, &mut spare));
            let count = timeout_at(deadline, read).await.unwrap().unwrap();
            received.extend_from_slice(&spare[..count]);
        }
        assert_eq!(received, b"\x01all");
        reading.await.unwrap();
    }
}
