//! One connection to one QEMU, from the greeting on: the only file with sockets.
//!
//! ```text
//!   connect ─▶ greeting ─▶ qmp_capabilities ─▶ query-name, -uuid, -cpus-fast ─▶ query-status
//! ```
//!
//! The run state is asked for last: the run states that events told before are contained in it.

use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use virevent::Error;

use crate::file::FileId;
use crate::identity::{self, Identity};
use crate::process::{Maker, Process};
use crate::uri::Endpoint;
use crate::wire::{self, Lines, Message, Reply};

/// How many bytes of events are kept that come before the first run state does.
const EARLY: usize = 1024 * 1024;

/// How long QEMU may take to answer all questions after its greeting.
const ANSWERS: Duration = Duration::from_secs(10);

/// When QEMU greeted; empty while it has not.
pub(crate) type Greeted = Arc<OnceLock<Instant>>;

/// What is to be known of a QEMU.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) link: Link,
    pub(crate) identity: Identity,
    pub(crate) process: Option<Process>,
    /// Its run state.
    pub(crate) status: String,
    /// Lines with events that came before the answer that told it.
    pub(crate) early: Vec<Box<[u8]>>,
}

#[derive(Debug)]
pub(crate) struct Link {
    socket: Socket,
    endpoint: Endpoint,
    lines: Lines,
    pub(crate) unsent: Vec<u8>,
    next_id: u64,
    /// Set when writing failed: what QEMU still had to say is read first.
    mute: bool,
}

#[derive(Deserialize)]
struct Name {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Uuid {
    #[serde(rename = "UUID")]
    uuid: Option<String>,
}

#[derive(Deserialize)]
struct Cpu {
    #[serde(rename = "thread-id")]
    thread: Option<u32>,
}

/// The answer to `query-status`.
#[derive(Deserialize)]
pub(crate) struct Status {
    pub(crate) status: String,
}

impl Opened {
    /// Connects, waits for its turn, and asks what is to be known.
    ///
    /// # Errors
    /// QEMU cannot be reached, hangs up, or does not speak QMP. It may wait for the greeting for ever.
    pub(crate) async fn at(
        endpoint: Endpoint,
        file: Option<FileId>,
        host: Arc<str>,
        greeted: Greeted,
    ) -> Result<Self, Error> {
        let mut link = Link::connect(endpoint, file).await?;
        link.greeting().await?;
        greeted.get_or_init(Instant::now);
        let timeout = Error::Timeout { call: "the questions after the greeting", after: ANSWERS };
        tokio::time::timeout(ANSWERS, Self::ask(link, &host)).await.unwrap_or(Err(timeout))
    }

