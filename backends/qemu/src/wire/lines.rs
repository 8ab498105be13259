//! Cutting lines out of a stream of bytes.

use std::fmt;

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

    /// What was read, and is in no line yet.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
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
}
