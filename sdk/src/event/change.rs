//! The changes of a domain. Their causes are libvirt's `virDomainEvent…DetailType`.

use std::fmt;

use super::State;
use super::codes::codes;

/// What happened to a domain.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Nothing happened: the domain existed, in this state, when the stream began.
    Existing(State),
    /// The domain's configuration was stored: it exists when it does not run, too.
    Defined(DefineCause),
    /// The stored configuration was removed. A running domain lives on until it stops.
    Undefined(UndefineCause),
    /// A run began.
    Started(StartCause),
    /// The run is paused.
    Suspended(SuspendCause),
    /// The paused run goes on.
    Resumed(ResumeCause),
    /// The run is about to end.
    ShuttingDown(ShutdownCause),
    /// The run ended.
    Stopped(StopCause),
    /// The guest put itself to sleep.
    PmSuspended(PmSuspendCause),
    /// The guest crashed. What follows is the hypervisor's policy: it may be stopped, restarted or
    /// kept for inspection.
    Crashed(CrashCause),
    /// A lifecycle event with a number that this version of the crate does not know.
    Unknown {
        /// The event's number, as the hypervisor sent it.
        event: i32,
        /// The detail's number.
        detail: i32,
    },
}

impl Change {
    /// Whether a run of the domain begins. libvirt reports the end of a guest's sleep as
    /// `started (wakeup)`: that run goes on.
    #[must_use]
    pub fn begins_run(self) -> bool {
        matches!(self, Self::Started(cause) if cause != StartCause::Wakeup)
    }

    /// From libvirt's numbers of a lifecycle event (`virDomainEventType`) and its detail.
    #[must_use]
    pub fn from_codes(event: i32, detail: i32) -> Self {
        match event {
            0 => Self::Defined(DefineCause::from_code(detail)),
            1 => Self::Undefined(UndefineCause::from_code(detail)),
            2 => Self::Started(StartCause::from_code(detail)),
            3 => Self::Suspended(SuspendCause::from_code(detail)),
            4 => Self::Resumed(ResumeCause::from_code(detail)),
            5 => Self::Stopped(StopCause::from_code(detail)),
            6 => Self::ShuttingDown(ShutdownCause::from_code(detail)),
            7 => Self::PmSuspended(PmSuspendCause::from_code(detail)),
            8 => Self::Crashed(CrashCause::from_code(detail)),
            _ => Self::Unknown { event, detail },
        }
    }

    /// libvirt's numbers of the event and its detail (0 where there is no cause); `None` for
    /// [`Existing`](Change::Existing), which libvirt has no event for.
    #[must_use]
    pub fn codes(self) -> Option<(i32, i32)> {
        let (event, detail) = match self {
            Self::Existing(_) => return None,
            Self::Defined(cause) => (0, cause.code()),
            Self::Undefined(cause) => (1, cause.code()),
            Self::Started(cause) => (2, cause.code()),
            Self::Suspended(cause) => (3, cause.code()),
            Self::Resumed(cause) => (4, cause.code()),
            Self::Stopped(cause) => (5, cause.code()),
            Self::ShuttingDown(cause) => (6, cause.code()),
            Self::PmSuspended(cause) => (7, cause.code()),
            Self::Crashed(cause) => (8, cause.code()),
            Self::Unknown { event, detail } => (event, Some(detail)),
        };
        Some((event, detail.unwrap_or(0)))
    }

    /// The name in the JSON form: `started`, `pm_suspended` ...
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Existing(_) => "existing",
            Self::Defined(_) => "defined",
            Self::Undefined(_) => "undefined",
            Self::Started(_) => "started",
            Self::Suspended(_) => "suspended",
            Self::Resumed(_) => "resumed",
            Self::ShuttingDown(_) => "shutting_down",
            Self::Stopped(_) => "stopped",
            Self::PmSuspended(_) => "pm_suspended",
            Self::Crashed(_) => "crashed",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// The cause's name in the JSON form; empty where the hypervisor gave none.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Existing(_) | Self::Unknown { .. } => "",
            Self::Defined(cause) => cause.as_str(),
            Self::Undefined(cause) => cause.as_str(),
            Self::Started(cause) => cause.as_str(),
            Self::Suspended(cause) => cause.as_str(),
            Self::Resumed(cause) => cause.as_str(),
            Self::ShuttingDown(cause) => cause.as_str(),
            Self::Stopped(cause) => cause.as_str(),
            Self::PmSuspended(cause) => cause.as_str(),
            Self::Crashed(cause) => cause.as_str(),
        }
    }
}

/// The change, with its cause in brackets: `stopped (destroyed)`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Existing(state) => write!(f, "existing ({state})"),
            Self::Unknown { event, detail } => write!(f, "unknown({event}, {detail})"),
            change => {
                f.write_str(change.as_str())?;
                match change.cause() {
                    "" => Ok(()),
                    "unknown" => write!(f, " (unknown: {})", change.codes().map_or(0, |c| c.1)),
                    cause => write!(f, " ({cause})"),
                }
            }
        }
    }
}

