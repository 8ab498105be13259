#![allow(clippy::unwrap_used)]

use super::*;

/// Recorded from Cloud Hypervisor v53.0 (and 246 commits: ae44c2971): boot, pause, resume, reboot, shutdown.
const RECORDED: &[u8] = include_bytes!("../../../tests/vectors/api-lifecycle.events");

/// The objects of these bytes, pushed in pieces, and the number of torn places.
fn objects(bytes: &[u8], mut piece: impl FnMut() -> usize) -> (Vec<String>, usize) {
    let mut wire = Objects::default();
    let mut whole = Vec::new();
    let mut torn = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        rest = later;
        wire.push(now);
        while let Some(frame) = wire.next_frame() {
            match frame {
                Frame::Object(text) => whole.push(String::from_utf8(text.to_vec()).unwrap()),
                Frame::Torn(_) => torn += 1,
            }
        }
    }
    assert!(wire.bytes.len() <= MAX_OBJECT + bytes.len());
    (whole, torn)
}

fn one(bytes: &[u8]) -> (Vec<String>, usize) {
    objects(bytes, || usize::MAX)
}

#[test]
fn a_recorded_stream_is_cut_into_its_objects_in_any_pieces() {
    let whole = one(RECORDED);
    assert_eq!(whole.0.len(), 15);
    assert_eq!(whole.1, 0);
    for text in &whole.0 {
        serde_json::from_str::<serde_json::Value>(text).unwrap();
    }
    let mut random = fastrand::Rng::with_seed(1);
    for most in [1, 2, 7, 100, 1000] {
        assert_eq!(objects(RECORDED, || random.usize(1..=most)), whole);
    }
}

#[test]
fn an_object_cut_off_by_the_next_is_torn_and_the_next_is_whole() {
    let (whole, torn) = one(b"{\n  \"source\": \"vm\",\n{\n  \"event\": \"paused\"\n}\n\n");
    assert_eq!(whole, ["{\n  \"event\": \"paused\"\n}"]);
    assert_eq!(torn, 1);
}

#[test]
fn an_object_cut_within_a_line_tears_the_next_as_well() {
    // The writer goes on behind `"sour`, on the same line: the second object has no beginning.
    let (whole, torn) = one(b"{\n  \"sour{\n  \"a\": 1\n}\n\n{\n  \"b\": 2\n}\n\n");
    // Framed as one object; that it is no JSON is for its reader to find.
    assert_eq!(whole.len(), 2);
    assert!(serde_json::from_str::<serde_json::Value>(&whole[0]).is_err());
    assert_eq!(whole[1], "{\n  \"b\": 2\n}");
    assert_eq!(torn, 0);
}

#[test]
fn text_between_objects_is_reported_once() {
    let (whole, torn) = one(b"  \"event\": 1\n}\n\n{\n}\n\nx\ny\n{ \"a\": 1 }\n");
    assert_eq!(whole, ["{\n}", "{ \"a\": 1 }"]);
    assert_eq!(torn, 2);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let long = vec![b'x'; 1024];
    let mut lines = b"{\n".to_vec();
    lines.extend(b" 123456\n".repeat(1024));
    for (first, piece) in [(b"{".to_vec(), &long), (lines.clone(), &lines[2..].to_vec())] {
        let mut wire = Objects::default();
        wire.push(&first);
        let mut torn = 0;
        for _ in 0..1000 {
            while let Some(frame) = wire.next_frame() {
                torn += usize::from(matches!(frame, Frame::Torn(_)));
            }
            wire.push(piece);
            assert!(wire.bytes.len() <= MAX_OBJECT + first.len() + piece.len());
        }
        while wire.next_frame().is_some() {}
        assert_eq!(torn, 1, "reported once");
        wire.push(b"\n{\n  \"event\": \"paused\"\n}\n");
        assert_eq!(wire.next_frame(), Some(Frame::Object(b"{\n  \"event\": \"paused\"\n}")));
    }
}
