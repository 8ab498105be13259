//! Connections over unix and tcp sockets.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout_at};

#[cfg(feature = "tls")]
use crate::tls::{TlsClient, TlsError, TlsSocket};
use crate::{Endpoint, Outbox};

/// How long to wait before the next attempt to connect, where too many clients wait to be accepted.
const CONNECT_RETRY: Duration = Duration::from_millis(15);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing replied before the deadline.
    #[error("no reply to the connection attempt")]
    TimedOut,
    /// The system refused.
    #[error("cannot connect")]
    Io(#[source] io::Error),
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket>),
}

/// A connection.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// Writing failed, so that nothing more is written.
    is_write_failed: bool,
    pieces: Option<Pieces>,
}

/// Where one write ends and the next begins.
#[derive(Debug)]
struct Pieces {
    /// The length of the piece that the bytes begin with.
    length: fn(&[u8]) -> usize,
    /// How much of a piece that was begun is still to be written.
    left: usize,
}

impl Pieces {
    /// What of `unwritten` belongs to one piece.
    fn next<'a>(&mut self, unwritten: &'a [u8]) -> &'a [u8] {
        if self.left == 0 {
            self.left = (self.length)(unwritten).max(1);
        }
        &unwritten[..self.left.min(unwritten.len())]
    }
}

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing behind.
    pub async fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Self, ConnectError> {
        let stream = timeout_at(deadline, Stream::connect(endpoint));
        let stream = stream.await.map_err(|_| ConnectError::TimedOut)?;
        stream.map(Self::new).map_err(ConnectError::Io)
    }

    /// Connects to a port that speaks TLS, and does the handshake.
    ///
    /// # Errors
    /// [`TlsError`].
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing behind.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub async fn connect_tls(
        host: &str,
        port: u16,
        client: &TlsClient,
        deadline: Instant,
    ) -> Result<Self, TlsError> {
        let tcp = match timeout_at(deadline, connect_tcp(host, port)).await {
            Ok(tcp) => tcp.map_err(|error| TlsError::Connect(ConnectError::Io(error)))?,
            Err(_) => return Err(TlsError::Connect(ConnectError::TimedOut)),
        };
        let stream = client.handshake(host, tcp, deadline).await?;
        Ok(Self::new(Stream::Tls(Box::new(stream))))
    }

    fn new(stream: Stream) -> Self {
        Self { stream, is_write_failed: false, pieces: None }
    }

    /// The unix socket, if it is one.
    pub fn as_unix(&self) -> Option<&UnixStream> {
        match &self.stream {
            Stream::Unix(stream) => Some(stream),
            Stream::Tcp(_) => None,
            #[cfg(feature = "tls")]
            Stream::Tls(_) => None,
        }
    }

    /// Writes bytes piece by piece: `length` is the length of the piece that bytes begin with. Over
    /// TLS each write is a record of its own, or several where it is longer than 16 KiB, so that no
    /// record has bytes of two pieces.
    pub fn write_in_pieces(&mut self, length: fn(&[u8]) -> usize) {
        self.pieces = Some(Pieces { length, left: 0 });
    }

    /// Writes what can be written, and reads once into `spare`. Ready with how many bytes were
    /// read; 0 means that the peer closed the connection.
    ///
    /// A write that fails is no error here: what the peer had to say before it went is read first,
    /// and reading fails after it. Nothing is held across a pending poll but what is in the socket
    /// and in `outbox`, so a future around it may be dropped.
    ///
    /// # Errors
    /// Reading failed.
    pub fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        spare: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // Before reading: the peer may be waiting for these bytes.
        while !self.is_write_failed && !outbox.unwritten().is_empty() {
            let unwritten = outbox.unwritten();
            let bytes = match &mut self.pieces {
                Some(pieces) => pieces.next(unwritten),
                None => unwritten,
            };
            match self.stream.poll_write(cx, bytes) {
                Poll::Ready(Ok(count)) => {
                    outbox.wrote(count);
                    if let Some(pieces) = &mut self.pieces {
                        pieces.left = pieces.left.saturating_sub(count);
                    }
                }
                Poll::Ready(Err(_)) => self.is_write_failed = true,
                Poll::Pending => break,
            }
        }
        if !self.is_write_failed && matches!(self.stream.poll_flush(cx), Poll::Ready(Err(_))) {
            self.is_write_failed = true;
        }
        // A read that leaves room in `spare` tells tokio that the socket is empty: it then waits
        // without trying once more. So an event costs one read and one wait.
        let mut buffer = ReadBuf::new(spare);
        ready!(self.stream.poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::new(Stream::Unix(stream))
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::new(Stream::Tcp(stream))
    }
}

