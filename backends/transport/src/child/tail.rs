//! The end of what a program wrote to stderr.

/// How many bytes are kept.
const KEPT: usize = 4096;

/// The most characters that a line has in an error.
const LINE: usize = 300;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > KEPT {
            self.bytes.drain(..self.bytes.len() - KEPT);
        }
    }

    /// The last line that has text, without control characters: they could change a terminal.
    pub(super) fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let line = text.split(['\n', '\r']).rev().map(str::trim).find(|line| !line.is_empty());
        let shown = line.unwrap_or_default().chars().filter(|c| !c.is_control());
        shown.take(LINE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_last_with_text() {
        let mut tail = Tail::default();
        assert_eq!(tail.last_line(), "");
        tail.push(b"Warning: added\r\nssh: connect to host: Connection ");
        tail.push(b"refused\r\n\n  \n");
        assert_eq!(tail.last_line(), "ssh: connect to host: Connection refused");
    }

    #[test]
    fn a_line_has_no_control_characters_and_an_end() {
        let mut tail = Tail::default();
        tail.push(b"\x1b]0;title\x07no\xff");
        assert_eq!(tail.last_line(), "]0;titleno\u{fffd}");
        tail.push(&[b'x'; 10_000]);
        assert_eq!(tail.last_line().len(), LINE);
        assert!(tail.bytes.capacity() <= 16 * 1024, "{}", tail.bytes.capacity());
    }
}
