//! What the events so far say of the VM: whether it exists, its run, and its state.
//!
//! ```text
//!             booting          booted, restored            paused
//!   absent ─────────▶ created ─────────────────▶ running ◀────────▶ paused
//!     ▲                 │ ▲                         │    resumed       │
//!     │    deleted      │ │        shutdown         │                  │
//!     ◀─────────────────┘ └─────────────────────────┴──────────────────┘
//! ```

use serde::Deserialize;
use virevent::driver::{Batch, Listed};
use virevent::{
    Change, CrashCause, DefineCause, Domain, EventData, EventName, Kind, Lifecycle, Notice,
    PausedReason, RawEvent, Reboot, ResumeCause, RunningReason, ShutoffReason, StartCause, State,
    StopCause, SuspendCause, UndefineCause,
};
use virevent::{Uuid, driver::Interest};

use crate::decode::{Event, Meaning};

/// The lower part of a run's id: the process id. Linux's are smaller (`PID_MAX_LIMIT`).
const PID_BITS: u32 = 22;

/// The state of a VM that has not run, or of which no event said why it ended.
const OFF: State = State::Shutoff(ShutoffReason::Unspecified);

/// The VM behind one API socket.
#[derive(Clone, Debug)]
pub(crate) struct Vm {
    name: String,
    uuid: Uuid,
    pid: u32,
    /// The number of runs in this process, the current one included.
    runs: u32,
    exists: bool,
    /// The state of its run; `None` without one.
    run: Option<State>,
    /// The state without a run: why the last one ended.
    off: State,
    /// A migration is coming in.
    is_receiving: bool,
    /// The cause of the run's end if `shutdown` or `deleted` comes next.
    ending: StopCause,
}

/// The answer of `vm.info`, as far as it is used (`VmInfoResponse` in Cloud Hypervisor's
/// `vmm/src/api/mod.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Info {
    pub(crate) state: VmState,
}

/// `VmState` in Cloud Hypervisor's `vmm/src/vm.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum VmState {
    Created,
    Running,
    Shutdown,
    Paused,
    /// A debugger has stopped it.
    BreakPoint,
    /// Newer than this table.
    #[serde(other)]
    Unknown,
}

impl Vm {
    pub(crate) fn new(name: &str, uuid: Uuid, pid: u32) -> Self {
        let name = name.to_owned();
        Self {
            name,
            uuid,
            pid,
            runs: 0,
            exists: false,
            run: None,
            off: OFF,
            is_receiving: false,
            ending: StopCause::Shutdown,
        }
    }

    /// Applies an event from before the connection: nothing is delivered.
    pub(crate) fn remember(&mut self, event: &Event<'_>) {
        self.apply(&event.meaning(), &mut |_, _| {});
    }

    /// Applies an event, and delivers it.
    pub(crate) fn observe(&mut self, event: &Event<'_>, interest: &Interest, out: &mut Batch) {
        match event.meaning() {
            Meaning::Rebooted => {
                self.apply(&Meaning::Rebooted, &mut |_, _| {});
                let domain = self.domain(out);
                let at = out.received();
                out.event(Reboot::new(domain, at));
            }
            Meaning::Notice(body) => {
                let domain = self.domain(out);
                let at = out.received();
                out.event(Notice::new(domain, body, at));
            }
            meaning => {
                let mut is_typed = false;
                self.apply(&meaning, &mut |vm, change| {
                    is_typed = true;
                    let domain = vm.domain(out);
                    let at = out.received();
                    out.event(Lifecycle::new(domain, change, at));
                });
                if !is_typed {
                    self.other(event, interest, out);
                }
            }
        }
        // A boot or a reboot that fails sends nothing more.
        if &*event.source == "vm" && matches!(&*event.event, "booting" | "rebooting" | "restoring")
        {
            let scope = virevent::Scope::Domain(self.domain(out));
            out.doubt(scope);
        }
    }

    fn other(&self, event: &Event<'_>, interest: &Interest, out: &mut Batch) {
        let name = EventName::Name(format!("{}/{}", event.source, event.event).into());
        // Each device that the guest activates has such events: their properties are copied only if
        // a subscriber asks for them.
        if interest.contains(&Kind::Named(name.clone())) {
            let data = event.properties.map_or("null", |properties| properties.get());
            let domain = self.domain(out);
            let source = out.source();
            let at = out.received();
            out.event(RawEvent::new(source, Some(domain), name, EventData::Json(data.into()), at));
        }
    }

    /// The process has ended, and the VM with it.
    pub(crate) fn process_ended(&mut self, out: &mut Batch) {
        // It was killed, or crashed: in an orderly end it deletes the VM before.
        if self.ending == StopCause::Shutdown {
            self.ending = StopCause::Failed;
        }
        self.apply(&Meaning::Deleted, &mut |vm, change| {
            let domain = vm.domain(out);
            let at = out.received();
            out.event(Lifecycle::new(domain, change, at));
        });
    }

