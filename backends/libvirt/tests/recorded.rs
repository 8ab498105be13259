//! Recorded sessions of a real libvirtd, whole and in pieces, compared with the recorder's
//! summaries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fastrand::Rng;
use serde_json::Value;
use virevent::driver::Batch;
use virevent::{DomainEvent, EventData};
use virevent_libvirt::decode;
use virevent_libvirt::wire::xdr::Reader;
use virevent_libvirt::wire::{
    Domain, Frames, Header, RemoteError, classify, kind, procs, program, status,
};

macro_rules! session {
    ($name:literal) => {
        Session::read(include_str!(concat!("vectors/libvirt-", $name, ".jsonl")))
    };
}

/// What the server sent, and the recorder's summary of each message.
struct Session {
    bytes: Vec<u8>,
    summaries: Vec<String>,
}

impl Session {
    fn read(text: &str) -> Self {
        let mut bytes = Vec::new();
        let mut summaries = Vec::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["dir"] == "s2c" {
                bytes.extend(from_hex(line["hex"].as_str().unwrap()));
                summaries.push(line["what"].as_str().unwrap_or_default().to_owned());
            }
        }
        Self { bytes, summaries }
    }

    /// All events, decoded from pieces of at most `piece` bytes.
    fn events(&self, piece: usize, random: &mut Rng) -> Vec<DomainEvent> {
        let mut frames = Frames::new();
        let mut batch = Batch::new("s:", "h");
        let mut rest = &self.bytes[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(random.usize(1..=piece.min(rest.len())));
            rest = tail;
            frames.push(head);
            while let Some(frame) = frames.next_frame().unwrap() {
                let Header { program, kind, .. } = frame.header;
                if (program, kind) == (program::REMOTE, kind::MESSAGE) {
                    decode::event(&frame, |_| None, &mut batch).unwrap();
                }
            }
        }
        batch.events().to_vec()
    }

    /// The replies: status, procedure, body.
    fn replies(&self) -> Vec<(u32, i32, Vec<u8>)> {
        let mut frames = Frames::new();
        let mut replies = Vec::new();
        frames.push(&self.bytes);
        while let Some(frame) = frames.next_frame().unwrap() {
            if frame.header.kind == kind::REPLY {
                replies.push((frame.header.status, frame.header.procedure, frame.body.to_vec()));
            }
        }
        replies
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// An event as a line: name, uuid, id, and the event id or the two numbers of a lifecycle event.
fn event_line(event: &DomainEvent) -> String {
    let domain = event.domain().unwrap();
    let what = match event {
        DomainEvent::Lifecycle(event) => format!("{:?}", event.change.codes().unwrap()),
        DomainEvent::Reboot(_) => "1".into(),
        DomainEvent::Other(event) => event.name().to_string(),
        marker => panic!("{marker}"),
    };
    let id = domain.id().map_or(-1, i64::from);
    format!("{} {} {id} {what}", domain.name(), domain.uuid())
}

/// The same line from the recorder's summary; `None` if it is no event.
fn summary_line(summary: &str) -> Option<String> {
    let (head, json) = summary.split_once(" {")?;
    let procedure = head.strip_prefix("remote message ")?.split_once('(')?.1.split_once(')')?.0;
    let (event, _) = procs::event_of(procedure.parse().unwrap()).expect("in the table");
    let fields: Value = serde_json::from_str(&format!("{{{json}")).unwrap();
    let what = match event.id {
        0 => format!("({}, {})", fields["fields"][0], fields["fields"][1]),
        id => id.to_string(),
    };
    let domain = &fields["dom"];
    let name = domain["name"].as_str()?;
    let uuid = domain["uuid"].as_str()?;
    Some(format!("{name} {uuid} {} {what}", domain["id"]))
}

#[test]
fn recorded_events_decode_wherever_their_bytes_are_cut() {
    let sessions = [
        (session!("test-session"), 41),
        (session!("qemu-session"), 25),
        (session!("qemu-all-events"), 59),
        (session!("qemu-memory-device"), 7),
        (session!("test-legacy"), 2),
    ];
    for (session, count) in sessions {
        let expected: Vec<_> =
            session.summaries.iter().filter_map(|summary| summary_line(summary)).collect();
        assert_eq!(expected.len(), count);
        let mut random = Rng::with_seed(count as u64);
        for piece in [usize::MAX, 1, 7, 40, 100, 5000] {
            let events = session.events(piece, &mut random);
            assert_eq!(events.iter().map(event_line).collect::<Vec<_>>(), expected, "{piece}");
        }
    }
}

#[test]
fn a_recorded_life_is_decoded_in_order() {
    let events = session!("test-session").events(usize::MAX, &mut Rng::with_seed(1));
    let lines: Vec<_> = events.iter().take(14).map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "test[1] suspended (paused)",
            "test[1] resumed (unpaused)",
            "test stopped (shutdown)",
            "test[2] started (booted)",
            "test stopped (destroyed)",
            "test[3] started (booted)",
            "alpha defined (added)",
            "alpha event 23 (8 bytes)",
            "alpha[4] started (booted)",
            "alpha[4] suspended (paused)",
            "alpha[4] event 23 (24 bytes)",
            "alpha[4] resumed (unpaused)",
            "alpha[4] defined (updated)",
            "alpha stopped (destroyed)",
        ]
    );
}

