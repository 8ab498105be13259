//! A xenstored without Xen.

mod client;
mod kept;
mod program;
mod tap;
mod watches;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use self::client::Client;
use self::kept::Kept;
pub use self::tap::{StoreSeen, StoreTap};
pub use self::watches::Watch;
use super::process::{kill_all, rss_kib, signal};
use super::{LaunchError, check_socket_path};
use crate::xen::{Toolstack, ToolstackError};

/// How long a start may take. It takes a hundredth of a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a daemon finds when it is started again. See [`Xenstored::start_again`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// All that was in its store, and its domains are introduced, before the first client comes.
    Kept,
    /// Nothing: no nodes, and no domain is introduced. In the hypervisor they run on.
    Lost,
}

/// A C xenstored of Xen 4.17 of one's own, the real program, on a machine without Xen. Dropping it
/// kills it.
///
/// The three libraries through which it talks to the hypervisor are replaced by one that is compiled
/// from C when the first test needs it: how its domains fare is told by a [`Toolstack`]. Any number
/// run side by side, as root or not.
#[derive(Debug)]
pub struct Xenstored {
    child: Option<Child>,
    home: TempDir,
    /// The running daemon's process, for the toolstack; 0 while there is none.
    pid: Arc<AtomicU32>,
    toolstack: Toolstack,
    kept: Kept,
}

impl Xenstored {
    /// Starts one whose store is empty, and waits until it answers.
    ///
    /// # Errors
    /// That the daemon or a C compiler is missing, with what to do; or that it does not start.
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing behind.
    pub async fn start() -> Result<Self, LaunchError> {
        let home = tempfile::Builder::new().prefix("vx").tempdir();
        let home = home.map_err(LaunchError::io("make a temporary directory"))?;
        check_socket_path(&home.path().join("starting"))?;
        fs::create_dir(home.path().join("oracle"))
            .map_err(LaunchError::io("fill the temporary directory"))?;
        program::lay_libraries(&home.path().join("lib")).await?;
        let pid = Arc::<AtomicU32>::default();
        let client = Client::new(home.path(), "socket", Arc::clone(&pid));
        let toolstack = Toolstack::new(Box::new(client));
        let mut daemon = Self { child: None, home, pid, toolstack, kept: Kept::default() };
        daemon.start_again(Store::Lost).await?;
        Ok(daemon)
    }

    /// Starts it again after [`kill9`](Self::kill9), on the same socket. Does nothing while it runs.
    ///
    /// A C xenstored begins with an empty store; what was in it lives on only in a live update, which
    /// no client notices. So a [`Store::Kept`] is one that was read out before the kill, and is
    /// written back, in its order and with its permissions, and its domains introduced, before the
    /// socket can be found. A domain that has gone from the hypervisor in between is not introduced
    /// again.
    ///
    /// # Errors
    /// That it does not start, or does not take back what was kept.
    ///
    /// # Cancel safety
    /// Dropped midway it has been started, or not.
    pub async fn start_again(&mut self, store: Store) -> Result<(), LaunchError> {
        if self.child.is_some() {
            return Ok(());
        }
        let output = fs::File::create(self.home.path().join("log"))
            .map_err(LaunchError::io("make a log file"))?;
        let errors = output.try_clone().map_err(LaunchError::io("make a log file"))?;
        let program = program::find()?;
        let mut command = Command::new(&program);
        command.arg("--no-fork").arg("--pid-file").arg(self.home.path().join("pid"));
        command
            .env("LD_LIBRARY_PATH", self.home.path().join("lib"))
            .env("XENSTORED_ORACLE", self.home.path().join("oracle"))
            .env("XENSTORED_PATH", self.home.path().join("starting"))
            .env("XENSTORED_RUNDIR", self.home.path())
            .env("XENSTORED_ROOTDIR", self.home.path())
            .current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        let what = format!("start {}", program.display());
        let child = command.spawn().map_err(LaunchError::io(what))?;
        self.pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
        self.child = Some(child);
        self.ready().await?;
        if store == Store::Kept {
            let client = Client::new(self.home.path(), "starting", Arc::clone(&self.pid));
            self.kept.write_back(&client).map_err(|error| self.not_ready(tell(&error)))?;
        }
        // In one step, over the socket of the daemon before it.
        fs::rename(self.home.path().join("starting"), self.socket())
            .map_err(LaunchError::io("move the socket to its place"))
    }

    /// Waits until it answers.
    async fn ready(&mut self) -> Result<(), LaunchError> {
        let deadline = Instant::now() + PATIENCE;
        let socket = self.home.path().join("starting");
        while UnixStream::connect(&socket).await.is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.child = None;
                self.pid.store(0, Ordering::Relaxed);
                return Err(self.not_ready(format!("ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.not_ready(format!("did not answer within {PATIENCE:?}")));
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn not_ready(&self, trouble: String) -> LaunchError {
        LaunchError::NotReady { server: "xenstored", trouble, log: self.log() }
    }

    /// What it has written.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        // The loader's complaint about the library in the place of Xen's.
        let lines = log.lines().filter(|line| !line.contains("no version information available"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Reads out its store, to be [`Kept`](Store::Kept), kills it with SIGKILL, and waits until it is
    /// gone. Its socket file stays.
    ///
    /// # Errors
    /// That the store cannot be read. The daemon runs on then.
    ///
    /// # Cancel safety
    /// Killed at the first poll.
    pub async fn kill9(&mut self) -> Result<(), LaunchError> {
        if let Some(child) = &mut self.child {
            self.kept = Kept::read(&self.toolstack).map_err(|error| LaunchError::Command {
                command: "read out the store".into(),
                message: tell(&error),
            })?;
            self.pid.store(0, Ordering::Relaxed);
            child.kill().await.map_err(LaunchError::io("kill xenstored"))?;
            self.child = None;
        }
        Ok(())
    }

    /// Stops the process where it stands, as a host that hangs: sockets stay open and silent. Deeds of
    /// the toolstack fail after a while.
    pub fn freeze(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::STOP);
        }
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::CONT);
        }
    }

    /// Its process id; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Its resident memory in KiB; `None` when it does not run.
    pub fn rss_kib(&self) -> Option<u64> {
        rss_kib(self.pid()?)
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// The URI that leads here: `xenstore:/tmp/...`
    pub fn uri(&self) -> String {
        format!("xenstore:{}", self.socket().display())
    }

    /// Who makes things happen here.
    pub fn toolstack(&self) -> &Toolstack {
        &self.toolstack
    }

    /// The watches that the daemon holds, of all connections: from its own report of the memory that
    /// it uses (`CONTROL memreport`). The toolstack has none.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn watches(&self) -> Result<Vec<Watch>, ToolstackError> {
        watches::read(self.toolstack.hands(), &self.home.path().join("memory"))
    }

    /// The connections that the daemon holds, without the toolstack's.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn connections(&self) -> Result<usize, ToolstackError> {
        watches::connections(self.toolstack.hands(), &self.home.path().join("memory"))
    }
}

impl Drop for Xenstored {
    fn drop(&mut self) {
        kill_all(self.pid().as_slice());
    }
}

/// An error in one line, with its source.
fn tell(error: &ToolstackError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
