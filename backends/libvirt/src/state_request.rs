//! The state of one domain: whether it exists, its state, and whether it is persistent.
//!
//! ```text
//!   GET_ALL_DOMAIN_STATS of it ────────────────────────▶ DOMAIN_IS_PERSISTENT ─▶ done
//!     │ not supported                                      ▲
//!     └─▶ DOMAIN_LOOKUP_BY_UUID ─▶ DOMAIN_GET_STATE ───────┘
//! ```
//!
//! In the daemon each call waits for the lock of this domain only; a list waits for the locks of
//! all. The domain does not exist if a reply is empty, or is the error "no such domain" at any
//! step.

use virevent::driver::{Batch, Listed};
use virevent::{Domain, State};

use crate::calls::{Calls, Purpose, StateCall};
use crate::decode;
use crate::list_request::ListEntry;
use crate::wire::xdr::{Malformed, Reader};
use crate::wire::{self, StateStats, StatsRequest, code, procs};

/// A request for the state of one domain, until its last reply.
#[derive(Debug)]
pub(crate) struct StateRequest {
    pub(crate) tag: u64,
    asked: Domain,
    entry: Option<ListEntry>,
}

/// What a reply leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum StateStep {
    /// Further replies are to come.
    Pending,
    /// It was the last reply. `None`: the domain does not exist.
    Done(Option<Listed>),
    /// The server cannot say.
    Failed,
}

impl StateRequest {
    /// Makes the first call. `bulk`: whether the server may have the call that returns state and id
    /// at once.
    pub(crate) fn start(domain: &Domain, tag: u64, bulk: bool, calls: &mut Calls) -> Self {
        let request = Self { tag, asked: domain.clone(), entry: None };
        let procedure = match bulk {
            true => procs::CONNECT_GET_ALL_DOMAIN_STATS,
            false => procs::DOMAIN_LOOKUP_BY_UUID,
        };
        let call = if bulk { StateCall::Stats } else { StateCall::Lookup };
        let asked = request.wire_domain();
        calls.call(procedure, Purpose::State(tag, call), |args| match bulk {
            true => {
                StatsRequest { domains: vec![asked], stats: StatsRequest::STATE, flags: 0 }
                    .write(args);
            }
            false => args.uuid(asked.uuid),
        });
        request
    }

    /// Handles the reply to one of its calls.
    ///
    /// # Errors
    /// The body does not have the layout of the procedure.
    pub(crate) fn on_reply(
        &mut self,
        call: StateCall,
        body: &mut Reader<'_>,
        calls: &mut Calls,
        out: &mut Batch,
    ) -> Result<StateStep, Malformed> {
        match call {
            StateCall::Stats => {
                let uuid = self.asked.uuid();
                let all = StateStats::read_all(body)?;
                // A driver that ignores the filter returns all domains.
                let Some(stats) = all.into_iter().find(|stats| stats.domain.uuid == uuid) else {
                    return Ok(StateStep::Done(None));
                };
                self.entry = Some(ListEntry::of_stats(&stats, out));
                self.ask(StateCall::Persistent, calls);
            }
            StateCall::Lookup => {
                let domain = wire::Domain::read(body)?;
                if domain.uuid != self.asked.uuid() {
                    return Err(Malformed { expected: "the domain that was asked for" });
                }
                self.entry = Some(ListEntry::without_state(&domain, out));
                self.ask(StateCall::State, calls);
            }
            StateCall::State => {
                let state = decode::state(body)?;
                if let Some(entry) = &mut self.entry {
                    entry.set_state(state);
                }
                self.ask(StateCall::Persistent, calls);
            }
            StateCall::Persistent => return Ok(self.done(Some(body.i32()? != 0))),
        }
        Ok(StateStep::Pending)
    }

    /// Handles an error in reply to one of its calls.
    pub(crate) fn on_error(&mut self, call: StateCall, code: i32, calls: &mut Calls) -> StateStep {
        match (call, code) {
            (_, code::NO_DOMAIN) => StateStep::Done(None),
            // The hypervisor's driver has no states: the same as in a list.
            (StateCall::State, code::NO_SUPPORT) => {
                if let Some(entry) = &mut self.entry {
                    entry.set_state(State::NoState);
                }
                self.ask(StateCall::Persistent, calls);
                StateStep::Pending
            }
            // The hypervisor's driver has no definitions: what is known is still an answer.
            (StateCall::Persistent, code::NO_SUPPORT) => self.done(None),
            _ => StateStep::Failed,
        }
    }

