//! Event to change: pure, and by a table.
//!
//! | QMP | becomes |
//! |---|---|
//! | `STOP` | suspended; why is in the event before it, or in the run state, see [`Meaning::PauseWithoutCause`] |
//! | `RESUME` | resumed: unpaused, or migrated if it came in from another host |
//! | `RESET` | a reboot |
//! | `SHUTDOWN` | shutting_down: guest or host |
//! | `SUSPEND`, `SUSPEND_DISK` | pm_suspended: memory, disk |
//! | `WAKEUP` | started (wakeup), which is libvirt's term for the end of a sleep |
//! | `GUEST_PANICKED`, `GUEST_CRASHLOADED` | crashed: panicked, crashloaded |
//! | any other | passed on whole, by its name |
//!
//! After `RESUME`, `WAKEUP` and `RESET` only the run state tells how the guest is now
//! ([`RunTracker::take_doubt`]): it may sleep on, have left for another host, or wait to be continued.
//!
//! `POWERDOWN` is passed on: it says that the power button was pressed, and nothing of whether the
//! guest obeys. A panic that the guest survives (`-action panic=none`) is crashed like any; QEMU is then
//! asked how the guest is. A `STOP` that comes with a shutdown or a panic (`-no-shutdown`, `-action
//! panic=pause`) is part of it, and not told again.
//!
//! The end of the process is no event. What was announced before it is the cause of the stop. Where the
//! guest has ended, or panicked, and QEMU is told to quit later (`-no-shutdown`), the guest's end is the
//! cause, and the second `SHUTDOWN` part of the first:
//!
//! | announced | stopped |
//! |---|---|
//! | `SHUTDOWN` guest-shutdown, guest-reset, subsystem-reset | shutdown |
//! | `SHUTDOWN` host-qmp-quit, host-signal, host-ui, host-qmp-system-reset; `WATCHDOG` poweroff | destroyed |
//! | `SHUTDOWN` guest-panic; `GUEST_PANICKED` | crashed |
//! | `MIGRATION` completed, on the side that it left; the run state `postmigrate`, or `finish-migrate` when QEMU is told to quit | migrated |
//! | `SHUTDOWN` snapshot-load | from_snapshot |
//! | `SHUTDOWN` host-error; nothing at all | failed |
//!
//! Where nothing could be heard, for there was no connection, there is no cause.

use serde::Deserialize;
use virevent::{
    Change, CrashCause, CrashedReason, PausedReason, PmSuspendCause, ResumeCause, RunningReason,
    ShutdownCause, ShuttingDownReason, StartCause, State, StopCause, SuspendCause,
};

use crate::wire::Event;

/// What an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A step in the life of the domain.
    Change(Change),
    /// The guest rebooted.
    Reboot,
    /// It was paused, and only the run state tells why.
    PauseWithoutCause,
    /// Nothing new: it is part of what was told.
    Duplicate,
    /// What has no type here.
    Other,
}

/// One run of a QEMU, as far as its events have told it.
#[derive(Clone, Debug)]
pub struct RunTracker {
    state: State,
    /// It waits for another QEMU to send it the guest.
    incoming: bool,
    /// Why it is about to be paused.
    pause: Option<SuspendCause>,
    /// Why it ends when it ends.
    ending: Option<StopCause>,
    /// It has announced that it is about to end.
    is_leaving: bool,
    /// It has announced what a `STOP` or a `SHUTDOWN` is to follow.
    is_stopping: bool,
    /// At the last look the guest was about to arrive on another host.
    is_moving: bool,
    /// What was heard leaves open how the guest is now.
    is_in_doubt: bool,
}

/// The members of any event's data that matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Data<'a> {
    guest: Option<bool>,
    #[serde(borrow)]
    reason: Option<&'a str>,
    #[serde(borrow)]
    action: Option<&'a str>,
    #[serde(borrow)]
    status: Option<&'a str>,
}

impl<'a> Data<'a> {
    /// Data that is not of this form says nothing.
    fn of(event: &Event<'a>) -> Self {
        event.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default()
    }
}

impl RunTracker {
    /// A run in this run state (`status` of `query-status`).
    pub fn new(status: &str) -> Self {
        let mut tracker = Self {
            state: State::NoState,
            incoming: false,
            pause: None,
            ending: None,
            is_leaving: false,
            is_stopping: false,
            is_moving: false,
            is_in_doubt: false,
        };
        tracker.set_status(status);
        tracker
    }

    /// The state of the domain.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the run began: it booted, as far as one can see, unless it came in from elsewhere.
    pub fn start_cause(&self) -> StartCause {
        if self.incoming { StartCause::Migrated } else { StartCause::Booted }
    }

    /// Why the run ended, if it has: what was announced, and else that it failed.
    pub fn stop_cause(&self) -> StopCause {
        self.announced_cause().unwrap_or(StopCause::Failed)
    }