impl Stream {
    async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Endpoint::Tcp(host, port) => connect_tcp(host, *port).await.map(Self::Tcp),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.poll_read(cx, into),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Gives the system what was written. A TLS connection may have encrypted bytes in its buffer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.poll_flush(cx),
            _ => {
                let _ = cx;
                Poll::Ready(Ok(()))
            }
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    // tokio resolves the name on a thread of its own. After a deadline that thread goes on until
    // the resolver gives up; its result is dropped.
    let stream = TcpStream::connect((host, port)).await?;
    // Calls are small, and each waits for its reply.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to a unix socket, and tries again until `deadline` while too many clients wait to be
/// accepted.
///
/// A blocking connect waits there until there is room. One that does not block, as here, fails with
/// `EAGAIN` and must be repeated (unix(7)).
///
/// # Errors
/// The system refused; [`io::ErrorKind::WouldBlock`] if there was still no room at the deadline.
///
/// # Cancel safety
/// Dropped midway it leaves nothing behind.
pub async fn connect_unix_when_room(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    loop {
        let now = Instant::now();
        match UnixStream::connect(path).await {
            // No event says when there is room, so that polling is all that is left.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && now < deadline => {
                sleep_until(now + CONNECT_RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket};
    use tokio::time::sleep;

    use super::*;
    use crate::deadline_after;

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn io(socket: &mut Socket, outbox: &mut Outbox, spare: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| socket.poll_io(cx, outbox, spare)).await
    }

    /// What a peer gets and what the socket gets, of `hello` one way and `welcome` the other.
    async fn greet(mut socket: Socket, mut peer: impl AsyncRead + AsyncWrite + Unpin) {
        let mut outbox = Outbox::default();
        let mut spare = [0; 64];
        outbox.appending().extend_from_slice(b"hello");
        peer.write_all(b"welcome").await.unwrap();
        let count = io(&mut socket, &mut outbox, &mut spare).await.unwrap();
        assert_eq!(&spare[..count], b"welcome");
        let mut got = [0; 5];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        drop(peer);
        assert_eq!(io(&mut socket, &mut outbox, &mut spare).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_socket_carries_bytes_both_ways_over_unix_and_tcp() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let endpoint = Endpoint::Unix(path);
        let socket = Socket::connect(&endpoint, deadline_after(PATIENCE)).await.unwrap();
        assert!(socket.as_unix().is_some());
        greet(socket, listener.accept().await.unwrap().0).await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::Tcp("127.0.0.1".into(), port);
        let socket = Socket::connect(&endpoint, deadline_after(PATIENCE)).await.unwrap();
        assert!(socket.as_unix().is_none());
        greet(socket, listener.accept().await.unwrap().0).await;
    }

    #[tokio::test]
    async fn last_words_are_read_after_a_write_failed() {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"too many clients").await.unwrap();
        drop(peer);
        let mut socket = Socket::from(stream);
        let mut outbox = Outbox::default();
        outbox.appending().push(1);
        let mut spare = [0; 64];
        let count = io(&mut socket, &mut outbox, &mut spare).await.unwrap();
        assert_eq!(&spare[..count], b"too many clients");
        assert_eq!(io(&mut socket, &mut outbox, &mut spare).await.unwrap(), 0);
    }

    /// A listener for which as many clients wait as may.
    async fn crowded(directory: &Path) -> (UnixListener, Vec<UnixStream>) {
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(directory.join("s")).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(directory.join("s")).await {
            waiting.push(stream);
            assert!(waiting.len() < 100);
        }
        (listener, waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_connects_once_there_is_room() {
        let home = tempfile::tempdir().unwrap();
        let (listener, waiting) = crowded(home.path()).await;
        let accept = async {
            sleep(Duration::from_secs(1)).await;
            for _ in 0..waiting.len() {
                listener.accept().await.unwrap();
            }
        };
        let path = home.path().join("s");
        let connect = connect_unix_when_room(&path, deadline_after(PATIENCE));
        let (stream, ()) = tokio::join!(connect, accept);
        assert!(stream.is_ok(), "{stream:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_without_room_is_an_error_at_the_deadline() {
        let home = tempfile::tempdir().unwrap();
        let (_listener, _waiting) = crowded(home.path()).await;
        let begun = Instant::now();
        let connect = connect_unix_when_room(&home.path().join("s"), begun + PATIENCE).await;
        assert_eq!(connect.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!((5_000..5_100).contains(&begun.elapsed().as_millis()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_a_reply_ends_at_the_deadline() {
        // The kernel leaves attempts without a reply while a listener's queue is full.
        let listener = TcpSocket::new_v4().unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let endpoint = Endpoint::Tcp("127.0.0.1".into(), listener.local_addr().unwrap().port());
        let mut queued = Vec::new();
        let error = loop {
            assert!(queued.len() < 100);
            match Socket::connect(&endpoint, deadline_after(PATIENCE)).await {
                Ok(socket) => queued.push(socket),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ConnectError::TimedOut), "{error:?}");
    }
}
