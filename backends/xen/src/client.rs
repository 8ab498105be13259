//! One connection's conversation, without I/O: requests out, replies matched to them.
//!
//! A reply belongs to the request with its number, and has its operation or is an error. Servers answer
//! in order, but the protocol does not promise it. Watch events stand anywhere in between; they are no
//! business of this file, and nothing here waits for them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use virevent::{Error, ServerError};

use crate::request::Ask;
use crate::wire::{Operation, Packet, error};

/// How many requests may be without an answer. A socket's buffers hold so many of ours, and of the
/// answers, and the server need not wait for us between two.
const IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(crate) struct Client {
    /// In the order in which they were asked.
    asked: VecDeque<Asked>,
    most: usize,
    /// When the last answer came.
    heard: Option<Instant>,
    next_id: u32,
    out: Vec<u8>,
    written: usize,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    id: u32,
    ask: Ask,
    since: Instant,
}

/// How a request went: what the server says, or the name of an error.
pub(crate) type Outcome<'a> = Result<&'a [u8], &'a [u8]>;

impl Client {
    /// A device takes a request only when it has answered the last one, and old kernels number the
    /// replies to some requests 0. So there one is asked at a time, and whatever comes is its answer.
    pub(crate) fn new(is_device: bool) -> Self {
        let most = if is_device { 1 } else { IN_FLIGHT };
        Self { asked: VecDeque::new(), most, heard: None, next_id: 1, out: Vec::new(), written: 0 }
    }

    /// Whether another request may be asked.
    pub(crate) fn has_room(&self) -> bool {
        self.asked.len() < self.most
    }

    /// Whether no more than half of the requests that may be are without an answer.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.asked.len() <= self.most / 2
    }

    /// Whether every request has been answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.asked.is_empty()
    }

    /// Queues a request.
    pub(crate) fn ask(&mut self, ask: Ask, now: Instant) {
        // What is written is dropped, also where some of the rest always waits.
        if self.written == self.out.len() || self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        ask.write(&mut self.out, id);
        self.asked.push_back(Asked { id, ask, since: now });
    }

    /// What is still to be written. Where one request is asked at a time, this is one packet.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.out[self.written..]
    }

    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written = (self.written + bytes).min(self.out.len());
    }

    /// When the oldest request without an answer is overdue: so long after it was asked, or after the
    /// last answer to another, for the server may take as long for each of those that it answers first.
    /// There are so many of those and no more: one that is never answered is not waited for for ever.
    pub(crate) fn overdue_at(&self, timeout: Duration) -> Option<Instant> {
        let asked = self.asked.front()?.since;
        let next = asked.max(self.heard.unwrap_or(asked)).checked_add(timeout)?;
        let last = asked.checked_add(timeout.saturating_mul(self.most as u32));
        Some(last.map_or(next, |last| next.min(last)))
    }

    /// The oldest request without an answer.
    pub(crate) fn oldest(&self) -> Option<Ask> {
        self.asked.front().map(|asked| asked.ask)
    }

    /// The request that `packet` answers, and how it went.
    ///
    /// # Errors
    /// [`Error::Protocol`]: it answers nothing that was asked, or not in the way it was asked.
    pub(crate) fn answered<'a>(
        &mut self,
        packet: &Packet<'a>,
        now: Instant,
    ) -> Result<(Ask, Outcome<'a>), Error> {
        let header = &packet.header;
        let is_ours =
            |asked: &Asked| asked.id == header.request || (self.most == 1 && header.request == 0);
        let Some(at) = self.asked.iter().position(is_ours) else {
            let (operation, id) = (header.operation, header.request);
            return Err(protocol(format!(
                "an answer ({operation}) to request {id}, which was not asked"
            )));
        };
        let ask = self.asked[at].ask;
        let is_error = header.operation == Operation::ERROR;
        if !is_error && header.operation != ask.operation() {
            let said = format!("{} as the answer to a {}", header.operation, ask.to_line());
            return Err(protocol(said));
        }
        self.asked.remove(at);
        self.heard = Some(now);
        Ok((ask, if is_error { Err(packet.text()) } else { Ok(packet.payload) }))
    }
}

pub(crate) fn protocol(detail: String) -> Error {
    Error::Protocol { detail }
}

/// The server says no to something that we cannot do without.
pub(crate) fn server_error(ask: Ask, name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    let help = match &*name {
        error::EACCES | error::EPERM => {
            "run it in domain 0, as root: a guest may not watch other domains"
        }
        error::ENOSYS => {
            "this xenstored is too old for a host with so many domains: Xen 4.9 is needed"
        }
        error::ENOSPC | error::E2BIG | error::ENOMEM => {
            "xenstored has no room for our watches: raise its limits, or free memory in domain 0"
        }
        _ => "see xenstored's log",
    };
    let call = ask.operation().name().unwrap_or("a request");
    let message = format!("{name} to a {}", ask.to_line());
    let mut server = ServerError::new(call, code(&name), message);
    server.help = help;
    server.is_refusal = matches!(&*name, error::EACCES | error::EPERM | error::ENOSYS);
    server.into()
}

