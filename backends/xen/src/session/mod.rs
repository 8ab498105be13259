//! One connection: the only file with sockets.

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::UnixStream;
use tokio::time::Instant;
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Error, Kind, Kinds};
use virevent_transport::LazyTimer;
use virevent_transport::socket::connect_unix_when_room;

use crate::device::XenbusDevice;
use crate::endpoint::{self, HostEnvironment, StoreEndpoint, StorePath};
use crate::observer::{Observer, PreviousRuns};
use crate::pipeline::protocol;
use crate::request::StoreRequest;
use crate::socket::StoreSocket;
use crate::uri::StoreUri;
use crate::wire::Decoder;

/// How to make connections to one store.
#[derive(Clone, Debug)]
pub(crate) struct StoreConnector {
    pub(crate) uri: StoreUri,
    pub(crate) host: Arc<str>,
    /// How long the server may take to answer a request.
    pub(crate) timeout: Duration,
    /// What the last connection knew and the store has no trace of.
    pub(crate) previous: Arc<Mutex<PreviousRuns>>,
}

impl Connect for StoreConnector {
    type Session = Session;

    fn uri(&self) -> &str {
        &self.uri.shown
    }

    fn kinds(&self) -> Kinds {
        // A domain that reboots is another run: stopped, then started.
        [Kind::Lifecycle, Kind::Other].into_iter().collect()
    }

    async fn connect(&self) -> Result<Session, Error> {
        let path = match &self.uri.path {
            Some(path) => StorePath::given(path),
            None => endpoint::of_this_host(&HostEnvironment::of_this_process()),
        };
        let endpoint = path.endpoint()?;
        let channel = match &endpoint {
            StoreEndpoint::Socket(path) => connect(path)
                .await
                .map(|stream| StoreChannel::Socket(StoreSocket::Attached(stream))),
            StoreEndpoint::Device(path) => XenbusDevice::open(path).map(StoreChannel::Device),
        };
        let channel = channel.map_err(|error| path.unreachable(error))?;
        Ok(Session::new(channel, endpoint, self))
    }
}

/// How long a full backlog is retried.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The delay between two reads during a verification. In this time the C xenstored of Xen 4.17 answers about as
/// many requests as may be pending, so that one wakeup and one read bring all their replies. It is also how
/// late an event may be read during a verification.
const READ_INTERVAL: Duration = Duration::from_millis(4);

/// Connects to a socket. xenstored has a short backlog, which is full at times.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_unix_when_room(path, Instant::now() + CONNECT_LIMIT).await
}
/// What carries the packets.
#[derive(Debug)]
enum StoreChannel {
    Socket(StoreSocket),
    Device(XenbusDevice),
}

#[derive(Debug)]
pub(crate) struct Session {
    channel: StoreChannel,
    endpoint: StoreEndpoint,
    host: Arc<str>,
    timeout: Duration,
    decoder: Decoder,
    observer: Observer,
    timer: LazyTimer,
    /// When to read next, while the socket is detached from the runtime.
    next_read: Option<Instant>,
    /// Whether a whole interval has brought nothing: until bytes arrive the runtime waits for them.
    is_silent: bool,
    /// Whether a write failed. What the server sent before is still read: it may say why.
    has_write_failed: bool,
    previous: Arc<Mutex<PreviousRuns>>,
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

    /// xenstored writes the event of a change before the reply to any request that it takes after the change.
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
    fn new(channel: StoreChannel, endpoint: StoreEndpoint, connector: &StoreConnector) -> Self {
        let is_device = matches!(endpoint, StoreEndpoint::Device(_));
        let previous =
            std::mem::take(&mut *connector.previous.lock().unwrap_or_else(PoisonError::into_inner));
        let host = Arc::clone(&connector.host);
        Self {
            channel,
            endpoint,
            observer: Observer::new(
                Arc::clone(&host),
                connector.uri.with_dom0,
                is_device,
                previous,
            ),
            host,
            timeout: connector.timeout,
            decoder: Decoder::of_replies(),
            timer: LazyTimer::new(),
            next_read: None,
            is_silent: false,
            has_write_failed: false,
            previous: Arc::clone(&connector.previous),
        }
    }

