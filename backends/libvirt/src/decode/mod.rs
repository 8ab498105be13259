//! Decodes frames into [`virevent::DomainEvent`]s, without state, by the table [`procs::EVENTS`].
//!
//! | libvirt's event | becomes |
//! |---|---|
//! | 0 lifecycle | [`Lifecycle`], with libvirt's numbers as [`Change`] has them |
//! | 1 reboot | [`Reboot`] |
//! | 2 to 29 | [`Notice`], by the table of the module `notice` |
//! | any other | [`RawEvent`]: named by libvirt's event id, with the domain, and the rest as bytes |
//!
//! A message of an event from 2 to 29 that does not have the layout that this crate knows is a
//! [`RawEvent`], too.
//!
//! The bytes of a [`RawEvent`] are the body of the message, in XDR, without the callback id and the
//! domain. For nearly all events they are what follows the domain. The power management events (11
//! pmwakeup, 12 pmsuspend, 14 pmsuspend-disk) have an int before the domain, the reason, and their
//! bytes begin with that int. If the domain of a message cannot be read, because its layout is newer
//! than this crate, the event has no domain, and its bytes are all that follows the callback id.
//!
//! No frame is dropped. A message of a procedure that is not in the table is named by the
//! registration that its callback id belongs to; without a registration its name is `procedure-N`.
//! Only lifecycle and reboot events must have the known layout, because the state of every domain
//! depends on them.

mod notice;

use virevent::driver::Batch;
use virevent::{
    Change, Domain, EventData, EventName, Lifecycle, Notice, NoticeBody, RawEvent, Reboot, State,
};

use crate::wire::xdr::{Malformed, Reader};
use crate::wire::{self, Frame, procs};

/// Decodes one event of libvirt's main program into `out`.
///
/// `event_of` returns the event id for which a callback was registered. It names events that are
/// newer than the table.
///
/// # Errors
/// A lifecycle or reboot event does not have the layout of one.
#[inline]
pub fn event(
    frame: &Frame<'_>,
    event_of: impl Fn(i32) -> Option<u32>,
    out: &mut Batch,
) -> Result<(), Malformed> {
    let mut body = Reader::new(frame.body);
    match frame.header.procedure {
        procs::EVENT_LIFECYCLE => {
            let _callback = body.i32()?;
            lifecycle(body, out)
        }
        procs::EVENT_REBOOT => {
            let _callback = body.i32()?;
            reboot(body, out)
        }
        procs::LEGACY_LIFECYCLE => lifecycle(body, out),
        procs::LEGACY_REBOOT => reboot(body, out),
        procedure => {
            other(procedure, body, event_of, out);
            Ok(())
        }
    }
}

#[inline]
fn lifecycle(mut body: Reader<'_>, out: &mut Batch) -> Result<(), Malformed> {
    let event = wire::Lifecycle::read(&mut body)?;
    let change = Change::from_codes(event.event, event.detail);
    let domain = domain(&event.domain, out);
    let at = out.received();
    out.event(Lifecycle::new(domain, change, at));
    Ok(())
}

fn reboot(mut body: Reader<'_>, out: &mut Batch) -> Result<(), Malformed> {
    let domain = domain(&wire::Domain::read(&mut body)?, out);
    let at = out.received();
    out.event(Reboot::new(domain, at));
    Ok(())
}

/// A message of any other event. Not inlined: its large stack frame would be that of lifecycle events.
#[inline(never)]
fn other(procedure: i32, body: Reader<'_>, event_of: impl Fn(i32) -> Option<u32>, out: &mut Batch) {
    match procs::event_of(procedure) {
        Some((event, is_legacy)) => known(event, is_legacy, body, out),
        None => unknown(procedure, body, event_of, out),
    }
}

/// A message of an event in the table.
fn known(event: &procs::Event, is_legacy: bool, mut body: Reader<'_>, out: &mut Batch) {
    // Legacy messages have no callback id, and no reason before the domain.
    if !is_legacy {
        let _callback = body.i32();
    }
    let reason_first = event.reason_first && !is_legacy;
    match typed(event.id, reason_first, body) {
        Ok((about, notice)) => {
            let domain = domain(&about, out);
            let at = out.received();
            out.event(Notice::new(domain, notice, at));
        }
        Err(error) => {
            tracing::debug!(event = event.id, %error, "an event does not have the known layout");
            raw(event.id, reason_first, body, out);
        }
    }
}

fn typed(
    id: u32,
    reason_first: bool,
    mut body: Reader<'_>,
) -> Result<(wire::Domain<'_>, NoticeBody), Malformed> {
    let reason = if reason_first { body.i32()? } else { 0 };
    let about = wire::Domain::read(&mut body)?;
    Ok((about, notice::body(id, reason, body)?))
}

/// A message of a procedure that is not in the table.
fn unknown(
    procedure: i32,
    whole: Reader<'_>,
    event_of: impl Fn(i32) -> Option<u32>,
    out: &mut Batch,
) {
    let mut body = whole;
    // Events in the table have procedures of their own: this is no message of such a registration.
    let id = body.i32().ok().and_then(event_of).filter(|id| *id as usize >= procs::EVENTS.len());
    match id {
        Some(id) => raw(id, false, body, out),
        // An event can be on its way when its deregistration is confirmed.
        None => {
            let name = EventName::Name(format!("procedure-{procedure}").into());
            let data = EventData::Bytes(whole.rest().into());
            let at = out.received();
            out.event(RawEvent::new(out.source(), None, name, data, at));
        }
    }
}

/// An event of this id as it came. `body` is what follows the callback id.
fn raw(id: u32, reason_first: bool, body: Reader<'_>, out: &mut Batch) {
    let at = out.received();
    let (domain, data) = match split(body, reason_first) {
        Ok((about, data)) => (Some(domain(&about, out)), data),
        Err(_) => (None, body.rest().into()),
    };
    let data = EventData::Bytes(data);
    out.event(RawEvent::new(out.source(), domain, EventName::Number(id), data, at));
}

/// Reads a state and its reason.
pub(crate) fn state(body: &mut Reader<'_>) -> Result<State, Malformed> {
    let state = body.i32()?;
    Ok(State::from_codes(state, body.i32()?))
}

/// The domain of an event, and the bytes around it.
fn split(
    mut body: Reader<'_>,
    reason_first: bool,
) -> Result<(wire::Domain<'_>, Box<[u8]>), Malformed> {
    let before: &[u8] = if reason_first { body.fixed::<4>()? } else { &[] };
    let domain = wire::Domain::read(&mut body)?;
    Ok((domain, [before, body.rest()].concat().into()))
}

/// The domain in the driver's form. Bytes of its name that are not UTF-8 are replaced.
#[inline]
pub(crate) fn domain(domain: &wire::Domain<'_>, out: &mut Batch) -> Domain {
    // -1 means that it does not run; so would any other negative number.
    let id = u32::try_from(domain.id).ok();
    match std::str::from_utf8(domain.name) {
        Ok(name) => out.domain(domain.uuid, name, id),
        Err(_) => out.domain(domain.uuid, &String::from_utf8_lossy(domain.name), id),
    }
}

#[cfg(test)]
mod tests;