    /// Changes what is known, and gives each change to `emit` when the VM is as after it.
    fn apply(&mut self, meaning: &Meaning, emit: &mut dyn FnMut(&Self, Change)) {
        match meaning {
            Meaning::Prepared => self.define(emit),
            Meaning::Receiving => {
                self.is_receiving = true;
                self.define(emit);
            }
            Meaning::Booted => self.begin(Change::Started(StartCause::Booted), emit),
            Meaning::Restored if self.is_receiving => {
                self.begin(Change::Started(StartCause::Migrated), emit);
            }
            Meaning::Restored => {
                self.begin(Change::Started(StartCause::Restored), emit);
                self.change(Change::Suspended(SuspendCause::Restored), emit);
            }
            Meaning::Received => self.is_receiving = false,
            Meaning::Paused => self.change(Change::Suspended(SuspendCause::Paused), emit),
            Meaning::Resumed if self.is_receiving => {
                self.change(Change::Resumed(ResumeCause::Migrated), emit);
            }
            Meaning::Resumed => self.change(Change::Resumed(ResumeCause::Unpaused), emit),
            Meaning::Crashed(cause) => {
                // The kernel that is loaded after a crash shuts the guest down in good order.
                if *cause == CrashCause::Panicked {
                    self.ending = StopCause::Crashed;
                }
                self.change(Change::Crashed(*cause), emit);
            }
            Meaning::Rebooted => {
                self.ending = StopCause::Shutdown;
                if self.run.is_some() {
                    self.run = Some(State::Running(RunningReason::Booted));
                }
            }
            Meaning::SentAway => self.ending = StopCause::Migrated,
            Meaning::ShutDown => self.end(emit),
            Meaning::Deleted | Meaning::ReceiveFailed => {
                // After a migration there is no `shutdown` before.
                self.end(emit);
                self.is_receiving = false;
                self.off = OFF;
                if std::mem::take(&mut self.exists) {
                    emit(self, Change::Undefined(UndefineCause::Removed));
                }
            }
            Meaning::Notice(_) | Meaning::Other => {}
        }
    }

    fn define(&mut self, emit: &mut dyn FnMut(&Self, Change)) {
        if !std::mem::replace(&mut self.exists, true) {
            emit(self, Change::Defined(DefineCause::Added));
        }
    }

    fn begin(&mut self, change: Change, emit: &mut dyn FnMut(&Self, Change)) {
        self.define(emit);
        self.end(emit);
        self.runs += 1;
        self.ending = StopCause::Shutdown;
        self.run = State::after(change);
        emit(self, change);
    }

    fn change(&mut self, change: Change, emit: &mut dyn FnMut(&Self, Change)) {
        if self.run.is_some() {
            self.run = State::after(change).or(self.run);
            emit(self, change);
        }
    }

    fn end(&mut self, emit: &mut dyn FnMut(&Self, Change)) {
        let ending = std::mem::replace(&mut self.ending, StopCause::Shutdown);
        if self.run.is_some() {
            // With the id of the run that ends.
            emit(self, Change::Stopped(ending));
            self.run = None;
            self.off = State::after(Change::Stopped(ending)).unwrap_or(OFF);
        }
    }

    /// Whether the hypervisor's answer says the same of the run as the events so far. `None`: there
    /// is no VM.
    pub(crate) fn agrees(&self, info: Option<Info>) -> bool {
        match (active(info), self.run) {
            (None, None) => true,
            (Some(state), Some(run)) => state.is_paused() == run.is_paused(),
            _ => false,
        }
    }

    /// The list that the hypervisor's answer makes. What the events cannot have said is taken from
    /// it.
    pub(crate) fn listed(&mut self, info: Option<Info>, out: &mut Batch) -> Vec<Listed> {
        self.exists = info.is_some();
        match active(info) {
            None if self.run.is_none() => {}
            None => {
                self.run = None;
                self.off = OFF;
            }
            Some(state) if self.run.is_none() => {
                self.runs += 1;
                self.run = Some(state);
            }
            Some(state) if !self.agrees(info) => self.run = Some(state),
            // The same, and the events know the reason.
            Some(_) => {}
        }
        let state = self.run.unwrap_or(self.off);
        let domain = self.domain(out);
        // The VM outlives its run until it is deleted, by `vm.delete` or at the end of the process.
        let listed = Listed::new(domain, state, Some(true));
        info.map(|_| listed).into_iter().collect()
    }

    fn domain(&self, out: &mut Batch) -> Domain {
        out.domain(self.uuid, &self.name, self.run.map(|_| self.id()))
    }

    /// The id of the run: the process id, and in the upper bits which run of the process it is: a
    /// VM may be shut down and booted again in the same process.
    fn id(&self) -> u32 {
        (self.runs.saturating_sub(1) << PID_BITS) | (self.pid & ((1 << PID_BITS) - 1))
    }
}

/// The state of the run, if there is one.
fn active(info: Option<Info>) -> Option<State> {
    match info?.state {
        // `vm.info` says "Created" after `vm.shutdown`: "Shutdown" is seen only on the way there.
        VmState::Created | VmState::Shutdown => None,
        VmState::Running => Some(State::Running(RunningReason::Unspecified)),
        VmState::Paused | VmState::BreakPoint => Some(State::Paused(PausedReason::Unspecified)),
        VmState::Unknown => Some(State::NoState),
    }
}

#[cfg(test)]
mod tests;
