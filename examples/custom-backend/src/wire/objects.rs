//! The event monitor's stream: JSON objects in serde's pretty form, each followed by an empty line.
//!
//! ```text
//! {                                 a line that begins with "{": an object begins
//!   "timestamp": {                  lines within it are indented
//!     "secs": 1,
//!     "nanos": 114218030
//!   },
//!   "source": "vm",
//!   "event": "booted",
//!   "properties": null
//! }                                 a line of "}" alone: the object is complete
//!                                   (an empty line)
//! ```
//!
//! Facts: `event_log` in Cloud Hypervisor's `event_monitor/src/lib.rs` makes the text,
//! `start_event_monitor_thread` in its `vmm/src/lib.rs` writes it and ignores errors. So where
//! the disk is full an object is cut, at any byte, and the next may follow on the same line. JSON
//! text has no line break within a string, so a line that begins with `{` always begins an object:
//! from there the stream is in step again.

use memchr::memchr;

/// The longest object, in bytes. The longest that Cloud Hypervisor writes has some 300.
pub const MAX_OBJECT: usize = 64 * 1024;

/// What the stream holds next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole object: its text, which may still be no JSON.
    Object(&'a [u8]),
    /// Bytes that are part of no whole object, up to where the stream is in step again. At least
    /// one event is lost.
    Torn(&'static str),
}

/// Cuts bytes into objects. Holds [`MAX_OBJECT`] bytes and what one [`push`](Self::push) brought.
#[derive(Debug, Default)]
pub struct Objects {
    bytes: Vec<u8>,
    /// Bytes before this are taken.
    start: usize,
    /// Lines before this are examined.
    examined: usize,
    /// An object has begun at `start`.
    is_inside: bool,
    /// Bytes that belong to no object have been dropped, and that was reported.
    is_torn: bool,
}

impl Objects {
    /// Adds bytes that were read. Take every frame before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.examined -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, or `None` if more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        loop {
            let Some(length) = memchr(b'\n', &self.bytes[self.examined..]) else {
                return self.incomplete();
            };
            let from = self.examined;
            let end = from + length;
            self.examined = end + 1;
            let line = self.bytes[from..end].trim_ascii_end();
            let begins = line.first() == Some(&b'{');
            // A whole object on one line is not what is written today, and as clear.
            let ends = if begins { line.len() > 1 && line.ends_with(b"}") } else { line == b"}" };
            if begins && self.is_inside {
                // The line is examined again, as the beginning of the next object.
                self.examined = from;
                self.skip_to(from);
                return Some(Frame::Torn("an event is cut off by the next"));
            }
            if begins || self.is_inside {
                if begins {
                    self.start = from;
                }
                self.is_inside = true;
                self.is_torn = false;
                if self.examined - self.start > MAX_OBJECT {
                    self.skip_to(self.examined);
                    self.is_torn = true;
                    return Some(Frame::Torn("an event is longer than 64 KiB"));
                }
                if ends {
                    let object = self.start..end;
                    self.skip_to(self.examined);
                    return Some(Frame::Object(&self.bytes[object]));
                }
                continue;
            }
            let is_blank = line.is_empty();
            self.skip_to(self.examined);
            // Reported once, however many lines are dropped.
            if !is_blank && !std::mem::replace(&mut self.is_torn, true) {
                return Some(Frame::Torn("there is text between two events"));
            }
        }
    }

    /// The last line is incomplete: it stays, unless it is too long for any object.
    fn incomplete(&mut self) -> Option<Frame<'static>> {
        if self.bytes.len() - self.start <= MAX_OBJECT {
            return None;
        }
        // What follows on the same line is dropped as text between two objects.
        self.skip_to(self.bytes.len());
        self.examined = self.start;
        if std::mem::replace(&mut self.is_torn, true) {
            return None;
        }
        Some(Frame::Torn("an event is longer than 64 KiB"))
    }

    fn skip_to(&mut self, start: usize) {
        self.start = start;
        self.is_inside = false;
    }
}

#[cfg(test)]
mod tests;
