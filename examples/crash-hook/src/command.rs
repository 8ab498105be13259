//! The hook: a command, with retries.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use virevent::Domain;

use crate::Cause;

/// A command that runs for a domain, which it finds in its environment: `VIREVENT_SOURCE`,
/// `VIREVENT_HOST`, `VIREVENT_UUID`, `VIREVENT_NAME` and `VIREVENT_CAUSE` (`crashed` or `failed`).
#[derive(Clone, Debug)]
pub struct Hook {
    command: Arc<[OsString]>,
    /// How many commands may run at once: a host that fails takes many domains with it.
    slots: Arc<Semaphore>,
    tries: u32,
    /// The pause after the first failure; it doubles with each further one.
    pause: Duration,
    deadline: Duration,
}

impl Hook {
    /// A hook with 5 tries, pauses from 1 s on, 60 s for each try, and 8 commands at once.
    ///
    /// `command` is the program and its arguments; it must not be empty.
    #[must_use]
    pub fn new(command: Vec<OsString>) -> Self {
        Self {
            command: command.into(),
            slots: Arc::new(Semaphore::new(8)),
            tries: 5,
            pause: Duration::from_secs(1),
            deadline: Duration::from_secs(60),
        }
    }

    /// Sets how often the command is tried.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// Sets the pause after the first failure.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Sets the time that a try may take before it is killed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs the command for a domain, again after a failure, until it succeeds or the tries are
    /// used up.
    pub async fn run(self, domain: Domain, cause: Cause) {
        for round in 0..self.tries {
            if round > 0 {
                sleep(self.pause.saturating_mul(1 << (round - 1).min(16))).await;
            }
            let Ok(_slot) = self.slots.acquire().await else { return };
            match self.attempt(&domain, cause).await {
                Ok(()) => return tracing::info!("{domain}: the hook has run"),
                Err(failure) => {
                    tracing::warn!("{domain}: try {} of {}: {failure}", round + 1, self.tries);
                }
            }
        }
        tracing::error!("{domain}: the hook has failed {} times", self.tries);
    }

    async fn attempt(&self, domain: &Domain, cause: Cause) -> Result<(), String> {
        let [program, arguments @ ..] = &*self.command else { return Err("no command".into()) };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("VIREVENT_SOURCE", domain.source())
            .env("VIREVENT_HOST", domain.host())
            .env("VIREVENT_UUID", domain.uuid().to_string())
            // An environment cannot hold a zero byte.
            .env("VIREVENT_NAME", domain.name().replace('\0', "\u{fffd}"))
            .env(
                "VIREVENT_CAUSE",
                match cause {
                    Cause::Crashed => "crashed",
                    Cause::Failed => "failed",
                },
            )
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{program:?}: {error}"))?;
        match timeout(self.deadline, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{program:?}: {status}")),
            Ok(Err(error)) => Err(format!("{program:?}: {error}")),
            Err(_) => {
                let _ = child.kill().await;
                Err(format!("{program:?} was killed after {:?}", self.deadline))
            }
        }
    }
}
