//! The calls of a connection: which are sent, which wait, and which call a reply answers.
//!
//! ```text
//!   call() ──▶ waiting ──────────▶ pending, at most WINDOW ──▶ complete()
//!         └──▶ waiting_for_locks ──▶ one of the pending
//! ```
//!
//! libvirtd serves five calls of a client at a time (`max_client_requests`) and leaves further ones
//! in the socket, pings included. So at most [`WINDOW`] calls are pending; the others wait here.
//!
//! A call that reads domains waits for their locks in the daemon. While a hook or a start hangs,
//! each such call occupies one of the daemon's workers, and a few watchers can occupy all of them.
//! So one of these calls is pending at a time, and registrations are sent beside it.

use std::collections::VecDeque;

use virevent_transport::Outbox;

#[cfg(feature = "sasl")]
use crate::wire::HEADER_LENGTH;
use crate::wire::xdr::Writer;
use crate::wire::{Header, message};

/// How many calls are pending at a time: one less than libvirtd's `max_client_requests`, so that it
/// still reads our pings.
const WINDOW: usize = 4;

/// How many bytes may wait to be written before keepalive messages are left out: a peer that sends
/// pings and never reads must not fill our memory with pongs.
const MAX_BACKLOG: usize = 64 * 1024;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A step of the handshake, which waits for the reply.
    Handshake,
    /// Registers for the event id.
    Register(u32),
    /// Deregisters from the event id.
    Deregister(u32),
    /// A part of the list of domains with this tag.
    List(u64, ListCall),
    /// A part of the state of one domain with this tag.
    State(u64, StateCall),
}

impl Purpose {
    /// Whether the daemon waits for the locks of domains before it replies.
    fn waits_for_locks(self) -> bool {
        matches!(self, Self::List(..) | Self::State(..))
    }
}

/// Which part of a list of domains a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListCall {
    /// All domains with their states.
    Stats,
    /// All domains.
    Domains,
    /// The state of the domain with this index.
    State(usize),
    /// Which domains are persistent.
    Persistent,
}

/// Which part of the state of one domain a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateCall {
    /// The domain, its id and its state.
    Stats,
    /// The domain and its id.
    Lookup,
    /// Its state.
    State,
    /// Whether it is persistent.
    Persistent,
}

/// A call that is pending or waits to be sent.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) procedure: i32,
    pub(crate) purpose: Purpose,
    serial: u32,
}

/// The calls of one connection, and the bytes to write for them.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    outbox: Outbox,
    /// The serial of the last call.
    serial: u32,
    /// Calls that were sent and have no reply yet.
    pending: Vec<Call>,
    /// Calls that are not sent yet, with their bytes.
    waiting: VecDeque<(Call, Vec<u8>)>,
    /// The same for calls for which the daemon waits for locks.
    waiting_for_locks: VecDeque<(Call, Vec<u8>)>,
}

