//! What QEMU's events mean for a domain: pure, and by a table.
//!
//! | QMP | becomes |
//! |---|---|
//! | `STOP` | suspended; the cause is in the event before it, or in the run state, see [`Meaning::PauseWithoutCause`] |
//! | `RESUME` | resumed: unpaused, or migrated if it came in from another host |
//! | `RESET` | a reboot |
//! | `SHUTDOWN` | shutting_down: guest or host |
//! | `SUSPEND`, `SUSPEND_DISK` | pm_suspended: memory, disk |
//! | `WAKEUP` | started (wakeup), libvirt's term for the end of a sleep |
//! | `GUEST_PANICKED`, `GUEST_CRASHLOADED` | crashed: panicked, crashloaded |
//! | any other | a notice, by the table of [`notice`]; without a type passed on whole, by its name |
//!
//! `SUSPEND`, `SUSPEND_DISK` and `WAKEUP` have a notice besides.
//!
//! After `RESUME`, `WAKEUP` and `RESET` only the run state says how the guest is
//! ([`RunTracker::take_needs_status`]): it may still sleep, have migrated away, or wait for `cont`.
//!
//! `POWERDOWN` is passed on: it says that the power button was pressed, not that the guest obeys. A
//! panic that the guest survives (`-action panic=none`) is crashed like any other; QEMU is then
//! asked for its run state. A `STOP` that follows a shutdown or a panic (`-no-shutdown`, `-action
//! panic=pause`) belongs to that, and is no pause.
//!
//! QEMU sends no event when its process ends. The last announcement before is the cause of the
//! stop. Where the guest has shut down or panicked and QEMU quits later (`-no-shutdown`), the end
//! of the guest is the cause, and the second `SHUTDOWN` belongs to the first:
//!
//! | announced | stopped |
//! |---|---|
//! | `SHUTDOWN` guest-shutdown, guest-reset, subsystem-reset | shutdown |
//! | `SHUTDOWN` host-qmp-quit, host-signal, host-ui, host-qmp-system-reset; `WATCHDOG` poweroff | destroyed |
//! | `SHUTDOWN` guest-panic; `GUEST_PANICKED` | crashed |
//! | `MIGRATION` completed, on the source; the run state `postmigrate`, or `finish-migrate` when QEMU quits | migrated |
//! | `SHUTDOWN` snapshot-load | from_snapshot |
//! | `SHUTDOWN` host-error; nothing at all | failed |
//!
//! Without a connection nothing could be announced, and there is no cause.

pub mod notice;
mod run_state;

use serde::Deserialize;
use virevent::{
    Change, CrashCause, PausedReason, PmSuspendCause, ResumeCause, RunningReason, ShutdownCause,
    ShuttingDownReason, StartCause, State, StopCause, SuspendCause,
};

pub use self::run_state::state;
use crate::wire::Event;

/// What an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The domain changes.
    Change(Change),
    /// The guest rebooted.
    Reboot,
    /// The guest was paused, and only the run state gives the cause.
    PauseWithoutCause,
    /// The event belongs to an earlier one, and changes nothing.
    Duplicate,
    /// The event does not concern the run: it has a notice, or is passed on whole.
    Other,
}

/// The state of one run of a QEMU, by its events and run states.
#[derive(Clone, Debug)]
pub struct RunTracker {
    state: State,
    /// Whether it waits for another QEMU to send the guest.
    incoming: bool,
    /// The cause of the pause that was announced.
    pause: Option<SuspendCause>,
    /// The cause of the end that was announced.
    ending: Option<StopCause>,
    /// Whether the end of the process was announced.
    is_leaving: bool,
    /// Whether an event was announced that a `STOP` or a `SHUTDOWN` follows.
    is_stopping: bool,
    /// Whether the guest was about to resume on another host at the last run state.
    is_moving: bool,
    /// Whether only the run state says how the guest is now.
    needs_status: bool,
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
    /// Data of another form counts as empty: a newer QEMU may send it.
    fn of(event: &Event<'a>) -> Self {
        event.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default()
    }
}

