//! Payloads.

use super::{Operation, Packet};

/// The names of errors in the payload of [`Operation::ERROR`], without the NUL. They are those of errno.h; a
/// server may send others.
pub mod error {
    /// The request is invalid, or a path is.
    pub const EINVAL: &str = "EINVAL";
    /// The client may not access the node.
    pub const EACCES: &str = "EACCES";
    /// The watch exists already.
    pub const EEXIST: &str = "EEXIST";
    /// There is no such node, watch or transaction.
    pub const ENOENT: &str = "ENOENT";
    /// The server has no memory left.
    pub const ENOMEM: &str = "ENOMEM";
    /// A quota is used up.
    pub const ENOSPC: &str = "ENOSPC";
    /// The server cannot do it.
    pub const EIO: &str = "EIO";
    /// The server does not know the operation.
    pub const ENOSYS: &str = "ENOSYS";
    /// A transaction within a transaction.
    pub const EBUSY: &str = "EBUSY";
    /// The transaction met a conflict, and is to be repeated.
    pub const EAGAIN: &str = "EAGAIN";
    /// The domain exists already.
    pub const EISCONN: &str = "EISCONN";
    /// The answer does not fit in one packet.
    pub const E2BIG: &str = "E2BIG";
    /// Only a privileged client may send the request.
    pub const EPERM: &str = "EPERM";
    /// The server is read-only.
    pub const EROFS: &str = "EROFS";
}

/// A payload does not have the form that its operation requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} in a packet of {operation}")]
pub struct Malformed {
    /// The operation of the packet.
    pub operation: Operation,
    /// What is wrong.
    pub what: &'static str,
}

/// The strings of a payload, without their NULs. The bytes after the last NUL are a string, too: the value of an
/// [`Operation::WRITE`].
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (string, after) = match rest.iter().position(|byte| *byte == 0) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        Some(string)
    })
}

impl<'a> Packet<'a> {
    /// The payload without its last NUL, if it has one: of an `OK`, of the name of an error.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.payload.strip_suffix(b"\0").unwrap_or(self.payload)
    }

    /// The error that says what is wrong with this payload.
    #[must_use]
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { operation: self.header.operation, what }
    }
}

/// The payload of an [`Operation::WATCH_EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchEvent<'a> {
    /// The path of the node that changed: the watched one, or one below it.
    pub path: &'a [u8],
    /// The token that was sent with the watch.
    pub token: &'a [u8],
}

impl<'a> WatchEvent<'a> {
    /// Reads the payload. Bytes after the token, which later servers may send, are ignored.
    ///
    /// # Errors
    /// [`Malformed`]: there are not two strings that end with a NUL.
    #[inline]
    pub fn read(packet: &Packet<'a>) -> Result<Self, Malformed> {
        let payload = packet.payload;
        let end = |from: usize| payload[from..].iter().position(|byte| *byte == 0);
        let path = end(0).ok_or_else(|| packet.malformed("a path without an end"))?;
        let token = end(path + 1).ok_or_else(|| packet.malformed("a token without an end"))?;
        Ok(Self { path: &payload[..path], token: &payload[path + 1..path + 1 + token] })
    }
}

/// The payload of a reply to [`Operation::DIRECTORY_PART`].
///
/// The requested offset counts bytes of the whole list, each name with its NUL. The next offset is the sum of it and
/// the length of [`names`](Self::names). A generation that differs from that of the part before says that the
/// directory has changed: the client begins again at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryPart<'a> {
    /// The number of changes of the directory so far.
    pub generation: &'a [u8],
    /// Whole names, each with its NUL.
    pub names: &'a [u8],
    /// Whether the list ends here.
    pub is_last: bool,
}

impl<'a> DirectoryPart<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// [`Malformed`]: it has no generation, or a name without an end.
    pub fn read(packet: &Packet<'a>) -> Result<Self, Malformed> {
        let payload = packet.payload;
        let end = payload.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| packet.malformed("a generation without an end"))?;
        let generation = &payload[..end];
        let rest = &payload[end + 1..];
        // The last part ends with an empty name.
        let (names, is_last) = match rest {
            [0] => (&rest[..0], true),
            [.., 0, 0] => (&rest[..rest.len() - 1], true),
            [.., 0] => (rest, false),
            [] => return Err(packet.malformed("neither a name nor the end of the list")),
            _ => return Err(packet.malformed("a name without an end")),
        };
        Ok(Self { generation, names, is_last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Header;

    fn packet(operation: Operation, payload: &[u8]) -> Packet<'_> {
        Packet { header: Header::request(operation, 1), payload }
    }

    #[test]
    fn strings_end_with_a_nul_but_for_a_value() {
        let all = |payload| strings(payload).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(all(b""), [b""; 0]);
        assert_eq!(all(b"\0"), [b""]);
        assert_eq!(all(b"a\0\0bc\0"), [&b"a"[..], b"", b"bc"]);
        assert_eq!(all(b"/path\0value"), [&b"/path"[..], b"value"]);
    }

    #[test]
    fn a_watch_event_has_a_path_and_a_token() {
        let read = |payload| WatchEvent::read(&packet(Operation::WATCH_EVENT, payload));
        assert_eq!(read(b"/a\0\0"), Ok(WatchEvent { path: b"/a", token: b"" }));
        assert_eq!(read(b"/a\0a b\0more\0"), Ok(WatchEvent { path: b"/a", token: b"a b" }));
        for payload in [&b""[..], b"/a", b"/a\0", b"/a\0t"] {
            let said = read(payload).unwrap_err().to_string();
            assert!(said.contains("without an end in a packet of WATCH_EVENT"), "{said}");
        }
    }

    #[test]
    fn the_last_part_of_a_directory_ends_with_an_empty_name() {
        let read = |payload| {
            let part = DirectoryPart::read(&packet(Operation::DIRECTORY_PART, payload)).ok()?;
            assert_eq!(part.generation, b"12");
            Some((part.names, part.is_last))
        };
        assert_eq!(read(b"12\x001\x002\x00"), Some((&b"1\x002\x00"[..], false)));
        assert_eq!(read(b"12\x003\x00\x00"), Some((&b"3\x00"[..], true)));
        assert_eq!(read(b"12\x00\x00"), Some((&b""[..], true)));
        for payload in [&b""[..], b"12", b"12\0", b"12\x003"] {
            assert_eq!(read(payload), None, "{payload:?}");
        }
    }
}
