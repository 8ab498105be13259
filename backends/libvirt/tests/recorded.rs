//! Recorded sessions of a real libvirtd, whole and in pieces, compared with the recorder's
//! summaries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Value, json};
use virevent::driver::Batch;
use virevent::{DomainEvent, GraphicsAddress, Kind, NoticeBody, ParamValue, Params};
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

/// An event as a line: name, uuid, id, kind, and each field as the recorder writes it.
fn event_line(event: &DomainEvent) -> String {
    let domain = event.domain().unwrap();
    let what = match event {
        DomainEvent::Lifecycle(event) => {
            let (event, detail) = event.change.codes().unwrap();
            format!("lifecycle {}", json!([event, detail]))
        }
        DomainEvent::Reboot(_) => "reboot []".into(),
        DomainEvent::Notice(event) => format!("{} {}", event.kind(), fields(&event.body)),
        event => panic!("{event}"),
    };
    let id = domain.id().map_or(-1, i64::from);
    format!("{} {} {id} {what}", domain.name(), domain.uuid())
}

/// The fields of a notice as the recorder writes them: with libvirt's numbers, in the order of the
/// wire.
fn fields(body: &NoticeBody) -> Value {
    let address = |address: &GraphicsAddress| {
        json!([address.family.code(), &*address.node, &*address.service])
    };
    let params = |params: &Params| {
        let value = |value: &ParamValue| match value {
            ParamValue::Int(number) => json!(i64::try_from(*number).unwrap()),
            ParamValue::Text(text) => json!(&**text),
            value => panic!("{value}"),
        };
        let all: serde_json::Map<_, _> =
            params.0.iter().map(|(name, param)| (name.to_string(), value(param))).collect();
        json!([all])
    };
    match body {
        NoticeBody::RtcChange { offset } => json!([offset]),
        NoticeBody::Watchdog { action } => json!([action.code()]),
        // The recorder names the messages without a reason by another event.
        NoticeBody::IoError { path, alias, action, reason } => {
            json!([&**path, &**alias, action.code(), &**reason])
        }
        NoticeBody::Graphics { phase, local, remote, auth_scheme, identities } => json!([{
            "phase": phase.code(),
            "local": address(local),
            "remote": address(remote),
            "auth": &**auth_scheme,
            "subject": identities.iter().map(|id| [&*id.kind, &*id.name]).collect::<Vec<_>>(),
        }]),
        NoticeBody::ControlError {} => json!([]),
        NoticeBody::BlockJob { disk, job, status } => json!([&**disk, job.code(), status.code()]),
        NoticeBody::DiskChange { old_path, new_path, alias, reason } => {
            json!([old_path.as_deref(), new_path.as_deref(), &**alias, reason.code()])
        }
        NoticeBody::TrayChange { alias, reason } => json!([&**alias, reason.code()]),
        NoticeBody::PmWakeup { reason } => json!([reason]),
        NoticeBody::PmSuspend { target, reason } => json!([reason, target.code()]),
        NoticeBody::BalloonChange { actual } => json!([actual]),
        NoticeBody::DeviceRemoved { alias }
        | NoticeBody::DeviceAdded { alias }
        | NoticeBody::DeviceRemovalFailed { alias } => json!([&**alias]),
        NoticeBody::Tunable { params: all } | NoticeBody::JobCompleted { params: all } => {
            params(all)
        }
        NoticeBody::AgentLifecycle { state, reason } => json!([state.code(), reason.code()]),
        NoticeBody::MigrationIteration { iteration } => json!([iteration]),
        NoticeBody::MetadataChange { metadata, uri } => json!([metadata.code(), uri.as_deref()]),
        NoticeBody::BlockThreshold { disk, path, threshold, excess } => {
            json!([&**disk, path.as_deref(), threshold, excess])
        }
        NoticeBody::MemoryFailure {
            recipient,
            action,
            action_required,
            recursive,
            other_flags,
        } => {
            let flags = u32::from(*action_required) | u32::from(*recursive) << 1 | other_flags;
            json!([recipient.code(), action.code(), flags])
        }
        NoticeBody::MemoryDeviceSizeChange { alias, size } => json!([&**alias, size]),
        body => panic!("not recorded so far: {body:?}"),
    }
}

