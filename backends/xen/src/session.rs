//! One connection: the only file with sockets.

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Error, Kind, Kinds};

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
        [Kind::Lifecycle].into_iter().collect()
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

/// The delay between two attempts to connect while the daemon's backlog is full.
const CONNECT_RETRY: Duration = Duration::from_millis(15);

/// How long a full backlog is retried.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The delay between two reads during a verification. In this time the C xenstored of Xen 4.17 answers about as
/// many requests as may be pending, so that one wakeup and one read bring all their replies. It is also how
/// late an event may be read during a verification.
const READ_INTERVAL: Duration = Duration::from_millis(4);

/// Connects to a socket. xenstored has a short backlog: while it is full a blocking connect waits, and a
/// non-blocking one fails with EAGAIN.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + CONNECT_LIMIT;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(CONNECT_RETRY).await;
            }
            outcome => return outcome,
        }
    }
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
    timer: Pin<Box<Sleep>>,
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
            timer: Box::pin(sleep(Duration::from_secs(3600))),
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
            if at > now {
                // Setting a timer costs more than an early ring now and then.
                if at < self.timer.deadline() || self.timer.is_elapsed() {
                    self.timer.as_mut().reset(at);
                }
                ready!(self.timer.as_mut().poll(cx));
            }
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
        if self.next_read.is_some_and(|at| now < at) {
            return Poll::Pending;
        }
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
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Err(self.closed()))
            }
            Err(error) => Poll::Ready(Err(self.broken(error))),
        }
    }

    fn broken(&self, error: io::Error) -> Error {
        Error::Unreachable {
            endpoint: self.endpoint.to_string(),
            reason: "the connection broke".into(),
            source: Arc::new(error),
        }
    }

    fn closed(&self) -> Error {
        let detail = "xenstored stopped, was restarted, or refused the connection";
        Error::Closed { endpoint: self.endpoint.to_string(), detail: detail.into() }
    }

    /// The kernel refuses a request by failing the write.
    fn refused(&self, error: io::Error) -> Error {
        let request = self.observer.pipeline.oldest().map(StoreRequest::to_line);
        let request = request.unwrap_or_else(|| "request".into());
        Error::Unreachable {
            endpoint: self.endpoint.to_string(),
            reason: format!("the kernel refused a {request}: run it in domain 0, as root"),
            source: Arc::new(error),
        }
    }

    /// Adds the endpoint to an error of the protocol.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener whose backlog is full.
    async fn full_backlog(dir: &Path) -> (tokio::net::UnixListener, Vec<UnixStream>) {
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
    async fn a_connect_succeeds_once_the_backlog_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, waiting) = full_backlog(dir.path()).await;
        let accept = async {
            sleep(Duration::from_secs(1)).await;
            for _ in 0..waiting.len() {
                listener.accept().await.unwrap();
            }
        };
        let path = dir.path().join("socket");
        let (stream, ()) = tokio::join!(connect(&path), accept);
        assert!(stream.is_ok(), "{stream:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_backlog_is_an_error_after_5_s() {
        let dir = tempfile::tempdir().unwrap();
        let (_listener, _waiting) = full_backlog(dir.path()).await;
        let path = dir.path().join("socket");
        let begun = Instant::now();
        let error = connect(&path).await.unwrap_err();
        assert!((5_000..5_100).contains(&begun.elapsed().as_millis()));
        let message = StorePath::given(&path).unreachable(error).to_line();
        assert!(message.contains("too many clients wait"), "{message}");
    }

    const DOMAINS: u16 = 500;

    /// A session that is connected to `serve`, on a thread of its own.
    async fn session(
        dir: &Path,
        serve: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static,
    ) -> Session {
        let path = dir.join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || serve(listener.accept().unwrap().0));
        let uri = StoreUri::parse(&format!("xenstore:{}", path.display())).unwrap();
        let timeout = Duration::from_secs(10);
        let connector = StoreConnector { uri, host: "h".into(), timeout, previous: Arc::default() };
        connector.connect().await.unwrap()
    }

    /// Answers each request with a write of its own, as xenstored does, until the client hangs up or, in a
    /// verification, `until` so many requests.
    fn answer(mut socket: std::os::unix::net::UnixStream, until: Option<usize>) {
        use std::io::{Read, Write};

        use crate::wire::{Header, Operation, packet, strings};

        let mut decoder = Decoder::new();
        let mut lists = 0;
        let mut answers = 0;
        loop {
            match socket.read(decoder.spare()) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => decoder.filled(bytes),
            }
            while let Some(request) = decoder.next_packet().unwrap() {
                let header = request.header;
                let path = strings(request.payload).next().unwrap_or_default();
                let mut out = Vec::new();
                let reply = match header.operation {
                    Operation::GET_FEATURE => String::new(),
                    Operation::WATCH => "OK\0".into(),
                    Operation::IS_DOMAIN_INTRODUCED => "T\0".into(),
                    Operation::DIRECTORY => {
                        lists += 1;
                        (1..=DOMAINS).map(|domid| format!("{domid}\0")).collect()
                    }
                    _ if path.ends_with(b"/vm") => {
                        let domid =
                            String::from_utf8_lossy(path).split('/').nth(3).unwrap().to_owned();
                        format!("/vm/00000000-0000-4000-8000-{domid:0>12}")
                    }
                    _ if path.ends_with(b"/name") => "web".into(),
                    _ => String::new(),
                };
                packet(&mut out, &header, &[reply.as_bytes()]).unwrap();
                if header.operation == Operation::WATCH {
                    packet(&mut out, &Header::watch_event(), &[request.payload]).unwrap();
                }
                if lists > 1 {
                    answers += 1;
                    if until.is_some_and(|until| answers > until) {
                        let event = &[&b"@releaseDomain\0R\0"[..]];
                        out.clear();
                        packet(&mut out, &Header::watch_event(), event).unwrap();
                        socket.write_all(&out).unwrap();
                        // It answers nothing any more.
                        let _ = socket.read(&mut [0]);
                        return std::thread::park();
                    }
                }
                if socket.write_all(&out).is_err() {
                    return;
                }
            }
        }
    }

    /// Reads until the list has been answered. Returns the number of reads.
    async fn until_listed(session: &mut Session) -> u32 {
        let mut reads = 0;
        loop {
            let mut batch = Batch::new("xenstore:", "h");
            driver::Session::advance(session, &mut batch).await.unwrap();
            if format!("{batch:?}").contains("Listed") {
                return reads;
            }
            reads += 1;
        }
    }

    async fn synced(session: &mut Session) {
        driver::Session::set_interest(session, &[Kind::Lifecycle].into_iter().collect(), 1);
        driver::Session::request_list(session, 2);
        until_listed(session).await;
        // Until then the events that setting the watches has fired end the pauses.
        sleep(2 * crate::observer::ATTENTION).await;
    }

    #[tokio::test]
    async fn a_verification_reads_at_most_once_an_interval() {
        let dir = tempfile::tempdir().unwrap();
        let mut session = session(dir.path(), |socket| answer(socket, None)).await;
        synced(&mut session).await;
        driver::Session::request_list(&mut session, 3);
        let begun = Instant::now();
        let reads = until_listed(&mut session).await;
        let most = begun.elapsed().as_millis() / READ_INTERVAL.as_millis() + 1;
        assert!(u128::from(reads) <= most, "{reads} reads in {most} intervals");
    }

    #[tokio::test]
    async fn an_event_during_a_verification_ends_the_pauses() {
        let dir = tempfile::tempdir().unwrap();
        let mut session = session(dir.path(), |socket| answer(socket, Some(100))).await;
        synced(&mut session).await;
        driver::Session::request_list(&mut session, 3);
        let is_detached = |session: &Session| match &session.channel {
            StoreChannel::Socket(socket) => socket.is_detached(),
            StoreChannel::Device(_) => false,
        };
        let mut batch = Batch::new("xenstore:", "h");
        let mut was_detached = false;
        // The daemon answers nothing any more: what is read last is the event.
        let second = Duration::from_secs(1);
        loop {
            let read = driver::Session::advance(&mut session, &mut batch);
            if tokio::time::timeout(second, read).await.is_err() {
                break;
            }
            was_detached |= is_detached(&session);
        }
        assert!(was_detached);
        assert!(!is_detached(&session), "a silent daemon is waited for, not polled");
    }

    #[tokio::test]
    async fn a_datagram_socket_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let error = connect(&path).await.unwrap_err();
        let message = StorePath::given(&path).unreachable(error).to_line();
        assert!(message.contains("a datagram socket"), "{message}");
    }
}
