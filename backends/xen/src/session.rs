//! One connection: the only file with sockets.

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Error, Kind, Kinds};

use crate::client::protocol;
use crate::device::Device;
use crate::endpoint::{self, Endpoint, Place, Surroundings};
use crate::observer::{Observer, Past};
use crate::uri::StoreUri;
use crate::wire::Decoder;

/// How to make connections to one store.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) uri: StoreUri,
    pub(crate) host: Arc<str>,
    /// How long the server may take to answer a request.
    pub(crate) timeout: Duration,
    /// What the last connection knew that the store does not tell.
    pub(crate) past: Arc<Mutex<Past>>,
}

impl Connect for Opener {
    type Session = Session;

    fn uri(&self) -> &str {
        &self.uri.shown
    }

    fn kinds(&self) -> Kinds {
        // A domain that reboots is another run, told as stopped and started.
        [Kind::Lifecycle].into_iter().collect()
    }

    async fn connect(&self) -> Result<Session, Error> {
        let place = match &self.uri.path {
            Some(path) => Place::given(path),
            None => endpoint::of_this_host(&Surroundings::now()),
        };
        let endpoint = place.endpoint()?;
        let link = match &endpoint {
            Endpoint::Socket(path) => knock(path).await.map(Link::Socket),
            Endpoint::Device(path) => Device::open(path).map(Link::Device),
        };
        let link = link.map_err(|error| place.unreachable(error))?;
        Ok(Session::new(link, endpoint, self))
    }
}

/// How often to knock while too many wait at the door, and for how long.
const KNOCK: Duration = Duration::from_millis(15);
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects. xenstored lets in few at a time, and a socket that does not block is sent away where
/// another would wait.
async fn knock(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(KNOCK).await;
            }
            outcome => return outcome,
        }
    }
}

#[derive(Debug)]
enum Link {
    Socket(UnixStream),
    Device(Device),
}

#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    endpoint: Endpoint,
    host: Arc<str>,
    timeout: Duration,
    decoder: Decoder,
    observer: Observer,
    timer: Pin<Box<Sleep>>,
    /// Set when writing failed: what the server still had to say is read first.
    mute: bool,
    past: Arc<Mutex<Past>>,
}

impl driver::Session for Session {
    fn host(&self) -> &str {
        &self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.observer.set_interest(interest, tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.observer.request_list(tag);
    }

    /// xenstored writes a change's event before the reply to any request that it takes after the change.
    fn is_ordered(&self) -> bool {
        true
    }

    fn ping(&mut self) -> bool {
        self.observer.ping();
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        poll_fn(|cx| self.poll(cx, out)).await.map_err(|error| self.located(error))
    }
}

impl Session {
    fn new(link: Link, endpoint: Endpoint, opener: &Opener) -> Self {
        let is_device = matches!(endpoint, Endpoint::Device(_));
        let past = std::mem::take(&mut *opener.past.lock().unwrap_or_else(PoisonError::into_inner));
        let host = Arc::clone(&opener.host);
        Self {
            link,
            endpoint,
            observer: Observer::new(Arc::clone(&host), opener.uri.with_dom0, is_device, past),
            host,
            timeout: opener.timeout,
            decoder: Decoder::of_replies(),
            timer: Box::pin(sleep(Duration::from_secs(3600))),
            mute: false,
            past: Arc::clone(&opener.past),
        }
    }

    /// Nothing is held across a pending poll but what is in `self` and in the batch.
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<Result<(), Error>> {
        loop {
            let now = Instant::now();
            self.observer.pump(now, out);
            if self.observer.take_told() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(outcome) = self.poll_io(cx) {
                return Poll::Ready(outcome.and_then(|()| self.take_in(out)));
            }
            let Some(at) = self.observer.deadline(self.timeout) else { return Poll::Pending };
            if at > now {
                // Setting a timer costs more than letting it ring early once in a while.
                if at < self.timer.deadline() || self.timer.is_elapsed() {
                    self.timer.as_mut().reset(at);
                }
                ready!(self.timer.as_mut().poll(cx));
            }
            self.observer.ring(Instant::now(), self.timeout)?;
        }
    }

