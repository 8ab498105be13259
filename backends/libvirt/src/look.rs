//! The question how one domain is: whether there is one, in which state, and whether it is persistent.
//!
//! ```text
//!   GET_ALL_DOMAIN_STATS of it ────────────────────────▶ DOMAIN_IS_PERSISTENT ─▶ found
//!     │ not here                                           ▲
//!     └─▶ DOMAIN_LOOKUP_BY_UUID ─▶ DOMAIN_GET_STATE ───────┘
//! ```
//!
//! Each call waits for the lock of this domain alone, where a list waits for those of all. An empty
//! answer, or "no such domain" at any step, says that there is none.

use virevent::driver::{Batch, Listed};
use virevent::{Domain, State};

use crate::calls::{Calls, LookCall, Purpose};
use crate::decode;
use crate::listing::Found;
use crate::wire::xdr::{Malformed, Reader};
use crate::wire::{self, StateStats, StatsRequest, code, procs};

/// The question how one domain is, under way.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) tag: u64,
    asked: Domain,
    found: Option<Found>,
}

/// What became of a reply.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// More is to come.
    On,
    /// How the domain is; `None`: there is none.
    Done(Option<Listed>),
    /// The server cannot say.
    Failed,
}

impl Look {
    /// Begins to ask. `bulk`: whether the server may have the call that answers state and id at once.
    pub(crate) fn start(domain: &Domain, tag: u64, bulk: bool, calls: &mut Calls) -> Self {
        let look = Self { tag, asked: domain.clone(), found: None };
        let procedure = match bulk {
            true => procs::CONNECT_GET_ALL_DOMAIN_STATS,
            false => procs::DOMAIN_LOOKUP_BY_UUID,
        };
        let call = if bulk { LookCall::Stats } else { LookCall::Lookup };
        let asked = look.on_the_wire();
        calls.call(procedure, Purpose::Look(tag, call), |args| match bulk {
            true => {
                StatsRequest { domains: vec![asked], stats: StatsRequest::STATE, flags: 0 }
                    .write(args);
            }
            false => args.uuid(asked.uuid),
        });
        look
    }

    /// # Errors
    /// The reply does not have the layout of one.
    pub(crate) fn reply(
        &mut self,
        call: LookCall,
        body: &mut Reader<'_>,
        calls: &mut Calls,
        out: &mut Batch,
    ) -> Result<Step, Malformed> {
        match call {
            LookCall::Stats => {
                let uuid = self.asked.uuid();
                let all = StateStats::read_all(body)?;
                let Some(stats) = all.into_iter().find(|stats| stats.domain.uuid == uuid) else {
                    return Ok(Step::Done(None));
                };
                self.found = Some(Found::of_stats(&stats, out));
                self.ask(LookCall::Persistent, calls);
            }
            LookCall::Lookup => {
                let domain = wire::Domain::read(body)?;
                if domain.uuid != self.asked.uuid() {
                    return Err(Malformed { expected: "domain that was asked for" });
                }
                self.found = Some(Found::without_state(&domain, out));
                self.ask(LookCall::State, calls);
            }
            LookCall::State => {
                let state = decode::state(body)?;
                if let Some(found) = &mut self.found {
                    found.settle(state);
                }
                self.ask(LookCall::Persistent, calls);
            }
            LookCall::Persistent => return Ok(self.done(Some(body.i32()? != 0))),
        }
        Ok(Step::On)
    }

    /// The server answers with an error.
    pub(crate) fn error(&mut self, call: LookCall, code: i32, calls: &mut Calls) -> Step {
        match (call, code) {
            (_, code::NO_DOMAIN) => Step::Done(None),
            // The hypervisor's driver does not know states: as in a list.
            (LookCall::State, code::NO_SUPPORT) => {
                if let Some(found) = &mut self.found {
                    found.settle(State::NoState);
                }
                self.ask(LookCall::Persistent, calls);
                Step::On
            }
            (LookCall::Persistent, code::NO_SUPPORT) => self.done(None),
            _ => Step::Failed,
        }
    }

