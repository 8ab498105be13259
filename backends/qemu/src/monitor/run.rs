//! One run of a QEMU, and how it is delivered.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{
    Change, Domain, EventData, EventName, Lifecycle, Notice, Origin, RawEvent, Reboot, State, Uuid,
};

use super::turn::Turn;
use crate::decode::{RunTracker, notice};
use crate::event_filter::Wanted;
use crate::peer::identity::RunIdentity;
use crate::peer::pinned_socket::PinnedSocket;
use crate::peer::process::Process;
use crate::wire::Event;

/// A run of a QEMU, from its first connection to its end.
#[derive(Debug)]
pub(super) struct QemuRun {
    pub(super) identity: RunIdentity,
    /// The name that QEMU reported first, or the configured one if it reported none: QEMU is never
    /// renamed.
    pub(super) name: String,
    /// The uuid that the domain is delivered with: QEMU's own unless another domain has it.
    pub(super) uuid: Uuid,
    pub(super) id: u32,
    pub(super) tracker: RunTracker,
    pub(super) process: Option<Process>,
    /// Where the process is not watched: the socket, to find out whether a process still listens on
    /// it, wherever its file is.
    pub(super) pinned: Option<Arc<PinnedSocket>>,
    /// When the process was seen to have ended.
    pub(super) ended_at: Option<Instant>,
    /// A pause whose cause QEMU was asked for, until the answer or the deadline.
    pub(super) pause: Option<PendingPause>,
    /// The state that the driver believes, by what was delivered.
    pub(super) delivered: State,
}

/// A pause that is not delivered yet, for its cause is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingPause {
    pub(super) at: SystemTime,
    /// When it is delivered without a cause.
    pub(super) due: Instant,
}

impl QemuRun {
    pub(super) fn domain(&self, out: &mut Batch) -> Domain {
        out.domain(self.uuid, &self.name, Some(self.id))
    }

    /// Delivers a change that the tracker has observed already.
    #[inline]
    pub(super) fn deliver(&mut self, change: Change, at: SystemTime, out: &mut Batch) {
        self.delivered = self.tracker.state();
        self.push(Origin::Observed, change, at, out);
    }

    /// Delivers that the run began.
    pub(super) fn deliver_start(&mut self, origin: Origin, out: &mut Batch) {
        let change = Change::Started(self.tracker.start_cause());
        self.delivered = State::after(change).unwrap_or(self.delivered);
        let at = out.received();
        self.push(origin, change, at, out);
    }

    #[inline]
    fn push(&mut self, origin: Origin, change: Change, at: SystemTime, out: &mut Batch) {
        let mut event = Lifecycle::new(self.domain(out), change, at);
        event.origin = origin;
        event.persistent = Some(false);
        out.event(event);
    }

    /// Delivers a pending pause, with the cause that this run state gives.
    pub(super) fn deliver_pause(&mut self, status: Option<&str>, out: &mut Batch) {
        if let Some(pause) = self.pause.take() {
            let change = self.tracker.take_pause(status);
            self.delivered = State::after(change).unwrap_or(self.delivered);
            self.push(Origin::Observed, change, pause.at, out);
        }
    }

    /// Delivers that the guest rebooted.
    pub(super) fn deliver_reboot(&self, at: SystemTime, out: &mut Batch) {
        let domain = self.domain(out);
        out.event(Reboot::new(domain, at));
    }

    /// Delivers the notice of an event, or the event as it came if it has none, if a subscriber
    /// asked for it.
    #[inline]
    pub(super) fn deliver_notice(&self, event: &Event<'_>, at: SystemTime, turn: &mut Turn<'_>) {
        match turn.shared.events.wanted(event.name) {
            Wanted::Nothing => {}
            wanted => self.deliver_wanted(wanted, event, at, turn),
        }
    }

    /// Not inlined: few events come here, and its stack frame is large.
    #[inline(never)]
    fn deliver_wanted(
        &self,
        wanted: Wanted,
        event: &Event<'_>,
        at: SystemTime,
        turn: &mut Turn<'_>,
    ) {
        let body = if wanted == Wanted::Raw { None } else { notice::body(event) };
        match body {
            Some(body) if wanted == Wanted::Notice => {
                let domain = self.domain(turn.out);
                turn.out.event(Notice::new(domain, body, at));
            }
            Some(_) => {}
            None => self.deliver_raw(event, at, turn.out),
        }
    }

    /// Delivers an event as it came.
    fn deliver_raw(&self, event: &Event<'_>, at: SystemTime, out: &mut Batch) {
        let domain = self.domain(out);
        let name = EventName::Name(event.name.into());
        // QEMU leaves the data out where an event has none.
        let data = event.data.map_or("{}", |data| data.get());
        let data = EventData::Json(data.into());
        let event = RawEvent::new(out.source(), Some(domain), name, data, at);
        out.event(event);
    }

    /// Reports the state; the driver derives what changed. A first list that is under way contains
    /// the state.
    pub(super) fn report_state_unless_listing(&mut self, turn: &mut Turn<'_>) {
        if !turn.shared.is_listing {
            self.report_state(turn.out);
        }
    }

    fn report_state(&mut self, out: &mut Batch) {
        let domain = self.domain(out);
        self.delivered = self.tracker.state();
        out.state(domain, self.delivered);
    }

    /// Reports the state if it is not the one that the driver believes.
    pub(super) fn report_difference(&mut self, out: &mut Batch) {
        if self.delivered != self.tracker.state() {
            self.report_state(out);
        }
    }
}