impl Calls {
    /// Sends a call, now or when its turn comes.
    pub(crate) fn call(
        &mut self,
        procedure: i32,
        purpose: Purpose,
        args: impl FnOnce(&mut Writer<'_>),
    ) {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let mut bytes = Vec::new();
        message(&mut bytes, &Header::call(procedure, serial), args);
        // Two queues: a call that has to wait for the lock of a domain must not hold up
        // registrations.
        let queue = match purpose.waits_for_locks() {
            true => &mut self.waiting_for_locks,
            false => &mut self.waiting,
        };
        queue.push_back((Call { procedure, purpose, serial }, bytes));
        self.fill();
    }

    /// Sends a call of the handshake whose arguments are a secret, of this size: at once, into the
    /// outbox alone, so that [`wipe_written`](Calls::wipe_written) leaves no copy.
    #[cfg(feature = "sasl")]
    pub(crate) fn call_secret(
        &mut self,
        procedure: i32,
        size: usize,
        args: impl FnOnce(&mut Writer<'_>),
    ) {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let out = self.outbox.appending();
        // A buffer that grows while it is written to would leave a copy behind.
        out.reserve(HEADER_LENGTH + size);
        message(out, &Header::call(procedure, serial), args);
        self.pending.push(Call { procedure, purpose: Purpose::Handshake, serial });
    }

    /// Overwrites the memory of what was written.
    #[cfg(feature = "sasl")]
    pub(crate) fn wipe_written(&mut self) {
        // After the reply to a call all of it was written; a pong may be left.
        if self.outbox.unwritten().is_empty() {
            zeroize::Zeroize::zeroize(self.outbox.appending());
        }
    }

    /// Removes the call that a reply with this serial answers. `None` if no such call is pending.
    pub(crate) fn complete(&mut self, serial: u32) -> Option<Call> {
        // Several workers of the daemon serve one connection, so replies come in any order.
        let at = self.pending.iter().position(|call| call.serial == serial)?;
        let call = self.pending.swap_remove(at);
        self.fill();
        Some(call)
    }

    /// Drops the calls that are not sent yet and not needed any more.
    pub(crate) fn retain_waiting(&mut self, needed: impl Fn(Purpose) -> bool) {
        self.waiting.retain(|(call, _)| needed(call.purpose));
        self.waiting_for_locks.retain(|(call, _)| needed(call.purpose));
    }

    /// Sends a ping or a pong, before all calls that wait.
    pub(crate) fn keepalive(&mut self, procedure: i32) {
        // Not through the queues: a ping that waits for replies cannot prove that the daemon is
        // alive.
        if self.outbox.unwritten().len() < MAX_BACKLOG {
            message(self.outbox.appending(), &Header::keepalive(procedure), |_| {});
        }
    }

    /// The procedure of the oldest pending call.
    pub(crate) fn oldest_procedure(&self) -> Option<i32> {
        let oldest = self.pending.iter().min_by_key(|call| call.serial);
        oldest.map(|call| call.procedure)
    }

    /// What is to be written.
    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Sends waiting calls as far as the window allows.
    fn fill(&mut self) {
        while self.pending.len() < WINDOW {
            let is_waiting_for_locks =
                self.pending.iter().any(|call| call.purpose.waits_for_locks());
            // The other calls go first: `close()` waits for them, and they are answered at once.
            let next = match self.waiting.pop_front() {
                None if !is_waiting_for_locks => self.waiting_for_locks.pop_front(),
                next => next,
            };
            let Some((call, bytes)) = next else { return };
            self.outbox.appending().extend_from_slice(&bytes);
            self.pending.push(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::procs;

    #[test]
    fn calls_are_sent_as_replies_arrive_and_pings_at_once() {
        let mut calls = Calls::default();
        for event in 1..=6 {
            calls.call(316, Purpose::Register(event), |args| args.u32(event));
        }
        assert_eq!(calls.outbox().unwritten().len(), 4 * 32);
        calls.keepalive(procs::PONG);
        calls.outbox().wrote(4 * 32);
        assert_eq!(calls.outbox().unwritten().len(), 28);
        calls.outbox().wrote(28);
        assert!(calls.outbox().unwritten().is_empty());

        assert_eq!(calls.complete(3).unwrap().purpose, Purpose::Register(3));
        assert_eq!(calls.outbox().unwritten().len(), 32);
        assert!(calls.complete(3).is_none(), "completed before");
        assert!(calls.complete(6).is_none(), "not sent yet");
        assert!(calls.complete(99).is_none(), "never made");
    }

    #[test]
    fn one_call_waits_for_locks_and_others_go_beside_it() {
        let mut calls = Calls::default();
        let size = |calls: &mut Calls| {
            let size = calls.outbox().unwritten().len();
            calls.outbox().wrote(size);
            size
        };
        let state = |at| Purpose::List(1, ListCall::State(at));
        for at in 0..3 {
            calls.call(procs::DOMAIN_GET_STATE, state(at), |_| {});
        }
        calls.call(procs::DOMAIN_IS_PERSISTENT, Purpose::State(2, StateCall::Persistent), |_| {});
        assert_eq!(size(&mut calls), 28, "serial 1 alone");
        for event in 1..=4 {
            calls.call(316, Purpose::Register(event), |_| {});
        }
        assert_eq!(size(&mut calls), 3 * 28, "serials 5 to 7");

        assert_eq!(calls.complete(6).unwrap().purpose, Purpose::Register(2));
        assert_eq!(size(&mut calls), 28, "serial 8 overtakes the waiting lists");
        assert_eq!(calls.complete(1).unwrap().purpose, state(0));
        assert_eq!(size(&mut calls), 28);
        assert_eq!(calls.complete(2).unwrap().purpose, state(1));
        calls.retain_waiting(|purpose| !matches!(purpose, Purpose::List(..)));
        assert_eq!(calls.complete(3).unwrap().purpose, state(2), "sent before it was dropped");
        assert_eq!(calls.complete(4).unwrap().purpose, Purpose::State(2, StateCall::Persistent));
    }

    #[test]
    fn a_peer_that_pings_and_never_reads_gets_few_pongs() {
        let mut calls = Calls::default();
        (0..100_000).for_each(|_| calls.keepalive(procs::PONG));
        assert!(calls.outbox().unwritten().len() < MAX_BACKLOG + 28);
    }
}
