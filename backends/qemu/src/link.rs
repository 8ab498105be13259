//! One connection to one QEMU, from the greeting on: the only file with sockets.
//!
//! ```text
//!   connect ─▶ greeting ─▶ qmp_capabilities ─▶ query-name, -uuid, -cpus-fast ─▶ query-status
//! ```
//!
//! The run state is asked for last: the run states that events told before are contained in it.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use virevent::Error;

use crate::config::MonitorConfig;
use crate::peer::advice::{is_other_kind, unreachable};
use crate::peer::answers::{CpuInfo, NameInfo, StatusInfo, UuidInfo};
use crate::peer::blocking::blocking;
use crate::peer::identity::{self, RunIdentity};
use crate::peer::pinned_socket::{self, FileId, PinnedSocket};
use crate::peer::process::{Process, SocketOwner};
use crate::uri::Endpoint;
use crate::wire::{self, Lines, Message, Reply};

/// How many bytes of events are kept that come before the first run state does.
const EARLY: usize = 1024 * 1024;

/// How long QEMU may take to answer all questions after its greeting.
const ANSWERS: Duration = Duration::from_secs(10);

/// How far an attempt has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Somebody listens.
    pub(crate) is_connected: AtomicBool,
    /// How many bytes came before a greeting.
    pub(crate) bytes: AtomicUsize,
    /// What came cannot be the beginning of QMP.
    pub(crate) is_foreign: AtomicBool,
    /// When QEMU greeted.
    pub(crate) greeted: OnceLock<Instant>,
}

/// What is to be known of a QEMU.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) link: QmpLink,
    pub(crate) identity: RunIdentity,
    pub(crate) process: Option<Process>,
    /// Its run state.
    pub(crate) status: String,
    /// Lines with events that came before the answer that told it.
    pub(crate) early: Vec<Box<[u8]>>,
    /// The pinned that led there, if it is one of its own.
    pub(crate) pinned: Option<Arc<PinnedSocket>>,
}

/// A connection on its pinned.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Opened, Error>> + Send>>;

/// How a monitor connects: [`Opened::dial`], or in a test what the test says.
pub(crate) type Dial = fn(Arc<MonitorConfig>, Option<Arc<PinnedSocket>>, Arc<Progress>) -> Opening;

#[derive(Debug)]
pub(crate) struct QmpLink {
    socket: Socket,
    endpoint: Endpoint,
    lines: Lines,
    pub(crate) unsent: Vec<u8>,
    next_id: u64,
    /// Set when writing failed: what QEMU still had to say is read first.
    mute: bool,
}

impl Opened {
    /// The future of [`at`](Self::at).
    pub(crate) fn dial(
        config: Arc<MonitorConfig>,
        pinned: Option<Arc<PinnedSocket>>,
        progress: Arc<Progress>,
    ) -> Opening {
        Box::pin(Self::at(config, pinned, progress))
    }

    /// Connects, by this pinned if there is one already, waits for its turn, and asks what is to be known.
    ///
    /// # Errors
    /// QEMU cannot be reached, hangs up, or does not speak QMP. It may wait for the greeting for ever.
    pub(crate) async fn at(
        config: Arc<MonitorConfig>,
        pinned: Option<Arc<PinnedSocket>>,
        progress: Arc<Progress>,
    ) -> Result<Self, Error> {
        let (mut link, pinned) = QmpLink::connect(&config, pinned, &progress).await?;
        progress.is_connected.store(true, Ordering::Relaxed);
        link.greeting(&progress).await?;
        progress.greeted.get_or_init(Instant::now);
        Self::again(config, link, pinned, progress).await
    }

