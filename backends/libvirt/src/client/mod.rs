//! One connection's conversation, without I/O: calls out, frames in, events and answers for the
//! driver.
//!
//! Replies and events come in any order and interleave; a reply belongs to the call with its serial,
//! and one that belongs to no call breaks the connection.

use virevent::driver::{Batch, Interest};
use virevent::{Domain, Error, ServerError};

use crate::calls::{Call, Calls, ListCall, LookCall, Purpose};
use crate::decode;
use crate::doubts::Doubts;
use crate::listing::{Listing, Step};
use crate::look::{self, Look};
use crate::registrations::Registrations;
use crate::wire::xdr::{Malformed, Reader, Writer};
use crate::wire::{Frame, RemoteError, code, kind, procs, program, status, verdict};

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) calls: Calls,
    pub(crate) registrations: Registrations,
    doubts: Doubts,
    listing: Option<Listing>,
    look: Option<Look>,
    /// Whether the server may have the call that lists domains with their states at once.
    bulk: bool,
    /// The reply to the call that the handshake waits for.
    reply: Option<Result<Vec<u8>, Error>>,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            calls: Calls::default(),
            registrations: Registrations::default(),
            doubts: Doubts::default(),
            listing: None,
            look: None,
            bulk: true,
            reply: None,
        }
    }

    pub(crate) fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.registrations.change(interest, tag, &mut self.calls);
    }

    pub(crate) fn request_list(&mut self, tag: u64) {
        self.drop_questions();
        self.listing = Some(Listing::start(tag, self.bulk, &mut self.calls));
    }

    pub(crate) fn request_state(&mut self, domain: &Domain, tag: u64) {
        self.drop_questions();
        self.look = Some(Look::start(domain, tag, self.bulk, &mut self.calls));
    }

    /// A question whose answer is not wanted any more need not be finished. What was sent is: the
    /// server waits for a domain in any case, and the next question must not make it wait twice.
    fn drop_questions(&mut self) {
        self.calls.retain(|purpose| !matches!(purpose, Purpose::List(..) | Purpose::Look(..)));
        self.listing = None;
        self.look = None;
    }

    /// Queues a call of the handshake; its reply is at [`take_reply`](Client::take_reply).
    pub(crate) fn ask(&mut self, procedure: i32, args: impl FnOnce(&mut Writer<'_>)) {
        self.reply = None;
        self.calls.call(procedure, Purpose::Handshake, args);
    }

    /// The body of the reply to [`ask`](Client::ask), or the error that it was.
    pub(crate) fn take_reply(&mut self) -> Option<Result<Vec<u8>, Error>> {
        self.reply.take()
    }

    /// Tells that a change of interest is confirmed. True if it was, just now.
    pub(crate) fn settle(&mut self, out: &mut Batch) -> bool {
        match self.registrations.take_done() {
            Some((tag, refused)) => {
                out.interest_done(tag, &refused);
                true
            }
            None => false,
        }
    }

    /// Takes in one frame.
    ///
    /// # Errors
    /// The other side broke the protocol, or failed a call that the source cannot do without.
    #[inline]
    pub(crate) fn receive(&mut self, frame: &Frame<'_>, out: &mut Batch) -> Result<(), Error> {
        let header = &frame.header;
        match (header.program, header.version, header.kind) {
            (program::REMOTE, 1, kind::MESSAGE) => {
                self.event(frame, out).map_err(|error| malformed(&error, header.procedure))
            }
            (program::REMOTE, 1, kind::REPLY) => self.answer(frame, out),
            (program::KEEPALIVE, 1, kind::MESSAGE) => {
                if header.procedure == procs::PING {
                    self.calls.keepalive(procs::PONG);
                }
                Ok(())
            }
            (program::REMOTE, 1, _) => {
                tracing::debug!(?header, "passed over a message that is neither reply nor event");
                Ok(())
            }
            (program, version, _) => Err(Error::Protocol {
                detail: format!("a message of program {program:#010x} version {version}"),
            }),
        }
    }

    #[inline]
    fn event(&mut self, frame: &Frame<'_>, out: &mut Batch) -> Result<(), Malformed> {
        let registrations = &self.registrations;
        decode::event(frame, |callback| registrations.id_of(callback), out)?;
        if let Some(scope) = out.events().last().and_then(|event| self.doubts.hear(event)) {
            out.doubt(scope);
        }
        Ok(())
    }

    fn answer(&mut self, frame: &Frame<'_>, out: &mut Batch) -> Result<(), Error> {
        let Some(call) = self.calls.answered(frame.header.serial) else {
            // The reply that it should have been never comes, and its call would wait for ever.
            let serial = frame.header.serial;
            return Err(Error::Protocol {
                detail: format!("a reply to call {serial}, which is none"),
            });
        };
        if frame.header.procedure != call.procedure {
            let (got, want) = (frame.header.procedure, call.procedure);
            let detail = format!("a reply of procedure {got} to a call of procedure {want}");
            return Err(Error::Protocol { detail });
        }
        let body = Reader::new(frame.body);
        if frame.header.status == status::OK {
            self.answer_ok(&call, body, out).map_err(|error| malformed(&error, call.procedure))
        } else {
            let error = RemoteError::read(&mut body.clone())
                .map_err(|error| malformed(&error, call.procedure))?;
            self.answer_error(&call, error, out)
        }
    }

    fn answer_ok(
        &mut self,
        call: &Call,
        mut body: Reader<'_>,
        out: &mut Batch,
    ) -> Result<(), Malformed> {
        match call.purpose {
            Purpose::Handshake => self.reply = Some(Ok(body.rest().to_vec())),
            Purpose::Register(id) => {
                let callback = if self.registrations.legacy { 0 } else { body.i32()? };
                self.registrations.registered(id, Some(callback));
                self.settle(out);
            }
            Purpose::Deregister(id) => {
                self.registrations.deregistered(id);
                self.settle(out);
            }
            Purpose::List(tag, list_call) => {
                if let Some(listing) = self.listing.as_mut().filter(|listing| listing.tag == tag) {
                    let step = listing.reply(list_call, &mut body, &mut self.calls, out)?;
                    self.step(step, out);
                }
            }
            Purpose::Look(tag, look_call) => {
                if let Some(look) = self.look.as_mut().filter(|look| look.tag == tag) {
                    let step = look.reply(look_call, &mut body, &mut self.calls, out)?;
                    self.look_step(step, out);
                }
            }
        }
        Ok(())
    }

    fn answer_error(
        &mut self,
        call: &Call,
        error: RemoteError,
        out: &mut Batch,
    ) -> Result<(), Error> {
        tracing::debug!(call = procs::name(call.procedure), ?error, "the server says no");
        match call.purpose {
            Purpose::Handshake => {
                self.reply = Some(Err(server_error(call.procedure, error)));
                return Ok(());
            }
            // All depends on lifecycle events; without others we can do.
            Purpose::Register(id @ 1..)
                if is_lacking(error.code) || self.registrations.is_own(id) =>
            {
                tracing::debug!(event = id, message = error.message, "the server lacks an event");
                self.registrations.registered(id, None);
                self.settle(out);
                return Ok(());
            }
            // It does not know the callback: so be it.
            Purpose::Deregister(id) if error.code == code::INTERNAL_ERROR => {
                self.registrations.deregistered(id);
                self.settle(out);
                return Ok(());
            }
            Purpose::List(tag, list_call) => {
                let Some(listing) = self.listing.as_mut().filter(|listing| listing.tag == tag)
                else {
                    return Ok(());
                };
                if list_call == ListCall::Stats && lacks_bulk(error.code) {
                    self.bulk = false;
                    listing.without_bulk(&mut self.calls);
                    return Ok(());
                }
                match listing.error(list_call, error.code, &mut self.calls) {
                    Some(step) => self.step(step, out),
                    None => {
                        self.listing = None;
                        out.list_failed(tag, server_error(call.procedure, error));
                    }
                }
                return Ok(());
            }
            Purpose::Look(tag, look_call) => {
                if let Some(look) = self.look.as_mut().filter(|look| look.tag == tag) {
                    if look_call == LookCall::Stats && lacks_bulk(error.code) {
                        self.bulk = false;
                        *look = look.without_bulk(&mut self.calls);
                    } else {
                        let step = look.error(look_call, error.code, &mut self.calls);
                        self.look_step(step, out);
                    }
                }
                return Ok(());
            }
            Purpose::Register(_) | Purpose::Deregister(_) => {}
        }
        Err(server_error(call.procedure, error))
    }

    fn step(&mut self, step: Step, out: &mut Batch) {
        if let Step::Done(list) = step {
            if let Some(listing) = self.listing.take() {
                list.iter().for_each(|listed| self.doubts.see(listed));
                out.listed(listing.tag, list);
            }
        }
    }

    fn look_step(&mut self, step: look::Step, out: &mut Batch) {
        if step == look::Step::On {
            return;
        }
        let Some(look) = self.look.take() else { return };
        match step {
            look::Step::Done(found) => {
                found.iter().for_each(|listed| self.doubts.see(listed));
                out.looked(look.tag, found);
            }
            _ => out.look_failed(look.tag),
        }
    }
}

/// Whether an error says that the server has no call that lists domains with their states at once.
fn lacks_bulk(code: i32) -> bool {
    matches!(code, code::NO_SUPPORT | code::RPC)
}

/// Whether an error to a registration says that there is no such event. libvirtd calls that an
/// internal error.
fn is_lacking(code: i32) -> bool {
    matches!(code, code::INTERNAL_ERROR | code::NO_SUPPORT | code::CONFIG_UNSUPPORTED)
}

pub(crate) fn server_error(procedure: i32, error: RemoteError) -> Error {
    let verdict = verdict(error.code);
    let message = match error.message {
        message if message.is_empty() => "no message".into(),
        message => message,
    };
    let mut server = ServerError::new(procs::name(procedure), error.code, message);
    server.domain = Some(error.domain);
    server.help = verdict.help;
    server.is_refusal = verdict.refusal;
    server.into()
}

pub(crate) fn malformed(error: &Malformed, procedure: i32) -> Error {
    Error::Protocol { detail: format!("a message of procedure {procedure} has {error}") }
}

#[cfg(test)]
mod tests;
