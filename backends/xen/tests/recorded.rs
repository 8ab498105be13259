//! Recorded sessions of a real xenstored, whole and in pieces, and what they decode to.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use virevent::{EventSource, Kind, Options};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};
use virevent_testkit::fakes::xenstored::FakeXenstored;
use virevent_testkit::toolstack::RunState;
use virevent_xen::XenStore;
use virevent_xen::decode::{self, Request};
use virevent_xen::wire::{
    Decoder, DirectoryPart, Header, Operation, Packet, TooLong, WatchEvent, packet, strings,
};

macro_rules! session {
    ($name:literal) => {
        lines(include_str!(concat!("vectors/xenstore-", $name, ".jsonl")))
    };
}

/// The bytes of each packet, whether the server sent it, and the recorder's note.
fn lines(recorded: &str) -> Vec<(bool, Vec<u8>, String)> {
    let lines = recorded.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["dir"].is_string())
        .map(|line| {
            let hex = line["hex"].as_str().unwrap();
            let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes = (0..hex.len()).step_by(2).map(digits).collect();
            let what = line["what"].as_str().unwrap_or_default().to_owned();
            (line["dir"] == "s2c", bytes, what)
        })
        .collect()
}

type Owned = (Header, Vec<u8>);

/// The packets of one side, read in pieces of at most `piece` bytes.
fn packets(
    lines: &[(bool, Vec<u8>, String)],
    from_server: bool,
    piece: usize,
    random: &mut Rng,
) -> Vec<Owned> {
    // One request is too long. The server closed the connection upon it.
    let side = lines.iter().filter(|(side, bytes, _)| *side == from_server && !is_too_long(bytes));
    let bytes: Vec<u8> = side.flat_map(|(_, bytes, _)| bytes.clone()).collect();
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let taken = decoder.push(&rest[..random.usize(1..=piece.min(rest.len()))]);
        rest = &rest[taken..];
        while let Some(packet) = decoder.next_packet().unwrap() {
            found.push((packet.header, packet.payload.to_vec()));
        }
    }
    assert!(!decoder.is_midway());
    found
}

fn is_too_long(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    matches!(decoder.next_packet(), Err(TooLong { length: 4097, .. }))
}

fn view(packet: &Owned) -> Packet<'_> {
    Packet { header: packet.0, payload: &packet.1 }
}

#[test]
fn every_recorded_packet_decodes_wherever_it_is_cut() {
    let sessions = [
        session!("basics"),
        session!("directory-part"),
        session!("lifecycle-observer"),
        session!("pipelined"),
        session!("races"),
        session!("watches"),
    ];
    let mut random = Rng::with_seed(8);
    for lines in sessions {
        for from_server in [false, true] {
            let whole = packets(&lines, from_server, usize::MAX, &mut random);
            for piece in [1, 7, 16, 1_000] {
                assert_eq!(packets(&lines, from_server, piece, &mut random), whole);
            }
            let side = lines.iter().filter(|line| line.0 == from_server && !is_too_long(&line.1));
            let side: Vec<_> = side.collect();
            assert_eq!(whole.len(), side.len());
            for (packet_found, (_, bytes, what)) in whole.iter().zip(side) {
                let Header { operation, request, transaction } = packet_found.0;
                let length = packet_found.1.len();
                let operation = operation.name().map_or(operation.0.to_string(), str::to_owned);
                let prefix = format!("{operation} req={request} tx={transaction} len={length} ");
                assert!(what.starts_with(&prefix), "{prefix:?} where the recorder has {what:?}");
                let mut again = Vec::new();
                packet(&mut again, &packet_found.0, &[&packet_found.1]).unwrap();
                assert_eq!(again, *bytes);
            }
        }
    }
}

