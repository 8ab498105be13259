//! The bytes that were read from a socket and not yet taken.

use std::cell::Cell;
use std::fmt;

thread_local! {
    /// The memory of a buffer that rests, for the next one of this thread that reads.
    static RESTING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes that were read and not yet taken.
///
/// Take every whole frame before more bytes are read. Then the buffer has at most twice as many
/// bytes as have arrived of one frame, or its smallest size: it grows with the bytes that come, not
/// with the length that a peer announces, and shrinks back after a large frame. While frames are
/// small it allocates nothing.
///
/// A program may have thousands of connections, of which nearly all wait: a buffer that
/// [rests](Self::rest) takes no memory.
pub struct ReadBuffer {
    /// Empty while it rests. All of it is initialised. What is held is in `start..end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Its size as long as no frame is bigger.
    smallest: usize,
    /// Its size is never more than this.
    largest: usize,
}

impl ReadBuffer {
    /// An empty buffer of `size` bytes, for frames of at most `max_frame`. One read takes in at
    /// most `size` bytes. It rests until it is first read into.
    #[must_use]
    pub fn new(size: usize, max_frame: usize) -> Self {
        let largest = max_frame.saturating_add(size);
        Self { bytes: Vec::new(), start: 0, end: 0, smallest: size, largest }
    }

    /// Gives up the memory until the next read, if nothing is held. To be called when there is
    /// nothing to be read.
    #[inline]
    pub fn rest(&mut self) {
        if self.start == self.end && !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            self.start = 0;
            self.end = 0;
            if bytes.len() == self.smallest {
                // Fails only while the thread ends.
                let _ = RESTING.try_with(|resting| resting.set(bytes));
            }
        }
    }

    /// Takes the memory of a buffer that rests, or new memory.
    fn awake(&mut self) {
        let resting = RESTING.try_with(Cell::take).unwrap_or_default();
        let fits = resting.len() == self.smallest;
        self.bytes = if fits { resting } else { vec![0; self.smallest] };
    }

    /// What was read and not yet taken.
    #[inline]
    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes the first `count` bytes of what is held; all of it if that is less.
    #[inline]
    pub fn take(&mut self, count: usize) -> &[u8] {
        let from = self.start;
        self.start = from.saturating_add(count).min(self.end);
        &self.bytes[from..self.start]
    }

    /// Where to read into; never empty as long as no more than one frame is held. Say with
    /// [`filled`](Self::filled) how much came.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.awake();
        }
        let held = self.end - self.start;
        if self.bytes.len() > self.smallest && held < self.smallest / 2 {
            // A large frame has been taken. Half of the smallest size is left free, so that the
            // next read does not make it grow again.
            let mut smaller = vec![0; self.smallest];
            smaller[..held].copy_from_slice(self.held());
            self.bytes = smaller;
            self.start = 0;
            self.end = held;
        } else if held == 0 {
            // The usual case: every frame has been taken, and nothing has to be moved.
            self.start = 0;
            self.end = 0;
        } else if self.bytes.len() - self.end < self.smallest / 2 {
            // With less room a read would bring few bytes, and cost as much as one that brings
            // many.
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = held;
            if self.bytes.len() - held < self.smallest / 2 {
                // Doubling keeps the cost of moving proportional to the bytes that came.
                let doubled = (self.bytes.len() * 2).min(self.largest);
                self.bytes.resize(doubled.max(held + self.smallest / 2), 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Adds the first `count` bytes of [`spare`](Self::spare), which were read, to what is held.
    #[inline]
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Adds bytes that were read elsewhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let fits = spare.len().min(bytes.len());
            spare[..fits].copy_from_slice(&bytes[..fits]);
            self.filled(fits);
            bytes = &bytes[fits..];
        }
    }

    /// How many bytes of memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBuffer")
            .field("held", &self.held().len())
            .field("size", &self.size())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * 1024;
    const MAX_FRAME: usize = 32 * 1024 * 1024;

    #[test]
    fn bytes_come_out_as_they_went_in_however_they_are_cut() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut random = fastrand::Rng::with_seed(1);
        let mut buffer = ReadBuffer::new(SIZE, MAX_FRAME);
        let mut rest = &bytes[..];
        let mut taken = Vec::new();
        while taken.len() < bytes.len() {
            let piece = random.usize(0..=rest.len().min(200_000));
            buffer.push(&rest[..piece]);
            rest = &rest[piece..];
            taken.extend_from_slice(buffer.take(random.usize(0..300_000)));
        }
        assert!(taken == bytes, "the bytes differ");
    }

    #[test]
    fn the_buffer_grows_with_what_came() {
        let mut buffer = ReadBuffer::new(SIZE, MAX_FRAME);
        for came in 1..=20 {
            buffer.push(&[0; 10_000]);
            assert!(buffer.size() <= 2 * came * 10_000 + 2 * SIZE);
        }
    }

    #[test]
    fn the_largest_frame_fits_and_the_buffer_shrinks_after_it() {
        let mut buffer = ReadBuffer::new(SIZE, MAX_FRAME);
        buffer.push(&vec![7; MAX_FRAME]);
        assert_eq!(buffer.take(MAX_FRAME).len(), MAX_FRAME);
        assert!(buffer.size() <= MAX_FRAME + SIZE);
        assert!(!buffer.spare().is_empty());
        assert_eq!(buffer.size(), SIZE);
    }

    #[test]
    fn small_frames_never_move_the_buffer() {
        let mut buffer = ReadBuffer::new(SIZE, MAX_FRAME);
        let address = buffer.spare().as_ptr();
        for _ in 0..10_000 {
            buffer.push(&[0; 1_000]);
            assert_eq!(buffer.take(1_000).len(), 1_000);
        }
        buffer.spare();
        assert_eq!(buffer.held().as_ptr(), address);
        assert_eq!(buffer.size(), SIZE);
    }

    #[test]
    fn buffers_that_rest_share_their_memory() {
        let mut buffers: Vec<_> = (0..3).map(|_| ReadBuffer::new(SIZE, MAX_FRAME)).collect();
        let mut addresses = Vec::new();
        for buffer in &mut buffers {
            assert_eq!(buffer.size(), 0);
            buffer.push(b"web");
            addresses.push(buffer.held().as_ptr());
            buffer.rest();
            assert_eq!(buffer.take(3), b"web", "what is held stays");
            buffer.rest();
            assert_eq!((buffer.size(), buffer.held()), (0, &b""[..]));
        }
        assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    }

    #[test]
    fn a_buffer_that_grew_gives_all_its_memory_back() {
        let mut buffer = ReadBuffer::new(SIZE, MAX_FRAME);
        buffer.push(&vec![7; 10 * SIZE]);
        buffer.take(10 * SIZE);
        buffer.rest();
        assert_eq!(buffer.size(), 0);
        buffer.spare();
        assert_eq!(buffer.size(), SIZE);
    }

    #[test]
    fn taking_more_than_is_held_takes_what_is_held() {
        let mut buffer = ReadBuffer::new(SIZE, MAX_FRAME);
        buffer.push(b"web");
        assert_eq!(buffer.take(usize::MAX), b"web");
        assert_eq!(buffer.take(1), b"");
        buffer.filled(usize::MAX - SIZE);
        assert_eq!(buffer.held().len(), SIZE - 3);
    }
}
