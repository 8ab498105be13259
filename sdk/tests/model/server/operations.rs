//! The operations on a domain, and the events that the hypervisor sends for them.

use std::time::SystemTime;

use virevent::{
    Change, CrashCause, DefineCause, Kind, Lifecycle, PausedReason, PmSuspendCause, Reboot,
    ResumeCause, RunningReason, StartCause, State, StopCause, SuspendCause, UndefineCause,
};

use super::{Inner, Message, OFF, Truth};
use crate::steps::Operation;

const RUNNING: State = State::Running(RunningReason::Booted);
const PAUSED: State = State::Paused(PausedReason::User);
const STARTING: State = State::Paused(PausedReason::StartingUp);
const ARRIVING: State = State::Paused(PausedReason::Migration);

impl Inner {
    /// Carries out an operation, if it is possible in the domain's state.
    pub(crate) fn act(&mut self, operation: Operation, number: u8) {
        let level = self.variant.level;
        // A level-triggered hypervisor (XenStore) knows runs only.
        let is_definition = matches!(
            operation,
            Operation::Define | Operation::Undefine | Operation::Rename | Operation::SilentUndefine
        );
        if level && is_definition {
            return;
        }
        let mut truth = self.domains[usize::from(number)].clone();
        let active = truth.run.filter(|_| !truth.is_starting);
        let inactive = truth.run.is_none();
        let running = active.filter(|_| truth.state.is_running());
        match operation {
            Operation::Define if !truth.is_starting => {
                let cause =
                    if truth.persistent { DefineCause::Updated } else { DefineCause::Added };
                truth.persistent = true;
                self.set(truth, &[(Id::Current, Change::Defined(cause))]);
            }
            Operation::Undefine if truth.persistent && !truth.is_starting => {
                truth.persistent = false;
                self.set(truth, &[(Id::Current, Change::Undefined(UndefineCause::Removed))]);
            }
            Operation::Rename if truth.persistent && inactive => {
                let old = truth.name.clone();
                truth.name = if old.ends_with('x') { old.replace('x', "") } else { old + "x" };
                // The undefined event has the old name, the defined event the new one, both the
                // same uuid.
                let before = self.domains[usize::from(number)].clone();
                self.emit(&before, Id::Current, Change::Undefined(UndefineCause::Renamed));
                self.set(truth, &[(Id::Current, Change::Defined(DefineCause::Renamed))]);
            }
            Operation::Start if inactive && truth.persistent => self.start(truth, RUNNING),
            Operation::Create if !truth.exists() => self.start(truth, RUNNING),
            Operation::StartPaused if inactive && (truth.persistent || level) => {
                self.start(truth, PAUSED);
            }
            Operation::Suspend if running.is_some() => {
                truth.state = PAUSED;
                self.set(truth, &[(Id::Current, Change::Suspended(SuspendCause::Paused))]);
            }
            Operation::Resume if active.is_some() && truth.state.is_paused() => {
                truth.state = State::Running(RunningReason::Unpaused);
                self.set(truth, &[(Id::Current, Change::Resumed(ResumeCause::Unpaused))]);
            }
            Operation::Sleep if running.is_some() => {
                truth.state = State::PmSuspended;
                self.set(truth, &[(Id::Current, Change::PmSuspended(PmSuspendCause::Memory))]);
            }
            Operation::Wake if active.is_some() && truth.state == State::PmSuspended => {
                truth.state = State::Running(RunningReason::Wakeup);
                self.set(truth, &[(Id::Current, Change::Started(StartCause::Wakeup))]);
            }
            Operation::Stop if active.is_some() => {
                self.stop(truth, Id::Current, StopCause::Shutdown);
            }
            // libvirt gives no id for a run that was destroyed (seen on 9.0).
            Operation::Destroy if active.is_some() => {
                self.stop(truth, Id::None, StopCause::Destroyed);
            }
            Operation::Crash if running.is_some() => {
                // libvirt's order: crashed with the id, then stopped without one.
                self.emit(&truth, Id::Current, Change::Crashed(CrashCause::Panicked));
                self.stop(truth, Id::None, StopCause::Crashed);
            }
            Operation::Reboot if running.is_some() => {
                self.send(
                    &Kind::Reboot,
                    Box::new(move |batch| {
                        let domain = truth.domain(batch, truth.run);
                        let at = SystemTime::UNIX_EPOCH;
                        batch.event(Reboot::new(domain, at));
                    }),
                );
            }
            Operation::BeginStart if inactive && truth.persistent => {
                truth.run = Some(self.next_id(number));
                truth.state = STARTING;
                // No event until it completes: libvirt sends none for a start that fails (seen on
                // 9.0).
                truth.is_starting = true;
                self.domains[usize::from(number)] = truth;
            }
            Operation::Arrive if inactive => {
                truth.run = Some(self.next_id(number));
                truth.state = ARRIVING;
                truth.is_starting = true;
                self.set(truth, &[(Id::Current, Change::Started(StartCause::Migrated))]);
            }
            Operation::EndStart if truth.is_starting && truth.state == ARRIVING => {
                truth.is_starting = false;
                truth.state = State::Running(RunningReason::Migrated);
                self.set(truth, &[(Id::Current, Change::Resumed(ResumeCause::Migrated))]);
            }
            Operation::EndStart if truth.is_starting => {
                truth.is_starting = false;
                truth.state = RUNNING;
                self.set(truth, &START);
            }
            Operation::FailStart if truth.is_starting => {
                truth.is_starting = false;
                self.end_silently(truth);
            }
            Operation::SilentStop if active.is_some() => self.end_silently(truth),
            Operation::SilentPause if running.is_some() => {
                truth.state = PAUSED;
                self.was_silent = true;
                self.domains[usize::from(number)] = truth;
            }
            Operation::SilentStart if inactive && (truth.persistent || level) => {
                truth.run = Some(self.next_id(number));
                truth.state = RUNNING;
                self.was_silent = true;
                self.domains[usize::from(number)] = truth;
            }
            Operation::SilentUndefine if truth.persistent && !truth.is_starting => {
                truth.persistent = false;
                self.was_silent = true;
                self.domains[usize::from(number)] = truth;
            }
            _ => {}
        }
    }

