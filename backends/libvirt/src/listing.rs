//! The list of domains: which there are, in which state, and which are persistent.
//!
//! ```text
//!   GET_ALL_DOMAIN_STATS ─────────────────────────────▶ LIST_ALL_DOMAINS(persistent) ─▶ done
//!     │ not here                                          ▲
//!     └─▶ LIST_ALL_DOMAINS ─▶ DOMAIN_GET_STATE of each ───┘
//! ```
//!
//! The persistent domains are asked for last, and only a domain that is in that reply is persistent.
//! (A transient domain that ends between the calls is in no later list, so that absence from the list
//! of the transient ones proves nothing.) A domain whose definition changes between the calls has an
//! event of its own, and the list agrees with it: one that was inactive and is not persistent any more
//! has gone, and is left out.

use virevent::driver::{Batch, Listed};
use virevent::{Domain, ShutoffReason, State, Uuid};

use crate::calls::{Calls, ListCall, Purpose};
use crate::decode;
use crate::wire::xdr::{Malformed, Reader};
use crate::wire::{self, ListAllDomains, StateStats, StatsRequest, code, procs};

/// The question which domains there are, under way.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) tag: u64,
    found: Vec<Found>,
    /// States that are asked for.
    open: usize,
}

/// A domain in the server's answer.
#[derive(Debug)]
pub(crate) struct Found {
    domain: Domain,
    /// `None` while it is not known, and if the domain has gone meanwhile.
    state: Option<State>,
}

/// What became of a reply.
pub(crate) enum Step {
    /// More is to come.
    On,
    /// That is all.
    Done(Vec<Listed>),
}

impl Listing {
    /// Begins to ask. `bulk`: whether the server may have the call that answers all at once.
    pub(crate) fn start(tag: u64, bulk: bool, calls: &mut Calls) -> Self {
        if bulk {
            let purpose = Purpose::List(tag, ListCall::Stats);
            calls.call(procs::CONNECT_GET_ALL_DOMAIN_STATS, purpose, |args| {
                StatsRequest { domains: Vec::new(), stats: StatsRequest::STATE, flags: 0 }
                    .write(args);
            });
        } else {
            list(Purpose::List(tag, ListCall::Domains), 0, calls);
        }
        Self { tag, found: Vec::new(), open: 0 }
    }

    /// The server has no bulk call: asks in the other way.
    pub(crate) fn without_bulk(&self, calls: &mut Calls) {
        list(Purpose::List(self.tag, ListCall::Domains), 0, calls);
    }

    /// # Errors
    /// The reply does not have the layout of one.
    pub(crate) fn reply(
        &mut self,
        call: ListCall,
        body: &mut Reader<'_>,
        calls: &mut Calls,
        out: &mut Batch,
    ) -> Result<Step, Malformed> {
        match call {
            ListCall::Stats => {
                self.found = StateStats::read_all(body)?
                    .iter()
                    .map(|stats| Found::of_stats(stats, out))
                    .collect();
                self.ask_persistent(calls);
            }
            ListCall::Domains => {
                let domains = wire::Domain::read_all(body)?;
                for (at, domain) in domains.iter().enumerate() {
                    let purpose = Purpose::List(self.tag, ListCall::State(at));
                    calls.call(procs::DOMAIN_GET_STATE, purpose, |args| {
                        domain.write(args);
                        args.u32(0);
                    });
                    self.found.push(Found::without_state(domain, out));
                }
                self.open = self.found.len();
                if self.open == 0 {
                    self.ask_persistent(calls);
                }
            }
            ListCall::State(at) => {
                let state = decode::state(body)?;
                if let Some(found) = self.found.get_mut(at) {
                    found.settle(state);
                }
                self.state_answered(calls);
            }
            ListCall::Persistent => {
                let mut persistent: Vec<Uuid> =
                    wire::Domain::read_all(body)?.iter().map(|domain| domain.uuid).collect();
                persistent.sort_unstable();
                return Ok(self.done(|uuid| Some(persistent.binary_search(&uuid).is_ok())));
            }
        }
        Ok(Step::On)
    }

    /// The server answers with an error that the list can do without. `None`: it cannot.
    pub(crate) fn error(&mut self, call: ListCall, code: i32, calls: &mut Calls) -> Option<Step> {
        match (call, code) {
            // The domain has gone since the list was made: an event tells.
            (ListCall::State(_), code::NO_DOMAIN) => self.state_answered(calls),
            (ListCall::State(at), code::NO_SUPPORT) => {
                if let Some(found) = self.found.get_mut(at) {
                    found.settle(State::NoState);
                }
                self.state_answered(calls);
            }
            (ListCall::Persistent, code::NO_SUPPORT | code::INVALID_ARG | code::RPC) => {
                return Some(self.done(|_| None));
            }
            _ => return None,
        }
        Some(Step::On)
    }

    fn state_answered(&mut self, calls: &mut Calls) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.ask_persistent(calls);
        }
    }

    fn ask_persistent(&self, calls: &mut Calls) {
        let purpose = Purpose::List(self.tag, ListCall::Persistent);
        list(purpose, ListAllDomains::PERSISTENT, calls);
    }

    fn done(&mut self, persistent: impl Fn(Uuid) -> Option<bool>) -> Step {
        let listed = |found: Found| {
            let persistent = persistent(found.domain.uuid());
            found.listed(persistent)
        };
        Step::Done(self.found.drain(..).filter_map(listed).collect())
    }
}

impl Found {
    pub(crate) fn of_stats(stats: &StateStats<'_>, out: &mut Batch) -> Self {
        let state = State::from_codes(stats.state.unwrap_or(0), stats.reason.unwrap_or(0));
        Self { domain: decode::domain(&stats.domain, out), state: Some(state) }
    }

    pub(crate) fn without_state(domain: &wire::Domain<'_>, out: &mut Batch) -> Self {
        Self { domain: decode::domain(domain, out), state: None }
    }

    /// `None` if the domain has gone since: one that neither runs nor has a definition does not exist.
    pub(crate) fn listed(self, persistent: Option<bool>) -> Option<Listed> {
        let state = self.state?;
        let exists = self.domain.is_active() || persistent != Some(false);
        exists.then(|| Listed::new(self.domain, state, persistent))
    }

    /// Domain and state were asked for one after the other; where they contradict each other on
    /// whether the domain runs, it stopped or started in between. An event tells of that.
    pub(crate) fn settle(&mut self, state: State) {
        self.state = Some(match (self.domain.is_active(), state) {
            (true, State::Shutoff(_)) => {
                self.domain = self.domain.with_id(None);
                state
            }
            (false, state) if !matches!(state, State::Shutoff(_) | State::Crashed(_)) => {
                State::Shutoff(ShutoffReason::Unspecified)
            }
            _ => state,
        });
    }
}

fn list(purpose: Purpose, flags: u32, calls: &mut Calls) {
    calls.call(procs::CONNECT_LIST_ALL_DOMAINS, purpose, |args| {
        ListAllDomains { need_results: true, flags }.write(args);
    });
}