    /// Cancel safe: across a pending poll all state is in `self` and in the batch.
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<Result<(), Error>> {
        loop {
            let now = Instant::now();
            // Requests are queued before the write below, so that one write carries them all.
            if self.observer.pump(now, out) {
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = self.set_pace(now) {
                return Poll::Ready(Err(self.broken(error)));
            }
            if let Poll::Ready(outcome) = self.poll_io(cx, now) {
                return Poll::Ready(outcome.and_then(|()| self.take_in(out)));
            }
            let deadline = self.observer.deadline(self.timeout);
            let Some(at) = deadline.into_iter().chain(self.next_read).min() else {
                return Poll::Pending;
            };
            ready!(self.timer.poll_until(cx, at));
            self.observer.ring(Instant::now(), self.timeout)?;
        }
    }

    /// Decides whether the runtime waits for bytes, or they are read at intervals: the latter only while a
    /// verification is all that is under way, for no subscriber waits for its replies.
    fn set_pace(&mut self, now: Instant) -> io::Result<()> {
        let StoreChannel::Socket(socket) = &mut self.channel else { return Ok(()) };
        let is_patient = self.observer.is_patient(now) && !self.is_silent;
        if is_patient && !socket.is_detached() {
            socket.detach()?;
            self.next_read = Some(now + READ_INTERVAL);
        } else if !is_patient && socket.is_detached() {
            socket.attach()?;
            self.next_read = None;
        }
        Ok(())
    }

    /// Takes in the packets that were read.
    fn take_in(&mut self, out: &mut Batch) -> Result<(), Error> {
        let now = Instant::now();
        let too_long = |error: crate::wire::TooLong| protocol(error.to_string());
        while let Some(packet) = self.decoder.next_packet().map_err(too_long)? {
            self.observer.receive(&packet, now, out)?;
        }
        self.observer.pump(now, out);
        Ok(())
    }

    /// Writes what can be written, and reads once.
    fn poll_io(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<(), Error>> {
        // Writes come before the read: the server answers while this side reads.
        while !self.has_write_failed && !self.observer.pipeline.unwritten().is_empty() {
            match self.channel.poll_write(cx, self.observer.pipeline.unwritten()) {
                Poll::Ready(Ok(bytes)) => self.observer.pipeline.wrote(bytes),
                Poll::Ready(Err(error)) => {
                    if let StoreChannel::Device(_) = self.channel {
                        return Poll::Ready(Err(self.refused(error)));
                    }
                    self.has_write_failed = true;
                }
                Poll::Pending => break,
            }
        }
        // Replies pile up in the socket meanwhile: at most as many as requests may be pending, and the events of a few
        // milliseconds.
        if self.next_read.is_some_and(|at| now < at) {
            return Poll::Pending;
        }
        // One read an advance: the driver counts each as a sign of life, and serves others in between.
        let mut buffer = ReadBuf::new(self.decoder.spare());
        let Poll::Ready(outcome) = self.channel.poll_read(cx, &mut buffer) else {
            // Only the timer wakes the task for a detached socket. It has, for nothing.
            self.is_silent |= self.next_read.is_some();
            return Poll::Pending;
        };
        match outcome {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Err(self.closed())),
            Ok(()) => {
                let bytes = buffer.filled().len();
                // A full buffer says that more is to be read. Left there, it would make the daemon buffer.
                let is_full = buffer.remaining() == 0;
                self.decoder.filled(bytes);
                self.is_silent = false;
                if self.next_read.is_some() {
                    self.next_read = Some(if is_full { now } else { now + READ_INTERVAL });
                }
                Poll::Ready(Ok(()))
            }
            // A server that closes with unread requests resets the connection: it is an end like any other.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Err(self.closed()))
            }
            Err(error) => Poll::Ready(Err(self.broken(error))),
        }
    }

    fn broken(&self, error: io::Error) -> Error {
        Error::unreachable(self.endpoint.to_string(), "the connection broke", error)
    }

    fn closed(&self) -> Error {
        let detail = "xenstored stopped, was restarted, or refused the connection";
        Error::closed(self.endpoint.to_string(), detail)
    }

    /// The kernel refuses a request by failing the write.
    fn refused(&self, error: io::Error) -> Error {
        let request = self.observer.pipeline.oldest().map(StoreRequest::to_line);
        let request = request.unwrap_or_else(|| "request".into());
        Error::unreachable(
            self.endpoint.to_string(),
            format!("the kernel refused a {request}: run it in domain 0, as root"),
            error,
        )
    }

    /// Adds the endpoint to an error of the protocol.
    fn located(&self, error: Error) -> Error {
        match error {
            Error::Protocol { detail, .. } => {
                let advice = format!("check that a xenstored listens on {}", self.endpoint);
                protocol(format!("{detail}; {advice}"))
            }
            error => error,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        *self.previous.lock().unwrap_or_else(PoisonError::into_inner) =
            self.observer.take_previous();
    }
}

impl StoreChannel {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_read(cx, into),
            Self::Device(device) => device.poll_read(cx, into),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => socket.poll_write(cx, bytes),
            Self::Device(device) => device.poll_write(cx, bytes),
        }
    }
}
