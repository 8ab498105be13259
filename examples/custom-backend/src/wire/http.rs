//! The API's HTTP/1.1, as far as its server speaks it: one call at a time on a connection that
//! stays open.
//!
//! Facts: Cloud Hypervisor serves its API by the crate `micro_http` (`vmm/src/api/http/mod.rs`). A
//! reply has a `Content-Length` unless its status is 204, and is never chunked.

use std::fmt;

/// The longest head of a reply, in bytes. The server's has some 150.
pub const MAX_HEAD: usize = 8 * 1024;

/// The longest body of a reply, in bytes. That of `vm.info` has some 3 KB, and some 200 bytes more
/// for each device.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// The bytes of a call.
#[must_use]
pub fn get(endpoint: &str) -> Vec<u8> {
    let call = format!("GET /api/v1/{endpoint} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    call.into_bytes()
}

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// JSON; empty where there is none.
    pub body: Vec<u8>,
}

impl Reply {
    /// The last of the messages of an error: `["Error from API", ..., "VM is not created"]`.
    #[must_use]
    pub fn message(&self) -> String {
        let messages: Vec<String> = serde_json::from_slice(&self.body).unwrap_or_default();
        match messages.last() {
            Some(last) => last.clone(),
            None => String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned(),
        }
    }
}

/// What breaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadReply(&'static str);

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Cuts bytes into replies.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
}

impl Replies {
    /// Adds bytes that were read. Take every reply before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next reply, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// This is no reply of such a server, or one that is too long. There is no way to get in step
    /// again: drop the connection.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, BadReply> {
        let examined = &self.bytes[..self.bytes.len().min(MAX_HEAD)];
        let Some(head) = memchr::memmem::find(examined, b"\r\n\r\n") else {
            return match self.bytes.len() {
                0..MAX_HEAD => Ok(None),
                _ => Err(BadReply("the head of a reply is longer than 8 KiB")),
            };
        };
        let (status, length) = parse_head(&self.bytes[..head])?;
        let end = head + 4 + length;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let body = self.bytes[head + 4..end].to_vec();
        self.bytes.drain(..end);
        Ok(Some(Reply { status, body }))
    }
}

/// The status and the length of the body.
fn parse_head(head: &[u8]) -> Result<(u16, usize), BadReply> {
    let head =
        std::str::from_utf8(head).map_err(|_| BadReply("the head of a reply is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or(BadReply("this is no HTTP server"))?;
    let mut length = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(BadReply("a reply is chunked"));
        }
        if name.eq_ignore_ascii_case("content-length") {
            let value = value.trim().parse().map_err(|_| BadReply("a length is no number"))?;
            length = Some(value);
        }
    }
    match length {
        Some(0..=MAX_BODY) => {}
        Some(_) => return Err(BadReply("a reply is longer than 4 MiB")),
        None if status == 204 => {}
        None => return Err(BadReply("a reply has no length")),
    }
    Ok((status, length.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    // Recorded from Cloud Hypervisor v53.0 (and 246 commits: ae44c2971).
    const NOT_CREATED: &str = "HTTP/1.1 404 \r\nServer: Cloud Hypervisor API\r\n\
        Connection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 69\r\n\r\n\
        [\"Error from API\",\"The VM info is not available\",\"VM is not created\"]";
    const BOOTED: &str = "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\n\
        Connection: keep-alive\r\n\r\n";

    #[test]
    fn recorded_replies_are_cut_in_any_pieces() {
        let bytes = [NOT_CREATED, BOOTED, NOT_CREATED].concat();
        for size in [1, 2, 50, 1000] {
            let mut wire = Replies::default();
            let mut replies = Vec::new();
            for piece in bytes.as_bytes().chunks(size) {
                wire.push(piece);
                while let Some(reply) = wire.next_reply().unwrap() {
                    replies.push(reply);
                }
            }
            assert_eq!(
                replies.iter().map(|reply| reply.status).collect::<Vec<_>>(),
                [404, 204, 404]
            );
            assert_eq!(replies[2].message(), "VM is not created");
            assert!(wire.bytes.is_empty());
        }
    }

    #[test]
    fn a_bad_reply_is_an_error_before_anything_is_allocated() {
        let long_head = [b"HTTP/1.1 200 \r\n".as_slice(), &[b'x'; MAX_HEAD]].concat();
        let table: [(&[u8], &str); 6] = [
            (b"220 mail ESMTP\r\n\r\n", "this is no HTTP server"),
            (b"HTTP/1.1 200 \r\n\r\n", "a reply has no length"),
            (b"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n", "a length is no number"),
            (b"HTTP/1.1 200 \r\nContent-Length: 4194305\r\n\r\n", "a reply is longer than 4 MiB"),
            (b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", "a reply is chunked"),
            (&long_head, "the head of a reply is longer than 8 KiB"),
        ];
        for (bytes, expected) in table {
            let mut wire = Replies::default();
            wire.push(bytes);
            assert_eq!(wire.next_reply(), Err(BadReply(expected)));
        }
    }
}
