//! One run of a QEMU, and how it is told.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Change, Domain, EventData, EventName, Lifecycle, Origin, RawEvent, Uuid};

use crate::decode::Story;
use crate::file::Way;
use crate::identity::Identity;
use crate::process::Process;
use crate::wants::Wants;
use crate::wire::Event;

/// A run of a QEMU.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) identity: Identity,
    /// The name that it said at first, or was given where it said none: a QEMU is never renamed.
    pub(super) name: String,
    /// What it is known by: its own, unless that belongs to another.
    pub(super) uuid: Uuid,
    pub(super) id: u32,
    pub(super) story: Story,
    pub(super) process: Option<Process>,
    /// Where the process is not watched: how to find out whether somebody listens, wherever the socket
    /// is by then.
    pub(super) way: Option<Arc<Way>>,
    /// When the process was seen to have ended.
    pub(super) ended: Option<Instant>,
    /// A pause whose cause is asked for: when it was, and when it is told without.
    pub(super) pause: Option<(SystemTime, Instant)>,
    /// It was reset after its end, or may have survived a crash: how it is now is asked for.
    pub(super) is_reborn: bool,
}

impl Guest {
    pub(super) fn domain(&self, out: &mut Batch) -> Domain {
        out.domain(self.uuid, &self.name, Some(self.id))
    }

    /// Tells a pause whose cause was asked for.
    pub(super) fn tell_pause(&mut self, status: Option<&str>, out: &mut Batch) {
        if let Some((at, _)) = self.pause.take() {
            let change = self.story.paused(status);
            let domain = self.domain(out);
            out.event(Lifecycle::new(domain, change, at));
        }
    }
}

/// Tells that a run began.
pub(super) fn start(guest: &Guest, origin: Origin, out: &mut Batch) {
    let (domain, at) = (guest.domain(out), out.received());
    let mut event = Lifecycle::new(domain, Change::Started(guest.story.start_cause()), at);
    event.origin = origin;
    out.event(event);
}

/// Passes on an event that has no type, if anybody wants it.
pub(super) fn other(
    guest: &Guest,
    event: &Event<'_>,
    at: SystemTime,
    wants: &Wants,
    out: &mut Batch,
) {
    if wants.event(event.name) {
        let data = event.data.map_or("{}", |data| data.get());
        let (domain, name) = (guest.domain(out), EventName::Name(event.name.into()));
        let data = EventData::Json(data.into());
        out.event(RawEvent::new(out.source(), Some(domain), name, data, at));
    }
}
