//! Event messages, as libvirtd sends them.

use virevent::{DomainEvent, EventData, EventName, NoticeBody, PmSuspendCause, RawEvent};
use virevent_libvirt::wire::xdr::Writer;
use virevent_libvirt::wire::{Header, Lifecycle, message, procs};

use super::encode::wire_domain;
use super::notice;

/// The event ids of an event: none of what libvirt has no event for, two where it sends an event in
/// an older form, too.
pub(super) fn event_ids(event: &DomainEvent) -> Vec<i32> {
    match event {
        DomainEvent::Lifecycle(event) if event.change.codes().is_some() => vec![0],
        DomainEvent::Reboot(_) => vec![1],
        DomainEvent::Notice(event) => match &*event.body {
            // A domain sleeps either in memory or on disk.
            NoticeBody::PmSuspend { target: PmSuspendCause::Disk, .. } => vec![14],
            NoticeBody::PmSuspend { .. } => vec![12],
            _ => {
                let kind = Some(event.kind());
                let ids = procs::EVENTS.iter().map(|known| known.id);
                let of_kind = ids.filter(|id| virevent::Kind::of_libvirt(*id) == kind);
                of_kind.map(|id| id as i32).collect()
            }
        },
        DomainEvent::Other(event) => match event.name() {
            EventName::Number(id) => i32::try_from(*id).into_iter().collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The message of an event under this id, for the registration with this callback id; for a legacy
/// one without. `None` for what has no such message.
pub(super) fn event_message(
    event: &DomainEvent,
    id: i32,
    callback: Option<i32>,
) -> Option<Vec<u8>> {
    let known = usize::try_from(id).ok().and_then(|id| procs::EVENTS.get(id));
    let procedure = match (known, callback) {
        (Some(known), Some(_)) => known.procedure,
        (Some(known), None) => known.legacy?,
        // Above every procedure that libvirt has: an event of a later version.
        (None, _) => 9_000 + id,
    };
    // The three events of power management have a reason in front of the domain, always 0, and only
    // in the form with a callback id.
    let reason_first = known.is_some_and(|known| known.reason_first) && callback.is_some();
    let mut out = Vec::new();
    message(&mut out, &Header::event(procedure), |body| {
        if let Some(callback) = callback {
            body.i32(callback);
        }
        if reason_first {
            body.i32(match event {
                DomainEvent::Notice(event) => notice::reason(&event.body),
                _ => 0,
            });
        }
        match event {
            DomainEvent::Lifecycle(event) => {
                let (event_code, detail) = event.change.codes().unwrap_or_default();
                let domain = wire_domain(&event.domain);
                Lifecycle { domain, event: event_code, detail }.write(body);
            }
            DomainEvent::Reboot(event) => wire_domain(&event.domain).write(body),
            DomainEvent::Notice(event) => {
                wire_domain(&event.domain).write(body);
                notice::write(&event.body, id, body);
            }
            DomainEvent::Other(event) => other(event, body),
            _ => {}
        }
    });
    Some(out)
}

fn other(event: &RawEvent, body: &mut Writer<'_>) {
    if let Some(domain) = &event.domain {
        wire_domain(domain).write(body);
    }
    match event.data() {
        EventData::Bytes(bytes) => body.raw(bytes),
        EventData::Json(text) => body.string(text.as_bytes()),
        _ => {}
    }
}
