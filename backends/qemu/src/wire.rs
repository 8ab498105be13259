//! Lines of JSON: cutting them out of a stream of bytes, and reading them.
//!
//! QEMU sends one JSON object a line, ended by CR LF. A line is parsed where it lies: the name and the
//! data of an event are borrowed from it.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest line that is taken. The longest that QEMU sends is the answer to `query-qmp-schema`,
/// of some 200 KB, which is never asked for here.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// What a buffer holds as long as no line is longer.
const ROOM: usize = 64 * 1024;

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// The first byte that was not given out.
    start: usize,
    /// As far as it was searched for the end of a line.
    searched: usize,
    /// As far as it is filled.
    end: usize,
}

/// A line is longer than [`MAX_LINE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line of more than {MAX_LINE} bytes")
    }
}

impl std::error::Error for TooLong {}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Lines {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { buffer: vec![0; ROOM], start: 0, searched: 0, end: 0 }
    }

    /// Room for the next read. Never empty.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.searched, self.end) = (0, 0, 0);
            // After a long line.
            if self.buffer.len() > ROOM {
                self.buffer = vec![0; ROOM];
            }
        }
        if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.searched -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into [`spare`](Self::spare).
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Takes in bytes that were read elsewhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let (now, rest) = bytes.split_at(bytes.len().min(spare.len()));
            spare[..now.len()].copy_from_slice(now);
            self.filled(now.len());
            bytes = rest;
        }
    }

    /// The next line that is not empty, without its end; `None` until more is read.
    ///
    /// # Errors
    /// It is too long. The stream is of no use any more.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.buffer[self.searched..self.end]) else {
                self.searched = self.end;
                return if self.end - self.start > MAX_LINE { Err(TooLong) } else { Ok(None) };
            };
            let (from, to) = (self.start, self.searched + length);
            (self.start, self.searched) = (to + 1, to + 1);
            if to - from > MAX_LINE {
                return Err(TooLong);
            }
            // QEMU ends its lines with CR LF.
            let cr = usize::from(to > from && self.buffer[to - 1] == b'\r');
            if to - cr > from {
                return Ok(Some(&self.buffer[from..to - cr]));
            }
        }
    }
}

/// What QEMU says.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// The first thing, to a client whose turn it is.
    Greeting,
    /// Something happened.
    Event(Event<'a>),
    /// The answer to the command with this id; `None` if it carries none that could be ours.
    Reply(Option<u64>, Reply<'a>),
    /// An object that is nothing of the above: of a QEMU to come.
    Unknown,
}

/// Something happened.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What QEMU calls it: `STOP`, `RTC_CHANGE`.
    pub name: &'a str,
    /// When, by the host's clock; `None` where QEMU could not read it.
    pub at: Option<SystemTime>,
    /// What came with it, as it came; `None` for most.
    pub data: Option<&'a RawValue>,
}

/// How a command went.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// Well.
    Return(&'a RawValue),
    /// Not well: the error, an object with `class` and `desc`.
    Error(&'a RawValue),
}

/// All that QEMU says, in the form in which it does so far.
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

/// The same with values of any form.
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
    /// QEMU says -1 where it cannot read the clock.
    fn time(self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.seconds).ok()?;
        let micros = u32::try_from(self.microseconds).ok().filter(|micros| *micros < 1_000_000)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, micros * 1_000))
    }
}

impl<'a> Message<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no JSON object.
    #[inline]
    pub fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        // Checked once for all: that is faster than string by string.
        let line = std::str::from_utf8(line).map_err(serde::de::Error::custom)?;
        let message = match serde_json::from_str::<Strict<'a>>(line) {
            Ok(message) => message,
            Err(_) => loosely(line)?,
        };
        Ok(match message {
            Strict { event: Some(name), timestamp, data, .. } => {
                Self::Event(Event { name, at: timestamp.and_then(Timestamp::time), data })
            }
            Strict { returned: Some(value), id, .. } => Self::Reply(id, Reply::Return(value)),
            Strict { error: Some(error), id, .. } => Self::Reply(id, Reply::Error(error)),
            Strict { greeting: Some(_), .. } => Self::Greeting,
            _ => Self::Unknown,
        })
    }
}

fn loosely(line: &str) -> Result<Strict<'_>, serde_json::Error> {
    let loose: Loose<'_> = serde_json::from_str(line)?;
    Ok(Strict {
        timestamp: loose.timestamp.and_then(|value| serde_json::from_str(value.get()).ok()),
        // A name with an escape in it is known by its text as it stands between the quotes.
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
    out.extend(format!("{{\"execute\":\"{name}\",\"id\":{id}}}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::new(), Vec::new());
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line().unwrap() {
                found.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        found
    }

    #[test]
    fn lines_are_found_wherever_the_bytes_are_cut() {
        assert_eq!(lines(&[b"{\"a\"", b":1}\r", b"\n\r\n{}\r\n{"]), ["{\"a\":1}", "{}"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::new();
        let mut taken = 0;
        while lines.next_line() == Ok(None) {
            lines.push(&[b'x'; 65_536]);
            taken += 65_536;
            assert!(taken <= MAX_LINE + 65_536);
        }
        assert!(lines.buffer.len() <= 4 * MAX_LINE);
    }

    #[test]
    fn an_event_in_a_form_never_seen_is_still_an_event() {
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
    fn a_reply_is_known_by_its_id() {
        let id = |line: &str| match Message::read(line.as_bytes()) {
            Ok(Message::Reply(id, _)) => id,
            other => panic!("{other:?}"),
        };
        assert_eq!(id(r#"{"return": {}, "id": 7}"#), Some(7));
        assert_eq!(id(r#"{"id": "7", "error": {}}"#), None);
        assert_eq!(id(r#"{"error": {"class": "GenericError"}}"#), None);
    }

    #[test]
    fn what_is_no_object_or_no_utf8_is_an_error() {
        for line in [&b"{"[..], b"[]", b"{\"event\":\"\xff\"}", b"nonsense"] {
            assert!(Message::read(line).is_err(), "{line:?}");
        }
        assert!(matches!(Message::read(b"{}"), Ok(Message::Unknown)));
    }
}
