//! Recordings of streams: a header line, then a line of JSON for each event, in order.
//!
//! ```json
//! {"format":"virevent-recording","version":1}
//! {"after_us":1500,"event":{"kind":"synced","source":"fake:","domains":0}}
//! ```
//!
//! `after_us` is the time of receipt in microseconds since the start of the recording, `event` the
//! JSON form of `docs/json.md`. Readers ignore unknown fields.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use virevent::DomainEvent;

use super::{ReplayedSource, Script};

const FORMAT: &str = "virevent-recording";

/// The version of the format. A later one can be read only by a later virevent.
const VERSION: u64 = 1;

/// The greatest size of a file, which is read whole: about a million events.
const SIZE_MAX: u64 = 256 * 1024 * 1024;

/// The greatest length of a recording.
const LENGTH_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What a stream delivered, and when: written by `watch --record`, replayed by
/// [`replay`](Recording::replay) or the URI `fake:?replay=FILE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    events: Arc<[(Duration, DomainEvent)]>,
}

/// Why a recording cannot be read.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("cannot read the recording")]
    Io(#[from] io::Error),
    /// The file is larger than a replay may hold in memory.
    #[error("a recording has at most {limit} bytes: record for a shorter time, or fewer kinds")]
    TooLarge {
        /// The greatest size.
        limit: u64,
    },
    /// The first line is not the header of a recording.
    #[error("line 1: this is not a recording: make one with watch --record FILE")]
    NotARecording,
    /// A later version of virevent made it.
    #[error(
        "line 1: the recording has version {found}, and this program reads version {VERSION}: use \
         the virevent that made it, or a later one"
    )]
    Version {
        /// The version in the header.
        found: u64,
    },
    /// A line is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    format: String,
    version: u64,
}

#[derive(serde::Deserialize)]
struct Line {
    after_us: u64,
    event: DomainEvent,
}

#[derive(serde::Serialize)]
struct LineOf<'a> {
    after_us: u64,
    event: &'a DomainEvent,
}

/// Writing.
impl Recording {
    /// The header line, with its line break.
    #[must_use]
    pub fn header() -> String {
        format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}\n")
    }

    /// Appends the line of an event that was received this long after the start.
    ///
    /// # Errors
    /// The event has no JSON form; nothing is appended.
    pub fn write_line(out: &mut Vec<u8>, after: Duration, event: &DomainEvent) -> io::Result<()> {
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let line = serde_json::to_vec(&LineOf { after_us, event })?;
        out.extend(line);
        out.push(b'\n');
        Ok(())
    }
}

/// Reading.
impl Recording {
    /// Reads a file, at most 256 MiB. A last line that is torn, as of a program that was killed
    /// while it wrote, is left out.
    ///
    /// # Errors
    /// The file cannot be read, is too large, is not a recording, is of a later version, or has a
    /// wrong line.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let mut text = Vec::new();
        std::fs::File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > SIZE_MAX {
            return Err(RecordingError::TooLarge { limit: SIZE_MAX });
        }
        Self::from_jsonl(&text)
    }

    /// Reads the text of a recording, as [`open`](Self::open) does.
    ///
    /// # Errors
    /// It is not a recording, is of a later version, or has a wrong line.
    pub fn from_jsonl(text: &[u8]) -> Result<Self, RecordingError> {
        let mut lines = text.split_inclusive(|byte| *byte == b'\n').enumerate();
        let first = lines.next().map_or(&b""[..], |(_, line)| line);
        match serde_json::from_slice::<Header>(first) {
            Ok(header) if header.format != FORMAT => return Err(RecordingError::NotARecording),
            Ok(Header { version: VERSION, .. }) => {}
            Ok(Header { version, .. }) => return Err(RecordingError::Version { found: version }),
            Err(_) => return Err(RecordingError::NotARecording),
        }
        let mut events = Vec::new();
        for (index, bytes) in lines {
            let wrong = |problem: String| RecordingError::Line { line: index + 1, problem };
            match serde_json::from_slice::<Line>(bytes) {
                Ok(Line { after_us, event }) => {
                    let after = Duration::from_micros(after_us);
                    if after > LENGTH_MAX {
                        let limit = LENGTH_MAX.as_micros();
                        return Err(wrong(format!("after_us {after_us} is more than {limit}")));
                    }
                    events.push((after, event));
                }
                // Only the last line can lack its line break.
                Err(_) if !bytes.ends_with(b"\n") => {}
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
        Ok(Self { events: events.into() })
    }

    /// The events, each with the time of its receipt since the start.
    #[must_use]
    pub fn events(&self) -> &[(Duration, DomainEvent)] {
        &self.events
    }

    /// A source that replays it at the recorded times, with the URI `fake:?replay`. See
    /// [`ReplayedSource::speed`] and [`ReplayedSource::with_uri`].
    #[must_use]
    pub fn replay(self) -> ReplayedSource {
        ReplayedSource::new(self)
    }

    pub(super) fn get(&self, index: usize) -> Option<&(Duration, DomainEvent)> {
        self.events.get(index)
    }
}

impl Script {
    /// Reads a recording, to replay in place of a script: see [`Recording::open`] and
    /// [`Recording::replay`]. It is no script, since a recording has events, not the operations
    /// that led to them.
    ///
    /// # Errors
    /// Those of [`Recording::open`].
    pub fn from_recording(path: impl AsRef<Path>) -> Result<Recording, RecordingError> {
        Recording::open(path)
    }
}
