//! Packets: their headers, and the decoder that finds them in a stream of bytes.

use super::Operation;

/// The bytes of a packet before its payload.
pub const HEADER_LENGTH: usize = 16;

/// The longest payload, in both directions: `XENSTORE_PAYLOAD_MAX` in Xen's `xs_wire.h`.
pub const MAX_PAYLOAD: usize = 4096;

/// The longest reply to a `DIRECTORY` that a client accepts. oxenstored sends a list of any length in one
/// packet, where the C daemon refuses (`E2BIG`) and sends it in parts. There are 32,752 domain ids, whose
/// names with their NULs take 196,512 bytes: a longer list is not one of domains.
pub const MAX_DIRECTORY: usize = 256 * 1024;

/// The most bytes that one read takes: some two thousand watch events.
const ROOM: usize = 64 * 1024;

/// The header of a packet, without its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The operation of the request, or the reply's.
    pub operation: Operation,
    /// Chosen by the client, copied into the reply. 0 in a watch event.
    pub request: u32,
    /// The transaction; 0 for none.
    pub transaction: u32,
}

impl Header {
    /// The header of a request outside of any transaction, or of the reply to it.
    #[must_use]
    pub fn request(operation: Operation, request: u32) -> Self {
        Self { operation, request, transaction: 0 }
    }

    /// The header of a watch event.
    #[must_use]
    pub fn watch_event() -> Self {
        Self::request(Operation::WATCH_EVENT, 0)
    }

    /// The same header within a transaction.
    #[must_use]
    pub fn within(self, transaction: u32) -> Self {
        Self { transaction, ..self }
    }

    /// The header of the error that answers a request with this header.
    #[must_use]
    pub fn error(self) -> Self {
        Self { operation: Operation::ERROR, ..self }
    }

    /// The bytes of a header with this length of the payload. [`packet`] makes a whole packet; this is for a
    /// fake that sends a wrong length.
    #[must_use]
    pub fn to_bytes(self, length: u32) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        let words = [self.operation.0, self.request, self.transaction, length];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The header.
    pub header: Header,
    /// The payload: at most [`MAX_PAYLOAD`] bytes, in the reply to a `DIRECTORY` [`MAX_DIRECTORY`].
    pub payload: &'a [u8],
}

/// A payload is too long. A stream that has one cannot be decoded further; a server that receives one closes the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {length} bytes, where {most} is the most")]
pub struct TooLong {
    /// The length of the payload, in bytes.
    pub length: usize,
    /// The greatest length that is allowed.
    pub most: usize,
}

/// Appends a packet to `out`: the header, and as its payload the pieces one after the other. A string
/// is a piece with its NUL, or one piece and `b"\0"`.
///
/// # Errors
/// [`TooLong`]: all the pieces together are. `out` is unchanged.
pub fn packet(out: &mut Vec<u8>, header: &Header, pieces: &[&[u8]]) -> Result<(), TooLong> {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    if length > MAX_PAYLOAD {
        return Err(TooLong { length, most: MAX_PAYLOAD });
    }
    out.extend_from_slice(&header.to_bytes(length as u32));
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    Ok(())
}