    /// Asks again in the other way: the server has no bulk call.
    pub(crate) fn without_bulk(&self, calls: &mut Calls) -> Self {
        Self::start(&self.asked, self.tag, false, calls)
    }

    fn ask(&self, call: LookCall, calls: &mut Calls) {
        let procedure = match call {
            LookCall::State => procs::DOMAIN_GET_STATE,
            _ => procs::DOMAIN_IS_PERSISTENT,
        };
        let asked = self.on_the_wire();
        calls.call(procedure, Purpose::Look(self.tag, call), |args| {
            asked.write(args);
            if call == LookCall::State {
                args.u32(0);
            }
        });
    }

    fn done(&mut self, persistent: Option<bool>) -> Step {
        match self.found.take().and_then(|found| found.listed(persistent)) {
            Some(listed) => Step::Done(Some(listed)),
            None => Step::Failed,
        }
    }

    /// The domain as calls name it: only the uuid counts.
    fn on_the_wire(&self) -> wire::Domain<'_> {
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
        look: Look,
        out: Batch,
    }

    impl Peer {
        fn new(bulk: bool) -> Self {
            let mut calls = Calls::default();
            let out = Batch::new("s:", "h");
            // Under an older name and id.
            let asked = Domain::new("s:", "h", WEB.uuid, "www", Some(3));
            let look = Look::start(&asked, 5, bulk, &mut calls);
            Self { calls, look, out }
        }

        /// The procedure and the purpose of the call that it makes, and its arguments.
        fn asked(&mut self) -> (i32, LookCall, Vec<u8>) {
            let mut frames = Frames::new();
            frames.push(self.calls.outbox().unwritten());
            let unwritten = self.calls.outbox().unwritten().len();
            self.calls.outbox().wrote(unwritten);
            let frame = frames.next_frame().unwrap().expect("a call");
            let call = self.calls.answered(frame.header.serial).unwrap();
            let Purpose::Look(5, purpose) = call.purpose else { panic!("{call:?}") };
            let asked = (call.procedure, purpose, frame.body.to_vec());
            assert!(frames.next_frame().unwrap().is_none(), "one at a time");
            asked
        }

        fn reply(&mut self, call: LookCall, body: impl FnOnce(&mut Writer<'_>)) -> Step {
            let mut bytes = Vec::new();
            body(&mut Writer::new(&mut bytes));
            let mut body = Reader::new(&bytes);
            self.look.reply(call, &mut body, &mut self.calls, &mut self.out).unwrap()
        }

        fn error(&mut self, call: LookCall, code: i32) -> Step {
            self.look.error(call, code, &mut self.calls)
        }
    }

    fn stats(state: i32, reason: i32) -> impl FnOnce(&mut Writer<'_>) {
        let stats = StateStats { domain: WEB, state: Some(state), reason: Some(reason) };
        move |body| StateStats::write_all(&[stats], body)
    }

    fn found(state: State, persistent: Option<bool>) -> Step {
        let domain = Domain::new("s:", "h", WEB.uuid, "web", Some(7));
        Step::Done(Some(Listed::new(domain, state, persistent)))
    }

    #[test]
    fn a_domain_is_asked_for_its_state_and_then_whether_it_persists() {
        for persistent in [true, false] {
            let mut peer = Peer::new(true);
            let (procedure, call, args) = peer.asked();
            assert_eq!(procedure, procs::CONNECT_GET_ALL_DOMAIN_STATS);
            let asked = StatsRequest::read(&mut Reader::new(&args)).unwrap();
            assert_eq!((asked.domains[0].uuid, asked.domains.len()), (WEB.uuid, 1));
            assert_eq!(peer.reply(call, stats(3, 1)), Step::On);
            let (procedure, call, _) = peer.asked();
            assert_eq!(procedure, procs::DOMAIN_IS_PERSISTENT);
            let paused = State::Paused(PausedReason::User);
            let told = peer.reply(call, |body| body.i32(persistent.into()));
            assert_eq!(told, found(paused, Some(persistent)));
        }
    }

    #[test]
    fn an_empty_answer_or_no_such_domain_says_that_there_is_none() {
        let mut peer = Peer::new(true);
        assert_eq!(peer.reply(LookCall::Stats, |body| body.u32(0)), Step::Done(None));
        for call in [LookCall::Stats, LookCall::Lookup, LookCall::State, LookCall::Persistent] {
            assert_eq!(Peer::new(true).error(call, code::NO_DOMAIN), Step::Done(None));
        }
        let mut peer = Peer::new(true);
        peer.reply(LookCall::Stats, stats(1, 1));
        let gone = peer.error(LookCall::Persistent, code::NO_DOMAIN);
        assert_eq!(gone, Step::Done(None), "it ended since");
    }

    #[test]
    fn any_other_error_says_nothing_of_the_domain() {
        for code in [code::INTERNAL_ERROR, code::SYSTEM_ERROR, code::ACCESS_DENIED, 68] {
            for call in [LookCall::Stats, LookCall::Lookup, LookCall::State, LookCall::Persistent] {
                let mut peer = Peer::new(true);
                peer.reply(LookCall::Stats, stats(1, 1));
                assert_eq!(peer.error(call, code), Step::Failed);
            }
        }
    }

    #[test]
    fn a_driver_that_does_not_know_persistence_leaves_it_open() {
        let mut peer = Peer::new(true);
        peer.reply(LookCall::Stats, stats(1, 1));
        let told = peer.error(LookCall::Persistent, code::NO_SUPPORT);
        assert_eq!(told, found(State::Running(RunningReason::Booted), None));
    }

    #[test]
    fn without_the_bulk_call_a_domain_is_looked_up_first() {
        let mut peer = Peer::new(true);
        peer.asked();
        peer.look = peer.look.without_bulk(&mut peer.calls);
        let (procedure, call, args) = peer.asked();
        assert_eq!(procedure, procs::DOMAIN_LOOKUP_BY_UUID);
        assert_eq!(Reader::new(&args).uuid().unwrap(), WEB.uuid);
        assert_eq!(peer.reply(call, |body| WEB.write(body)), Step::On);
        let (procedure, call, args) = peer.asked();
        assert_eq!(procedure, procs::DOMAIN_GET_STATE);
        let mut args = Reader::new(&args);
        assert_eq!(wire::Domain::read(&mut args).unwrap().uuid, WEB.uuid);
        assert_eq!((args.u32(), args.rest().len()), (Ok(0), 0));
        let state = |body: &mut Writer<'_>| {
            body.i32(1);
            body.i32(5);
        };
        assert_eq!(peer.reply(call, state), Step::On);
        let (_, call, _) = peer.asked();
        let told = peer.reply(call, |body| body.i32(1));
        assert_eq!(told, found(State::Running(RunningReason::Unpaused), Some(true)));
    }

    #[test]
    fn a_reply_about_another_domain_is_not_believed() {
        let mut peer = Peer::new(true);
        let db = wire::Domain { uuid: Uuid::from_u128(2), ..WEB };
        let other = StateStats { domain: db, state: Some(1), reason: Some(1) };
        let told = peer.reply(LookCall::Stats, |body| StateStats::write_all(&[other], body));
        assert_eq!(told, Step::Done(None));
        let mut bytes = Vec::new();
        db.write(&mut Writer::new(&mut bytes));
        let mut body = Reader::new(&bytes);
        let told = peer.look.reply(LookCall::Lookup, &mut body, &mut peer.calls, &mut peer.out);
        assert!(told.is_err());
    }
}