codes! {
    /// Why a domain was defined.
    DefineCause {
        /// It is new.
        0 = Added "added",
        /// Its configuration was replaced.
        1 = Updated "updated",
        /// It has a new name; the old one was [`UndefineCause::Renamed`] before.
        2 = Renamed "renamed",
        /// Its configuration came from a snapshot.
        3 = FromSnapshot "from_snapshot",
    }
}

codes! {
    /// Why a domain was undefined.
    UndefineCause {
        /// Its configuration was removed.
        0 = Removed "removed",
        /// It gets a new name: [`DefineCause::Renamed`] follows.
        1 = Renamed "renamed",
    }
}

codes! {
    /// Why a run began.
    StartCause {
        /// A normal boot.
        0 = Booted "booted",
        /// It begins to migrate in from another host. It is paused until
        /// [`Resumed`](Change::Resumed).
        1 = Migrated "migrated",
        /// From a saved memory image.
        2 = Restored "restored",
        /// From a snapshot.
        3 = FromSnapshot "from_snapshot",
        /// The guest woke up from a sleep.
        4 = Wakeup "wakeup",
        /// The hypervisor created it again in place of the last run.
        5 = Recreated "recreated",
    }
}

codes! {
    /// Why a run was paused.
    SuspendCause {
        /// By an API call.
        0 = Paused "paused",
        /// For the last phase of a migration.
        1 = Migrated "migrated",
        /// A disk or network error.
        2 = IoError "ioerror",
        /// A watchdog fired.
        3 = Watchdog "watchdog",
        /// It was restored from a saved, paused state.
        4 = Restored "restored",
        /// It was reverted to a snapshot of a paused domain.
        5 = FromSnapshot "from_snapshot",
        /// A failed call left it paused.
        6 = ApiError "api_error",
        /// For post-copy migration.
        7 = Postcopy "postcopy",
        /// Post-copy migration failed.
        8 = PostcopyFailed "postcopy_failed",
        /// The guest shut down, and the hypervisor keeps it paused.
        9 = GuestShutdown "guest_shutdown",
    }
}

codes! {
    /// Why a run went on.
    ResumeCause {
        /// By an API call.
        0 = Unpaused "unpaused",
        /// A migration is done.
        1 = Migrated "migrated",
        /// It was reverted to a snapshot of a running domain.
        2 = FromSnapshot "from_snapshot",
        /// Post-copy migration goes on here.
        3 = Postcopy "postcopy",
        /// Post-copy migration failed, but it runs here.
        4 = PostcopyFailed "postcopy_failed",
    }
}

codes! {
    /// Why a run is about to end.
    ShutdownCause {
        /// It has finished; who requested it is not known.
        0 = Finished "finished",
        /// The guest shut itself down.
        1 = Guest "guest",
        /// The host requested it.
        2 = Host "host",
    }
}

codes! {
    /// Why a run ended.
    StopCause {
        /// A normal shutdown.
        0 = Shutdown "shutdown",
        /// It was forced off by the host.
        1 = Destroyed "destroyed",
        /// The guest crashed.
        2 = Crashed "crashed",
        /// It migrated to another host.
        3 = Migrated "migrated",
        /// Its memory was saved to a file.
        4 = Saved "saved",
        /// The hypervisor's process died, or something in the host failed.
        5 = Failed "failed",
        /// It was reverted to a snapshot of an inactive domain.
        6 = FromSnapshot "from_snapshot",
        /// The hypervisor creates it again.
        7 = Recreated "recreated",
    }
}

codes! {
    /// How deep the guest sleeps.
    PmSuspendCause {
        /// To memory (S3).
        0 = Memory "memory",
        /// To disk (S4).
        1 = Disk "disk",
    }
}

codes! {
    /// How the guest crashed.
    CrashCause {
        /// It panicked.
        0 = Panicked "panicked",
        /// It loaded its crash kernel, and goes on in it.
        1 = Crashloaded "crashloaded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_converts_back_to_itself() {
        for event in -1..12 {
            for detail in -1..12 {
                let change = Change::from_codes(event, detail);
                assert_eq!(change.codes(), Some((event, detail)), "{change}");
            }
        }
    }

    #[test]
    fn a_change_shows_its_cause() {
        assert_eq!(Change::Stopped(StopCause::Destroyed).to_string(), "stopped (destroyed)");
        assert_eq!(Change::Stopped(StopCause::Unspecified).to_string(), "stopped");
        assert_eq!(Change::Stopped(StopCause::Unknown(42)).to_string(), "stopped (unknown: 42)");
    }
}
