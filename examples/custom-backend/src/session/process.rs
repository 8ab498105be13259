//! The end of the process, by a pidfd.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

/// A process that is watched.
#[derive(Debug)]
pub(super) struct Process {
    /// Readable once the process has ended.
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Watches the process that says it has this pid, if the kernel says the same of the socket's
    /// owner. Else the pid is of another namespace, or the socket of a manager that passed it on
    /// (`--api-socket fd=`), and the end of another process would pass for that of the VM.
    pub(super) fn watch(pid: u32, owner: Option<u32>) -> Option<Self> {
        if owner != Some(pid) {
            tracing::debug!(pid, ?owner, "the process is not watched");
            return None;
        }
        let pidfd = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
        // `register`, its replacement, is newer than the oldest tokio that we build with.
        #[allow(deprecated)]
        let pidfd = AsyncFd::new(pidfd).ok()?;
        Some(Self { pidfd })
    }

    /// Waits until it has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: it waits for readiness, which is not cleared.
    pub(super) async fn ended(&self) {
        if self.pidfd.readable().await.is_err() {
            // The runtime shuts down.
            std::future::pending::<()>().await;
        }
    }
}