/// Decodes a stream of bytes into packets. Its memory does not grow, except for a long list until that is read.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// The longest payload of a `DIRECTORY`.
    max_directory: usize,
    /// The length of the packet that is incomplete, once its header is there.
    begun: usize,
    /// The first byte that was not returned in a packet.
    start: usize,
    /// The end of the bytes that were read.
    end: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// An empty decoder. No payload may be longer than [`MAX_PAYLOAD`].
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; ROOM], max_directory: MAX_PAYLOAD, begun: 0, start: 0, end: 0 }
    }

    /// A decoder of what a server sends: the reply to a `DIRECTORY` may be as long as [`MAX_DIRECTORY`].
    #[must_use]
    pub fn of_replies() -> Self {
        Self { max_directory: MAX_DIRECTORY, ..Self::new() }
    }

    /// The buffer for the next read. Never empty, once [`next_packet`](Self::next_packet) has returned
    /// `None`.
    pub fn spare(&mut self) -> &mut [u8] {
        // Bytes are moved only when there is little room left: a move for each read would cost more than the read.
        let is_cramped = self.buffer.len() - self.end < HEADER_LENGTH + MAX_PAYLOAD;
        if self.start == self.end || is_cramped || self.begun > self.buffer.len() - self.start {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // A long list has a buffer of its length until it was returned.
        if self.begun > self.buffer.len() {
            self.buffer.resize(self.begun, 0);
        } else if self.begun <= ROOM && self.end < ROOM && self.buffer.len() > ROOM {
            self.buffer.truncate(ROOM);
            self.buffer.shrink_to_fit();
        }
        &mut self.buffer[self.end..]
    }

    /// Notes that so many bytes were read into [`spare`](Self::spare).
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Copies bytes into the buffer, as many as there is room for. Returns their number.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let now = bytes.len().min(spare.len());
        spare[..now].copy_from_slice(&bytes[..now]);
        self.filled(now);
        now
    }

    /// The next packet; `None` until more is read.
    ///
    /// # Errors
    /// [`TooLong`]: the stream cannot be decoded further.
    #[inline]
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, TooLong> {
        let bytes = &self.buffer[self.start..self.end];
        let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        let word =
            |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let operation = Operation(word(0));
        let length = word(12) as usize;
        let is_list = operation == Operation::DIRECTORY;
        let most = if is_list { self.max_directory } else { MAX_PAYLOAD };
        // Refused before anything is allocated or awaited: a wrong length would make the decoder wait for ever.
        if length > most {
            return Err(TooLong { length, most });
        }
        self.begun = HEADER_LENGTH + length;
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        self.start += self.begun;
        self.begun = 0;
        let header = Header { operation, request: word(4), transaction: word(8) };
        Ok(Some(Packet { header, payload }))
    }

    /// Whether there are bytes of an incomplete packet.
    #[must_use]
    pub fn is_midway(&self) -> bool {
        self.start < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Header =
        Header { operation: Operation::READ, request: 4, transaction: 0x0102_0304 };

    /// The packets of a stream that is read in pieces of these lengths.
    fn packets(mut bytes: &[u8], mut piece: impl FnMut() -> usize) -> Vec<(Header, Vec<u8>)> {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let taken = decoder.push(&bytes[..piece().clamp(1, bytes.len())]);
            assert!(taken > 0);
            bytes = &bytes[taken..];
            while let Some(packet) = decoder.next_packet().unwrap() {
                found.push((packet.header, packet.payload.to_vec()));
            }
        }
        assert!(!decoder.is_midway());
        found
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_packet_is_laid_out_as_in_xs_wire_h() {
        let mut bytes = Vec::new();
        packet(&mut bytes, &READ, &[b"/t/a\0"]).unwrap();
        let expected = [
            2, 0, 0, 0, // XS_READ
            4, 0, 0, 0, // req_id
            4, 3, 2, 1, // tx_id
            5, 0, 0, 0, // len
            b'/', b't', b'/', b'a', 0,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(packets(&bytes, || 1), [(READ, b"/t/a\0".to_vec())]);
    }

    #[test]
    fn packets_are_found_wherever_the_bytes_are_cut() {
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..50 {
            let mut bytes = Vec::new();
            let mut sent = Vec::new();
            for request in 0..random.u32(1..200) {
                let header = Header { operation: Operation(random.u32(..)), request, ..READ };
                let length = match random.u8(0..8) {
                    0 => MAX_PAYLOAD,
                    1 => 0,
                    _ => random.usize(0..64),
                };
                let payload: Vec<_> = (0..length).map(|_| random.u8(..)).collect();
                packet(&mut bytes, &header, &[&payload]).unwrap();
                sent.push((header, payload));
            }
            let most = [3, 64, 5_000, 100_000][random.usize(0..4)];
            assert_eq!(packets(&bytes, || random.usize(1..most)), sent);
        }
    }

    #[test]
    fn a_payload_too_long_is_refused_and_never_truncated() {
        let mut bytes = vec![7];
        let much = [0; MAX_PAYLOAD];
        let most = MAX_PAYLOAD;
        let length = MAX_PAYLOAD + 1;
        assert_eq!(packet(&mut bytes, &READ, &[&much, b"\0"]), Err(TooLong { length, most }));
        assert_eq!(bytes, [7]);
        for length in [MAX_PAYLOAD + 1, u32::MAX as usize] {
            let mut decoder = Decoder::of_replies();
            decoder.push(&READ.to_bytes(length as u32));
            assert_eq!(decoder.next_packet(), Err(TooLong { length, most }));
        }
    }

    #[test]
    fn only_replies_to_a_list_may_be_long() {
        let list = Header::request(Operation::DIRECTORY, 4);
        for length in [MAX_PAYLOAD + 1, ROOM - HEADER_LENGTH, ROOM, MAX_DIRECTORY] {
            let names = vec![b'7'; length];
            let mut bytes = list.to_bytes(length as u32).to_vec();
            bytes.extend_from_slice(&names);
            packet(&mut bytes, &READ, &[b"web"]).unwrap();
            for piece in [1_000, 4_096, ROOM, 2 * MAX_DIRECTORY] {
                let mut decoder = Decoder::of_replies();
                let mut rest = &bytes[..];
                let mut found = Vec::new();
                while !rest.is_empty() {
                    let taken = decoder.push(&rest[..piece.min(rest.len())]);
                    assert!(taken > 0);
                    rest = &rest[taken..];
                    while let Some(packet) = decoder.next_packet().unwrap() {
                        found.push((packet.header, packet.payload.to_vec()));
                    }
                }
                assert_eq!(found, [(list, names.clone()), (READ, b"web".to_vec())]);
                decoder.spare();
                assert_eq!(decoder.buffer.capacity(), ROOM, "the list's buffer is freed");
            }
        }
        let mut decoder = Decoder::of_replies();
        decoder.push(&list.to_bytes(MAX_DIRECTORY as u32 + 1));
        assert!(decoder.next_packet().is_err());
        let mut decoder = Decoder::new();
        decoder.push(&list.to_bytes(MAX_PAYLOAD as u32 + 1));
        assert!(decoder.next_packet().is_err());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_grow() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let mut decoder = Decoder::of_replies();
            for _ in 0..random.usize(1..20) {
                let bytes: Vec<_> = (0..random.usize(1..6_000))
                    .map(|_| if random.u8(0..3) == 0 { random.u8(..) } else { 0 })
                    .collect();
                decoder.push(&bytes);
                while let Ok(Some(packet)) = decoder.next_packet() {
                    assert!(packet.payload.len() <= MAX_DIRECTORY);
                }
            }
            assert!(decoder.buffer.len() <= HEADER_LENGTH + MAX_DIRECTORY);
        }
    }
}
