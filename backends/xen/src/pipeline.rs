//! The pipeline of requests of one connection, without I/O: requests out, replies matched to them.
//!
//! A reply belongs to the request with its number, and has its operation or is an error. Servers answer in
//! order, but the protocol does not promise it. Watch events arrive anywhere between replies; they are
//! handled elsewhere, and nothing here waits for them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use virevent::{Error, ServerError};

use crate::request::StoreRequest;
use crate::wire::{Header, Operation, Packet, error};

/// The number of requests that may be pending. A socket's buffers hold so many requests, and so many replies, so
/// neither side waits for the other to read.
const IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(crate) struct Pipeline {
    /// The requests without a reply, oldest first.
    pending: VecDeque<PendingRequest>,
    max_pending: usize,
    last_reply: Option<Instant>,
    next_id: u32,
    out: Vec<u8>,
    written: usize,
}

#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    id: u32,
    request: StoreRequest,
    since: Instant,
}

/// The result of a request: the payload of the reply, or the name of an error.
pub(crate) type Outcome<'a> = Result<&'a [u8], &'a [u8]>;

impl Pipeline {
    /// A pipeline without requests. A device takes a request only after it has answered the last one, and old
    /// kernels number some replies 0. So there one request is pending at a time, and any reply is its reply.
    pub(crate) fn new(is_device: bool) -> Self {
        Self {
            pending: VecDeque::new(),
            max_pending: if is_device { 1 } else { IN_FLIGHT },
            last_reply: None,
            next_id: 1,
            out: Vec::new(),
            written: 0,
        }
    }

    /// Whether another request may be sent.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.pending.len() < self.max_pending
    }

    /// Whether at most half of the requests that may be pending are.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.pending.len() <= self.max_pending / 2
    }

    /// Whether no request is pending.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Queues a request.
    #[inline]
    pub(crate) fn send(&mut self, request: StoreRequest, now: Instant) {
        // Written bytes are dropped, even if the rest is never written to the end.
        if self.written == self.out.len() || self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        // Never 0: watch events have the number 0, and so have some replies of old kernels.
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        request.write(&mut self.out, id);
        self.pending.push_back(PendingRequest { id, request, since: now });
    }

    /// The bytes that are to be written. With a device this is at most one packet.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.out[self.written..]
    }

    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written = (self.written + bytes).min(self.out.len());
    }

    /// When the oldest pending request is overdue: `timeout` after it was sent, or after the last reply to another,
    /// for the server may take as long for each of those that it answers first. The number of those is bounded, and
    /// so is the whole wait: replies to later requests do not put off the end for ever.
    pub(crate) fn overdue_at(&self, timeout: Duration) -> Option<Instant> {
        let sent = self.pending.front()?.since;
        let next = sent.max(self.last_reply.unwrap_or(sent)).checked_add(timeout)?;
        let last = sent.checked_add(timeout.saturating_mul(self.max_pending as u32));
        Some(last.map_or(next, |last| next.min(last)))
    }

    /// The oldest pending request.
    pub(crate) fn oldest(&self) -> Option<StoreRequest> {
        self.pending.front().map(|pending| pending.request)
    }

    /// The request that `packet` answers, and the result.
    ///
    /// # Errors
    /// [`Error::Protocol`]: it answers no pending request, or has another operation.
    #[inline]
    pub(crate) fn answered<'a>(
        &mut self,
        packet: &Packet<'a>,
        now: Instant,
    ) -> Result<(StoreRequest, Outcome<'a>), Error> {
        let header = &packet.header;
        // Old kernels number the replies to watches 0.
        let is_zero = self.max_pending == 1 && header.request == 0;
        let is_answered = |pending: &PendingRequest| pending.id == header.request || is_zero;
        let Some(at) = self.pending.iter().position(is_answered) else {
            let Header { operation, request, .. } = header;
            let detail =
                format!("a reply ({operation}) to request {request}, which is not pending");
            return Err(protocol(detail));
        };
        let request = self.pending[at].request;
        let is_error = header.operation == Operation::ERROR;
        // A reply of another operation means that both sides count differently: nothing after it could be trusted.
        if !is_error && header.operation != request.operation() {
            let detail = format!("{} as the reply to a {}", header.operation, request.to_line());
            return Err(protocol(detail));
        }
        // Most often the first: servers answer in order.
        self.pending.remove(at);
        self.last_reply = Some(now);
        Ok((request, if is_error { Err(packet.text()) } else { Ok(packet.payload) }))
    }
}

pub(crate) fn protocol(detail: String) -> Error {
    Error::protocol(detail)
}

/// The server refuses a request that is necessary.
pub(crate) fn server_error(request: StoreRequest, name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    let help = match &*name {
        error::EACCES | error::EPERM => {
            "run it in domain 0, as root: a guest may not watch other domains"
        }
        error::ENOSYS => {
            "this xenstored is too old for a host with so many domains: Xen 4.9 is needed"
        }
        error::ENOSPC | error::E2BIG | error::ENOMEM => {
            "xenstored has no room for more watches: raise its limits, or free memory in domain 0"
        }
        _ => "see xenstored's log",
    };
    let call = request.operation().name().unwrap_or("a request");
    let message = format!("{name} to a {}", request.to_line());
    let mut server = ServerError::new(call, code(&name), message);
    server.help = help;
    // Retrying cannot fix these: the driver fails the first subscription with them.
    server.is_refusal = matches!(&*name, error::EACCES | error::EPERM | error::ENOSYS);
    server.into()
}

