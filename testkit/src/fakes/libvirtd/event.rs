//! Event messages, as libvirtd sends them.

use virevent::{DomainEvent, EventData, EventName, RawEvent};
use virevent_libvirt::wire::xdr::Writer;
use virevent_libvirt::wire::{Header, Lifecycle, message, procs};

use super::encode::wire_domain;

/// The libvirt event id of an event; `None` if libvirt has none for it.
pub(super) fn event_id(event: &DomainEvent) -> Option<i32> {
    match event {
        DomainEvent::Lifecycle(event) => event.change.codes().map(|_| 0),
        DomainEvent::Reboot(_) => Some(1),
        DomainEvent::Other(event) => match event.name() {
            EventName::Number(id) => i32::try_from(*id).ok(),
            _ => None,
        },
        _ => None,
    }
}

/// The message of an event for a registration with this callback id, or for a legacy one without.
/// `None` if there is no such message.
pub(super) fn event_message(event: &DomainEvent, callback: Option<i32>) -> Option<Vec<u8>> {
    let id = event_id(event)?;
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
            body.i32(0);
        }
        match event {
            DomainEvent::Lifecycle(event) => {
                let (event_code, detail) = event.change.codes().unwrap_or_default();
                let domain = wire_domain(&event.domain);
                Lifecycle { domain, event: event_code, detail }.write(body);
            }
            DomainEvent::Reboot(event) => wire_domain(&event.domain).write(body),
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