    /// Starts again without the bulk call, which the server lacks.
    pub(crate) fn restart_without_bulk(&self, calls: &mut Calls) -> Self {
        Self::start(&self.asked, self.tag, false, calls)
    }

    fn ask(&self, call: StateCall, calls: &mut Calls) {
        let procedure = match call {
            StateCall::State => procs::DOMAIN_GET_STATE,
            _ => procs::DOMAIN_IS_PERSISTENT,
        };
        let asked = self.wire_domain();
        calls.call(procedure, Purpose::State(self.tag, call), |args| {
            asked.write(args);
            if call == StateCall::State {
                args.u32(0);
            }
        });
    }

    fn done(&mut self, persistent: Option<bool>) -> StateStep {
        match self.entry.take().and_then(|entry| entry.into_listed(persistent)) {
            Some(listed) => StateStep::Done(Some(listed)),
            None => StateStep::Failed,
        }
    }

    /// The domain as an argument of calls, in which only the uuid counts.
    fn wire_domain(&self) -> wire::Domain<'_> {
        // -1 for a domain that does not run.
        let id = self.asked.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
        wire::Domain { name: self.asked.name().as_bytes(), uuid: self.asked.uuid(), id }
    }
}

#[cfg(test)]
mod tests {
    use virevent::{PausedReason, RunningReason, Uuid};

    use super::*;
    use crate::wire::Frames;
    use crate::wire::xdr::Writer;

    const WEB: wire::Domain<'static> =
        wire::Domain { name: b"web", uuid: Uuid::from_u128(1), id: 7 };

    /// A server that has not been asked yet.
    struct Peer {
        calls: Calls,
        request: StateRequest,
        out: Batch,
    }

    impl Peer {
        fn new(bulk: bool) -> Self {
            let mut calls = Calls::default();
            let out = Batch::new("s:", "h");
            // Under an older name and id.
            let asked = Domain::new("s:", "h", WEB.uuid, "www", Some(3));
            let request = StateRequest::start(&asked, 5, bulk, &mut calls);
            Self { calls, request, out }
        }

        /// The call that it makes: procedure, part and arguments.
        fn asked(&mut self) -> (i32, StateCall, Vec<u8>) {
            let mut frames = Frames::new();
            frames.push(self.calls.outbox().unwritten());
            let unwritten = self.calls.outbox().unwritten().len();
            self.calls.outbox().wrote(unwritten);
            let frame = frames.next_frame().unwrap().expect("a call");
            let call = self.calls.complete(frame.header.serial).unwrap();
            let Purpose::State(5, purpose) = call.purpose else { panic!("{call:?}") };
            let asked = (call.procedure, purpose, frame.body.to_vec());
            assert!(frames.next_frame().unwrap().is_none(), "one at a time");
            asked
        }

        fn reply(&mut self, call: StateCall, body: impl FnOnce(&mut Writer<'_>)) -> StateStep {
            let mut bytes = Vec::new();
            body(&mut Writer::new(&mut bytes));
            let mut body = Reader::new(&bytes);
            self.request.on_reply(call, &mut body, &mut self.calls, &mut self.out).unwrap()
        }

        fn error(&mut self, call: StateCall, code: i32) -> StateStep {
            self.request.on_error(call, code, &mut self.calls)
        }
    }

    fn stats(state: i32, reason: i32) -> impl FnOnce(&mut Writer<'_>) {
        let stats = StateStats { domain: WEB, state: Some(state), reason: Some(reason) };
        move |body| StateStats::write_all(&[stats], body)
    }

    fn found(state: State, persistent: Option<bool>) -> StateStep {
        let domain = Domain::new("s:", "h", WEB.uuid, "web", Some(7));
        StateStep::Done(Some(Listed::new(domain, state, persistent)))
    }

