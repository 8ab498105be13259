//! A program as one end of a connection: its stdin and stdout carry the bytes, its stderr explains.
//!
//! ```text
//!   Socket ◀──socketpair──▶ stdin, stdout of the program (ssh ...)
//!      ▲                    stderr ──pipe──▶ the last 4 KiB, for the error
//!      └── dropped: the program reads the end of its stdin, ends or is killed, and is waited for
//! ```
//!
//! One socket serves both directions, so that reading costs what it costs on any other socket.

mod process;
mod tail;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::pin::Pin;
use std::process::{Command, ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep};

use self::process::Process;
use self::tail::Tail;

/// The environment variables that a program gets, where they are set: what finds programs, files
/// and the user's agent. Secrets of the calling program stay with it.
const PASSED: [&str; 13] = [
    "DISPLAY",
    "HOME",
    "KRB5CCNAME",
    "LOGNAME",
    "PATH",
    "SSH_ASKPASS",
    "SSH_AUTH_SOCK",
    "TERM",
    "TMPDIR",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

/// How long a program that closed its stdout may take to end before its error is made without its
/// exit status.
const END_WITHIN: Duration = Duration::from_secs(1);

/// How many reads of stderr one poll makes: a program that writes without end must not keep the
/// task from its connection.
const STDERR_READS: usize = 4;

/// A program to connect through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it is called in errors, such as `ssh root@host`.
    pub label: String,
    /// Its path, or its name to be looked up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Whether it may ask at the terminal. It then stays in the process group of the terminal,
    /// whose Ctrl-C ends it, too; otherwise it gets a group of its own.
    pub terminal: bool,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status; `None` while it still runs although it closed its stdout, and where another
    /// part of this process has taken the status.
    pub status: Option<ExitStatus>,
    /// The last line that it wrote to stderr, without control characters; may be empty.
    pub last_line: String,
}

/// `ended with exit status 1: LINE`.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            // "exit status: 1", "signal: 9 (SIGKILL)"
            Some(status) => write!(f, "it ended with {}", status.to_string().replace(": ", " "))?,
            None => f.write_str("it closed its output")?,
        }
        match &*self.last_line {
            "" => f.write_str(" and wrote no error"),
            line => write!(f, ": {line}"),
        }
    }
}

/// A running program, and the socket to it.
#[derive(Debug)]
pub struct Child {
    // Closed before the process is waited for: many programs end because of it.
    stream: UnixStream,
    stderr: Option<pipe::Receiver>,
    tail: Tail,
    process: Process,
}

impl Child {
    /// Starts the program with a cut environment.
    ///
    /// # Errors
    /// The system refused; [`io::ErrorKind::NotFound`] if there is no such program.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O, as all sockets of tokio.
    pub fn spawn(program: &Program) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut process = spawn(program, theirs.into())?;
        let stream = UnixStream::from_std(ours)?;
        let stderr = process.take_stderr().map(pipe::Receiver::from_owned_fd).transpose()?;
        Ok(Self { stream, stderr, tail: Tail::default(), process })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        // Whatever the socket says: a program whose stderr is full stops.
        self.poll_stderr(cx);
        polled
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_stderr(&mut self, cx: &mut Context<'_>) {
        let mut buffer = [0; 1024];
        for _ in 0..STDERR_READS {
            let Some(stderr) = &mut self.stderr else { return };
            let mut buffer = ReadBuf::new(&mut buffer);
            match Pin::new(stderr).poll_read(cx, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.tail.push(buffer.filled());
                }
                Poll::Ready(_) => self.stderr = None,
            }
        }
        cx.waker().wake_by_ref();
    }

    /// How the program ended; to be called after it closed its stdout. Waits a second for its end,
    /// at most.
    ///
    /// # Cancel safety
    /// Dropped midway it can be called again.
    pub async fn ended(&mut self) -> Ended {
        let deadline = Instant::now() + END_WITHIN;
        let mut pause = Duration::from_millis(1);
        // tokio has no wait for a process that it did not start itself.
        while !self.process.has_ended() && Instant::now() < deadline {
            self.drain_stderr();
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        // After the end: only now everything that it wrote is in the pipe.
        let status = self.process.status();
        Ended { status, last_line: self.last_line() }
    }

    /// The last line that it wrote to stderr so far, without control characters; may be empty.
    pub fn last_line(&mut self) -> String {
        self.drain_stderr();
        self.tail.last_line()
    }

    /// Reads what is in the pipe. Not through tokio, which would have to hear of it first.
    fn drain_stderr(&mut self) {
        let Some(stderr) = &self.stderr else { return };
        let mut buffer = [0; 4096];
        // The usual capacity of a pipe, and no more: processes that the program left behind may go
        // on writing.
        for _ in 0..16 {
            match rustix::io::read(stderr, &mut buffer) {
                Ok(count @ 1..) => self.tail.push(&buffer[..count]),
                _ => return,
            }
        }
    }
}

fn spawn(program: &Program, socket: OwnedFd) -> io::Result<Process> {
    let mut command = Command::new(&program.program);
    command.args(&program.args).env_clear().env("LC_ALL", "C");
    for name in PASSED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if !program.terminal {
        command.process_group(0);
    }
    command.stdin(socket.try_clone()?).stdout(socket).stderr(Stdio::piped());
    // The command is dropped here: it holds our copies of the program's end of the socket, which
    // would keep that open after the program's end.
    command.spawn().map(|child| Process::new(child, !program.terminal))
}

#[cfg(test)]
mod tests;
