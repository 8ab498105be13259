//! A store of 64 domains, on a thread of its own. Nothing of them changes but `control/shutdown`.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use virevent_xen::wire::{Decoder, Header, Operation, packet, strings};

pub(crate) const DOMAINS: usize = 64;

pub(crate) struct BenchStore {
    socket: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    /// The value of every `control/shutdown`.
    request: &'static str,
    /// How many of them were read since the value last changed.
    read: usize,
}

impl BenchStore {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::new(), out: Vec::new(), request: "", read: 0 }
    }

    /// Answers until every `control/shutdown` was read, which is read last of a domain.
    pub(crate) fn until_first_look(&mut self) {
        while self.read < DOMAINS {
            assert!(self.answer(), "the client disconnected");
        }
    }

    /// Sends so many events at once, without a change, and answers the requests that came meanwhile.
    pub(crate) fn flood(&mut self, events: usize) {
        self.socket.set_nonblocking(true).unwrap();
        (0..events).for_each(|n| event(&mut self.out, n % DOMAINS + 1));
        self.write();
        self.answer();
        self.socket.set_nonblocking(false).unwrap();
    }

    /// Changes the request to every domain, and answers until the client has read it.
    pub(crate) fn request(&mut self) {
        self.request = if self.request == "halt" { "poweroff" } else { "halt" };
        self.read = 0;
        (1..=DOMAINS).for_each(|domid| event(&mut self.out, domid));
        self.write();
        while self.read < DOMAINS && self.answer() {}
    }

    /// Sends so many events, and the replies that a client would get for one read of each domain.
    pub(crate) fn recite(&mut self, events: usize) {
        (0..events).for_each(|n| event(&mut self.out, n % DOMAINS + 1));
        for request in 1..=DOMAINS {
            let header = Header::request(Operation::READ, request as u32);
            packet(&mut self.out, &header, &[b"poweroff"]).unwrap();
        }
        self.write();
    }

    fn write(&mut self) {
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.out.clear();
    }

    /// Reads once, and answers the requests. False at the end.
    pub(crate) fn answer(&mut self) -> bool {
        match self.socket.read(self.decoder.spare()) {
            Ok(0) => return false,
            Ok(bytes) => self.decoder.filled(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
        while let Some(request) = self.decoder.next_packet().unwrap() {
            let header = request.header;
            let arguments: Vec<_> = strings(request.payload).collect();
            let path = arguments.first().copied().unwrap_or_default();
            let out = &mut self.out;
            let reply = match header.operation {
                Operation::WATCH => {
                    packet(out, &header, &[b"OK\0"]).unwrap();
                    let event = [path, b"\0", arguments[1], b"\0"];
                    packet(out, &Header::watch_event(), &event).unwrap();
                    continue;
                }
                Operation::DIRECTORY => (1..=DOMAINS).map(|n| format!("{n}\0")).collect(),
                Operation::IS_DOMAIN_INTRODUCED => "T\0".to_owned(),
                Operation::READ if path.ends_with(b"/vm") => {
                    let domid = std::str::from_utf8(path).unwrap().split('/').nth(3).unwrap();
                    format!("/vm/00000000-0000-4000-8000-{domid:0>12}")
                }
                Operation::READ if path.ends_with(b"/shutdown") => {
                    self.read += 1;
                    self.request.to_owned()
                }
                Operation::READ => "web".to_owned(),
                _ => {
                    packet(out, &header.error(), &[b"ENOSYS\0"]).unwrap();
                    continue;
                }
            };
            packet(out, &header, &[reply.as_bytes()]).unwrap();
        }
        self.write();
        true
    }
}

fn event(out: &mut Vec<u8>, domid: usize) {
    let path = format!("/local/domain/{domid}/control/shutdown\0");
    let token = format!("s{domid}\0");
    packet(out, &Header::watch_event(), &[path.as_bytes(), token.as_bytes()]).unwrap();
}
