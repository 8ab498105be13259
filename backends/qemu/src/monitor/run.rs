//! One run of a QEMU, and how it is told.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Change, Domain, EventData, EventName, Lifecycle, Origin, RawEvent, State, Uuid};

use crate::decode::RunTracker;
use crate::peer::identity::RunIdentity;
use crate::peer::pinned_socket::PinnedSocket;
use crate::peer::process::Process;
use crate::raw_event_filter::RawEventFilter;
use crate::wire::Event;

/// A run of a QEMU.
#[derive(Debug)]
pub(super) struct QemuRun {
    pub(super) identity: RunIdentity,
    /// The name that it said at first, or was given where it said none: a QEMU is never renamed.
    pub(super) name: String,
    /// What it is known by: its own, unless that belongs to another.
    pub(super) uuid: Uuid,
    pub(super) id: u32,
    pub(super) tracker: RunTracker,
    pub(super) process: Option<Process>,
    /// Where the process is not watched: how to find out whether somebody listens, wherever the socket
    /// is by then.
    pub(super) way: Option<Arc<PinnedSocket>>,
    /// When the process was seen to have ended.
    pub(super) ended: Option<Instant>,
    /// A pause whose cause is asked for: when it was, and when it is told without.
    pub(super) pause: Option<(SystemTime, Instant)>,
    /// The state that the driver believes, by what was told.
    pub(super) told: State,
}

impl QemuRun {
    pub(super) fn domain(&self, out: &mut Batch) -> Domain {
        out.domain(self.uuid, &self.name, Some(self.id))
    }

    /// Delivers an event that the tracker has heard already.
    #[inline]
    pub(super) fn tell(&mut self, change: Change, at: SystemTime, out: &mut Batch) {
        self.told = self.tracker.state();
        self.deliver(Origin::Observed, change, at, out);
    }

    /// Delivers that the run began.
    pub(super) fn tell_start(&mut self, origin: Origin, out: &mut Batch) {
        let change = Change::Started(self.tracker.start_cause());
        self.told = State::after(change).unwrap_or(self.told);
        let at = out.received();
        self.deliver(origin, change, at, out);
    }

    #[inline]
    fn deliver(&mut self, origin: Origin, change: Change, at: SystemTime, out: &mut Batch) {
        let mut event = Lifecycle::new(self.domain(out), change, at);
        event.origin = origin;
        event.persistent = Some(false);
        out.event(event);
    }

    /// Delivers a pause whose cause was asked for.
    pub(super) fn tell_pause(&mut self, status: Option<&str>, out: &mut Batch) {
        if let Some((at, _)) = self.pause.take() {
            let change = self.tracker.take_pause(status);
            self.told = State::after(change).unwrap_or(self.told);
            self.deliver(Origin::Observed, change, at, out);
        }
    }

    /// Reports the state; the driver derives what changed.
    pub(super) fn tell_state(&mut self, out: &mut Batch) {
        let domain = self.domain(out);
        self.told = self.tracker.state();
        out.state(domain, self.told);
    }

    /// Reports the state if it is not the one that the driver believes.
    pub(super) fn tell_difference(&mut self, out: &mut Batch) {
        if self.told != self.tracker.state() {
            self.tell_state(out);
        }
    }
}

/// Passes on an event that has no type, if anybody wants it.
pub(super) fn other(
    guest: &QemuRun,
    event: &Event<'_>,
    at: SystemTime,
    wants: &RawEventFilter,
    out: &mut Batch,
) {
    if wants.event(event.name) {
        let data = event.data.map_or("{}", |data| data.get());
        let (domain, name) = (guest.domain(out), EventName::Name(event.name.into()));
        let data = EventData::Json(data.into());
        out.event(RawEvent::new(out.source(), Some(domain), name, data, at));
    }
}
