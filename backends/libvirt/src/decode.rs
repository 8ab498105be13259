//! Decodes frames into [`virevent::DomainEvent`]s, without state, by the table [`procs::EVENTS`].
//!
//! | libvirt's event | becomes |
//! |---|---|
//! | 0 lifecycle | [`Lifecycle`], with libvirt's numbers as [`Change`] has them |
//! | 1 reboot | [`Reboot`] |
//! | any other | [`RawEvent`]: named by libvirt's event id, with the domain, and the rest as bytes |
//!
//! The bytes of a [`RawEvent`] are the body of the message, in XDR, without the callback id and the
//! domain. For nearly all events they are what follows the domain. The power management events (11
//! pmwakeup, 12 pmsuspend, 14 pmsuspend-disk) have an int before the domain, the reason, and their
//! bytes are that int. If the domain of a message cannot be read, because its layout is newer than
//! this crate, the event has no domain, and its bytes are all that follows the callback id.
//!
//! No frame is dropped. A message of a procedure that is not in the table is named by the
//! registration that its callback id belongs to; without a registration its name is `procedure-N`.
//! Only lifecycle and reboot events must have the known layout, because the state of every domain
//! depends on them.

use virevent::driver::Batch;
use virevent::{Change, Domain, EventData, EventName, Lifecycle, RawEvent, Reboot, State};

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

fn other(
    procedure: i32,
    mut body: Reader<'_>,
    event_of: impl Fn(i32) -> Option<u32>,
    out: &mut Batch,
) {
    let known = procs::event_of(procedure);
    let whole = body;
    // Legacy messages have no callback id.
    let callback = match known {
        Some((_, true)) => None,
        _ => body.i32().ok(),
    };
    let id = known.map(|(event, _)| event.id).or_else(|| {
        // Events in the table have procedures of their own: this is no message of such a
        // registration.
        callback.and_then(event_of).filter(|id| *id as usize >= procs::EVENTS.len())
    });
    let at = out.received();
    // An event can be on its way when its deregistration is confirmed.
    let Some(id) = id else {
        let name = EventName::Name(format!("procedure-{procedure}").into());
        let data = EventData::Bytes(whole.rest().into());
        return out.event(RawEvent::new(out.source(), None, name, data, at));
    };
    let reason_first = known.is_some_and(|(event, legacy)| event.reason_first && !legacy);
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
mod tests {
    use virevent::{DomainEvent, Uuid};

    use super::*;
    use crate::wire::xdr::Writer;
    use crate::wire::{Frames, Header, message};

    const WEB: wire::Domain<'static> =
        wire::Domain { name: b"web", uuid: Uuid::from_u128(1), id: 3 };

    fn decoded(
        procedure: i32,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Result<DomainEvent, Malformed> {
        let mut bytes = Vec::new();
        let mut frames = Frames::new();
        let mut batch = Batch::new("s:", "h");
        message(&mut bytes, &Header::event(procedure), body);
        frames.push(&bytes);
        let frame = frames.next_frame().unwrap().unwrap();
        event(&frame, |callback| (callback == 40).then_some(30), &mut batch)?;
        Ok(batch.events()[0].clone())
    }

    fn raw(
        procedure: i32,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> (String, Option<String>, Vec<u8>) {
        match decoded(procedure, body).unwrap() {
            DomainEvent::Other(event) => {
                let EventData::Bytes(data) = event.data() else { panic!("{event:?}") };
                let domain = event.domain.as_ref().map(ToString::to_string);
                (event.name().to_string(), domain, data.to_vec())
            }
            event => panic!("{event:?}"),
        }
    }

    #[test]
    fn unknown_lifecycle_numbers_are_kept() {
        let event = |event, detail| {
            let body = wire::Lifecycle { domain: WEB, event, detail };
            let decoded = decoded(procs::EVENT_LIFECYCLE, |w| {
                w.i32(0);
                body.write(w);
            });
            decoded.unwrap().to_string()
        };
        assert_eq!(event(5, 1), "web[3] stopped (destroyed)");
        assert_eq!(event(5, 42), "web[3] stopped (unknown: 42)");
        assert_eq!(event(77, -3), "web[3] unknown(77, -3)");
    }

    #[test]
    fn an_id_of_minus_1_is_none_and_bad_utf8_in_names_is_replaced() {
        let about = wire::Domain { name: b"w\xffb", id: -1, ..WEB };
        let event = decoded(procs::LEGACY_REBOOT, |w| about.write(w)).unwrap();
        assert_eq!(event.to_string(), "w\u{fffd}b rebooted");
    }

    #[test]
    fn other_events_keep_all_bytes_but_those_of_the_domain() {
        let tail = |w: &mut Writer<'_>| {
            w.i32(1);
            WEB.write(w);
            w.i32(9);
        };
        assert_eq!(raw(321, tail), ("3".into(), Some("web[3]".into()), vec![0, 0, 0, 9]));
        let reason = |w: &mut Writer<'_>| {
            w.i32(1);
            w.i32(8);
            WEB.write(w);
        };
        assert_eq!(raw(329, reason), ("11".into(), Some("web[3]".into()), vec![0, 0, 0, 8]));
        let legacy = |w: &mut Writer<'_>| WEB.write(w);
        assert_eq!(raw(269, legacy), ("11".into(), Some("web[3]".into()), vec![]));
    }

    /// As libvirt 12.8 sends them.
    #[test]
    fn vcpu_removed_and_channel_lifecycle_have_a_domain() {
        let vcpu_removed = |w: &mut Writer<'_>| {
            w.i32(1);
            WEB.write(w);
            w.u32(3);
        };
        assert_eq!(raw(454, vcpu_removed), ("28".into(), Some("web[3]".into()), vec![0, 0, 0, 3]));
        let tail = |w: &mut Writer<'_>| {
            w.string("org.qemu.guest_agent.0");
            w.i32(1); // connected
            w.i32(2); // reason: channel
        };
        let channel_lifecycle = |w: &mut Writer<'_>| {
            w.i32(1);
            WEB.write(w);
            tail(w);
        };
        let mut data = Vec::new();
        tail(&mut Writer::new(&mut data));
        assert_eq!(raw(455, channel_lifecycle), ("29".into(), Some("web[3]".into()), data));
    }

    #[test]
    fn an_event_newer_than_the_table_has_its_registrations_name() {
        let newer = |w: &mut Writer<'_>| {
            w.i32(40);
            WEB.write(w);
            w.i32(9);
        };
        assert_eq!(raw(999, newer), ("30".into(), Some("web[3]".into()), vec![0, 0, 0, 9]));
        let strange = |w: &mut Writer<'_>| {
            w.i32(40);
            w.i32(-1);
        };
        assert_eq!(raw(999, strange), ("30".into(), None, vec![255; 4]));
        let stray = |w: &mut Writer<'_>| w.i32(41);
        assert_eq!(raw(999, stray), ("procedure-999".into(), None, vec![0, 0, 0, 41]));
    }

    #[test]
    fn a_lifecycle_event_that_is_too_short_is_malformed() {
        assert!(decoded(procs::EVENT_LIFECYCLE, |w| WEB.write(w)).is_err());
        assert!(decoded(procs::EVENT_REBOOT, |w| w.i32(0)).is_err());
    }
}