    /// The cause of its end that was announced.
    pub fn announced_cause(&self) -> Option<StopCause> {
        self.ending
    }

    /// The guest had left for another host when its QEMU was told to quit, as only its migration says.
    pub fn set_migrated(&mut self) {
        self.ending = Some(StopCause::Migrated);
    }

    /// Whether what was heard since the last call leaves open how the guest is now, so that QEMU is to be
    /// asked: after a `RESUME`, a `WAKEUP` or a `RESET` a guest may sleep, be paused, or be about to move.
    pub fn take_needs_status(&mut self) -> bool {
        std::mem::take(&mut self.is_in_doubt)
    }

    /// Whether this run state is from before what was announced: a guest that has panicked, or says that
    /// its memory is on the disk, runs on until QEMU stops it. Believed at the second time.
    pub fn is_stale_status(&mut self, status: &str) -> bool {
        std::mem::take(&mut self.is_stopping) && status == "running"
    }

    /// QEMU was asked for its run state, and is in this one.
    ///
    /// Between two looks it may have been reset or resumed unseen, so a run state also says which of
    /// the announcements before it are over: those that cannot lead to it.
    ///
    /// | run state | why it ends when it ends |
    /// |---|---|
    /// | `shutdown` (`-no-shutdown`) | as its `SHUTDOWN` said; else shutdown |
    /// | `guest-panicked` | crashed |
    /// | `postmigrate` | migrated |
    /// | `finish-migrate`, and any newer than this crate | as was announced: any way may lead there |
    /// | any other | nothing is announced: from an end only a reset or `cont` leads there |
    pub fn set_status(&mut self, status: &str) {
        self.incoming = status == "inmigrate";
        if status == "postmigrate" {
            self.ending = Some(StopCause::Migrated);
        }
        // On its way out QEMU may call itself anything: what it announced stands.
        if self.is_leaving {
            return;
        }
        self.is_moving = status == "finish-migrate";
        let state = state(status);
        // A run state says less than the event that led to it.
        let is_vaguer = state.is_same(self.state)
            && matches!(
                state,
                State::Running(RunningReason::Unspecified)
                    | State::Paused(PausedReason::Unspecified)
                    | State::ShuttingDown(ShuttingDownReason::Unspecified)
            );
        if !is_vaguer {
            self.state = state;
        }
        // What was to come has come, or tells itself by the run state.
        self.pause = None;
        self.ending = match (status, self.ending) {
            // It is `guest-panicked` after a panic, and `postmigrate` after a migration.
            ("shutdown", None | Some(StopCause::Crashed | StopCause::Migrated)) => {
                Some(StopCause::Shutdown)
            }
            ("guest-panicked", _) => Some(StopCause::Crashed),
            (
                "running" | "paused" | "prelaunch" | "inmigrate" | "suspended" | "debug"
                | "internal-error" | "io-error" | "watchdog" | "save-vm" | "restore-vm" | "colo",
                _,
            ) => None,
            (_, announced) => announced,
        };
    }

    /// QEMU answers on a new connection: it has not ended, whatever it announced on the last one.
    pub fn set_alive(&mut self) {
        self.is_leaving = false;
    }

    /// It was paused ([`Meaning::PauseWithoutCause`]), and is in this run state, if that is known.
    pub fn take_pause(&mut self, status: Option<&str>) -> Change {
        let cause = match status.map(state) {
            Some(State::Paused(reason)) => reason.into(),
            _ => SuspendCause::Unspecified,
        };
        // Where it goes on already it says so later; what came after the pause stands.
        if let Some(status) = status.filter(|status| *status != "running") {
            self.set_status(status);
        }
        Change::Suspended(cause)
    }

