//! Splitting a stream of bytes into lines.

use std::fmt;

/// The longest line that is accepted, in bytes. The longest that QEMU sends is the answer to
/// `query-qmp-schema`, of some 200 KB, which is never asked for here.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// The size of the buffer while no line is longer, in bytes.
const BUFFER: usize = 64 * 1024;

/// Splits a stream of bytes into lines.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// The index of the first byte that was not returned in a line.
    start: usize,
    /// Up to where the end of a line was searched for.
    searched: usize,
    /// Up to where the buffer is filled.
    end: usize,
}

/// The error that a line is longer than [`MAX_LINE`].
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
    /// Makes an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; BUFFER], start: 0, searched: 0, end: 0 }
    }

    /// Returns the free part of the buffer, for the next read. Never empty.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.searched = 0;
            self.end = 0;
            // One long line must not keep its memory for good.
            if self.buffer.len() > BUFFER {
                self.buffer = vec![0; BUFFER];
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

    /// Adds this many bytes that were read into [`spare`](Self::spare).
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Adds bytes that were read elsewhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let (now, rest) = bytes.split_at(bytes.len().min(spare.len()));
            spare[..now.len()].copy_from_slice(now);
            self.filled(now.len());
            bytes = rest;
        }
    }

    /// Returns what was read and is not in a line yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Returns the next line that is not empty, without its end; `None` until more is read.
    ///
    /// # Errors
    /// The line is too long. The stream is of no use any more.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.buffer[self.searched..self.end]) else {
                self.searched = self.end;
                return if self.end - self.start > MAX_LINE { Err(TooLong) } else { Ok(None) };
            };
            let from = self.start;
            let to = self.searched + length;
            self.start = to + 1;
            self.searched = to + 1;
            if to - from > MAX_LINE {
                return Err(TooLong);
            }
            // QEMU ends its lines with CR LF, a fake or a proxy may end them with LF.
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
        let mut lines = Lines::new();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line().unwrap() {
                found.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        found
    }

    #[test]
    fn lines_are_found_wherever_the_bytes_are_split() {
        assert_eq!(lines(&[b"{\"a\"", b":1}\r", b"\n\r\n{}\r\n{"]), ["{\"a\":1}", "{}"]);
    }

    #[test]
    fn an_endless_line_is_refused_at_the_limit() {
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
