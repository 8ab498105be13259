//! What happens to a domain, and what is said of it.

use std::time::SystemTime;

use virevent::{
    Change, CrashCause, DefineCause, Kind, Lifecycle, PausedReason, PmSuspendCause, Reboot,
    ResumeCause, RunningReason, StartCause, State, StopCause, SuspendCause, UndefineCause,
};

use super::{Inner, OFF, Truth, Word};
use crate::steps::Deed;

const RUNNING: State = State::Running(RunningReason::Booted);
const PAUSED: State = State::Paused(PausedReason::User);
const STARTING: State = State::Paused(PausedReason::StartingUp);
const ARRIVING: State = State::Paused(PausedReason::Migration);

impl Inner {
    /// Something happens to a domain, unless it cannot.
    pub(crate) fn act(&mut self, deed: Deed, number: u8) {
        let level = self.variant.level;
        // A level-triggered hypervisor knows runs only.
        let is_definition =
            matches!(deed, Deed::Define | Deed::Undefine | Deed::Rename | Deed::SilentUndefine);
        if level && is_definition {
            return;
        }
        let mut truth = self.domains[usize::from(number)].clone();
        let active = truth.run.filter(|_| !truth.is_starting);
        let inactive = truth.run.is_none();
        let running = active.filter(|_| truth.state.is_running());
        match deed {
            Deed::Define if !truth.is_starting => {
                let cause =
                    if truth.persistent { DefineCause::Updated } else { DefineCause::Added };
                truth.persistent = true;
                self.set(truth, &[(Id::Current, Change::Defined(cause))]);
            }
            Deed::Undefine if truth.persistent && !truth.is_starting => {
                truth.persistent = false;
                self.set(truth, &[(Id::Current, Change::Undefined(UndefineCause::Removed))]);
            }
            Deed::Rename if truth.persistent && inactive => {
                let old = truth.name.clone();
                truth.name = if old.ends_with('x') { old.replace('x', "") } else { old + "x" };
                let before = self.domains[usize::from(number)].clone();
                self.emit(&before, Id::Current, Change::Undefined(UndefineCause::Renamed));
                self.set(truth, &[(Id::Current, Change::Defined(DefineCause::Renamed))]);
            }
            Deed::Start if inactive && truth.persistent => self.start(truth, RUNNING),
            Deed::Create if !truth.exists() => self.start(truth, RUNNING),
            Deed::StartPaused if inactive && (truth.persistent || level) => {
                self.start(truth, PAUSED);
            }
            Deed::Suspend if running.is_some() => {
                truth.state = PAUSED;
                self.set(truth, &[(Id::Current, Change::Suspended(SuspendCause::Paused))]);
            }
            Deed::Resume if active.is_some() && truth.state.is_paused() => {
                truth.state = State::Running(RunningReason::Unpaused);
                self.set(truth, &[(Id::Current, Change::Resumed(ResumeCause::Unpaused))]);
            }
            Deed::Sleep if running.is_some() => {
                truth.state = State::PmSuspended;
                self.set(truth, &[(Id::Current, Change::PmSuspended(PmSuspendCause::Memory))]);
            }
            Deed::Wake if active.is_some() && truth.state == State::PmSuspended => {
                truth.state = State::Running(RunningReason::Wakeup);
                self.set(truth, &[(Id::Current, Change::Started(StartCause::Wakeup))]);
            }
            Deed::Stop if active.is_some() => self.stop(truth, Id::Current, StopCause::Shutdown),
            // libvirt gives no id for a run that was destroyed.
            Deed::Destroy if active.is_some() => self.stop(truth, Id::None, StopCause::Destroyed),
            Deed::Crash if running.is_some() => {
                self.emit(&truth, Id::Current, Change::Crashed(CrashCause::Panicked));
                self.stop(truth, Id::None, StopCause::Crashed);
            }
            Deed::Reboot if running.is_some() => {
                self.send(
                    &Kind::Reboot,
                    Box::new(move |batch| {
                        let domain = truth.domain(batch, truth.run);
                        let at = SystemTime::UNIX_EPOCH;
                        batch.event(Reboot::new(domain, at));
                    }),
                );
            }
            Deed::BeginStart if inactive && truth.persistent => {
                truth.run = Some(self.next_id(number));
                truth.state = STARTING;
                truth.is_starting = true;
                self.domains[usize::from(number)] = truth;
            }
            Deed::Arrive if inactive => {
                truth.run = Some(self.next_id(number));
                truth.state = ARRIVING;
                truth.is_starting = true;
                self.set(truth, &[(Id::Current, Change::Started(StartCause::Migrated))]);
            }
            Deed::EndStart if truth.is_starting && truth.state == ARRIVING => {
                truth.is_starting = false;
                truth.state = State::Running(RunningReason::Migrated);
                self.set(truth, &[(Id::Current, Change::Resumed(ResumeCause::Migrated))]);
            }
            Deed::EndStart if truth.is_starting => {
                truth.is_starting = false;
                truth.state = RUNNING;
                self.set(truth, &START);
            }
            Deed::FailStart if truth.is_starting => {
                truth.is_starting = false;
                self.end_silently(truth);
            }
            Deed::SilentStop if active.is_some() => self.end_silently(truth),
            Deed::SilentPause if running.is_some() => {
                truth.state = PAUSED;
                self.was_silent = true;
                self.domains[usize::from(number)] = truth;
            }
            Deed::SilentStart if inactive && (truth.persistent || level) => {
                truth.run = Some(self.next_id(number));
                truth.state = RUNNING;
                self.was_silent = true;
                self.domains[usize::from(number)] = truth;
            }
            Deed::SilentUndefine if truth.persistent && !truth.is_starting => {
                truth.persistent = false;
                self.was_silent = true;
                self.domains[usize::from(number)] = truth;
            }
            _ => {}
        }
    }

    /// The id of a new run: one that is free, and that this domain did not have shortly before. A
    /// run that ends and another that begins under the same id while nobody listens look like one
    /// (a documented limit).
    fn next_id(&mut self, number: u8) -> u32 {
        let lists = self.lists;
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

    /// The domain is so now, and this is what is said of it.
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

    fn send(&mut self, kind: &Kind, word: Word) {
        let Some(line) = &mut self.line else { return };
        if !line.registered.contains(kind) {
            return;
        }
        // Only where what is believed is verified may events be late: replies then overtake them.
        if self.variant.silent && !self.variant.level {
            line.held.push(word);
        } else {
            let _ = line.words.send(word);
        }
    }
}

/// libvirt's QEMU driver says a start like this.
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
