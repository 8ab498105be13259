//! For the tests of the readers of events that stand before the parser.

use serde_json::value::RawValue;

use super::{Event, Message, parsed};

/// The content of an event.
pub(super) fn text(event: &Event<'_>) -> String {
    format!("{} {:?} {:?}", event.name, event.at, event.data.map(RawValue::get))
}

/// Reads lines that are nearly these: bytes are changed, removed, doubled and swapped. Fails where
/// the reader and the parser disagree, and returns how many lines the reader has read.
pub(super) fn with_the_parser(
    lines: &[&str],
    read: impl for<'a> Fn(&'a [u8]) -> Option<Event<'a>>,
) -> usize {
    let mut random = fastrand::Rng::with_seed(7);
    let mut count = 0;
    for _ in 0..50_000 {
        let mut line = random.choice(lines).unwrap().as_bytes().to_vec();
        for _ in 0..random.usize(0..3) {
            let at = random.usize(0..line.len());
            match random.u8(0..4) {
                0 => line[at] = *random.choice(b"{}[]\",:\\ \t0129-.eE_Aa\xff\x00").unwrap(),
                1 => drop(line.remove(at)),
                2 => line.insert(at, line[at]),
                _ => line.swap(at, 0),
            }
        }
        let Some(event) = read(&line) else { continue };
        count += 1;
        match parsed(&line) {
            Ok(Message::Event(same)) => assert_eq!(text(&event), text(&same)),
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(&line)),
        }
    }
    count
}