    async fn ask(mut link: Link, host: &str) -> Result<Self, Error> {
        let mut early = Early::default();
        // Before QEMU is asked anything: see there.
        let maker = link.maker();
        link.call("qmp_capabilities", &mut early).await?;
        let name: Option<Name> = link.query("query-name", &mut early).await?;
        let uuid: Option<Uuid> = link.query("query-uuid", &mut early).await?;
        // Before QEMU 2.12 there is no such question; a machine may have no CPU at all.
        let cpus: Option<Vec<Cpu>> = link.query("query-cpus-fast", &mut early).await?;
        let process = maker.and_then(|maker| match cpus.as_deref() {
            Some([first, ..]) => maker.with_thread(first.thread?),
            Some([]) => maker.with_connection(&link.bound_to()?),
            None => None,
        });
        let thread = cpus.and_then(|cpus| cpus.first()?.thread);
        let status: Option<Status> = link.query("query-status", &mut early).await?;
        let Some(Status { status }) = status else {
            let detail = format!("{} does not tell its run state", link.endpoint);
            return Err(Error::Protocol { detail });
        };
        let named = |answer: Name| answer.name.filter(|name| !name.is_empty());
        let identity = Identity {
            name: name.map(|answer| named(answer).unwrap_or_else(|| link.endpoint.stem())),
            uuid: uuid.map(|answer| identity::uuid(answer.uuid.as_deref(), host, &link.endpoint)),
            pid: process.as_ref().map(|process| process.pid),
            thread,
        };
        Ok(Self { link, identity, process, status, early: early.lines })
    }
}

#[derive(Default)]
struct Early {
    lines: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Link {
    async fn connect(endpoint: Endpoint, file: Option<FileId>) -> Result<Self, Error> {
        let socket = match &endpoint {
            Endpoint::Unix(path) => unix(path, file).await.map(Socket::Unix),
            Endpoint::Tcp(host, port) => {
                TcpStream::connect((&**host, *port)).await.map(Socket::Tcp)
            }
        };
        let socket = socket.map_err(|error| unreachable(&endpoint, error))?;
        let (lines, unsent) = (Lines::new(), Vec::new());
        Ok(Self { socket, endpoint, lines, unsent, next_id: 1, mute: false })
    }

    /// Waits for QEMU to greet. What it says before is not QMP.
    async fn greeting(&mut self) -> Result<(), Error> {
        loop {
            while let Some(line) = self.lines.next_line().map_err(|error| broken(&error))? {
                match Message::read(line) {
                    Ok(Message::Greeting) => return Ok(()),
                    // Nobody negotiated yet, so it is none of ours.
                    Ok(Message::Event(_)) => {}
                    Ok(_) | Err(_) => {
                        let detail = format!(
                            "no QMP greeting from {}, but {:?}: check that it is a socket of -qmp \
                             (not of -monitor or -serial), without pretty=on",
                            self.endpoint,
                            String::from_utf8_lossy(&line[..line.len().min(60)]),
                        );
                        return Err(Error::Protocol { detail });
                    }
                }
            }
            self.read("it hung up before its greeting").await?;
        }
    }

    /// Asks, and reads the answer; `None` where QEMU does not know the question, or answers in a form
    /// that we do not know.
    async fn query<T: for<'a> Deserialize<'a>>(
        &mut self,
        name: &'static str,
        early: &mut Early,
    ) -> Result<Option<T>, Error> {
        let answer = self.call(name, early).await?;
        Ok(answer.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn call(
        &mut self,
        name: &'static str,
        early: &mut Early,
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

    /// The process that made the socket.
    fn maker(&self) -> Option<Maker> {
        match &self.socket {
            Socket::Unix(stream) => Maker::new(stream.peer_cred().ok()?.pid()?),
            Socket::Tcp(_) => None,
        }
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
async fn unix(path: &Path, file: Option<FileId>) -> io::Result<UnixStream> {
    let check = || file.map_or(Ok(()), |file| file.check(path));
    check()?;
    let stream = UnixStream::connect(path).await?;
    check()?;
    Ok(stream)
}

pub(crate) fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::Protocol { detail: error.to_string() }
}

/// Whether an attempt to connect found that nobody is there.
pub(crate) fn is_nobody(error: &Error) -> bool {
    let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    matches!(error, Error::Unreachable { source, .. } if nobody.contains(&source.kind()))
}

/// What to do when [`is_out_of_files`].
pub(crate) const OUT_OF_FILES: &str = "this process has as many files open as it may, and a QEMU \
                                       takes two: raise its limit (ulimit -n, LimitNOFILE=)";

/// Whether there are as many open files as there may be.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn unreachable(endpoint: &Endpoint, error: io::Error) -> Error {
    let local = matches!(endpoint, Endpoint::Unix(_));
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused if not_a_socket(endpoint) => format!(
            "it is not a socket: give the PATH of QEMU's -qmp unix:PATH,server=on,wait=off, and \
             qmp-dir:{endpoint} only for a directory of them"
        ),
        io::ErrorKind::NotFound if local => format!(
            "there is no such socket: start QEMU with -qmp unix:{endpoint},server=on,wait=off"
        ),
        io::ErrorKind::ConnectionRefused if local => format!(
            "nobody listens on the socket: its QEMU has ended; start one with -qmp \
             unix:{endpoint},server=on,wait=off"
        ),
        io::ErrorKind::WouldBlock if local => {
            "too many clients wait for the socket already, which serves one at a time: find who \
             holds it, or give QEMU a second -qmp"
                .into()
        }
        _ if is_out_of_files(&error) => OUT_OF_FILES.into(),
        io::ErrorKind::PermissionDenied => {
            "this user may not open the socket: run as the user that runs QEMU, or as root".into()
        }
        io::ErrorKind::ConnectionRefused => {
            format!("nobody listens there: start QEMU with -qmp tcp:{endpoint},server=on,wait=off")
        }
        _ => "check the path, or the host's name and port".into(),
    };
    let endpoint = endpoint.to_string();
    Error::Unreachable { endpoint, reason, source: Arc::new(error) }
}

/// Whether something else than a socket is at the path. To connect to that is refused like a socket
/// at which nobody listens.
fn not_a_socket(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(path) => {
            std::fs::metadata(path).is_ok_and(|file| !file.file_type().is_socket())
        }
        Endpoint::Tcp(..) => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_are_told_with_what_to_do() {
        let endpoint = Endpoint::Unix("/run/vm.sock".into());
        let error = unreachable(&endpoint, Errno::MFILE.into()).to_line();
        assert!(error.contains("ulimit -n") && error.contains("/run/vm.sock"), "{error}");
    }
}