    /// Asks what is to be known, on a connection on which QEMU has just greeted.
    ///
    /// # Errors
    /// QEMU hangs up, does not answer, or does not speak QMP.
    pub(crate) async fn again(
        config: Arc<MonitorConfig>,
        link: QmpLink,
        pinned: Option<Arc<PinnedSocket>>,
        progress: Arc<Progress>,
    ) -> Result<Self, Error> {
        let asked = tokio::time::timeout(ANSWERS, Self::ask(link, &config, &progress)).await;
        let opened = asked.unwrap_or_else(|_| Err(config.no_answer(ANSWERS)))?;
        Ok(Self { pinned, ..opened })
    }

    async fn ask(
        mut link: QmpLink,
        config: &MonitorConfig,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let mut early = EarlyEvents::default();
        // Before QEMU is asked anything: see there.
        let maker = link.maker()?;
        link.call("qmp_capabilities", &mut early).await?;
        let name: Option<NameInfo> = link.query("query-name", &mut early).await?;
        let uuid: Option<UuidInfo> = link.query("query-uuid", &mut early).await?;
        // Before QEMU 2.12 there is no such question; a machine may have no CPU at all.
        let cpus: Option<Vec<CpuInfo>> = link.query("query-cpus-fast", &mut early).await?;
        let process = match (maker, cpus.as_deref()) {
            (Some(maker), Some([CpuInfo { thread: Some(thread) }, ..])) => {
                let thread = *thread;
                link.proved(move |path| maker.with_thread(thread, path)).await?
            }
            (Some(maker), Some([])) => link.proved(move |path| maker.with_connection(path)).await?,
            _ => None,
        };
        let thread = cpus.as_ref().and_then(|cpus| cpus.first()?.thread);
        let status: Option<StatusInfo> = link.query("query-status", &mut early).await?;
        let is_machine = status.is_some() || name.is_some() || uuid.is_some() || cpus.is_some();
        if !is_machine {
            progress.is_foreign.store(true, Ordering::Relaxed);
            return Err(not_a_machine(&link.endpoint));
        }
        let Some(StatusInfo { status }) = status else {
            let detail = format!("{} does not tell its run state", link.endpoint);
            return Err(Error::Protocol { detail });
        };
        let named = |answer: NameInfo| answer.name.filter(|name| !name.is_empty());
        let identity = RunIdentity {
            name: name.map(|answer| named(answer).unwrap_or_else(|| config.name.clone())),
            uuid: uuid
                .map(|answer| identity::uuid(answer.uuid.as_deref(), &config.host, &config.origin)),
            pid: process.as_ref().map(|process| process.pid),
            thread,
        };
        Ok(Self { link, identity, process, status, early: early.lines, pinned: None })
    }
}

#[derive(Default)]
struct EarlyEvents {
    lines: Vec<Box<[u8]>>,
    bytes: usize,
}

impl QmpLink {
    /// A connection on which QEMU has been negotiated with, over one half of a pair.
    #[cfg(test)]
    pub(crate) fn over(stream: UnixStream, endpoint: Endpoint) -> Self {
        let (lines, unsent) = (Lines::new(), Vec::new());
        Self { socket: Socket::Unix(stream), endpoint, lines, unsent, next_id: 1, mute: false }
    }

    async fn connect(
        config: &MonitorConfig,
        pinned: Option<Arc<PinnedSocket>>,
        progress: &Progress,
    ) -> Result<(Self, Option<Arc<PinnedSocket>>), Error> {
        let endpoint = config.endpoint.clone();
        let connected = match &endpoint {
            Endpoint::Unix(path) => {
                let stream = connect_unix(path, config.file, pinned).await;
                stream.map(|(stream, pinned)| (Socket::Unix(stream), pinned))
            }
            Endpoint::Tcp(host, port) => {
                let stream = TcpStream::connect((&**host, *port)).await;
                stream.map(|stream| (Socket::Tcp(stream), None))
            }
        };
        let (socket, pinned) = connected.map_err(|error| {
            progress.is_foreign.store(is_other_kind(&error), Ordering::Relaxed);
            unreachable(&endpoint, error)
        })?;
        let (lines, unsent) = (Lines::new(), Vec::new());
        Ok((Self { socket, endpoint, lines, unsent, next_id: 1, mute: false }, pinned))
    }

