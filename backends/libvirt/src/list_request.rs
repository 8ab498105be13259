//! A list of all domains: their states, and which of them are persistent.
//!
//! ```text
//!   GET_ALL_DOMAIN_STATS ─────────────────────────────▶ LIST_ALL_DOMAINS(persistent) ─▶ done
//!     │ not supported                                     ▲
//!     └─▶ LIST_ALL_DOMAINS ─▶ DOMAIN_GET_STATE of each ───┘
//! ```
//!
//! The persistent domains are asked for last, and a domain is persistent only if that reply
//! contains it. Asking for the transient ones instead proves nothing: a transient domain that ends
//! between the calls is missing from their list, and would pass for persistent. If a definition
//! changes between the calls, libvirt sends an event, and the list agrees with it: a domain that
//! was inactive and is not persistent any more does not exist, and is left out.

use virevent::driver::{Batch, Listed};
use virevent::{Domain, ShutoffReason, State, Uuid};

use crate::calls::{Calls, ListCall, Purpose};
use crate::decode;
use crate::wire::xdr::{Malformed, Reader};
use crate::wire::{self, ListAllDomains, StateStats, StatsRequest, code, procs};

/// A request for all domains, until its last reply.
#[derive(Debug)]
pub(crate) struct ListRequest {
    pub(crate) tag: u64,
    entries: Vec<ListEntry>,
    /// How many states have no reply yet.
    pending_states: usize,
}

/// A domain in a reply.
#[derive(Debug)]
pub(crate) struct ListEntry {
    domain: Domain,
    /// `None` until the reply with the state; for good if the domain has gone by then.
    state: Option<State>,
}

/// What a reply leads to.
pub(crate) enum ListStep {
    /// Further replies are to come.
    Pending,
    /// It was the last reply.
    Done(Vec<Listed>),
}

impl ListRequest {
    /// Makes the first call. `bulk`: whether the server may have the call that returns all states
    /// at once.
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
        Self { tag, entries: Vec::new(), pending_states: 0 }
    }

    /// Starts again without the bulk call, which the server lacks.
    pub(crate) fn restart_without_bulk(&self, calls: &mut Calls) {
        list(Purpose::List(self.tag, ListCall::Domains), 0, calls);
    }

    /// Handles the reply to one of its calls.
    ///
    /// # Errors
    /// The body does not have the layout of the procedure.
    pub(crate) fn on_reply(
        &mut self,
        call: ListCall,
        body: &mut Reader<'_>,
        calls: &mut Calls,
        out: &mut Batch,
    ) -> Result<ListStep, Malformed> {
        match call {
            ListCall::Stats => {
                self.entries = StateStats::read_all(body)?
                    .iter()
                    .map(|stats| ListEntry::of_stats(stats, out))
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
                    self.entries.push(ListEntry::without_state(domain, out));
                }
                self.pending_states = self.entries.len();
                // Without a domain there is no reply that would lead on.
                if self.pending_states == 0 {
                    self.ask_persistent(calls);
                }
            }
            ListCall::State(at) => {
                let state = decode::state(body)?;
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.set_state(state);
                }
                self.state_done(calls);
            }
            ListCall::Persistent => {
                let mut persistent: Vec<Uuid> =
                    wire::Domain::read_all(body)?.iter().map(|domain| domain.uuid).collect();
                // There can be 16,384 on both sides.
                persistent.sort_unstable();
                return Ok(self.done(|uuid| Some(persistent.binary_search(&uuid).is_ok())));
            }
        }
        Ok(ListStep::Pending)
    }

    /// Handles an error in reply to one of its calls. `None`: the list cannot be completed.
    pub(crate) fn on_error(
        &mut self,
        call: ListCall,
        code: i32,
        calls: &mut Calls,
    ) -> Option<ListStep> {
        match (call, code) {
            // The domain has gone since LIST_ALL_DOMAINS; its event comes on the same connection.
            (ListCall::State(_), code::NO_DOMAIN) => self.state_done(calls),
            (ListCall::State(at), code::NO_SUPPORT) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.set_state(State::NoState);
                }
                self.state_done(calls);
            }
            // The hypervisor's driver has no such call, or does not know the flag.
            (ListCall::Persistent, code::NO_SUPPORT | code::INVALID_ARG | code::RPC) => {
                return Some(self.done(|_| None));
            }
            _ => return None,
        }
        Some(ListStep::Pending)
    }

    fn state_done(&mut self, calls: &mut Calls) {
        self.pending_states = self.pending_states.saturating_sub(1);
        if self.pending_states == 0 {
            self.ask_persistent(calls);
        }
    }

    fn ask_persistent(&self, calls: &mut Calls) {
        let purpose = Purpose::List(self.tag, ListCall::Persistent);
        list(purpose, ListAllDomains::PERSISTENT, calls);
    }

    fn done(&mut self, persistent: impl Fn(Uuid) -> Option<bool>) -> ListStep {
        let listed = |entry: ListEntry| {
            let persistent = persistent(entry.domain.uuid());
            entry.into_listed(persistent)
        };
        ListStep::Done(self.entries.drain(..).filter_map(listed).collect())
    }
}

impl ListEntry {
    pub(crate) fn of_stats(stats: &StateStats<'_>, out: &mut Batch) -> Self {
        // A driver may leave the state out. 0 is "no state", which says the same.
        let state = State::from_codes(stats.state.unwrap_or(0), stats.reason.unwrap_or(0));
        Self { domain: decode::domain(&stats.domain, out), state: Some(state) }
    }

    pub(crate) fn without_state(domain: &wire::Domain<'_>, out: &mut Batch) -> Self {
        Self { domain: decode::domain(domain, out), state: None }
    }

    /// The complete entry. `None` if the domain has gone since: one that neither runs nor has a
    /// definition does not exist.
    pub(crate) fn into_listed(self, persistent: Option<bool>) -> Option<Listed> {
        // Without a state it went while the states were asked for.
        let state = self.state?;
        let exists = self.domain.is_active() || persistent != Some(false);
        exists.then(|| Listed::new(self.domain, state, persistent))
    }

    /// Sets the state that was asked for after the domain. If the two disagree on whether the
    /// domain runs, it started or stopped between the calls. Then the entry says that it does not
    /// run, and the event that libvirt sent tells the rest.
    pub(crate) fn set_state(&mut self, state: State) {
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
