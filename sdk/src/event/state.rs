//! The state of a domain. States and reasons are libvirt's `virDomainState` and `virDomain…Reason`.

use std::fmt;

use super::change::{Change, ResumeCause, StartCause, StopCause, SuspendCause};
use super::codes::codes;

/// The state of a domain, with the reason why it is in it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The hypervisor reports no state.
    NoState,
    /// It runs.
    Running(RunningReason),
    /// It waits for a resource.
    Blocked,
    /// It is paused.
    Paused(PausedReason),
    /// It is about to end its run.
    ShuttingDown(ShuttingDownReason),
    /// It is inactive.
    Shutoff(ShutoffReason),
    /// The guest crashed, and the hypervisor kept it.
    Crashed(CrashedReason),
    /// The guest put itself to sleep.
    PmSuspended,
    /// A state with a number that this version of the crate does not know.
    Unknown {
        /// The state's number, as the hypervisor sent it.
        state: i32,
        /// The reason's number.
        reason: i32,
    },
}

impl State {
    /// From libvirt's numbers of a state and its reason.
    #[must_use]
    pub fn from_codes(state: i32, reason: i32) -> Self {
        match state {
            0 => Self::NoState,
            1 => Self::Running(RunningReason::from_code(reason)),
            2 => Self::Blocked,
            3 => Self::Paused(PausedReason::from_code(reason)),
            4 => Self::ShuttingDown(ShuttingDownReason::from_code(reason)),
            5 => Self::Shutoff(ShutoffReason::from_code(reason)),
            6 => Self::Crashed(CrashedReason::from_code(reason)),
            7 => Self::PmSuspended,
            _ => Self::Unknown { state, reason },
        }
    }

    /// libvirt's numbers of the state and its reason (0 where there is none).
    #[must_use]
    pub fn codes(self) -> (i32, i32) {
        match self {
            Self::NoState => (0, 0),
            Self::Running(reason) => (1, reason.code().unwrap_or(0)),
            Self::Blocked => (2, 0),
            Self::Paused(reason) => (3, reason.code().unwrap_or(0)),
            Self::ShuttingDown(reason) => (4, reason.code().unwrap_or(0)),
            Self::Shutoff(reason) => (5, reason.code().unwrap_or(0)),
            Self::Crashed(reason) => (6, reason.code().unwrap_or(0)),
            Self::PmSuspended => (7, 0),
            Self::Unknown { state, reason } => (state, reason),
        }
    }