/// Linux' number of an error; 0 for a name that is not in the table.
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
    use crate::request::{DomainNode, WatchTarget};
    use crate::wire::Decoder;

    const NAME: StoreRequest = StoreRequest::Read(5, DomainNode::Name);

    /// A pipeline with these requests pending, and their headers.
    fn pending(is_device: bool, requests: &[StoreRequest]) -> (Pipeline, Vec<Header>) {
        let mut pipeline = Pipeline::new(is_device);
        let mut decoder = Decoder::new();
        let mut headers = Vec::new();
        for request in requests {
            pipeline.send(*request, Instant::now());
        }
        decoder.push(pipeline.unwritten());
        while let Some(packet) = decoder.next_packet().unwrap() {
            headers.push(packet.header);
        }
        (pipeline, headers)
    }

    #[test]
    fn replies_find_their_requests_in_any_order() {
        let (mut pipeline, headers) =
            pending(false, &[NAME, StoreRequest::List, StoreRequest::IsIntroduced(5)]);
        let reply = |at: usize, payload| Packet { header: headers[at], payload };
        let now = Instant::now();
        assert_eq!(
            pipeline.answered(&reply(2, b"T\0"), now).unwrap(),
            (StoreRequest::IsIntroduced(5), Ok(&b"T\0"[..]))
        );
        let error = Packet { header: headers[0].error(), payload: b"ENOENT\0" };
        assert_eq!(pipeline.answered(&error, now).unwrap(), (NAME, Err(&b"ENOENT"[..])));
        assert_eq!(pipeline.oldest(), Some(StoreRequest::List));
        assert_eq!(
            pipeline.answered(&reply(1, b""), now).unwrap(),
            (StoreRequest::List, Ok(&b""[..]))
        );
        assert!(pipeline.is_idle());
    }

    #[test]
    fn a_reply_without_its_request_is_refused() {
        let (mut pipeline, headers) = pending(false, &[NAME]);
        let mut refused = |packet: Packet<'_>| {
            pipeline.answered(&packet, Instant::now()).unwrap_err().to_string()
        };
        let stray = Packet { header: Header::request(Operation::READ, 77), payload: b"" };
        let message = refused(stray);
        assert!(message.contains("READ") && message.contains("request 77"), "{message}");
        let header = Header { operation: Operation::WRITE, ..headers[0] };
        let message = refused(Packet { header, payload: b"OK\0" });
        assert!(
            message.contains("WRITE as the reply to a READ of /local/domain/5/name"),
            "{message}"
        );
        let unknown = Header { operation: Operation(4_000_000_000), ..headers[0] };
        assert!(refused(Packet { header: unknown, payload: b"" }).contains("as the reply"));
    }

    #[test]
    fn a_device_numbers_replies_to_watches_0() {
        let (mut pipeline, _) = pending(true, &[StoreRequest::Watch(WatchTarget::Released, None)]);
        assert!(!pipeline.has_room());
        let header = Header::request(Operation::WATCH, 0);
        let reply = Packet { header, payload: b"OK\0" };
        let (request, _) = pipeline.answered(&reply, Instant::now()).unwrap();
        assert_eq!(request, StoreRequest::Watch(WatchTarget::Released, None));
        assert!(pipeline.has_room());
    }

    #[test]
    fn a_request_is_overdue_after_the_last_reply() {
        const TIMEOUT: Duration = Duration::from_secs(10);
        let (mut pipeline, headers) =
            pending(false, &[NAME, StoreRequest::List, StoreRequest::IsIntroduced(5)]);
        assert_eq!(pipeline.overdue_at(TIMEOUT), Some(pipeline.pending[0].since + TIMEOUT));
        let begun = pipeline.pending[1].since;
        let mut now = begun;
        for (header, payload) in [(headers[0], &b"web"[..]), (headers[2], b"T\0")] {
            now += Duration::from_secs(9);
            assert!(pipeline.answered(&Packet { header, payload }, now).is_ok());
            assert_eq!(pipeline.overdue_at(TIMEOUT), Some(now + TIMEOUT));
        }
        // Replies to later requests do not replace one that never comes.
        for seconds in 0..1_000 {
            now = begun + Duration::from_secs(seconds);
            pipeline.send(NAME, now);
            let header = Header::request(Operation::READ, pipeline.pending[1].id);
            assert!(pipeline.answered(&Packet { header, payload: b"" }, now).is_ok());
        }
        assert_eq!(pipeline.overdue_at(TIMEOUT), Some(begun + TIMEOUT * 64));
    }

    #[test]
    fn request_numbers_wrap_and_are_never_0() {
        let mut pipeline = Pipeline::new(false);
        pipeline.next_id = u32::MAX;
        pipeline.send(NAME, Instant::now());
        pipeline.send(NAME, Instant::now());
        assert_eq!(
            pipeline.pending.iter().map(|pending| pending.id).collect::<Vec<_>>(),
            [u32::MAX, 1]
        );
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let error = server_error(StoreRequest::Watch(WatchTarget::Introduced, None), b"EACCES");
        assert!(error.is_refusal());
        let line = error.to_line();
        assert!(line.contains("WATCH of @introduceDomain") && line.contains("domain 0"), "{line}");
        assert!(!server_error(NAME, b"EIO\xff").is_refusal());
    }
}