#[test]
fn reads_with_many_messages_and_parts_lose_none() {
    let events = session!("burst").events(usize::MAX, &mut Rng::with_seed(1));
    let lines: Vec<_> = events.iter().map(ToString::to_string).collect();
    let pair = ["test[1] suspended (paused)", "test[1] resumed (unpaused)"];
    assert_eq!(lines, pair.repeat(20));
}

#[test]
fn the_data_of_other_events_begins_after_the_domain() {
    let events = session!("qemu-all-events").events(usize::MAX, &mut Rng::with_seed(1));
    let data = |id: &str| {
        let found = events.iter().find_map(|event| match event {
            DomainEvent::Other(event) if event.name().to_string() == id => Some(event.data()),
            _ => None,
        });
        match found {
            Some(EventData::Bytes(bytes)) => bytes.to_vec(),
            data => panic!("{id}: {data:?}"),
        }
    };
    // 2 rtc-change: hyper.
    assert_eq!(data("2").len(), 8);
    // 12 pmsuspend: the reason, which comes before the domain.
    assert_eq!(data("12"), [0; 4]);
    // 15 device-removed: string.
    assert_eq!(Reader::new(&data("15")).string(), Ok(&b"ua-tab"[..]));
    // 7 control-error: nothing.
    assert!(events.iter().all(|event| event.domain().is_some()));
}

#[test]
fn a_long_list_is_read_whole() {
    let replies = session!("biglist").replies();
    let lists: Vec<_> = replies
        .iter()
        .filter(|(_, procedure, _)| *procedure == procs::CONNECT_LIST_ALL_DOMAINS)
        .map(|(_, _, body)| {
            let mut body = Reader::new(body);
            let domains = Domain::read_all(&mut body).unwrap();
            assert_eq!(body.u32(), Ok(domains.len() as u32), "the count after the list");
            assert!(body.rest().is_empty());
            domains.len()
        })
        .collect();
    assert_eq!(lists, [61, 1]);
}

#[test]
fn recorded_errors_are_refusals_only_if_a_retry_is_useless() {
    let mut seen = Vec::new();
    for (status, _, body) in session!("errors").replies() {
        if status != status::OK {
            let error = RemoteError::read(&mut Reader::new(&body)).unwrap();
            assert!(!error.message.is_empty());
            seen.push((error.code, error.domain, classify(error.code).is_refusal));
        }
    }
    seen.sort_unstable();
    seen.dedup();
    let expected = [
        (1, 7, false),
        (1, 12, false),
        (3, 20, true),
        (5, 0, true),
        (8, 12, true),
        (21, 20, false),
        (35, 20, false),
        (39, 7, false),
        (42, 12, false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn damaged_sessions_never_panic() {
    let session = session!("qemu-all-events");
    let mut random = Rng::with_seed(9);
    for _ in 0..300 {
        let mut bytes = session.bytes.clone();
        for _ in 0..random.usize(1..60) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let mut frames = Frames::new();
        let mut batch = Batch::new("s:", "h");
        frames.push(&bytes);
        while let Ok(Some(frame)) = frames.next_frame() {
            let _ = decode::event(&frame, |callback| Some(callback as u32), &mut batch);
        }
    }
}
