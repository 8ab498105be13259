//! Events in the very form in which every QEMU so far has written them, read without a JSON parser:
//!
//! ```text
//! {"timestamp": {"seconds": 1795333210, "microseconds": 380905}, "event": "STOP"}
//! {"timestamp": {"seconds": 1795333210, "microseconds": 380905}, "event": "RESET", "data": {...}}
//! ```
//!
//! What is not of this form to the letter is left to the parser, which has the last word: here nothing
//! is an error.

use serde_json::value::RawValue;

use super::{Event, Timestamp};

/// The event, if the line has the form.
pub(super) fn event(line: &[u8]) -> Option<Event<'_>> {
    let rest = line.strip_prefix(b"{\"timestamp\": {\"seconds\": ")?;
    let (seconds, rest) = number(rest)?;
    let rest = rest.strip_prefix(b", \"microseconds\": ")?;
    let (microseconds, rest) = number(rest)?;
    let rest = rest.strip_prefix(b"}, \"event\": \"")?;
    let length = rest.iter().position(|byte| !is_of_a_name(*byte))?;
    let (name, rest) = rest.split_at(length);
    let data = match rest {
        b"\"}" => None,
        _ => {
            let data = rest.strip_prefix(b"\", \"data\": ")?.strip_suffix(b"}")?;
            // This one parser is needed: data is passed on, and must be one value and nothing more.
            let data = std::str::from_utf8(data).ok()?;
            let data = serde_json::from_str::<&RawValue>(data).ok()?;
            // To the parser that is as good as none.
            Some(data).filter(|data| data.get() != "null")
        }
    };
    let name = std::str::from_utf8(name).ok()?;
    Some(Event { name, at: Timestamp { seconds, microseconds }.time(), data })
}

/// A number without a sign, and what follows it. One that may not fit is left to the parser.
fn number(text: &[u8]) -> Option<(i64, &[u8])> {
    let length = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at(length);
    let is_plain = match digits {
        [] | [b'0', _, ..] => false,
        _ => length <= 18,
    };
    let value =
        |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    is_plain.then(|| (value(digits), rest))
}

fn is_of_a_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::super::{Message, parsed};
    use super::*;

    const PLAIN: &str =
        r#"{"timestamp": {"seconds": 1795333210, "microseconds": 380905}, "event": "STOP"}"#;
    const FULL: &str = r#"{"timestamp": {"seconds": 0, "microseconds": 7}, "event": "RESET", "data": {"guest": true, "reason": "ä", "more": [1, {}]}}"#;

    const NULL: &str =
        r#"{"timestamp": {"seconds": 1, "microseconds": 0}, "event": "X_1", "data": null}"#;

    fn text(event: &Event<'_>) -> String {
        format!("{} {:?} {:?}", event.name, event.at, event.data.map(RawValue::get))
    }

    #[test]
    fn what_qemu_writes_is_of_the_form() {
        for line in [PLAIN, FULL, NULL] {
            assert!(event(line.as_bytes()).is_some(), "{line}");
        }
        assert_eq!(event(FULL.as_bytes()).unwrap().data.unwrap().get().len(), 48);
    }

    /// Lines that are nearly of the form: bytes are changed, left out, doubled and swapped.
    #[test]
    fn what_is_read_here_is_what_the_parser_reads() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut familiar = 0;
        for _ in 0..50_000 {
            let mut line = random.choice([PLAIN, FULL, NULL]).unwrap().as_bytes().to_vec();
            for _ in 0..random.usize(0..3) {
                let at = random.usize(0..line.len());
                match random.u8(0..4) {
                    0 => line[at] = *random.choice(b"{}[]\",:\\ 0129-.eE_Aa\xff\x00").unwrap(),
                    1 => drop(line.remove(at)),
                    2 => line.insert(at, line[at]),
                    _ => line.swap(at, 0),
                }
            }
            let Some(event) = event(&line) else { continue };
            familiar += 1;
            match parsed(&line) {
                Ok(Message::Event(same)) => assert_eq!(text(&event), text(&same)),
                other => panic!("{:?}: {other:?}", String::from_utf8_lossy(&line)),
            }
        }
        assert!(familiar > 2_500, "{familiar}");
    }
}
