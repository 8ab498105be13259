//! QMP's lines of JSON: splitting a stream of bytes into lines, and parsing them.
//!
//! QEMU sends one JSON object a line, ended by CR LF. A line is parsed in place: the name and the
//! data of an event are borrowed from it.

#[cfg(test)]
mod agreement;
mod any_order;
mod fast_path;
mod lines;

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::lines::{Lines, MAX_LINE, TooLong};

/// A message from QEMU.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// The first message to a client, once QEMU serves it.
    Greeting,
    /// An event.
    Event(Event<'a>),
    /// The answer to the command with this id; `None` if it carries no id that could be ours.
    Reply(Option<u64>, Reply<'a>),
    /// Any other object, as a newer QEMU may send it.
    Unknown,
}

/// An event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// QEMU's name of the event: `STOP`, `RTC_CHANGE`.
    pub name: &'a str,
    /// The time by the host's clock; `None` where QEMU could not read it.
    pub at: Option<SystemTime>,
    /// The data, as QEMU wrote it; `None` for most events.
    pub data: Option<&'a RawValue>,
}

/// The outcome of a command.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// It succeeded, with this value.
    Return(&'a RawValue),
    /// It failed, with this error: an object with `class` and `desc`.
    Error(&'a RawValue),
}

/// Any message, with values of the types that QEMU has sent so far.
#[derive(Deserialize)]
struct Strict<'a> {
    timestamp: Option<Timestamp>,
    #[serde(borrow)]
    event: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, rename = "return")]
    returned: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    id: Option<u64>,
    #[serde(borrow, rename = "QMP")]
    greeting: Option<&'a RawValue>,
}

/// The same with values of any type.
#[derive(Deserialize)]
struct Loose<'a> {
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, rename = "return")]
    returned: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "QMP")]
    greeting: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

impl Timestamp {
    /// `None` where QEMU cannot read the clock: it sends -1 then.
    fn time(self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.seconds).ok()?;
        let micros = u32::try_from(self.microseconds).ok().filter(|micros| *micros < 1_000_000)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, micros * 1_000))
    }
}

impl<'a> Message<'a> {
    /// Parses a line.
    ///
    /// # Errors
    /// The line is no JSON object.
    #[inline]
    pub fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        if let Some(event) = fast_path::event(line) {
            return Ok(Self::Event(event));
        }
        otherwise(line)
    }
}

/// Reads a line that is not of QEMU's usual form. Not inlined: few lines come here.
#[inline(never)]
fn otherwise(line: &[u8]) -> Result<Message<'_>, serde_json::Error> {
    match any_order::event(line) {
        Some(event) => Ok(Message::Event(event)),
        None => parsed(line),
    }
}

/// Parses a line of any form.
fn parsed(line: &[u8]) -> Result<Message<'_>, serde_json::Error> {
    // Checked once for the whole line: that is faster than string by string.
    let line = std::str::from_utf8(line).map_err(serde::de::Error::custom)?;
    let message = match serde_json::from_str::<Strict<'_>>(line) {
        Ok(message) => message,
        Err(_) => loosely(line)?,
    };
    Ok(match message {
        Strict { event: Some(name), timestamp, data, .. } => {
            Message::Event(Event { name, at: timestamp.and_then(Timestamp::time), data })
        }
        Strict { returned: Some(value), id, .. } => Message::Reply(id, Reply::Return(value)),
        Strict { error: Some(error), id, .. } => Message::Reply(id, Reply::Error(error)),
        Strict { greeting: Some(_), .. } => Message::Greeting,
        _ => Message::Unknown,
    })
}

fn loosely(line: &str) -> Result<Strict<'_>, serde_json::Error> {
    let loose: Loose<'_> = serde_json::from_str(line)?;
    Ok(Strict {
        timestamp: loose.timestamp.and_then(|value| serde_json::from_str(value.get()).ok()),
        // A borrowed name cannot be unescaped: one with an escape keeps it.
        event: loose.event.map(|name| name.get().trim_matches('"')),
        data: loose.data,
        returned: loose.returned,
        error: loose.error,
        id: loose.id.and_then(|id| id.get().parse().ok()),
        greeting: loose.greeting,
    })
}

/// Appends a command without arguments.
pub fn command(out: &mut Vec<u8>, name: &str, id: u64) {
    // Writing into a Vec cannot fail, and allocates nothing once it has grown.
    let _ = writeln!(out, "{{\"execute\":\"{name}\",\"id\":{id}}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_an_unknown_form_is_an_event() {
        let line = br#"{"event":"X\u0041","timestamp":"noon","data":[1],"id":{},"more":null}"#;
        let Ok(Message::Event(event)) = Message::read(line) else { panic!() };
        assert_eq!((event.name, event.at), ("X\\u0041", None));
        assert_eq!(event.data.unwrap().get(), "[1]");
    }

    #[test]
    fn a_time_before_the_epoch_is_none() {
        let line = br#"{"event":"STOP","timestamp":{"seconds":-1,"microseconds":-1}}"#;
        let Ok(Message::Event(event)) = Message::read(line) else { panic!() };
        assert_eq!(event.at, None);
        let line =
            br#"{"event":"STOP","timestamp":{"seconds":1,"microseconds":9223372036854775807}}"#;
        assert!(matches!(Message::read(line), Ok(Message::Event(_))));
    }

    #[test]
    fn a_reply_carries_the_id_of_its_command() {
        let id = |line: &str| match Message::read(line.as_bytes()) {
            Ok(Message::Reply(id, _)) => id,
            other => panic!("{other:?}"),
        };
        assert_eq!(id(r#"{"return": {}, "id": 7}"#), Some(7));
        assert_eq!(id(r#"{"id": "7", "error": {}}"#), None);
        assert_eq!(id(r#"{"error": {"class": "GenericError"}}"#), None);
    }

    #[test]
    fn a_line_that_is_no_object_or_no_utf8_is_an_error() {
        for line in [&b"{"[..], b"[]", b"{\"event\":\"\xff\"}", b"nonsense"] {
            assert!(Message::read(line).is_err(), "{line:?}");
        }
        assert!(matches!(Message::read(b"{}"), Ok(Message::Unknown)));
    }
}