    /// Takes in an event.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) -> Meaning {
        let said = match event.name {
            "STOP" => self.stop(),
            "RESUME" => {
                let migrated = self.incoming;
                self.incoming = false;
                self.pause = None;
                self.ending = None;
                self.is_leaving = false;
                self.is_moving = false;
                // Since 9.0 a guest that sleeps is still asleep after `stop` and `cont`.
                self.is_in_doubt = true;
                Meaning::Change(Change::Resumed(match migrated {
                    true => ResumeCause::Migrated,
                    false => ResumeCause::Unpaused,
                }))
            }
            "RESET" => {
                // One that was kept after a shutdown or a panic begins again.
                self.ending = None;
                self.is_leaving = false;
                self.is_moving = false;
                // Out of an end, a pause or a sleep it may be `prelaunch` or `paused` now.
                self.is_in_doubt = true;
                Meaning::Reboot
            }
            "SHUTDOWN" => self.shutdown(&Data::of(event)),
            "SUSPEND" => Meaning::Change(Change::PmSuspended(PmSuspendCause::Memory)),
            "SUSPEND_DISK" => {
                self.is_stopping = true;
                Meaning::Change(Change::PmSuspended(PmSuspendCause::Disk))
            }
            "WAKEUP" => {
                // Before 9.0 also said of a guest that is migrated away in its sleep.
                self.is_in_doubt = true;
                Meaning::Change(Change::Started(StartCause::Wakeup))
            }
            "GUEST_PANICKED" => {
                let crashed = Change::Crashed(CrashCause::Panicked);
                match Data::of(event).action {
                    // The guest goes on, and its end has another cause.
                    Some("run") => self.is_in_doubt = true,
                    _ => {
                        self.ending = Some(StopCause::Crashed);
                        self.is_stopping = true;
                    }
                }
                Meaning::Change(crashed)
            }
            // It goes on in the kernel that was kept for the crash: the model has it running still.
            "GUEST_CRASHLOADED" => Meaning::Change(Change::Crashed(CrashCause::Crashloaded)),
            "WATCHDOG" | "BLOCK_IO_ERROR" | "MIGRATION" => {
                self.note(event.name, &Data::of(event));
                Meaning::Other
            }
            _ => Meaning::Other,
        };
        if let Meaning::Change(change) = said {
            self.state = State::after(change).unwrap_or(self.state);
        }
        said
    }

    fn stop(&mut self) -> Meaning {
        self.is_stopping = false;
        match (self.state, self.pause.take()) {
            (State::ShuttingDown(_), _) => Meaning::Duplicate,
            // Where the guest goes on after it, a pause is one of its own.
            (State::Crashed(_), _) if self.ending == Some(StopCause::Crashed) => Meaning::Duplicate,
            (_, Some(cause)) => Meaning::Change(Change::Suspended(cause)),
            (_, None) => {
                self.state = State::Paused(PausedReason::Unspecified);
                self.is_in_doubt = true;
                Meaning::PauseWithoutCause
            }
        }
    }

    fn shutdown(&mut self, data: &Data<'_>) -> Meaning {
        self.is_stopping = false;
        let by_guest = data.guest.unwrap_or(false);
        let (cause, ending) = match data.reason {
            Some("guest-shutdown" | "guest-reset" | "subsystem-reset") => {
                (ShutdownCause::Guest, StopCause::Shutdown)
            }
            Some("host-qmp-quit" | "host-signal" | "host-ui" | "host-qmp-system-reset") => {
                (ShutdownCause::Host, StopCause::Destroyed)
            }
            Some("guest-panic") => (ShutdownCause::Finished, StopCause::Crashed),
            Some("host-error") => (ShutdownCause::Host, StopCause::Failed),
            Some("snapshot-load") => (ShutdownCause::Host, StopCause::FromSnapshot),
            // Older than its reason, or newer than this crate.
            None | Some(_) if by_guest => (ShutdownCause::Guest, StopCause::Shutdown),
            None | Some(_) => (ShutdownCause::Host, StopCause::Destroyed),
        };
        // A guest that ended, or panicked, and was kept: its QEMU is told to quit.
        let is_kept = cause == ShutdownCause::Host
            && matches!(self.ending, Some(StopCause::Shutdown | StopCause::Crashed))
            && matches!(self.state, State::ShuttingDown(_) | State::Crashed(_));
        if is_kept {
            self.is_leaving = true;
            return match self.state {
                State::ShuttingDown(_) => Meaning::Duplicate,
                _ => Meaning::Change(Change::ShuttingDown(cause)),
            };
        }
        // The QEMU that a guest has left is told to quit. One that was about to arrive has: a manager ends
        // the source once the migration is completed.
        let has_left = self.ending == Some(StopCause::Migrated) || self.is_moving;
        self.ending = match cause {
            ShutdownCause::Host if has_left => Some(StopCause::Migrated),
            _ => Some(ending),
        };
        self.is_leaving = true;
        Meaning::Change(Change::ShuttingDown(cause))
    }

    /// Takes note of what explains what comes next.
    fn note(&mut self, name: &str, data: &Data<'_>) {
        match (name, data.action, data.status) {
            ("WATCHDOG", Some("pause"), _) => self.pause = Some(SuspendCause::Watchdog),
            ("WATCHDOG", Some("poweroff"), _) => self.ending = Some(StopCause::Destroyed),
            ("BLOCK_IO_ERROR", Some("stop"), _) => self.pause = Some(SuspendCause::IoError),
            // On the other side it arrives: there it resumes before, or is left paused.
            ("MIGRATION", _, Some("completed")) if self.incoming => {
                self.incoming = false;
                // One that arrives asleep, or is not let go, sends no RESUME.
                self.is_in_doubt = true;
            }
            ("MIGRATION", _, Some("completed")) if !self.state.is_running() => {
                self.ending = Some(StopCause::Migrated);
            }
            _ => {}
        }
    }
}

/// The state of a domain whose QEMU is in this run state (`RunState` of QEMU's `qapi/run-state.json`).
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
        // debug, internal-error, and what is newer than this crate: only in "running" does it run.
        _ => PausedReason::Unspecified,
    };
    State::Paused(paused)
}

#[cfg(test)]
mod tests;