/// The same line from the recorder's summary; `None` if it is no event.
fn summary_line(summary: &str) -> Option<String> {
    let (head, json) = summary.split_once(" {")?;
    let procedure = head.strip_prefix("remote message ")?.split_once('(')?.1.split_once(')')?.0;
    let (event, _) = procs::event_of(procedure.parse().unwrap()).expect("in the table");
    let summary: Value = serde_json::from_str(&format!("{{{json}")).unwrap();
    let mut fields = summary["fields"].clone();
    match event.id {
        // Without a reason.
        4 => fields.as_array_mut().unwrap().push("".into()),
        11 => fields = json!([summary["reason_word"]]),
        // The target that is in the name of the event.
        12 => fields = json!([summary["reason_word"], 0]),
        14 => fields = json!([summary["reason_word"], 1]),
        _ => {}
    }
    let domain = &summary["dom"];
    let name = domain["name"].as_str()?;
    let uuid = domain["uuid"].as_str()?;
    let kind = Kind::of_libvirt(event.id).unwrap();
    Some(format!("{name} {uuid} {} {kind} {fields}", domain["id"]))
}

#[test]
fn recorded_events_decode_with_every_field_however_cut() {
    let sessions = [
        (session!("test-session"), 41),
        (session!("test-observer"), 16),
        (session!("test-filters"), 6),
        (session!("test-legacy"), 2),
        (session!("virsh-event-all"), 4),
        (session!("qemu-session"), 25),
        (session!("qemu-all-events"), 59),
        (session!("qemu-memory-device"), 7),
        (session!("qemu-migration-source"), 19),
        (session!("qemu-migration-target"), 10),
        (session!("qemu-process-death"), 13),
        (session!("qemu-guest-crashloaded"), 5),
        (session!("qemu-guest-panic-destroy"), 4),
        (session!("qemu-guest-panic-preserve"), 5),
        (session!("qemu-guest-panic-restart"), 29),
        (session!("qemu-guest-poweroff"), 4),
        (session!("qemu-guest-poweroff-restart"), 16),
        (session!("qemu-guest-reboot-destroy"), 4),
        (session!("qemu-guest-s3-wakeup"), 11),
        (session!("qemu-guest-s4"), 6),
    ];
    let mut kinds = BTreeSet::new();
    for (session, count) in sessions {
        let expected: Vec<_> =
            session.summaries.iter().filter_map(|summary| summary_line(summary)).collect();
        assert_eq!(expected.len(), count);
        let mut random = Rng::with_seed(count as u64);
        for piece in [usize::MAX, 1, 7, 40, 100, 5000] {
            let events = session.events(piece, &mut random);
            assert_eq!(events.iter().map(event_line).collect::<Vec<_>>(), expected, "{piece}");
            kinds.extend(events.iter().filter_map(|event| match event {
                DomainEvent::Lifecycle(_) => Some(Kind::Lifecycle),
                DomainEvent::Reboot(_) => Some(Kind::Reboot),
                DomainEvent::Notice(event) => Some(event.kind()),
                _ => None,
            }));
        }
    }
    // libvirt 9.0 has no others.
    let newer = [Kind::NicMacChange, Kind::VcpuRemoved, Kind::ChannelLifecycle];
    let expected = Kind::TYPED.iter().filter(|kind| !newer.contains(kind)).cloned().collect();
    assert_eq!(kinds, expected);
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
            "alpha metadata-change title",
            "alpha[4] started (booted)",
            "alpha[4] suspended (paused)",
            "alpha[4] metadata-change element urn:lab:meta",
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