    /// Takes in the packets that are there.
    fn take_in(&mut self, out: &mut Batch) -> Result<(), Error> {
        let now = Instant::now();
        let too_long = |error: crate::wire::TooLong| protocol(error.to_string());
        while let Some(packet) = self.decoder.next_packet().map_err(too_long)? {
            self.observer.receive(&packet, now, out)?;
        }
        self.observer.pump(now, out);
        self.observer.take_told();
        Ok(())
    }

    /// Writes what can be written, and reads once.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.mute && !self.observer.client.unwritten().is_empty() {
            match self.link.poll_write(cx, self.observer.client.unwritten()) {
                Poll::Ready(Ok(bytes)) => self.observer.client.wrote(bytes),
                Poll::Ready(Err(error)) => {
                    if let Link::Device(_) = self.link {
                        return Poll::Ready(Err(self.refused(error)));
                    }
                    self.mute = true;
                }
                Poll::Pending => break,
            }
        }
        let mut buffer = ReadBuf::new(self.decoder.spare());
        match ready!(self.link.poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Err(self.closed())),
            Ok(()) => {
                let bytes = buffer.filled().len();
                self.decoder.filled(bytes);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Err(self.closed()))
            }
            Err(error) => Poll::Ready(Err(Error::Unreachable {
                endpoint: self.endpoint.to_string(),
                reason: "the connection broke".into(),
                source: Arc::new(error),
            })),
        }
    }

    fn closed(&self) -> Error {
        let detail = "xenstored stopped or was restarted, or would not let us in";
        Error::Closed { endpoint: self.endpoint.to_string(), detail: detail.into() }
    }

    /// A device says no to a request by failing the write.
    fn refused(&self, error: io::Error) -> Error {
        let asked = self.observer.client.oldest().map(crate::request::Ask::to_line);
        let asked = asked.unwrap_or_else(|| "a request".into());
        Error::Unreachable {
            endpoint: self.endpoint.to_string(),
            reason: format!("the kernel refused a {asked}: run it in domain 0, as root"),
            source: Arc::new(error),
        }
    }

    /// The error, with the place of a peer that does not speak the protocol.
    fn located(&self, error: Error) -> Error {
        match error {
            Error::Protocol { detail } => {
                let advice = format!("check that a xenstored listens on {}", self.endpoint);
                protocol(format!("{detail}; {advice}"))
            }
            error => error,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        *self.past.lock().unwrap_or_else(PoisonError::into_inner) = self.observer.take_past();
    }
}

impl Link {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Device(device) => device.poll_read(cx, into),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Device(device) => device.poll_write(cx, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener at whose door as many wait as may.
    async fn crowded(dir: &Path) -> (tokio::net::UnixListener, Vec<UnixStream>) {
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(dir.join("socket")).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(dir.join("socket")).await {
            waiting.push(stream);
            assert!(waiting.len() < 100);
        }
        (listener, waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_a_crowd_at_the_door_is_let_in_when_it_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, waiting) = crowded(dir.path()).await;
        let open = async {
            sleep(Duration::from_secs(1)).await;
            for _ in 0..waiting.len() {
                listener.accept().await.unwrap();
            }
        };
        let path = dir.path().join("socket");
        let (stream, ()) = tokio::join!(knock(&path), open);
        assert!(stream.is_ok(), "{stream:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_that_stays_crowded_is_an_error_that_says_so_after_5_s() {
        let dir = tempfile::tempdir().unwrap();
        let (_listener, _waiting) = crowded(dir.path()).await;
        let (path, begun) = (dir.path().join("socket"), Instant::now());
        let error = knock(&path).await.unwrap_err();
        assert!((5_000..5_100).contains(&begun.elapsed().as_millis()));
        let said = Place::given(&path).unreachable(error).to_line();
        assert!(said.contains("too many clients wait"), "{said}");
    }

    #[tokio::test]
    async fn a_socket_for_datagrams_is_told_from_a_xenstoreds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let error = knock(&path).await.unwrap_err();
        let said = Place::given(&path).unreachable(error).to_line();
        assert!(said.contains("a socket for datagrams"), "{said}");
    }
}
