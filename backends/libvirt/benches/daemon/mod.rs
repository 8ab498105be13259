//! A daemon without domains that sends whatever it is given: for what is measured.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use virevent::Uuid;
use virevent_libvirt::wire::{Domain, Frames, Header, Lifecycle, StateStats, kind, message, procs};

/// How many domains there are in the events.
const DOMAINS: u128 = 100;

/// So many events, one after the other: every domain is suspended in turn, then resumed, and so on.
pub(crate) fn events(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..count as u128 {
        let name = format!("domain-{:04}", n % DOMAINS);
        let domain =
            Domain { name: name.as_bytes(), uuid: Uuid::from_u128(n % DOMAINS + 1), id: 7 };
        let event = if n / DOMAINS % 2 == 0 { 3 } else { 4 };
        message(&mut bytes, &Header::event(procs::EVENT_LIFECYCLE), |body| {
            body.i32(0);
            Lifecycle { domain, event, detail: 0 }.write(body);
        });
    }
    bytes
}

/// Does what a daemon without domains does, until it has been asked for the list of them.
pub(crate) fn answer_until_listed(mut socket: &UnixStream) {
    let mut frames = Frames::new();
    let mut listed = 0;
    while listed < 2 {
        let bytes = socket.read(frames.spare()).unwrap();
        frames.filled(bytes);
        let mut replies = Vec::new();
        while let Some(frame) = frames.next_frame().unwrap() {
            assert_eq!(frame.header.kind, kind::CALL);
            let header = Header::reply(frame.header.procedure, frame.header.serial);
            message(&mut replies, &header, |body| match frame.header.procedure {
                procs::AUTH_LIST => body.u32(0),
                procs::CONNECT_SUPPORTS_FEATURE => body.i32(1),
                procs::CONNECT_GET_HOSTNAME => body.string("bench"),
                procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY => body.i32(0),
                procs::CONNECT_LIST_ALL_DOMAINS => {
                    listed += 1;
                    Domain::write_all(&[], body);
                    body.u32(0);
                }
                procs::CONNECT_GET_ALL_DOMAIN_STATS => {
                    listed += 1;
                    StateStats::write_all(&[], body);
                }
                _ => {}
            });
        }
        socket.write_all(&replies).unwrap();
    }
}
