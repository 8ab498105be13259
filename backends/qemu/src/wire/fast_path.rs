//! A fast path for events in the form in which every QEMU so far has written them, without a JSON
//! parser:
//!
//! ```text
//! {"timestamp": {"seconds": 1795333210, "microseconds": 380905}, "event": "STOP"}
//! {"timestamp": {"seconds": 1795333210, "microseconds": 380905}, "event": "RESET", "data": {...}}
//! ```
//!
//! A line that differs in a single byte is left to the parser, which decides: nothing is an error
//! here.

use serde_json::value::RawValue;

use super::{Event, Timestamp};

/// Returns the event if the line has this form.
pub(super) fn event(line: &[u8]) -> Option<Event<'_>> {
    let rest = line.strip_prefix(b"{\"timestamp\": {\"seconds\": ")?;
    let (seconds, rest) = number(rest)?;
    let rest = rest.strip_prefix(b", \"microseconds\": ")?;
    let (microseconds, rest) = number(rest)?;
    let rest = rest.strip_prefix(b"}, \"event\": \"")?;
    let length = rest.iter().position(|byte| !is_name_byte(*byte))?;
    let (name, rest) = rest.split_at(length);
    let data = match rest {
        b"\"}" => None,
        _ => {
            let data = rest.strip_prefix(b"\", \"data\": ")?.strip_suffix(b"}")?;
            // Parsed, for data is passed on and must be exactly one value.
            let data = std::str::from_utf8(data).ok()?;
            let data = serde_json::from_str::<&RawValue>(data).ok()?;
            // The parser reads null as absent, too.
            Some(data).filter(|data| data.get() != "null")
        }
    };
    let name = std::str::from_utf8(name).ok()?;
    Some(Event { name, at: Timestamp { seconds, microseconds }.time(), data })
}

/// Splits off a number without a sign. One that may not fit is left to the parser.
pub(super) fn number(text: &[u8]) -> Option<(i64, &[u8])> {
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

pub(super) fn is_name_byte(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::super::agreement;
    use super::*;

    const PLAIN: &str =
        r#"{"timestamp": {"seconds": 1795333210, "microseconds": 380905}, "event": "STOP"}"#;
    const FULL: &str = r#"{"timestamp": {"seconds": 0, "microseconds": 7}, "event": "RESET", "data": {"guest": true, "reason": "ä", "more": [1, {}]}}"#;

    const NULL: &str =
        r#"{"timestamp": {"seconds": 1, "microseconds": 0}, "event": "X_1", "data": null}"#;

    #[test]
    fn the_fast_path_reads_what_qemu_writes() {
        for line in [PLAIN, FULL, NULL] {
            assert!(event(line.as_bytes()).is_some(), "{line}");
        }
        assert_eq!(event(FULL.as_bytes()).unwrap().data.unwrap().get().len(), 48);
    }

    #[test]
    fn the_fast_path_agrees_with_the_parser() {
        let read = agreement::with_the_parser(&[PLAIN, FULL, NULL], event);
        assert!(read > 2_500, "{read}");
    }
}
