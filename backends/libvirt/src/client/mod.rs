//! The protocol state of one connection, without I/O: calls out, frames in, events and answers for
//! the driver.
//!
//! Replies and events interleave in any order. A reply answers the call with its serial; a reply to
//! no pending call is a protocol error.

use virevent::driver::{Batch, Interest};
use virevent::{Domain, Error, ServerError};

use crate::calls::{Call, Calls, ListCall, Purpose, StateCall};
use crate::decode;
use crate::doubts::Doubts;
use crate::list_request::{ListRequest, ListStep};
use crate::registrations::Registrations;
use crate::state_request::{StateRequest, StateStep};
use crate::wire::xdr::{Malformed, Reader, Writer};
use crate::wire::{Frame, RemoteError, classify, code, kind, procs, program, status};

/// The client's end of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) calls: Calls,
    pub(crate) registrations: Registrations,
    doubts: Doubts,
    list_request: Option<ListRequest>,
    state_request: Option<StateRequest>,
    /// Whether the server may have the call that returns domains with their states at once.
    bulk: bool,
    /// The reply to the call of the handshake.
    handshake_reply: Option<Result<Vec<u8>, Error>>,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            calls: Calls::default(),
            registrations: Registrations::default(),
            doubts: Doubts::default(),
            list_request: None,
            state_request: None,
            bulk: true,
            handshake_reply: None,
        }
    }

    pub(crate) fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.registrations.change(interest, tag, &mut self.calls);
    }

    pub(crate) fn request_list(&mut self, tag: u64) {
        self.drop_requests();
        self.list_request = Some(ListRequest::start(tag, self.bulk, &mut self.calls));
    }

    pub(crate) fn request_state(&mut self, domain: &Domain, tag: u64) {
        self.drop_requests();
        self.state_request = Some(StateRequest::start(domain, tag, self.bulk, &mut self.calls));
    }

    /// Drops a request that the driver has replaced. A call that was sent stays pending: a worker
    /// of the server waits for a domain's lock in any case, and a second call would occupy a second
    /// worker.
    fn drop_requests(&mut self) {
        let is_request = |purpose| matches!(purpose, Purpose::List(..) | Purpose::State(..));
        self.calls.retain_waiting(|purpose| !is_request(purpose));
        self.list_request = None;
        self.state_request = None;
    }

    /// Makes a call of the handshake; [`take_handshake_reply`](Client::take_handshake_reply) has
    /// its reply.
    pub(crate) fn call_handshake(&mut self, procedure: i32, args: impl FnOnce(&mut Writer<'_>)) {
        self.handshake_reply = None;
        self.calls.call(procedure, Purpose::Handshake, args);
    }

    /// The same for arguments that are a secret; `size` is that of the arguments.
    #[cfg(feature = "sasl")]
    pub(crate) fn call_secret(
        &mut self,
        procedure: i32,
        size: usize,
        args: impl FnOnce(&mut Writer<'_>),
    ) {
        self.handshake_reply = None;
        self.calls.call_secret(procedure, size, args);
    }

    /// The body of the reply to [`call_handshake`](Client::call_handshake), or its error. `None`
    /// until it is there.
    pub(crate) fn take_handshake_reply(&mut self) -> Option<Result<Vec<u8>, Error>> {
        self.handshake_reply.take()
    }

    /// Reports to the driver that a change of interest is confirmed. False if there is none to
    /// report.
    pub(crate) fn report_interest(&mut self, out: &mut Batch) -> bool {
        match self.registrations.take_confirmed() {
            Some((tag, refused)) => {
                out.interest_done(tag, &refused);
                true
            }
            None => false,
        }
    }

    /// Handles one frame.
    ///
    /// # Errors
    /// The server broke the protocol, or a call failed without which the source cannot work.
    #[inline]
    pub(crate) fn receive(&mut self, frame: &Frame<'_>, out: &mut Batch) -> Result<(), Error> {
        let header = &frame.header;
        match (header.program, header.version, header.kind) {
            (program::REMOTE, 1, kind::MESSAGE) => {
                self.on_event(frame, out).map_err(|error| malformed(&error, header.procedure))
            }
            (program::REMOTE, 1, kind::REPLY) => self.on_reply(frame, out),
            (program::KEEPALIVE, 1, kind::MESSAGE) => {
                // A pong needs no work here: the driver has seen that bytes came.
                if header.procedure == procs::PING {
                    self.calls.keepalive(procs::PONG);
                }
                Ok(())
            }
            // Streams and file descriptors, which belong to calls that this crate does not make.
            (program::REMOTE, 1, _) => {
                tracing::debug!(?header, "ignored a message that is neither a reply nor an event");
                Ok(())
            }
            (program, version, _) => Err(Error::protocol(format!(
                "a message of program {program:#010x} version {version}"
            ))),
        }
    }

    #[inline]
    fn on_event(&mut self, frame: &Frame<'_>, out: &mut Batch) -> Result<(), Malformed> {
        let registrations = &self.registrations;
        decode::event(frame, |callback| registrations.event_of(callback), out)?;
        // Behind its event in the batch: the driver applies the event first.
        if let Some(scope) = out.events().last().and_then(|event| self.doubts.on_event(event)) {
            out.doubt(scope);
        }
        Ok(())
    }

    fn on_reply(&mut self, frame: &Frame<'_>, out: &mut Batch) -> Result<(), Error> {
        let serial = frame.header.serial;
        let Some(call) = self.calls.complete(serial) else {
            // It has the wrong serial or is a second reply. A call that it should have answered
            // would wait for ever, so the connection ends here.
            return Err(Error::protocol(format!(
                "a reply with serial {serial}, for which no call is pending"
            )));
        };
        if frame.header.procedure != call.procedure {
            let got = frame.header.procedure;
            let expected = call.procedure;
            let detail = format!("a reply of procedure {got} to a call of procedure {expected}");
            return Err(Error::protocol(detail));
        }
        let body = Reader::new(frame.body);
        if frame.header.status == status::OK {
            self.on_ok_reply(&call, body, out).map_err(|error| malformed(&error, call.procedure))
        } else {
            let error = RemoteError::read(&mut body.clone())
                .map_err(|error| malformed(&error, call.procedure))?;
            self.on_error_reply(&call, error, out)
        }
    }

    fn on_ok_reply(
        &mut self,
        call: &Call,
        mut body: Reader<'_>,
        out: &mut Batch,
    ) -> Result<(), Malformed> {
        match call.purpose {
            Purpose::Handshake => self.handshake_reply = Some(Ok(body.rest().to_vec())),
            Purpose::Register(id) => {
                // A legacy reply has no callback id, and legacy messages name none.
                let callback = if self.registrations.legacy { 0 } else { body.i32()? };
                self.registrations.on_registered(id, Some(callback), &mut self.calls);
                self.report_interest(out);
            }
            Purpose::Deregister(id) => {
                self.registrations.on_deregistered(id);
                self.report_interest(out);
            }
            // A reply with another tag is to a request that was replaced after its call was sent.
            Purpose::List(tag, list_call) => {
                if let Some(request) = self.list_request.as_mut().filter(|list| list.tag == tag) {
                    let step = request.on_reply(list_call, &mut body, &mut self.calls, out)?;
                    self.on_list_step(step, out);
                }
            }
            Purpose::State(tag, state_call) => {
                if let Some(request) = self.state_request.as_mut().filter(|state| state.tag == tag)
                {
                    let step = request.on_reply(state_call, &mut body, &mut self.calls, out)?;
                    self.on_state_step(step, out);
                }
            }
        }
        Ok(())
    }

    fn on_error_reply(
        &mut self,
        call: &Call,
        error: RemoteError,
        out: &mut Batch,
    ) -> Result<(), Error> {
        tracing::debug!(call = procs::name(call.procedure), ?error, "the server returned an error");
        match call.purpose {
            Purpose::Handshake => {
                self.handshake_reply = Some(Err(server_error(call.procedure, error)));
                return Ok(());
            }
            // Without lifecycle events (id 0) nothing works; every other event may be missing.
            Purpose::Register(id @ 1..)
                if is_lacking(error.code) || self.registrations.is_own(id) =>
            {
                tracing::debug!(
                    event = id,
                    message = error.message,
                    "the server does not have an event"
                );
                self.registrations.on_registered(id, None, &mut self.calls);
                self.report_interest(out);
                return Ok(());
            }
            // It does not know the callback, so nothing is registered: what was wanted.
            Purpose::Deregister(id) if error.code == code::INTERNAL_ERROR => {
                self.registrations.on_deregistered(id);
                self.report_interest(out);
                return Ok(());
            }
            Purpose::List(tag, list_call) => {
                let request = self.list_request.as_mut().filter(|list| list.tag == tag);
                let Some(request) = request else { return Ok(()) };
                // Remembered for the connection: each further try would cost a round trip.
                if list_call == ListCall::Stats && lacks_bulk(error.code) {
                    self.bulk = false;
                    request.restart_without_bulk(&mut self.calls);
                    return Ok(());
                }
                match request.on_error(list_call, error.code, &mut self.calls) {
                    Some(step) => self.on_list_step(step, out),
                    None => {
                        self.list_request = None;
                        out.list_failed(tag, server_error(call.procedure, error));
                    }
                }
                return Ok(());
            }
            Purpose::State(tag, state_call) => {
                let request = self.state_request.as_mut().filter(|state| state.tag == tag);
                let Some(request) = request else { return Ok(()) };
                if state_call == StateCall::Stats && lacks_bulk(error.code) {
                    self.bulk = false;
                    *request = request.restart_without_bulk(&mut self.calls);
                } else {
                    let step = request.on_error(state_call, error.code, &mut self.calls);
                    self.on_state_step(step, out);
                }
                return Ok(());
            }
            Purpose::Register(_) | Purpose::Deregister(_) => {}
        }
        Err(server_error(call.procedure, error))
    }

    fn on_list_step(&mut self, step: ListStep, out: &mut Batch) {
        let ListStep::Done(list) = step else { return };
        let Some(request) = self.list_request.take() else { return };
        list.iter().for_each(|listed| self.doubts.on_listed(listed));
        out.listed(request.tag, list);
    }

    fn on_state_step(&mut self, step: StateStep, out: &mut Batch) {
        let found = match step {
            StateStep::Pending => return,
            StateStep::Done(found) => Some(found),
            StateStep::Failed => None,
        };
        let Some(request) = self.state_request.take() else { return };
        match found {
            Some(found) => {
                found.iter().for_each(|listed| self.doubts.on_listed(listed));
                out.looked(request.tag, found);
            }
            None => out.look_failed(request.tag),
        }
    }
}

/// Whether an error to the bulk call means that the server does not have it. A server that does not
/// know the procedure at all (before 1.2.8) reports an RPC error.
fn lacks_bulk(code: i32) -> bool {
    matches!(code, code::NO_SUPPORT | code::RPC)
}

/// Whether an error to a registration means that the server has no such event. libvirtd reports an
/// unknown event id as an internal error.
fn is_lacking(code: i32) -> bool {
    matches!(code, code::INTERNAL_ERROR | code::NO_SUPPORT | code::CONFIG_UNSUPPORTED)
}

/// The error that the server returned to a call.
pub(crate) fn server_error(procedure: i32, error: RemoteError) -> Error {
    let class = classify(error.code);
    let message = match error.message {
        message if message.is_empty() => "no message".into(),
        message => message,
    };
    let mut server = ServerError::new(procs::name(procedure), error.code, message);
    server.domain = Some(error.domain);
    server.help = class.help;
    server.is_refusal = class.is_refusal;
    server.into()
}

/// The error for a message without the layout of its procedure.
pub(crate) fn malformed(error: &Malformed, procedure: i32) -> Error {
    Error::protocol(format!("a malformed message of procedure {procedure}: {error}"))
}

#[cfg(test)]
mod tests;