impl RunTracker {
    /// Starts with this run state (`status` of `query-status`).
    #[must_use]
    pub fn new(status: &str) -> Self {
        let mut tracker = Self {
            state: State::NoState,
            incoming: false,
            pause: None,
            ending: None,
            is_leaving: false,
            is_stopping: false,
            is_moving: false,
            needs_status: false,
        };
        tracker.set_status(status);
        tracker
    }

    /// Returns the state of the domain.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the cause of the start: booted, unless the guest migrates in.
    #[must_use]
    pub fn start_cause(&self) -> StartCause {
        if self.incoming { StartCause::Migrated } else { StartCause::Booted }
    }

    /// Returns the cause of the stop once the process has ended: the announced one, else failed.
    #[must_use]
    pub fn stop_cause(&self) -> StopCause {
        self.announced_cause().unwrap_or(StopCause::Failed)
    }

    /// Returns the cause of the stop that was announced.
    #[must_use]
    pub fn announced_cause(&self) -> Option<StopCause> {
        self.ending
    }

    /// Sets that the guest has migrated away, as only the answer to `query-migrate` says.
    pub fn set_migrated(&mut self) {
        self.ending = Some(StopCause::Migrated);
    }

    /// Returns whether QEMU is to be asked for its run state because of an event since the last
    /// call: after a `RESUME`, a `WAKEUP` or a `RESET` a guest may sleep, be paused, or be about to
    /// migrate.
    pub fn take_needs_status(&mut self) -> bool {
        std::mem::take(&mut self.needs_status)
    }

    /// Returns whether this run state is older than the last announcement: a guest that has
    /// panicked, or has saved its memory to disk, runs until QEMU stops it. The second time the run
    /// state is believed.
    pub fn is_stale_status(&mut self, status: &str) -> bool {
        std::mem::take(&mut self.is_stopping) && status == "running"
    }

