//! A reader for events whose members are in any order, with any white space between them: as a
//! proxy, or a QEMU of another form than [`fast_path`](super::fast_path), may write them.
//!
//! It knows the members that every event has, with values of the types that QEMU has sent so far.
//! Any other line is left to the parser, which decides: nothing is an error here.

use serde_json::value::RawValue;

use super::fast_path::{is_name_byte, number};
use super::{Event, Timestamp};

/// Returns the event if the line is one of known members, each at most once.
pub(super) fn event(line: &[u8]) -> Option<Event<'_>> {
    let mut name = None;
    let mut at = None;
    let mut data = None;
    let mut rest = skip(line, b'{')?;
    loop {
        // Compared with the known keys as a whole: that is faster than to look for the end of one.
        rest = if let Some(value) = member(rest, b"\"event\"").filter(|_| name.is_none()) {
            let (text, rest) = simple_text(value)?;
            name = Some(text);
            rest
        } else if let Some(value) = member(rest, b"\"timestamp\"").filter(|_| at.is_none()) {
            let (timestamp, rest) = timestamp(value)?;
            at = Some(timestamp);
            rest
        } else {
            let value = member(rest, b"\"data\"").filter(|_| data.is_none())?;
            // Parsed, for data is passed on and must be exactly one value.
            let mut values = serde_json::Deserializer::from_slice(value).into_iter();
            data = Some(values.next()?.ok().filter(is_not_null)?);
            value.get(values.byte_offset()..)?
        };
        rest = blank(rest);
        match rest.split_first()? {
            (b',', more) => rest = blank(more),
            (b'}', end) if blank(end).is_empty() => break,
            _ => return None,
        }
    }
    let name = std::str::from_utf8(name?).ok()?;
    Some(Event { name, at: at.and_then(Timestamp::time), data })
}

/// The parser reads null as absent, and a member that is absent may come a second time.
fn is_not_null(data: &&RawValue) -> bool {
    data.get() != "null"
}

/// `{"seconds": 1, "microseconds": 2}`, in either order.
fn timestamp(text: &[u8]) -> Option<(Timestamp, &[u8])> {
    const SECONDS: &[u8] = b"\"seconds\"";
    const MICROSECONDS: &[u8] = b"\"microseconds\"";
    let text = skip(text, b'{')?;
    let (seconds, microseconds, rest) = match member(text, SECONDS) {
        Some(value) => {
            let (seconds, rest) = number(value)?;
            let (microseconds, rest) = number(member(next(rest)?, MICROSECONDS)?)?;
            (seconds, microseconds, rest)
        }
        None => {
            let (microseconds, rest) = number(member(text, MICROSECONDS)?)?;
            let (seconds, rest) = number(member(next(rest)?, SECONDS)?)?;
            (seconds, microseconds, rest)
        }
    };
    Some((Timestamp { seconds, microseconds }, blank(rest).strip_prefix(b"}")?))
}

/// The value of this member, if it is the first here.
fn member<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    skip(blank(text.strip_prefix(key)?), b':')
}

/// Skips the comma before another member.
fn next(text: &[u8]) -> Option<&[u8]> {
    skip(blank(text), b',')
}

/// Splits off a string of letters, digits and underscores.
fn simple_text(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let length = text.iter().position(|byte| !is_name_byte(*byte))?;
    let (simple, rest) = text.split_at(length);
    Some((simple, rest.strip_prefix(b"\"")?))
}

/// Skips this byte and the white space behind it.
fn skip(text: &[u8], byte: u8) -> Option<&[u8]> {
    Some(blank(text.strip_prefix(&[byte])?))
}

/// Skips white space.
fn blank(text: &[u8]) -> &[u8] {
    let length = text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    &text[length.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::super::{Message, agreement, parsed};
    use super::*;

    const LINES: [&str; 4] = [
        r#"{"event": "STOP", "timestamp": {"seconds": 1795333210, "microseconds": 380905}}"#,
        r#"{ "data" :{"guest": true, "reason": "ä"} , "event":"RESET","timestamp": { "microseconds":7 , "seconds" : 0 } } "#,
        r#"{"event":"X_1","data":[1, {}, -0.5e9, null]}"#,
        r#"{"data": 12 ,"timestamp": {"seconds": 5, "microseconds": 0}, "event": "Y"}"#,
    ];

    #[test]
    fn members_are_read_in_any_order() {
        for line in LINES {
            let event = event(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            let Ok(Message::Event(same)) = parsed(line.as_bytes()) else { panic!("{line}") };
            assert_eq!(agreement::text(&event), agreement::text(&same), "{line}");
        }
    }

    #[test]
    fn a_line_of_other_members_is_left_to_the_parser() {
        for line in [
            r#"{"event": "STOP", "id": 7}"#,
            r#"{"event": "STOP", "event": "STOP"}"#,
            r#"{"event": "A\u0042"}"#,
            r#"{"event": "STOP", "data": null}"#,
            r#"{"event": "STOP", "timestamp": {"seconds": -1, "microseconds": -1}}"#,
            r#"{"event": "STOP"}}"#,
            r#"{"event": "STOP",}"#,
            r#"{"return": {}}"#,
            "{}",
        ] {
            assert!(event(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn reading_in_any_order_agrees_with_the_parser() {
        let read = agreement::with_the_parser(&LINES, event);
        assert!(read > 2_500, "{read}");
    }
}
