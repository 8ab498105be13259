use virevent::{DomainEvent, Uuid};

use super::*;
use crate::wire::xdr::Writer;
use crate::wire::{Frames, Header, message};

const WEB: wire::Domain<'static> = wire::Domain { name: b"web", uuid: Uuid::from_u128(1), id: 3 };

fn decoded(procedure: i32, body: impl FnOnce(&mut Writer<'_>)) -> Result<DomainEvent, Malformed> {
    let mut bytes = Vec::new();
    let mut frames = Frames::new();
    let mut batch = Batch::new("s:", "h");
    message(&mut bytes, &Header::event(procedure), body);
    frames.push(&bytes);
    let frame = frames.next_frame().unwrap().unwrap();
    event(&frame, |callback| (callback == 40).then_some(30), &mut batch)?;
    Ok(batch.events()[0].clone())
}

fn raw(procedure: i32, body: impl FnOnce(&mut Writer<'_>)) -> (String, Option<String>, Vec<u8>) {
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
fn a_power_management_event_has_its_reason_and_target() {
    let text = |procedure, body: fn(&mut Writer<'_>)| match decoded(procedure, body).unwrap() {
        DomainEvent::Notice(notice) => format!("{} {:?}", notice.domain, notice.body),
        event => panic!("{event:?}"),
    };
    // With a callback id the reason comes before the domain.
    let reason_first: fn(&mut Writer<'_>) = |w| {
        w.i32(1);
        w.i32(8);
        WEB.write(w);
    };
    assert_eq!(text(329, reason_first), "web[3] PmWakeup { reason: 8 }");
    assert_eq!(text(330, reason_first), "web[3] PmSuspend { target: Memory, reason: 8 }");
    assert_eq!(text(332, reason_first), "web[3] PmSuspend { target: Disk, reason: 8 }");
    // A legacy message has none.
    assert_eq!(text(269, |w| WEB.write(w)), "web[3] PmWakeup { reason: 0 }");
    assert_eq!(text(270, |w| WEB.write(w)), "web[3] PmSuspend { target: Memory, reason: 0 }");
    assert_eq!(text(292, |w| WEB.write(w)), "web[3] PmSuspend { target: Disk, reason: 0 }");
}

#[test]
fn legacy_messages_decode_without_a_callback_id() {
    let watchdog = decoded(171, |w| {
        WEB.write(w);
        w.i32(2);
    });
    assert_eq!(watchdog.unwrap().to_string(), "web[3] watchdog reset");
    let block_job = decoded(241, |w| {
        WEB.write(w);
        w.string("/x.qcow2");
        w.i32(1);
        w.i32(0);
    });
    assert_eq!(block_job.unwrap().to_string(), "web[3] block-job /x.qcow2: pull completed");
}

#[test]
fn a_message_of_another_layout_is_passed_on_whole() {
    let watchdog = |tail: &'static [u8]| {
        move |w: &mut Writer<'_>| {
            w.i32(1);
            WEB.write(w);
            w.raw(tail);
        }
    };
    assert!(matches!(decoded(321, watchdog(&[0, 0, 0, 9])), Ok(DomainEvent::Notice(_))));
    let web = Some("web[3]".to_owned());
    assert_eq!(raw(321, watchdog(&[])), ("3".into(), web.clone(), vec![]));
    let longer = watchdog(&[0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(raw(321, longer), ("3".into(), web.clone(), vec![0, 0, 0, 1, 0, 0, 0, 2]));
    let reason = |w: &mut Writer<'_>| {
        w.i32(1);
        w.i32(8);
        WEB.write(w);
        w.i32(5);
    };
    assert_eq!(raw(329, reason), ("11".into(), web, vec![0, 0, 0, 8, 0, 0, 0, 5]));
    assert_eq!(raw(321, |w| w.i32(1)), ("3".into(), None, vec![]));
    assert_eq!(raw(321, |_| {}), ("3".into(), None, vec![]));
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