/// Linux' number of an error; 0 for one that is not known here.
fn code(name: &str) -> i32 {
    match name {
        error::EPERM => 1,
        error::ENOENT => 2,
        error::EIO => 5,
        error::E2BIG => 7,
        error::EAGAIN => 11,
        error::ENOMEM => 12,
        error::EACCES => 13,
        error::EBUSY => 16,
        error::EEXIST => 17,
        error::EINVAL => 22,
        error::ENOSPC => 28,
        error::EROFS => 30,
        error::ENOSYS => 38,
        error::EISCONN => 106,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Node, Target};
    use crate::wire::{Decoder, Header};

    const NAME: Ask = Ask::Read(5, Node::Name);

    fn asked(is_device: bool, asks: &[Ask]) -> (Client, Vec<Header>) {
        let mut client = Client::new(is_device);
        let (mut decoder, mut headers) = (Decoder::new(), Vec::new());
        for ask in asks {
            client.ask(*ask, Instant::now());
        }
        decoder.push(client.unwritten());
        while let Some(packet) = decoder.next_packet().unwrap() {
            headers.push(packet.header);
        }
        (client, headers)
    }

    #[test]
    fn replies_find_their_requests_in_any_order() {
        let (mut client, headers) = asked(false, &[NAME, Ask::List, Ask::IsIntroduced(5)]);
        let reply = |at: usize, payload| Packet { header: headers[at], payload };
        let now = Instant::now();
        assert_eq!(
            client.answered(&reply(2, b"T\0"), now).unwrap(),
            (Ask::IsIntroduced(5), Ok(&b"T\0"[..]))
        );
        let error = Packet { header: headers[0].error(), payload: b"ENOENT\0" };
        assert_eq!(client.answered(&error, now).unwrap(), (NAME, Err(&b"ENOENT"[..])));
        assert_eq!(client.oldest(), Some(Ask::List));
        assert_eq!(client.answered(&reply(1, b""), now).unwrap(), (Ask::List, Ok(&b""[..])));
        assert!(client.is_quiet());
    }

    #[test]
    fn an_answer_to_nothing_and_one_of_another_operation_are_refused() {
        let (mut client, headers) = asked(false, &[NAME]);
        let mut refused =
            |packet: Packet<'_>| client.answered(&packet, Instant::now()).unwrap_err().to_string();
        let stray = Packet { header: Header::request(Operation::READ, 77), payload: b"" };
        let said = refused(stray);
        assert!(said.contains("READ") && said.contains("request 77"), "{said}");
        let header = Header { operation: Operation::WRITE, ..headers[0] };
        let said = refused(Packet { header, payload: b"OK\0" });
        assert!(said.contains("WRITE as the answer to a READ of /local/domain/5/name"), "{said}");
        let unknown = Header { operation: Operation(4_000_000_000), ..headers[0] };
        assert!(refused(Packet { header: unknown, payload: b"" }).contains("as the answer"));
    }

    #[test]
    fn a_device_answers_watches_with_the_number_0() {
        let (mut client, _) = asked(true, &[Ask::Watch(Target::Released, None)]);
        assert!(!client.has_room());
        let header = Header::request(Operation::WATCH, 0);
        let reply = Packet { header, payload: b"OK\0" };
        let (ask, _) = client.answered(&reply, Instant::now()).unwrap();
        assert_eq!(ask, Ask::Watch(Target::Released, None));
        assert!(client.has_room());
    }

    #[test]
    fn what_is_asked_is_overdue_after_the_last_answer_and_not_after_it_was_asked() {
        const TIMEOUT: Duration = Duration::from_secs(10);
        let (mut client, headers) = asked(false, &[NAME, Ask::List, Ask::IsIntroduced(5)]);
        assert_eq!(client.overdue_at(TIMEOUT), Some(client.asked[0].since + TIMEOUT));
        let begun = client.asked[1].since;
        let mut now = begun;
        for (header, payload) in [(headers[0], &b"web"[..]), (headers[2], b"T\0")] {
            now += Duration::from_secs(9);
            assert!(client.answered(&Packet { header, payload }, now).is_ok());
            assert_eq!(client.overdue_at(TIMEOUT), Some(now + TIMEOUT));
        }
        // Answers to what was asked later do not make up for one that never comes.
        for seconds in 0..1_000 {
            now = begun + Duration::from_secs(seconds);
            client.ask(NAME, now);
            let header = Header::request(Operation::READ, client.asked[1].id);
            assert!(client.answered(&Packet { header, payload: b"" }, now).is_ok());
        }
        assert_eq!(client.overdue_at(TIMEOUT), Some(begun + TIMEOUT * 64));
    }

    #[test]
    fn the_numbers_of_requests_start_over_and_never_are_0() {
        let mut client = Client::new(false);
        client.next_id = u32::MAX;
        client.ask(NAME, Instant::now());
        client.ask(NAME, Instant::now());
        assert_eq!(client.asked.iter().map(|asked| asked.id).collect::<Vec<_>>(), [u32::MAX, 1]);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let error = server_error(Ask::Watch(Target::Introduced, None), b"EACCES");
        assert!(error.is_refusal());
        let line = error.to_line();
        assert!(line.contains("WATCH of @introduceDomain") && line.contains("domain 0"), "{line}");
        assert!(!server_error(NAME, b"EIO\xff").is_refusal());
    }
}
