//! Frames: reading them from a stream of bytes, and writing them.

use std::fmt;

use virevent_transport::ReadBuffer;

use super::xdr::Writer;

/// The size of a frame's header, length word included.
pub const HEADER_LENGTH: usize = 28;

/// The size of the longest frame. libvirt allows 32 MiB after the length word
/// (`VIR_NET_MESSAGE_MAX`).
pub const MAX_LENGTH: usize = 32 * 1024 * 1024 + 4;

/// The size of a buffer as long as no frame is larger. One read takes in hundreds of events.
const BUFFER_SIZE: usize = 64 * 1024;

/// Programs: the sets of procedures that share a connection.
pub mod program {
    /// libvirt's main program, which has the calls and events of this crate.
    pub const REMOTE: u32 = 0x2000_8086;
    /// Ping and pong.
    pub const KEEPALIVE: u32 = 0x6b65_6570;
}

/// What sort of message a frame is.
pub mod kind {
    /// A call, from the client.
    pub const CALL: u32 = 0;
    /// The reply to a call; it has the serial of the call.
    pub const REPLY: u32 = 1;
    /// An event or a keepalive message. Its serial has no meaning.
    pub const MESSAGE: u32 = 2;
}

/// The outcome of a call.
pub mod status {
    /// Success. Calls and events have no other status.
    pub const OK: u32 = 0;
    /// Failure: the body is a [`RemoteError`](crate::wire::RemoteError).
    pub const ERROR: u32 = 1;
}

/// The header of a frame, without its length word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The set of procedures: see [`program`].
    pub program: u32,
    /// The program's version: 1 for both.
    pub version: u32,
    /// The procedure: see [`procs`](super::procs).
    pub procedure: i32,
    /// Call, reply, event: see [`kind`].
    pub kind: u32,
    /// Chosen by the caller, copied into the reply.
    pub serial: u32,
    /// See [`status`].
    pub status: u32,
}

impl Header {
    /// The header of a call.
    #[must_use]
    pub fn call(procedure: i32, serial: u32) -> Self {
        Self::remote(procedure, kind::CALL, serial, status::OK)
    }

    /// The header of the reply to a call that succeeded.
    #[must_use]
    pub fn reply(procedure: i32, serial: u32) -> Self {
        Self::remote(procedure, kind::REPLY, serial, status::OK)
    }

    /// The header of the reply to a call that failed.
    #[must_use]
    pub fn error(procedure: i32, serial: u32) -> Self {
        Self::remote(procedure, kind::REPLY, serial, status::ERROR)
    }

    /// The header of an event. Its serial is 1, as libvirtd 9.0 sends it, although libvirt's
    /// documentation says 0.
    #[must_use]
    pub fn event(procedure: i32) -> Self {
        Self::remote(procedure, kind::MESSAGE, 1, status::OK)
    }

    /// The header of a keepalive message: [`procs::PING`](super::procs::PING) or
    /// [`procs::PONG`](super::procs::PONG). They have no body.
    #[must_use]
    pub fn keepalive(procedure: i32) -> Self {
        Self {
            program: program::KEEPALIVE,
            ..Self::remote(procedure, kind::MESSAGE, 0, status::OK)
        }
    }

    fn remote(procedure: i32, kind: u32, serial: u32, status: u32) -> Self {
        Self { program: program::REMOTE, version: 1, procedure, kind, serial, status }
    }

    fn parse(frame: &[u8]) -> Self {
        let word = |at: usize| match frame.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => u32::from_be_bytes(*bytes),
            None => 0,
        };
        Self {
            program: word(4),
            version: word(8),
            procedure: word(12) as i32,
            kind: word(16),
            serial: word(20),
            status: word(24),
        }
    }
}

/// Appends a frame to `out`.
pub fn message(out: &mut Vec<u8>, header: &Header, body: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    let mut writer = Writer::new(out);
    writer.u32(0);
    writer.u32(header.program);
    writer.u32(header.version);
    writer.i32(header.procedure);
    writer.u32(header.kind);
    writer.u32(header.serial);
    writer.u32(header.status);
    body(&mut writer);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// One frame of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its body, in XDR.
    pub body: &'a [u8],
}

/// The length word of a frame is impossible. The frames after it cannot be found any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The value of the length word.
    pub length: u32,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length } = self;
        write!(
            f,
            "a message of length {length}, where {HEADER_LENGTH} to {MAX_LENGTH} are possible"
        )
    }
}

impl std::error::Error for FrameError {}

