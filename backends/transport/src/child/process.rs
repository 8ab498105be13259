//! The process of a program: it is ended and waited for, whatever becomes of its connection.

use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

/// How long a process may take to end after its connection is closed, before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// A process. Dropping it returns at once: a thread waits for its end, since a task would end with
/// its runtime.
#[derive(Debug)]
pub(super) struct Process {
    /// `None` only while it is dropped.
    guard: Option<Guard>,
    id: u32,
}

impl Process {
    /// `own_group`: whether the process leads a process group.
    pub(super) fn new(child: Child, own_group: bool) -> Self {
        let id = child.id();
        Self { guard: Some(Guard { child, own_group, status: None }), id }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn take_stderr(&mut self) -> Option<OwnedFd> {
        self.guard.as_mut()?.child.stderr.take().map(OwnedFd::from)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.guard.as_ref().is_none_or(Guard::has_ended)
    }

    /// The exit status of a process that has ended.
    pub(super) fn status(&mut self) -> Option<ExitStatus> {
        let guard = self.guard.as_mut()?;
        if guard.has_ended() { guard.reap() } else { None }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(guard) = self.guard.take().filter(|guard| !guard.has_ended()) else { return };
        let wait = move || {
            guard.wait_for(GRACE);
            drop(guard);
        };
        // Without a thread the guard is dropped here: the process is killed at once.
        let reaper = thread::Builder::new().name("virevent-reaper".into()).stack_size(64 * 1024);
        let _ = reaper.spawn(wait);
    }
}

/// Kills the process and its group, and waits for it, when dropped.
#[derive(Debug)]
struct Guard {
    child: Child,
    own_group: bool,
    /// The status, once it was waited for. The process id may belong to another process then.
    status: Option<Option<ExitStatus>>,
}

impl Guard {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it has ended. It stays a zombie: its id, and that of its group, stay its own.
    ///
    /// # Errors
    /// Another part of this process has waited for it, so that its id may be another's.
    fn peek(&self) -> Result<bool, Errno> {
        let pid = self.pid().ok_or(Errno::CHILD)?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), options) {
            Err(Errno::INTR) => Ok(false),
            outcome => outcome.map(|status| status.is_some()),
        }
    }

    fn has_ended(&self) -> bool {
        self.status.is_some() || self.peek().unwrap_or(true)
    }

    fn wait_for(&self, duration: Duration) {
        let deadline = Instant::now() + duration;
        let mut pause = Duration::from_millis(1);
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Kills what still runs, and waits for the process. SIGKILL ends any process at once, but for
    /// one that the kernel holds.
    fn reap(&mut self) -> Option<ExitStatus> {
        if let Some(status) = self.status {
            return status;
        }
        if let Some(pid) = self.pid().filter(|_| self.peek().is_ok()) {
            // What it started in its group, such as ssh's ProxyCommand, has no other end.
            let _ = match self.own_group {
                true => kill_process_group(pid, Signal::KILL),
                false => kill_process(pid, Signal::KILL),
            };
        }
        let status = self.child.wait().ok();
        self.status = Some(status);
        status
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.reap();
    }
}