    /// The name in the JSON form: `running`, `shutoff` ...
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoState => "no_state",
            Self::Running(_) => "running",
            Self::Blocked => "blocked",
            Self::Paused(_) => "paused",
            Self::ShuttingDown(_) => "shutting_down",
            Self::Shutoff(_) => "shutoff",
            Self::Crashed(_) => "crashed",
            Self::PmSuspended => "pm_suspended",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// The reason's name in the JSON form; empty where the hypervisor gave none.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Running(reason) => reason.as_str(),
            Self::Paused(reason) => reason.as_str(),
            Self::ShuttingDown(reason) => reason.as_str(),
            Self::Shutoff(reason) => reason.as_str(),
            Self::Crashed(reason) => reason.as_str(),
            Self::NoState | Self::Blocked | Self::PmSuspended | Self::Unknown { .. } => "",
        }
    }

    /// Whether it runs (or waits for a resource while it does).
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running(_) | Self::Blocked)
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused(_))
    }

    /// Whether it is inactive.
    #[must_use]
    pub fn is_shutoff(self) -> bool {
        matches!(self, Self::Shutoff(_))
    }

    /// Whether both are the same state, whatever the reason.
    #[must_use]
    pub fn is_same(self, other: Self) -> bool {
        match (self, other) {
            // A blocked domain runs and waits; no lifecycle event leads from one to the other.
            (Self::Blocked | Self::Running(_), Self::Blocked | Self::Running(_)) => true,
            // libvirt adds states at times; two unknown ones with the same number are the same.
            (Self::Unknown { state: a, .. }, Self::Unknown { state: b, .. }) => a == b,
            _ => std::mem::discriminant(&self) == std::mem::discriminant(&other),
        }
    }

    /// The state after `change`; `None` where the change does not say.
    #[inline]
    #[must_use]
    pub fn after(change: Change) -> Option<Self> {
        Some(match change {
            Change::Existing(state) => state,
            // Sent when an incoming migration begins. The guest is paused until its memory is here.
            Change::Started(StartCause::Migrated) => Self::Paused(PausedReason::Migration),
            Change::Started(cause) => Self::Running(match cause {
                StartCause::Booted | StartCause::Recreated => RunningReason::Booted,
                StartCause::Restored => RunningReason::Restored,
                StartCause::FromSnapshot => RunningReason::FromSnapshot,
                StartCause::Wakeup => RunningReason::Wakeup,
                StartCause::Migrated | StartCause::Unspecified | StartCause::Unknown(_) => {
                    RunningReason::Unspecified
                }
            }),
            Change::Suspended(cause) => Self::Paused(match cause {
                SuspendCause::Paused => PausedReason::User,
                SuspendCause::Migrated => PausedReason::Migration,
                SuspendCause::IoError => PausedReason::IoError,
                SuspendCause::Watchdog => PausedReason::Watchdog,
                SuspendCause::FromSnapshot => PausedReason::FromSnapshot,
                SuspendCause::ApiError => PausedReason::ApiError,
                SuspendCause::Postcopy => PausedReason::Postcopy,
                SuspendCause::PostcopyFailed => PausedReason::PostcopyFailed,
                SuspendCause::GuestShutdown => PausedReason::ShuttingDown,
                SuspendCause::Restored | SuspendCause::Unspecified | SuspendCause::Unknown(_) => {
                    PausedReason::Unspecified
                }
            }),
            Change::Resumed(cause) => Self::Running(match cause {
                ResumeCause::Unpaused => RunningReason::Unpaused,
                ResumeCause::Migrated => RunningReason::Migrated,
                ResumeCause::FromSnapshot => RunningReason::FromSnapshot,
                ResumeCause::Postcopy => RunningReason::Postcopy,
                ResumeCause::PostcopyFailed => RunningReason::PostcopyFailed,
                ResumeCause::Unspecified | ResumeCause::Unknown(_) => RunningReason::Unspecified,
            }),
            Change::ShuttingDown(_) => Self::ShuttingDown(ShuttingDownReason::Unspecified),
            Change::Stopped(cause) => Self::Shutoff(match cause {
                StopCause::Shutdown => ShutoffReason::Shutdown,
                StopCause::Destroyed => ShutoffReason::Destroyed,
                StopCause::Crashed => ShutoffReason::Crashed,
                StopCause::Migrated => ShutoffReason::Migrated,
                StopCause::Saved => ShutoffReason::Saved,
                StopCause::Failed => ShutoffReason::Failed,
                StopCause::FromSnapshot => ShutoffReason::FromSnapshot,
                StopCause::Recreated | StopCause::Unspecified | StopCause::Unknown(_) => {
                    ShutoffReason::Unspecified
                }
            }),
            Change::PmSuspended(_) => Self::PmSuspended,
            // The crash kernel runs: the domain goes on.
            Change::Crashed(super::CrashCause::Crashloaded) => return None,
            Change::Crashed(_) => Self::Crashed(CrashedReason::Panicked),
            Change::Defined(_) | Change::Undefined(_) | Change::Unknown { .. } => return None,
        })
    }
}

/// The state, with its reason in brackets: `paused (user)`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Unknown { state, reason } = self {
            return write!(f, "unknown({state}, {reason})");
        }
        f.write_str(self.as_str())?;
        match self.reason() {
            "" => Ok(()),
            "unknown" => write!(f, " (unknown: {})", self.codes().1),
            reason => write!(f, " ({reason})"),
        }
    }
}

codes! {
    /// Why a domain runs.
    RunningReason, unspecified = 0 {
        /// It booted.
        1 = Booted "booted",
        /// It migrated in from another host.
        2 = Migrated "migrated",
        /// It was restored from a saved memory image.
        3 = Restored "restored",
        /// It was reverted to a snapshot.
        4 = FromSnapshot "from_snapshot",
        /// It was resumed.
        5 = Unpaused "unpaused",
        /// A migration was cancelled.
        6 = MigrationCanceled "migration_canceled",
        /// A save was cancelled.
        7 = SaveCanceled "save_canceled",
        /// It woke up from a sleep.
        8 = Wakeup "wakeup",
        /// It was resumed after a crash.
        9 = Crashed "crashed",
        /// It runs in post-copy migration.
        10 = Postcopy "postcopy",
        /// It runs after a failed post-copy migration.
        11 = PostcopyFailed "postcopy_failed",
    }
}

codes! {
    /// Why a domain is paused.
    PausedReason, unspecified = 0 {
        /// By an API call.
        1 = User "user",
        /// For a migration.
        2 = Migration "migration",
        /// For a save.
        3 = Save "save",
        /// For a dump of its memory.
        4 = Dump "dump",
        /// A disk or network error.
        5 = IoError "ioerror",
        /// A watchdog fired.
        6 = Watchdog "watchdog",
        /// It was reverted to a snapshot.
        7 = FromSnapshot "from_snapshot",
        /// While it shuts down.
        8 = ShuttingDown "shutting_down",
        /// While a snapshot is made.
        9 = Snapshot "snapshot",
        /// It crashed.
        10 = Crashed "crashed",
        /// While it starts.
        11 = StartingUp "starting_up",
        /// For post-copy migration.
        12 = Postcopy "postcopy",
        /// A post-copy migration failed.
        13 = PostcopyFailed "postcopy_failed",
        /// A failed call left it paused.
        14 = ApiError "api_error",
    }
}