/// Splits a stream of bytes into frames.
///
/// Take every whole frame out before more bytes are read. Then the buffer is at most twice as large
/// as the bytes that have arrived of one frame, or 64 KiB, and none while it [rests](Self::rest):
/// see [`ReadBuffer`].
#[derive(Debug)]
pub struct Frames {
    buffer: ReadBuffer,
}

impl Frames {
    /// A stream of which nothing has been read.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: ReadBuffer::new(BUFFER_SIZE, MAX_LENGTH) }
    }

    /// Where to read into; never empty. Pass the number of bytes to [`filled`](Frames::filled).
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        self.buffer.spare()
    }

    /// Adds the first `bytes` of [`spare`](Frames::spare), which were read.
    #[inline]
    pub fn filled(&mut self, bytes: usize) {
        self.buffer.filled(bytes);
    }

    /// Gives up the memory until the next read, if no part of a frame is held. To be called when
    /// there is nothing to be read.
    #[inline]
    pub fn rest(&mut self) {
        self.buffer.rest();
    }

    /// Adds bytes that were read elsewhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.push(bytes);
    }

    /// The next whole frame; `None` until more bytes are in.
    ///
    /// # Errors
    /// The length word is impossible. Every further call returns the same error.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let held = self.buffer.held();
        let Some(word) = held.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*word);
        let end = length as usize;
        // libvirtd resets a connection for the same lengths.
        if !(HEADER_LENGTH..=MAX_LENGTH).contains(&end) {
            return Err(FrameError { length });
        }
        if held.len() < end {
            return Ok(None);
        }
        let frame = self.buffer.take(end);
        Ok(Some(Frame { header: Header::parse(frame), body: &frame[HEADER_LENGTH..] }))
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: usize) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, &Header::event(318), |writer| writer.raw(&vec![7; body]));
        out
    }

    #[test]
    fn a_header_has_the_layout_of_libvirt() {
        let mut out = Vec::new();
        message(&mut out, &Header::call(60, 4), |body| body.i32(14));
        let expected = [
            [0, 0, 0, 32],            // length
            [0x20, 0x00, 0x80, 0x86], // program
            [0, 0, 0, 1],             // version
            [0, 0, 0, 60],            // procedure
            [0, 0, 0, 0],             // a call
            [0, 0, 0, 4],             // serial
            [0, 0, 0, 0],             // status
            [0, 0, 0, 14],            // the body
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..200).flat_map(|n| frame(n * 37)).collect();
        let mut random = fastrand::Rng::with_seed(1);
        let mut frames = Frames::new();
        let mut rest = &bytes[..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(random.usize(1..=rest.len().min(5000)));
            rest = others;
            frames.push(piece);
            while let Some(frame) = frames.next_frame().unwrap() {
                assert_eq!(frame.header, Header::event(318));
                seen.push(frame.body.len());
            }
        }
        assert_eq!(seen, (0..200).map(|n| n * 37).collect::<Vec<_>>());
    }

    #[test]
    fn an_impossible_length_is_a_permanent_error() {
        for length in [0, 4, 27, MAX_LENGTH as u32 + 1, 0x4854_5450, u32::MAX] {
            let mut frames = Frames::new();
            frames.push(&length.to_be_bytes());
            assert_eq!(frames.next_frame(), Err(FrameError { length }));
            frames.push(&frame(0));
            assert_eq!(frames.next_frame(), Err(FrameError { length }));
        }
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let mut frames = Frames::new();
        frames.push(&(MAX_LENGTH as u32).to_be_bytes());
        assert_eq!(frames.next_frame(), Ok(None));
        for came in 0..20 {
            frames.push(&[0; 10_000]);
            assert_eq!(frames.next_frame(), Ok(None));
            assert!(frames.buffer.size() <= 2 * (came + 1) * 10_000 + 2 * BUFFER_SIZE);
        }
    }

    #[test]
    fn the_buffer_shrinks_after_the_longest_frame() {
        let mut frames = Frames::new();
        frames.push(&frame(MAX_LENGTH - HEADER_LENGTH));
        assert_eq!(frames.next_frame().unwrap().unwrap().body.len(), MAX_LENGTH - HEADER_LENGTH);
        frames.push(&frame(8));
        assert_eq!(frames.buffer.size(), BUFFER_SIZE);
        assert_eq!(frames.next_frame().unwrap().unwrap().body.len(), 8);
    }

    #[test]
    fn garbage_causes_no_panic_and_takes_no_memory() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..2000 {
            let mut frames = Frames::new();
            let garbage: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..)).collect();
            frames.push(&garbage);
            while let Ok(Some(_)) = frames.next_frame() {}
            assert!(frames.buffer.size() <= BUFFER_SIZE);
        }
    }
}
