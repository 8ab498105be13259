//! Why the domain does not run: a line for people and an exit status for scripts.

use std::time::Duration;

use virevent::{Change, Domain, Error, StopCause, WaitError};

/// Why the domain does not run, or is not known to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The source is unreachable before the command, or refuses.
    #[error("{}", .0.to_line())]
    Source(#[from] Error),
    /// The command failed.
    #[error("the command failed: {0}")]
    Command(String),
    /// The command has not ended in time, and was killed.
    #[error("the command has not ended after {0:?}")]
    Hangs(Duration),
    /// The domain does not run.
    #[error("{}", .0.to_line())]
    Domain(#[from] WaitError),
    /// The domain ran, and its run ended while the command still ran.
    #[error("{domain} has {}, while the command still ran", Change::Stopped(*cause))]
    Ended {
        /// The domain, with the id of the run.
        domain: Domain,
        /// Why the run ended.
        cause: StopCause,
    },
}

impl Failure {
    /// The exit status of the program.
    #[must_use]
    pub fn status(&self) -> i32 {
        match self {
            Self::Source(Error::InvalidUri { .. }) => 2,
            Self::Source(_) => 1,
            Self::Command(_) => 3,
            Self::Hangs(_) => 5,
            Self::Ended { .. } => 4,
            Self::Domain(error) => match error {
                WaitError::Deadline { outage: None, unsynced: None, .. } => 5,
                WaitError::Deadline { .. }
                | WaitError::Ended { .. }
                | WaitError::Failed { .. }
                | WaitError::Removed { .. } => 1,
                // Its run ended, its guest crashed, or it is gone.
                _ => 4,
            },
        }
    }
}