    #[test]
    fn the_state_is_asked_for_and_then_the_persistence() {
        for persistent in [true, false] {
            let mut peer = Peer::new(true);
            let (procedure, call, args) = peer.asked();
            assert_eq!(procedure, procs::CONNECT_GET_ALL_DOMAIN_STATS);
            let asked = StatsRequest::read(&mut Reader::new(&args)).unwrap();
            assert_eq!((asked.domains[0].uuid, asked.domains.len()), (WEB.uuid, 1));
            assert_eq!(peer.reply(call, stats(3, 1)), StateStep::Pending);
            let (procedure, call, _) = peer.asked();
            assert_eq!(procedure, procs::DOMAIN_IS_PERSISTENT);
            let paused = State::Paused(PausedReason::User);
            let step = peer.reply(call, |body| body.i32(persistent.into()));
            assert_eq!(step, found(paused, Some(persistent)));
        }
    }

    #[test]
    fn a_domain_is_gone_if_a_reply_is_empty_or_no_such_domain() {
        let mut peer = Peer::new(true);
        assert_eq!(peer.reply(StateCall::Stats, |body| body.u32(0)), StateStep::Done(None));
        for call in [StateCall::Stats, StateCall::Lookup, StateCall::State, StateCall::Persistent] {
            assert_eq!(Peer::new(true).error(call, code::NO_DOMAIN), StateStep::Done(None));
        }
        let mut peer = Peer::new(true);
        peer.reply(StateCall::Stats, stats(1, 1));
        let gone = peer.error(StateCall::Persistent, code::NO_DOMAIN);
        assert_eq!(gone, StateStep::Done(None), "it ended since");
    }

    #[test]
    fn any_other_error_leaves_the_state_unknown() {
        for code in [code::INTERNAL_ERROR, code::SYSTEM_ERROR, code::ACCESS_DENIED, 68] {
            for call in
                [StateCall::Stats, StateCall::Lookup, StateCall::State, StateCall::Persistent]
            {
                let mut peer = Peer::new(true);
                peer.reply(StateCall::Stats, stats(1, 1));
                assert_eq!(peer.error(call, code), StateStep::Failed);
            }
        }
    }

    #[test]
    fn persistence_is_unknown_where_the_driver_has_none() {
        let mut peer = Peer::new(true);
        peer.reply(StateCall::Stats, stats(1, 1));
        let step = peer.error(StateCall::Persistent, code::NO_SUPPORT);
        assert_eq!(step, found(State::Running(RunningReason::Booted), None));
    }

    #[test]
    fn a_domain_is_looked_up_where_there_is_no_bulk_call() {
        let mut peer = Peer::new(true);
        peer.asked();
        peer.request = peer.request.restart_without_bulk(&mut peer.calls);
        let (procedure, call, args) = peer.asked();
        assert_eq!(procedure, procs::DOMAIN_LOOKUP_BY_UUID);
        assert_eq!(Reader::new(&args).uuid().unwrap(), WEB.uuid);
        assert_eq!(peer.reply(call, |body| WEB.write(body)), StateStep::Pending);
        let (procedure, call, args) = peer.asked();
        assert_eq!(procedure, procs::DOMAIN_GET_STATE);
        let mut args = Reader::new(&args);
        assert_eq!(wire::Domain::read(&mut args).unwrap().uuid, WEB.uuid);
        assert_eq!((args.u32(), args.rest().len()), (Ok(0), 0));
        let state = |body: &mut Writer<'_>| {
            body.i32(1);
            body.i32(5);
        };
        assert_eq!(peer.reply(call, state), StateStep::Pending);
        let (_, call, _) = peer.asked();
        let step = peer.reply(call, |body| body.i32(1));
        assert_eq!(step, found(State::Running(RunningReason::Unpaused), Some(true)));
    }

    #[test]
    fn a_reply_about_another_domain_is_not_used() {
        let mut peer = Peer::new(true);
        let db = wire::Domain { uuid: Uuid::from_u128(2), ..WEB };
        let other = StateStats { domain: db, state: Some(1), reason: Some(1) };
        let step = peer.reply(StateCall::Stats, |body| StateStats::write_all(&[other], body));
        assert_eq!(step, StateStep::Done(None));
        let mut bytes = Vec::new();
        db.write(&mut Writer::new(&mut bytes));
        let mut body = Reader::new(&bytes);
        let step =
            peer.request.on_reply(StateCall::Lookup, &mut body, &mut peer.calls, &mut peer.out);
        assert!(step.is_err());
    }
}