    /// The id of a new run: free, and not a recent one of this domain. A run that ends in an outage
    /// and another that begins under the same id look like one run (a documented limit).
    fn next_id(&mut self, number: u8) -> u32 {
        let lists = self.lists;
        // Two lists later no subscriber can take the id for that of the earlier run.
        self.used.retain(|(_, _, used)| used + 2 > lists);
        loop {
            self.last_id += 1;
            let id = self.last_id;
            let is_free = self.domains.iter().all(|domain| domain.run != Some(id));
            let is_recent = self.used.iter().any(|(user, used, _)| *user == number && *used == id);
            if is_free && !is_recent {
                self.used.push((number, id, lists));
                return id;
            }
        }
    }

    fn end_silently(&mut self, mut truth: Truth) {
        truth.run = None;
        truth.state = OFF;
        self.was_silent = true;
        let number = usize::from(truth.number);
        self.domains[number] = truth;
    }

    fn start(&mut self, mut truth: Truth, state: State) {
        truth.run = Some(self.next_id(truth.number));
        truth.state = state;
        match state {
            RUNNING => self.set(truth, &START),
            _ => self.set(
                truth,
                &[
                    (Id::Current, Change::Started(StartCause::Booted)),
                    (Id::Current, Change::Suspended(SuspendCause::Paused)),
                ],
            ),
        }
    }

    fn stop(&mut self, mut truth: Truth, id: Id, cause: StopCause) {
        let run = truth.run.take();
        truth.state = OFF;
        let id = match (id, run) {
            (Id::Current, Some(run)) => Id::Of(run),
            (id, _) => id,
        };
        self.set(truth, &[(id, Change::Stopped(cause))]);
    }

    /// Sets the state of a domain, and sends the events for it.
    fn set(&mut self, truth: Truth, changes: &[(Id, Change)]) {
        for (id, change) in changes {
            self.emit(&truth, *id, *change);
        }
        let number = usize::from(truth.number);
        self.domains[number] = truth;
    }

    fn emit(&mut self, truth: &Truth, id: Id, change: Change) {
        let level = self.variant.level;
        let truth = truth.clone();
        let run = match id {
            Id::Current => truth.run,
            Id::None => None,
            Id::Of(run) => Some(run),
        };
        self.send(
            &Kind::Lifecycle,
            Box::new(move |batch| {
                let domain = truth.domain(batch, run);
                match change {
                    Change::Stopped(cause) if level => batch.gone(&domain, cause),
                    _ if level && domain.is_active() => batch.state(domain, truth.state),
                    _ if level => {}
                    _ => {
                        let at = SystemTime::UNIX_EPOCH;
                        batch.event(Lifecycle::new(domain, change, at));
                    }
                }
            }),
        );
    }

    fn send(&mut self, kind: &Kind, message: Message) {
        let Some(connection) = &mut self.connection else { return };
        if !connection.registered.contains(kind) {
            return;
        }
        // Late events let replies overtake them, which only verification finds out.
        if self.variant.silent && !self.variant.level {
            connection.in_flight.push(message);
        } else {
            let _ = connection.messages.send(message);
        }
    }
}

/// The events of a start in the order of libvirt's QEMU driver (seen on 9.0).
const START: [(Id, Change); 2] = [
    (Id::Current, Change::Resumed(ResumeCause::Unpaused)),
    (Id::Current, Change::Started(StartCause::Booted)),
];

/// The id that an event carries.
#[derive(Clone, Copy, Debug)]
enum Id {
    Current,
    None,
    Of(u32),
}