    /// Waits for QEMU to greet. What it says before is not QMP.
    async fn greeting(&mut self, progress: &Progress) -> Result<(), Error> {
        loop {
            while let Some(line) = self.lines.next_line().map_err(|error| broken(&error))? {
                match Message::read(line) {
                    Ok(Message::Greeting) => return Ok(()),
                    // Nobody negotiated yet, so it is none of ours.
                    Ok(Message::Event(_)) => {}
                    Ok(_) | Err(_) => return Err(foreign(&self.endpoint, line, progress)),
                }
            }
            // A prompt has no end of a line.
            if !is_json(self.lines.rest()) {
                return Err(foreign(&self.endpoint, self.lines.rest(), progress));
            }
            self.read(
                "it hung up before its greeting: its QEMU ends, or it is no socket of -qmp (but of \
                 -monitor, -serial or -vnc): look who listens there (ss -xlp)",
            )
            .await?;
            progress.bytes.store(self.lines.rest().len(), Ordering::Relaxed);
        }
    }

    /// Asks, and reads the answer; `None` where QEMU does not know the question, or answers in a form
    /// that we do not know.
    async fn query<T: for<'a> Deserialize<'a>>(
        &mut self,
        name: &'static str,
        early: &mut EarlyEvents,
    ) -> Result<Option<T>, Error> {
        let answer = self.call(name, early).await?;
        Ok(answer.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn call(
        &mut self,
        name: &'static str,
        early: &mut EarlyEvents,
    ) -> Result<Option<String>, Error> {
        let asked = self.send(name);
        loop {
            while let Some(line) = self.lines.next_line().map_err(|error| broken(&error))? {
                match Message::read(line).map_err(|error| broken(&error))? {
                    Message::Reply(Some(id), Reply::Return(value)) if id == asked => {
                        return Ok(Some(value.get().to_owned()));
                    }
                    Message::Reply(Some(id), Reply::Error(error)) if id == asked => {
                        tracing::debug!(name, error = error.get(), "QEMU says no");
                        return Ok(None);
                    }
                    Message::Event(_) if early.bytes + line.len() <= EARLY => {
                        early.bytes += line.len();
                        early.lines.push(line.into());
                    }
                    // It does not understand what we ask.
                    Message::Reply(None, Reply::Error(error)) => {
                        let detail = format!("{} refuses {name}: {}", self.endpoint, error.get());
                        return Err(Error::Protocol { detail });
                    }
                    Message::Greeting => {
                        let detail =
                            format!("{} greets in the midst of our questions", self.endpoint);
                        return Err(Error::Protocol { detail });
                    }
                    Message::Event(_) => {
                        let detail = format!("more events than answers from {}", self.endpoint);
                        return Err(Error::Protocol { detail });
                    }
                    _ => tracing::debug!(name, "passed over what is no answer to us"),
                }
            }
            self.read("it hung up in the midst of our questions").await?;
        }
    }

    async fn read(&mut self, when_closed: &str) -> Result<(), Error> {
        match poll_fn(|cx| self.poll_io(cx)).await {
            Err(Error::Closed { endpoint, .. }) => {
                Err(Error::Closed { endpoint, detail: when_closed.into() })
            }
            outcome => outcome,
        }
    }

    /// Queues a command; returns its id.
    pub(crate) fn send(&mut self, name: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        wire::command(&mut self.unsent, name, id);
        id
    }

    /// Writes what can be written, and reads once. Nothing is held across a pending poll but what is
    /// in `self`.
    pub(crate) fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.mute && !self.unsent.is_empty() {
            match self.socket.poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(bytes)) => drop(self.unsent.drain(..bytes)),
                Poll::Ready(Err(_)) => self.mute = true,
                Poll::Pending => break,
            }
        }
        let mut buffer = ReadBuf::new(self.lines.spare());
        match ready!(self.socket.poll_read(cx, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {
                let bytes = buffer.filled().len();
                self.lines.filled(bytes);
                Poll::Ready(Ok(()))
            }
            // A QEMU that is killed with unread bytes in its socket resets the connection.
            Ok(()) | Err(_) => Poll::Ready(Err(Error::Closed {
                endpoint: self.endpoint.to_string(),
                detail: String::new(),
            })),
        }
    }

