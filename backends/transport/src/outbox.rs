//! The bytes that are still to be written.

/// How many written bytes are kept in front of the others before the others are moved to the front.
const SLACK: usize = 4096;

/// Bytes that wait to be written to a socket.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// How many bytes at the front are written.
    written: usize,
}

impl Outbox {
    /// What is still to be written.
    #[inline]
    #[must_use]
    pub fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Removes the first `count` bytes of [`unwritten`](Self::unwritten), which were written.
    pub fn wrote(&mut self, count: usize) {
        self.written += count;
        // The usual case: the socket took everything, and the memory is used again.
        if self.written >= self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        }
    }

    /// Where further bytes are appended.
    pub fn appending(&mut self) -> &mut Vec<u8> {
        // A peer that reads slowly may never let the outbox become empty. Without this the bytes
        // that it has read would stay in memory for as long.
        if self.written >= SLACK && self.written * 2 >= self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_order_across_partial_writes() {
        let mut outbox = Outbox::default();
        outbox.appending().extend_from_slice(b"abc");
        outbox.wrote(2);
        outbox.appending().extend_from_slice(b"de");
        assert_eq!(outbox.unwritten(), b"cde");
        outbox.wrote(3);
        assert_eq!(outbox.unwritten(), b"");
    }

    #[test]
    fn an_outbox_that_is_never_empty_stays_small() {
        let mut outbox = Outbox::default();
        outbox.appending().push(0);
        for n in 0..100_000 {
            outbox.appending().extend_from_slice(&[n as u8; 28]);
            outbox.wrote(28);
            assert_eq!(outbox.unwritten(), [n as u8]);
        }
        assert!(outbox.bytes.capacity() <= 4 * SLACK, "{}", outbox.bytes.capacity());
    }
}