#[test]
fn every_watch_event_has_a_path_and_a_token() {
    let mut random = Rng::with_seed(9);
    let mut seen = 0;
    for lines in [session!("watches"), session!("races"), session!("flood")] {
        for packet in packets(&lines, true, 900, &mut random) {
            if packet.0.operation == Operation::WATCH_EVENT {
                let event = WatchEvent::read(&view(&packet)).unwrap();
                assert!(matches!(event.path.first(), Some(b'/' | b'@' | b'a'..=b'z')), "{event:?}");
                assert_eq!((packet.0.request, packet.0.transaction), (0, 0));
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn a_list_of_900_names_comes_in_parts() {
    let lines = session!("directory-part");
    let mut random = Rng::with_seed(10);
    let mut lists: Vec<(usize, usize)> = Vec::new();
    let mut offset = 0;
    for packet in packets(&lines, true, usize::MAX, &mut random) {
        if packet.0.operation != Operation::DIRECTORY_PART {
            continue;
        }
        let part = DirectoryPart::read(&view(&packet)).unwrap();
        match lists.last_mut() {
            Some((names, parts)) if offset > 0 => {
                *names += strings(part.names).count();
                *parts += 1;
            }
            _ => lists.push((strings(part.names).count(), 1)),
        }
        offset = if part.is_last { 0 } else { offset + part.names.len() };
    }
    assert!(lists.contains(&(900, 3)), "{lists:?}");
}

/// The replies to an observer that reads after each event, by path.
#[test]
fn recorded_replies_are_decoded() {
    let lines = session!("lifecycle-observer");
    let mut random = Rng::with_seed(11);
    let asked: BTreeMap<u32, Owned> = packets(&lines, false, usize::MAX, &mut random)
        .into_iter()
        .map(|packet| (packet.0.request, packet))
        .collect();
    let mut values = Vec::new();
    for reply in packets(&lines, true, usize::MAX, &mut random) {
        let Some(request) = asked.get(&reply.0.request) else { continue };
        let path = String::from_utf8_lossy(strings(&request.1).next().unwrap()).into_owned();
        let is_error = reply.0.operation == Operation::ERROR;
        let text = view(&reply).text();
        values.push(match (path.rsplit('/').next().unwrap(), request.0.operation) {
            _ if is_error => format!("{path}: {}", String::from_utf8_lossy(text)),
            ("vm", _) => decode::uuid(&reply.1).unwrap().to_string(),
            ("name", _) => decode::name(&reply.1).unwrap(),
            ("shutdown", _) => format!("{:?}", Request::read(&reply.1)),
            (_, Operation::IS_DOMAIN_INTRODUCED) => {
                format!("{path} {}", String::from_utf8_lossy(text))
            }
            ("domain", Operation::DIRECTORY) => {
                format!("{:?}", strings(&reply.1).filter_map(decode::domid).collect::<Vec<_>>())
            }
            _ => continue,
        });
    }
    let expected = [
        "/local/domain: ENOENT",
        "[5]",
        "web-1",
        "00000005-0000-4000-8000-000000000005",
        "5 T",
        "Poweroff",
        "5 T",
        "/local/domain/5/name: ENOENT",
        "5 F",
        "[]",
        "6 T",
    ];
    assert_eq!(values, expected);
}

#[tokio::test]
async fn recorded_toolstack_actions_are_reported_in_order() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let fake = FakeXenstored::start().unwrap();
    let xl = fake.toolstack();
    let source = XenStore::new(&fake.uri()).unwrap().source();
    let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
    let mut events = source.subscribe_with(options).await.unwrap();
    until_synced(&mut events).await.unwrap();

    // The events after the request of this number.
    let expected: BTreeMap<u32, &[&str]> = [
        (38, &["web-1[5] started"][..]),
        (
            40,
            &[
                "web-1[5] shutting_down (host)",
                "web-1[5] event control/shutdown {\"request\":\"poweroff\"}",
            ],
        ),
        (44, &["web-1[5] stopped (shutdown)"]),
        (83, &["db[5] started"]),
        (122, &["mail.example[6] started"]),
        (124, &["db[5] undefined (renamed)", "mail.example-new[5] defined (renamed)"]),
        (127, &["mail.example[6] stopped"]),
        (131, &["mail.example-new[5] stopped"]),
    ]
    .into();
    let mut socket = tokio::net::UnixStream::connect(fake.socket()).await.unwrap();
    for domid in [5, 6] {
        xl.set_run_state(domid, Some(RunState::Running)).unwrap();
    }
    let mut decoder = Decoder::new();
    let mut reply = [0; 4_096];
    for (_, bytes, what) in session!("lifecycle-toolstack").iter().filter(|(server, ..)| !server) {
        socket.write_all(bytes).await.unwrap();
        while decoder.next_packet().unwrap().is_none() {
            let count = socket.read(&mut reply).await.unwrap();
            assert_eq!(decoder.push(&reply[..count]), count);
        }
        let number = u32::from_ne_bytes([4, 5, 6, 7].map(|at| bytes[at]));
        for line in expected.get(&number).copied().unwrap_or_default() {
            let event = next_within(&mut events, Duration::from_secs(10)).await.unwrap();
            assert_eq!(event.to_string(), *line, "after {what}");
        }
        if number == 45 {
            // The hypervisor's part, which is in no packet: the domain is gone, and there is another.
            xl.vanish(5).unwrap();
            xl.set_run_state(5, Some(RunState::Running)).unwrap();
        }
    }
    nothing_within(&mut events, Duration::from_millis(100)).await.unwrap();
}
