//! A daemon whose domains all run and that sends the events it is given, for benchmarks.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};

use virevent::Uuid;
use virevent_libvirt::wire::{
    Domain, Frames, Header, Lifecycle, StateStats, kind, message, procs, xdr,
};

/// How many domains the events are about.
const DOMAINS: u128 = 100;

/// The bytes of `count` events: each domain is suspended in turn, then each is resumed, and so on.
pub(crate) fn events(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..count as u128 {
        let name = name(n % DOMAINS);
        let domain = domain(&name, n % DOMAINS);
        let event = if n / DOMAINS % 2 == 0 { 3 } else { 4 };
        message(&mut bytes, &Header::event(procs::EVENT_LIFECYCLE), |body| {
            body.i32(0);
            Lifecycle { domain, event, detail: 0 }.write(body);
        });
    }
    bytes
}

/// The bytes of `count` events of this procedure, with the same bytes after the domain.
#[allow(dead_code)]
pub(crate) fn notices(
    procedure: i32,
    count: usize,
    tail: impl Fn(&mut xdr::Writer<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..count as u128 {
        let name = name(n % DOMAINS);
        message(&mut bytes, &Header::event(procedure), |body| {
            body.i32(0);
            domain(&name, n % DOMAINS).write(body);
            tail(body);
        });
    }
    bytes
}

fn name(number: u128) -> String {
    format!("domain-{number:04}")
}

fn domain(name: &str, number: u128) -> Domain<'_> {
    Domain { name: name.as_bytes(), uuid: Uuid::from_u128(number + 1), id: 7 }
}

/// Serves a client until it has asked for the list of domains.
pub(crate) fn answer_until_listed(mut socket: impl Read + Write) {
    let names: Vec<String> = (0..DOMAINS).map(name).collect();
    let domains: Vec<Domain<'_>> =
        (0..).zip(&names).map(|(number, name)| domain(name, number)).collect();
    let states: Vec<StateStats<'_>> = domains
        .iter()
        .map(|domain| StateStats { domain: *domain, state: Some(1), reason: Some(1) })
        .collect();
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
                    Domain::write_all(&domains, body);
                    body.u32(domains.len() as u32);
                }
                procs::CONNECT_GET_ALL_DOMAIN_STATS => {
                    listed += 1;
                    StateStats::write_all(&states, body);
                }
                _ => {}
            });
        }
        socket.write_all(&replies).unwrap();
        socket.flush().unwrap();
    }
}