    /// Sets the run state that QEMU answered.
    ///
    /// Events may have been lost before. So a run state also cancels the announcements that cannot
    /// lead to it:
    ///
    /// | run state | cause of the end |
    /// |---|---|
    /// | `shutdown` (`-no-shutdown`) | as announced by `SHUTDOWN`; else shutdown |
    /// | `guest-panicked` | crashed |
    /// | `postmigrate` | migrated |
    /// | `finish-migrate`, and any newer than this crate | as announced: any event may lead there |
    /// | any other | none: only a reset or `cont` leads there from an announced end |
    pub fn set_status(&mut self, status: &str) {
        self.incoming = status == "inmigrate";
        if status == "postmigrate" {
            self.ending = Some(StopCause::Migrated);
        }
        // While it shuts down QEMU passes through other run states: the announcement counts.
        if self.is_leaving {
            return;
        }
        self.is_moving = status == "finish-migrate";
        let state = state(status);
        // A run state without a reason must not replace the reason that an event gave.
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
        // The announced pause has happened, or the run state gives its cause.
        self.pause = None;
        self.ending = match (status, self.ending) {
            // After a panic the run state is `guest-panicked`, after a migration `postmigrate`.
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

    /// Sets that QEMU answers on a new connection: it has not ended, whatever it announced before.
    pub fn set_alive(&mut self) {
        self.is_leaving = false;
    }

    /// Returns the change of a pause ([`Meaning::PauseWithoutCause`]), with the cause that this run
    /// state gives.
    pub fn take_pause(&mut self, status: Option<&str>) -> Change {
        let cause = match status.map(state) {
            Some(State::Paused(reason)) => reason.into(),
            _ => SuspendCause::Unspecified,
        };
        // `running` is newer than the pause, and its `RESUME` follows. Without an answer later
        // events count.
        if let Some(status) = status.filter(|status| *status != "running") {
            self.set_status(status);
        }
        Change::Suspended(cause)
    }

    /// Processes an event.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) -> Meaning {
        let meaning = match event.name {
            "STOP" => self.stop(),
            "RESUME" => {
                let migrated = self.incoming;
                self.incoming = false;
                self.pause = None;
                self.ending = None;
                self.is_leaving = false;
                self.is_moving = false;
                // From QEMU 9.0 on a guest that sleeps is still asleep after `stop` and `cont`.
                self.needs_status = true;
                Meaning::Change(Change::Resumed(match migrated {
                    true => ResumeCause::Migrated,
                    false => ResumeCause::Unpaused,
                }))
            }
            "RESET" => {
                // A guest that was kept after a shutdown or a panic boots again.
                self.ending = None;
                self.is_leaving = false;
                self.is_moving = false;
                // After a shutdown, a pause or a sleep it may be `prelaunch` or `paused` now.
                self.needs_status = true;
                Meaning::Reboot
            }
            "SHUTDOWN" => self.shutdown(&Data::of(event)),
            "SUSPEND" => Meaning::Change(Change::PmSuspended(PmSuspendCause::Memory)),
            "SUSPEND_DISK" => {
                self.is_stopping = true;
                // SHUTDOWN follows, and until then the run state is `running`.
                Meaning::Change(Change::PmSuspended(PmSuspendCause::Disk))
            }
            "WAKEUP" => {
                // Before 9.0 QEMU also sends it when a sleeping guest is migrated away.
                self.needs_status = true;
                Meaning::Change(Change::Started(StartCause::Wakeup))
            }
            "GUEST_PANICKED" => {
                let crashed = Change::Crashed(CrashCause::Panicked);
                match Data::of(event).action {
                    // The guest runs on, and its end will have another cause.
                    Some("run") => self.needs_status = true,
                    _ => {
                        self.ending = Some(StopCause::Crashed);
                        self.is_stopping = true;
                    }
                }
                Meaning::Change(crashed)
            }
            // The guest runs on in its crash kernel: it counts as running.
            "GUEST_CRASHLOADED" => Meaning::Change(Change::Crashed(CrashCause::Crashloaded)),
            "WATCHDOG" | "BLOCK_IO_ERROR" | "MIGRATION" => {
                self.note(event.name, &Data::of(event));
                Meaning::Other
            }
            _ => Meaning::Other,
        };
        if let Meaning::Change(change) = meaning {
            self.state = State::after(change).unwrap_or(self.state);
        }
        meaning
    }

    fn stop(&mut self) -> Meaning {
        self.is_stopping = false;
        match (self.state, self.pause.take()) {
            // With -no-shutdown a STOP follows SHUTDOWN, and belongs to it.
            (State::ShuttingDown(_), _) => Meaning::Duplicate,
            // Unless the guest runs on after the panic: then a pause is one of its own.
            (State::Crashed(_), _) if self.ending == Some(StopCause::Crashed) => Meaning::Duplicate,
            (_, Some(cause)) => Meaning::Change(Change::Suspended(cause)),
            (_, None) => {
                self.state = State::Paused(PausedReason::Unspecified);
                self.needs_status = true;
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
            // QEMU before 4.0 sends no reason, and one newer than this crate may send another.
            None | Some(_) if by_guest => (ShutdownCause::Guest, StopCause::Shutdown),
            None | Some(_) => (ShutdownCause::Host, StopCause::Destroyed),
        };
        // QEMU kept the guest after its shutdown or panic, and quits now, by command or signal.
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
        // The manager ends the source QEMU as soon as the migration completes, which may be before
        // the run state says so.
        let has_left = self.ending == Some(StopCause::Migrated) || self.is_moving;
        self.ending = match cause {
            ShutdownCause::Host if has_left => Some(StopCause::Migrated),
            _ => Some(ending),
        };
        self.is_leaving = true;
        Meaning::Change(Change::ShuttingDown(cause))
    }

    /// Remembers an event that is the cause of the next one.
    fn note(&mut self, name: &str, data: &Data<'_>) {
        match (name, data.action, data.status) {
            ("WATCHDOG", Some("pause"), _) => self.pause = Some(SuspendCause::Watchdog),
            // QEMU ends without a SHUTDOWN then (seen with 7.2).
            ("WATCHDOG", Some("poweroff"), _) => self.ending = Some(StopCause::Destroyed),
            ("BLOCK_IO_ERROR", Some("stop"), _) => self.pause = Some(SuspendCause::IoError),
            // On the target RESUME comes before it, or the guest stays paused.
            ("MIGRATION", _, Some("completed")) if self.incoming => {
                self.incoming = false;
                // A guest that arrives asleep or paused sends no RESUME.
                self.needs_status = true;
            }
            ("MIGRATION", _, Some("completed")) if !self.state.is_running() => {
                self.ending = Some(StopCause::Migrated);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
