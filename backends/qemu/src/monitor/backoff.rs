//! How long a monitor waits between two attempts to connect.

use std::time::Duration;

use super::turn::Role;
use crate::config::MonitorConfig;

/// The wait after the first attempt that found no process listening; it doubles with each attempt.
const FIRST_RETRY: Duration = Duration::from_millis(10);

/// The most for a socket of a directory: there may be many of them, and inotify reports most
/// changes.
const MEMBER_RETRY_MAX: Duration = Duration::from_secs(5);

/// The wait after an attempt on a socket that was never known to be a QEMU's and sent nothing: we
/// may occupy it in place of another client. It doubles, up to the maximum.
const SILENT_RETRY: Duration = Duration::from_secs(5);
const SILENT_RETRY_MAX: Duration = Duration::from_secs(30);

/// The waits that come next.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    silent: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { pause: FIRST_RETRY, silent: SILENT_RETRY }
    }

    pub(super) fn reset_pause(&mut self) {
        self.pause = FIRST_RETRY;
    }

    pub(super) fn reset_silent(&mut self) {
        self.silent = SILENT_RETRY;
    }

    /// The wait after an attempt that failed.
    pub(super) fn next_pause(&mut self, role: Role, config: &MonitorConfig) -> Duration {
        let most = match role {
            Role::Source => config.retry,
            Role::Member => MEMBER_RETRY_MAX,
        };
        let next = (self.pause * 2).min(most);
        std::mem::replace(&mut self.pause, next).min(most)
    }

    /// The wait after an attempt on which nothing came.
    pub(super) fn next_silent(&mut self) -> Duration {
        let next = (self.silent * 2).min(SILENT_RETRY_MAX);
        std::mem::replace(&mut self.silent, next)
    }
}