    /// The next line that was read.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, Error> {
        self.lines.next_line().map_err(|error| broken(&error))
    }

    /// The process that made the socket, where it can be watched.
    fn maker(&self) -> Result<Option<SocketOwner>, Error> {
        let Socket::Unix(stream) = &self.socket else { return Ok(None) };
        let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
        let maker = pid.map_or(Ok(None), SocketOwner::new);
        maker.map_err(|error| unreachable(&self.endpoint, error))
    }

    /// The maker of the socket as the QEMU that serves it, if this proves it.
    async fn proved(
        &self,
        proof: impl FnOnce(&Path) -> io::Result<Option<Process>> + Send + 'static,
    ) -> Result<Option<Process>, Error> {
        let path = self.bound_to().unwrap_or_default();
        let proved = blocking(move || proof(&path)).await;
        proved.map_err(|error| unreachable(&self.endpoint, error))
    }

    /// The path of the socket, as whoever made it gave it.
    fn bound_to(&self) -> Option<PathBuf> {
        match &self.socket {
            Socket::Unix(stream) => Some(stream.peer_addr().ok()?.as_pathname()?.to_owned()),
            Socket::Tcp(_) => None,
        }
    }
}

/// Connects to a socket; if that is to be a certain file, to no other that took its place meanwhile.
async fn connect_unix(
    path: &Path,
    file: Option<FileId>,
    pinned: Option<Arc<PinnedSocket>>,
) -> io::Result<(UnixStream, Option<Arc<PinnedSocket>>)> {
    let owned = path.to_owned();
    // A path may lead into a file system that hangs, and then the thread that follows it does too. Only
    // one that has been followed is followed here.
    let Some(file) = file else {
        blocking(move || pinned_socket::check_socket(&owned)).await?;
        return Ok((UnixStream::connect(path).await?, None));
    };
    let pinned = match pinned {
        Some(pinned) => pinned,
        None => Arc::new(blocking(move || PinnedSocket::open(&owned, file)).await?),
    };
    let stream = UnixStream::connect(pinned.path()).await;
    if !pinned.is_lasting() {
        let owned = path.to_owned();
        blocking(move || file.check(&owned)).await?;
    }
    Ok((stream?, Some(pinned)))
}

/// It said something, and that is no greeting.
fn foreign(endpoint: &Endpoint, said: &[u8], progress: &Progress) -> Error {
    // A QEMU with pretty=on says a brace.
    progress.is_foreign.store(!is_json(said), Ordering::Relaxed);
    let detail = format!(
        "no QMP greeting from {endpoint}, but {:?}: check that it is a socket of -qmp (not of \
         -monitor or -serial), without pretty=on",
        String::from_utf8_lossy(&said[..said.len().min(60)]),
    );
    Error::Protocol { detail }
}

/// It speaks QMP, and has no run state: a storage daemon answers nothing that is about a machine.
fn not_a_machine(endpoint: &Endpoint) -> Error {
    let reason = "it speaks QMP but is no virtual machine, for it does not know query-status: most likely \
                  a storage daemon (qemu-storage-daemon); give the socket of a QEMU's -qmp, or in a \
                  directory a pattern that leaves this one out (?pattern=*.qmp)";
    let source = Arc::new(io::Error::from(io::ErrorKind::Unsupported));
    Error::Unreachable { endpoint: endpoint.to_string(), reason: reason.into(), source }
}

/// Whether it may be the beginning of an object, as all of QMP is.
fn is_json(said: &[u8]) -> bool {
    said.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'{')
}

pub(crate) fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::Protocol { detail: error.to_string() }
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}
