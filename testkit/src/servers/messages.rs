//! Messages in a stream that comes in pieces.

/// Finds the messages of one direction: each a header of `N` bytes and a payload.
///
/// It knows no more of a protocol than that, so that it does not share a mistake with the client
/// under test.
#[derive(Debug, Default)]
pub(super) struct Messages<const N: usize> {
    header: Vec<u8>,
    /// Bytes of the present payload that are still to come.
    rest: usize,
    /// Whether the present message is passed on.
    passes: bool,
}

/// What a header says.
pub(super) struct Inspected {
    /// The bytes of the payload.
    pub(super) payload: usize,
    /// Whether the message is passed on.
    pub(super) passes: bool,
}

impl<const N: usize> Messages<N> {
    /// Appends to `out` the messages that are passed on. A header is passed on once it is whole, a
    /// payload as it comes.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        mut inspect: impl FnMut(&[u8; N]) -> Inspected,
    ) {
        while !bytes.is_empty() {
            let payload = self.rest.min(bytes.len());
            if self.passes {
                out.extend_from_slice(&bytes[..payload]);
            }
            self.rest -= payload;
            bytes = &bytes[payload..];
            // A header may come in pieces; it is inspected once it is whole.
            let (begun, rest) = bytes.split_at(bytes.len().min(N - self.header.len()));
            self.header.extend_from_slice(begun);
            bytes = rest;
            if let Ok(header) = <&[u8; N]>::try_from(&self.header[..]) {
                let inspected = inspect(header);
                self.rest = inspected.payload;
                self.passes = inspected.passes;
                if self.passes {
                    out.extend_from_slice(header);
                }
                self.header.clear();
            }
        }
    }
}

/// The four bytes of the word at this place of a header.
pub(super) fn word<const N: usize>(header: &[u8; N], at: usize) -> [u8; 4] {
    [0, 1, 2, 3].map(|byte| header[4 * at + byte])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, length: u8) -> Vec<u8> {
        [vec![0, 0, 0, kind, 0, 0, 0, length], vec![0xff; length.into()]].concat()
    }

    #[test]
    fn messages_are_found_wherever_the_stream_is_cut() {
        let stream = [message(4, 20), message(15, 0), message(2, 61)].concat();
        for size in 1..stream.len() {
            let mut messages = Messages::<8>::default();
            let mut found = Vec::new();
            let mut passed = Vec::new();
            for piece in stream.chunks(size) {
                messages.push(piece, &mut passed, |header| {
                    let [kind, payload] = [0, 1].map(|at| u32::from_be_bytes(word(header, at)));
                    found.push(kind);
                    Inspected { payload: payload as usize, passes: kind != 15 }
                });
            }
            assert_eq!(found, [4, 15, 2], "in pieces of {size}");
            assert_eq!(passed, [message(4, 20), message(2, 61)].concat(), "in pieces of {size}");
        }
    }
}
