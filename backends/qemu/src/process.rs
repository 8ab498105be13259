//! The process at the other end of a socket, and when it ends.
//!
//! The pid is that of the socket's creator (`SO_PEERCRED`), and that is not always QEMU: a manager may
//! make the socket and hand it to the QEMU that it starts, and across pid namespaces the pid is 0. So
//! the pid is believed only where QEMU's first virtual CPU is one of the threads of that process, or
//! where QEMU has no virtual CPU to tell. A pidfd on it becomes readable when the process ends,
//! whether or not its parent has looked. Where there are no pidfds (other systems than Linux, before 5.3)
//! no process is watched.

use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    ended: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process with this pid, if it is the QEMU whose first virtual CPU is `thread`; `None` where
    /// it is not, or cannot be watched.
    pub(crate) fn watch(pid: i32, thread: Option<u32>) -> Option<Self> {
        let own = std::process::id();
        let number = u32::try_from(pid).ok().filter(|pid| *pid != own && *pid != 0)?;
        let pidfd = pidfd(pid)?;
        // After the pidfd is open, so that the pid cannot go to another process in between.
        if let Some(thread) = thread {
            let task = format!("/proc/{number}/task/{thread}");
            if !std::path::Path::new(&task).exists() {
                tracing::debug!(pid, thread, "the socket's maker is not QEMU");
                return None;
            }
        }
        // `register`, which is to replace it, came later than the oldest tokio that we build with; an
        // OwnedFd is all the safety that it asks for.
        #[allow(deprecated)]
        let ended = AsyncFd::new(pidfd).ok()?;
        Some(Self { pid: number, ended })
    }

    /// Ready once the process has ended, and from then on.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Readiness is not cleared: the process stays dead.
        self.ended.poll_read_ready(cx).map(drop)
    }
}

#[cfg(target_os = "linux")]
fn pidfd(pid: i32) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_pid: i32) -> Option<OwnedFd> {
    None
}
