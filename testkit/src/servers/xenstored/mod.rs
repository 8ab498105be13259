//! A xenstored of its own for one test, on a machine without Xen.

mod backend;
mod dump;
mod program;
mod tap;
mod watches;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use self::backend::DaemonBackend;
use self::dump::Dump;
pub use self::tap::{StoreSeen, StoreTap};
pub use self::watches::Watch;
use super::launch::{Trouble, spawn_logged, until_listening};
use super::process::{kill_all, rss_kib, signal};
use super::{LaunchError, check_socket_path};
use crate::toolstack::{Toolstack, ToolstackError};

/// The store that a daemon has after [`Xenstored::start_again`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The nodes and introduced domains of before, in place before the first client can connect.
    Kept,
    /// No nodes, and no introduced domains. In the hypervisor the domains run on.
    Lost,
}

/// A real C xenstored of Xen 4.17 for one test, on a machine without Xen. Dropping it kills it.
///
/// One library replaces the three through which xenstored talks to the hypervisor. It is compiled
/// from C when the first test needs it; a [`Toolstack`] sets the run states that it reports. Any
/// number of daemons run side by side, as root or not.
#[derive(Debug)]
pub struct Xenstored {
    child: Option<Child>,
    home: TempDir,
    /// The running daemon's process, for the toolstack; 0 while there is none.
    pid: Arc<AtomicU32>,
    toolstack: Toolstack,
    kept: Dump,
}

impl Xenstored {
    /// Starts a daemon with an empty store and waits until it listens.
    ///
    /// # Errors
    /// The daemon or a C compiler is missing, with what to do about it; or it does not start.
    ///
    /// # Cancel safety
    /// Dropping the future kills the daemon and removes its files.
    pub async fn start() -> Result<Self, LaunchError> {
        let home = tempfile::Builder::new().prefix("vx").tempdir();
        let home = home.map_err(LaunchError::io("make a temporary directory"))?;
        check_socket_path(&home.path().join("starting"))?;
        fs::create_dir(home.path().join("oracle"))
            .map_err(LaunchError::io("fill the temporary directory"))?;
        program::lay_libraries(&home.path().join("lib")).await?;
        let pid = Arc::<AtomicU32>::default();
        let backend = DaemonBackend::new(home.path(), "socket", Arc::clone(&pid));
        let toolstack = Toolstack::new(Box::new(backend));
        let mut daemon = Self { child: None, home, pid, toolstack, kept: Dump::default() };
        daemon.start_again(Store::Lost).await?;
        Ok(daemon)
    }

    /// Starts the daemon again after [`kill9`](Self::kill9), on the same socket. Does nothing while
    /// it runs.
    ///
    /// A C xenstored starts with an empty store; only a live update, which no client notices, keeps
    /// it. So a [`Store::Kept`] is read out before the kill and written back before the socket gets
    /// its path: nodes in their order with their permissions, then the domains are introduced,
    /// except those that the hypervisor has no more.
    ///
    /// # Errors
    /// It does not start, or refuses what is written back.
    ///
    /// # Cancel safety
    /// After the future is dropped the daemon may have been started or not.
    pub async fn start_again(&mut self, store: Store) -> Result<(), LaunchError> {
        if self.child.is_some() {
            return Ok(());
        }

        let program = program::find()?;
        let mut command = Command::new(&program);
        // In the foreground, so that its pid is the child's.
        command.arg("--no-fork").arg("--pid-file").arg(self.home.path().join("pid"));
        command
            .env("LD_LIBRARY_PATH", self.home.path().join("lib"))
            .env("XENSTORED_ORACLE", self.home.path().join("oracle"))
            // Under another name at first: clients must not find it before its store is complete.
            .env("XENSTORED_PATH", self.home.path().join("starting"))
            .env("XENSTORED_RUNDIR", self.home.path())
            .env("XENSTORED_ROOTDIR", self.home.path())
            .current_dir(self.home.path());
        let failed = LaunchError::io(format!("start {}", program.display()));
        let mut child = spawn_logged(&mut command, &self.home.path().join("log"), failed)?;
        let socket = self.home.path().join("starting");
        let listens = async || UnixStream::connect(&socket).await.is_ok();
        let outcome = until_listening(&mut child, listens).await;
        if !matches!(outcome, Err(Trouble::Ended(_))) {
            self.pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
            self.child = Some(child);
        }
        outcome.map_err(|trouble| self.not_ready(trouble.to_text()))?;
        if store == Store::Kept {
            let backend = DaemonBackend::new(self.home.path(), "starting", Arc::clone(&self.pid));
            self.kept.write_back(&backend).map_err(|error| self.not_ready(describe(&error)))?;
        }
        // By rename, over the socket of the daemon before it: clients see the one or the other.
        fs::rename(self.home.path().join("starting"), self.socket())
            .map_err(LaunchError::io("move the socket to its place"))
    }

    fn not_ready(&self, trouble: String) -> LaunchError {
        LaunchError::NotReady { server: "xenstored", trouble, log: self.log() }
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        // Without the loader's warning about the library in the place of Xen's.
        let lines = log.lines().filter(|line| !line.contains("no version information available"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Reads out the store for [`Store::Kept`], kills the daemon with SIGKILL and waits until it is
    /// gone. Its socket file stays.
    ///
    /// # Errors
    /// The store cannot be read. The daemon is not killed then.
    ///
    /// # Cancel safety
    /// The signal is sent at the first poll.
    pub async fn kill9(&mut self) -> Result<(), LaunchError> {
        if let Some(child) = &mut self.child {
            self.kept = Dump::read(&self.toolstack).map_err(|error| LaunchError::Command {
                command: "read out the store".into(),
                message: describe(&error),
            })?;
            // Before the kill: the toolstack must not signal a process that may be another by then.
            self.pid.store(0, Ordering::Relaxed);
            child.kill().await.map_err(LaunchError::io("kill xenstored"))?;
            self.child = None;
        }
        Ok(())
    }

    /// Suspends the process with SIGSTOP, as on a host that hangs: its sockets stay open and
    /// silent. Operations of the toolstack fail after 10 s.
    pub fn freeze(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::STOP);
        }
    }

    /// Resumes the process after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::CONT);
        }
    }

    /// Its process id, or `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Its resident memory in KiB, or `None` while it does not run.
    pub fn rss_kib(&self) -> Option<u64> {
        rss_kib(self.pid()?)
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// The URI of this daemon: `xenstore:/tmp/...`
    pub fn uri(&self) -> String {
        format!("xenstore:{}", self.socket().display())
    }

    /// The toolstack that acts on this daemon and its domains.
    pub fn toolstack(&self) -> &Toolstack {
        &self.toolstack
    }

    /// The watches of all connections, from the daemon's own memory report (`CONTROL memreport`).
    /// The toolstack has none.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn watches(&self) -> Result<Vec<Watch>, ToolstackError> {
        watches::read(self.toolstack.backend(), &self.home.path().join("memory"))
    }

    /// The number of open connections, without the toolstack's.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn connections(&self) -> Result<usize, ToolstackError> {
        watches::connections(self.toolstack.backend(), &self.home.path().join("memory"))
    }
}

impl Drop for Xenstored {
    fn drop(&mut self) {
        kill_all(self.pid().as_slice());
    }
}

/// An error in one line, with its source.
fn describe(error: &ToolstackError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
