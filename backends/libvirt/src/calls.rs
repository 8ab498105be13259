//! The calls of a connection: what is to be sent, and what each reply is to.
//!
//! libvirtd serves five calls of a client at a time and leaves further ones in the socket, pings
//! included. So no more than [`WINDOW`] are under way; the others wait here.
//!
//! A call that looks at domains waits for their locks, and each that waits keeps one of the daemon's
//! workers, for as long as a hook or a start hangs. So one of them is under way at a time, whatever is
//! asked meanwhile, and registrations go beside it.

use std::collections::VecDeque;

use virevent_transport::Outbox;

use crate::wire::xdr::Writer;
use crate::wire::{Header, message};

/// How many calls are under way at a time: one less than libvirtd's `max_client_requests`.
const WINDOW: usize = 4;

/// How many bytes may wait to be written before keepalive messages are left out. A peer that sends
/// pings and never reads must not fill our memory with pongs.
const BACKLOG: usize = 64 * 1024;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A step of the handshake: somebody waits for the reply.
    Handshake,
    /// The event id is to be reported.
    Register(u32),
    /// The event id is no longer to be reported.
    Deregister(u32),
    /// For the list of domains with this tag.
    List(u64, ListCall),
    /// For the look at one domain with this tag.
    Look(u64, LookCall),
}

impl Purpose {
    /// Whether the daemon may wait for the lock of a domain before it replies.
    fn waits_for_domains(self) -> bool {
        matches!(self, Self::List(..) | Self::Look(..))
    }
}

/// What a call is to bring for a list of domains.
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

/// What a call is to bring for a look at one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookCall {
    /// The domain, its id and its state.
    Stats,
    /// The domain and its id.
    Lookup,
    /// Its state.
    State,
    /// Whether it is persistent.
    Persistent,
}

/// A call that waits for its reply, or for its turn.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) procedure: i32,
    pub(crate) purpose: Purpose,
    serial: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Calls {
    outbox: Outbox,
    serial: u32,
    under_way: Vec<Call>,
    /// Calls that wait for their turn, and those among them that will wait for domains.
    waiting: VecDeque<(Call, Vec<u8>)>,
    waiting_for_domains: VecDeque<(Call, Vec<u8>)>,
}

impl Calls {
    /// Queues a call.
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
        let queue = match purpose.waits_for_domains() {
            true => &mut self.waiting_for_domains,
            false => &mut self.waiting,
        };
        queue.push_back((Call { procedure, purpose, serial }, bytes));
        self.fill();
    }

    /// The call that a reply with this serial is to. `None` if there is none.
    pub(crate) fn answered(&mut self, serial: u32) -> Option<Call> {
        let at = self.under_way.iter().position(|call| call.serial == serial)?;
        let call = self.under_way.swap_remove(at);
        self.fill();
        Some(call)
    }

    /// Takes back the calls that have not been sent and that nobody needs any more.
    pub(crate) fn retain(&mut self, needed: impl Fn(Purpose) -> bool) {
        self.waiting.retain(|(call, _)| needed(call.purpose));
        self.waiting_for_domains.retain(|(call, _)| needed(call.purpose));
    }

    /// Queues a ping or a pong, before all calls that wait.
    pub(crate) fn keepalive(&mut self, procedure: i32) {
        if self.outbox.unwritten().len() < BACKLOG {
            message(self.outbox.appending(), &Header::keepalive(procedure), |_| {});
        }
    }

    /// The procedure of the oldest call without a reply.
    pub(crate) fn oldest(&self) -> Option<i32> {
        let oldest = self.under_way.iter().min_by_key(|call| call.serial);
        oldest.map(|call| call.procedure)
    }

    /// What is to be written.
    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn fill(&mut self) {
        while self.under_way.len() < WINDOW {
            let waits = self.under_way.iter().any(|call| call.purpose.waits_for_domains());
            let next = match self.waiting.pop_front() {
                None if !waits => self.waiting_for_domains.pop_front(),
                next => next,
            };
            let Some((call, bytes)) = next else { return };
            self.outbox.appending().extend_from_slice(&bytes);
            self.under_way.push(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::procs;

    #[test]
    fn calls_go_out_as_replies_come_in_and_pings_do_not_wait() {
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

        assert_eq!(calls.answered(3).unwrap().purpose, Purpose::Register(3));
        assert_eq!(calls.outbox().unwritten().len(), 32);
        assert!(calls.answered(3).is_none(), "answered before");
        assert!(calls.answered(6).is_none(), "not sent yet");
        assert!(calls.answered(99).is_none(), "never made");
    }

    #[test]
    fn one_call_waits_for_domains_and_others_go_beside_it() {
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
        calls.call(procs::DOMAIN_IS_PERSISTENT, Purpose::Look(2, LookCall::Persistent), |_| {});
        assert_eq!(size(&mut calls), 28, "serial 1 alone");
        for event in 1..=4 {
            calls.call(316, Purpose::Register(event), |_| {});
        }
        assert_eq!(size(&mut calls), 3 * 28, "serials 5 to 7");

        assert_eq!(calls.answered(6).unwrap().purpose, Purpose::Register(2));
        assert_eq!(size(&mut calls), 28, "serial 8 overtakes those that wait");
        assert_eq!(calls.answered(1).unwrap().purpose, state(0));
        assert_eq!(size(&mut calls), 28);
        assert_eq!(calls.answered(2).unwrap().purpose, state(1));
        calls.retain(|purpose| !matches!(purpose, Purpose::List(..)));
        assert_eq!(calls.answered(3).unwrap().purpose, state(2), "sent before it was taken back");
        assert_eq!(calls.answered(4).unwrap().purpose, Purpose::Look(2, LookCall::Persistent));
    }

    #[test]
    fn a_peer_that_pings_and_never_reads_gets_no_more_pongs() {
        let mut calls = Calls::default();
        (0..100_000).for_each(|_| calls.keepalive(procs::PONG));
        assert!(calls.outbox().unwritten().len() < BACKLOG + 28);
    }
}
