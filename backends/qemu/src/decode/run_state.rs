//! QEMU's run states as states of a domain.

use virevent::{CrashedReason, PausedReason, RunningReason, ShuttingDownReason, State};

/// Returns the state of a domain whose QEMU is in this run state (`RunState` in
/// `qapi/run-state.json`).
#[must_use]
pub fn state(status: &str) -> State {
    let paused = match status {
        "running" => return State::Running(RunningReason::Unspecified),
        "shutdown" => return State::ShuttingDown(ShuttingDownReason::Unspecified),
        "guest-panicked" => return State::Crashed(CrashedReason::Panicked),
        "suspended" => return State::PmSuspended,
        "paused" => PausedReason::User,
        "prelaunch" => PausedReason::StartingUp,
        "inmigrate" | "postmigrate" | "finish-migrate" | "colo" => PausedReason::Migration,
        "save-vm" => PausedReason::Save,
        "restore-vm" => PausedReason::FromSnapshot,
        "io-error" => PausedReason::IoError,
        "watchdog" => PausedReason::Watchdog,
        // debug, internal-error, and any newer than this crate: a guest runs in `running` only.
        _ => PausedReason::Unspecified,
    };
    State::Paused(paused)
}