codes! {
    /// Why a domain is shutting down.
    ShuttingDownReason, unspecified = 0 {
        /// By an API call.
        1 = User "user",
    }
}

codes! {
    /// Why a domain is inactive.
    ShutoffReason, unspecified = 0 {
        /// A normal shutdown.
        1 = Shutdown "shutdown",
        /// It was forced off.
        2 = Destroyed "destroyed",
        /// It crashed.
        3 = Crashed "crashed",
        /// It migrated to another host.
        4 = Migrated "migrated",
        /// Its memory was saved to a file.
        5 = Saved "saved",
        /// It failed to start.
        6 = Failed "failed",
        /// It was reverted to a snapshot of an inactive domain.
        7 = FromSnapshot "from_snapshot",
        /// The daemon found it ended when it started itself.
        8 = Daemon "daemon",
    }
}

codes! {
    /// How a domain crashed.
    CrashedReason, unspecified = 0 {
        /// The guest panicked.
        1 = Panicked "panicked",
    }
}

/// The cause of the stop that led to an inactive domain, as far as the reason says it.
impl From<ShutoffReason> for StopCause {
    fn from(reason: ShutoffReason) -> Self {
        match reason {
            ShutoffReason::Shutdown => Self::Shutdown,
            ShutoffReason::Destroyed => Self::Destroyed,
            ShutoffReason::Crashed => Self::Crashed,
            ShutoffReason::Migrated => Self::Migrated,
            ShutoffReason::Saved => Self::Saved,
            ShutoffReason::Failed => Self::Failed,
            ShutoffReason::FromSnapshot => Self::FromSnapshot,
            ShutoffReason::Daemon | ShutoffReason::Unspecified | ShutoffReason::Unknown(_) => {
                Self::Unspecified
            }
        }
    }
}

/// The cause of the start that led to a running domain, as far as the reason says it.
impl From<RunningReason> for StartCause {
    fn from(reason: RunningReason) -> Self {
        match reason {
            RunningReason::Booted => Self::Booted,
            RunningReason::Migrated => Self::Migrated,
            RunningReason::Restored => Self::Restored,
            RunningReason::FromSnapshot => Self::FromSnapshot,
            // Wakeup is of the same run, and the others say why it goes on, not how it began.
            _ => Self::Unspecified,
        }
    }
}

/// The cause of the pause that led to a paused domain, as far as the reason says it.
impl From<PausedReason> for SuspendCause {
    fn from(reason: PausedReason) -> Self {
        match reason {
            // libvirt's event of a run that begins paused has this cause.
            PausedReason::User | PausedReason::StartingUp => Self::Paused,
            PausedReason::Migration => Self::Migrated,
            PausedReason::IoError => Self::IoError,
            PausedReason::Watchdog => Self::Watchdog,
            PausedReason::FromSnapshot => Self::FromSnapshot,
            PausedReason::Postcopy => Self::Postcopy,
            PausedReason::PostcopyFailed => Self::PostcopyFailed,
            PausedReason::ApiError => Self::ApiError,
            _ => Self::Unspecified,
        }
    }
}

/// The cause of the resume that led to a running domain, as far as the reason says it.
impl From<RunningReason> for ResumeCause {
    fn from(reason: RunningReason) -> Self {
        match reason {
            RunningReason::Unpaused => Self::Unpaused,
            RunningReason::Migrated => Self::Migrated,
            RunningReason::FromSnapshot => Self::FromSnapshot,
            RunningReason::Postcopy => Self::Postcopy,
            RunningReason::PostcopyFailed => Self::PostcopyFailed,
            _ => Self::Unspecified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_converts_back_to_itself() {
        for state in [1, 3, 4, 5, 6] {
            for reason in 0..20 {
                assert_eq!(State::from_codes(state, reason).codes(), (state, reason));
            }
        }
        assert_eq!(State::from_codes(9, 3).codes(), (9, 3));
    }

    #[test]
    fn a_run_that_migrates_in_is_paused_until_it_is_resumed() {
        let began = State::after(Change::Started(StartCause::Migrated));
        assert_eq!(began, Some(State::Paused(PausedReason::Migration)));
        let resumed = State::after(Change::Resumed(ResumeCause::Migrated));
        assert_eq!(resumed, Some(State::Running(RunningReason::Migrated)));
    }

    #[test]
    fn a_reason_does_not_make_another_state() {
        assert!(
            State::Running(RunningReason::Booted).is_same(State::Running(RunningReason::Unpaused))
        );
        assert!(State::Blocked.is_same(State::Running(RunningReason::Booted)));
        assert!(!State::PmSuspended.is_same(State::Blocked));
    }
}
