//! Starting a daemon, and waiting until it listens.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::LaunchError;

/// The timeout of a start or an orderly end. On an idle machine either takes 0.1 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The wait between two looks whether a daemon listens.
const LOOK: Duration = Duration::from_millis(5);

/// Why a daemon does not listen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Ended(ExitStatus),
    Late,
}

impl Trouble {
    /// What the daemon did, for [`LaunchError::NotReady`].
    pub(super) fn to_text(self) -> String {
        match self {
            Self::Ended(status) => format!("ended with {status}"),
            Self::Late => format!("did not answer within {PATIENCE:?}"),
        }
    }
}

/// Starts the daemon with both outputs in the file `log`. It is killed when the child is dropped.
pub(super) fn spawn_logged(
    command: &mut Command,
    log: &Path,
    failed: impl FnOnce(std::io::Error) -> LaunchError,
) -> Result<Child, LaunchError> {
    // A file, not a pipe: a pipe that is not read while the daemon runs would fill up and block it.
    let output = File::create(log).map_err(LaunchError::io("make a log file"))?;
    let errors = output.try_clone().map_err(LaunchError::io("make a log file"))?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
    command.spawn().map_err(failed)
}

/// Waits until `listens` returns true, unless the daemon ends first or takes too long.
pub(super) async fn until_listening(
    child: &mut Child,
    listens: impl AsyncFn() -> bool,
) -> Result<(), Trouble> {
    let deadline = Instant::now() + PATIENCE;
    while !listens().await {
        // After the look: a daemon that listened and ended at once has ended.
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Trouble::Ended(status));
        }
        if Instant::now() > deadline {
            return Err(Trouble::Late);
        }
        sleep(LOOK).await;
    }
    Ok(())
}
