//! The batch: the events and answers that one read of a session brought.

use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use super::interner::Interner;
use crate::domain::Host;
use crate::{Domain, DomainEvent, Error, Fault, Kind, Scope, State, StopCause};

/// What one read of a session brought: events in their order, and answers.
///
/// It also keeps the identities of the connection's domains, so that an event of a known domain
/// allocates nothing.
#[derive(Debug)]
pub struct Batch {
    interner: Interner,
    pub(super) events: Vec<DomainEvent>,
    /// What is not an event, with the number of events before it.
    pub(super) controls: Vec<(usize, Control)>,
    received: Option<SystemTime>,
}

#[derive(Debug)]
pub(super) enum Control {
    Level(Domain, Level),
    InterestDone(u64, Vec<Kind>),
    Listed(u64, Vec<Listed>),
    ListFailed(u64, Error),
    Outage(Scope, Fault),
    Restored(Scope),
    Looked(u64, Option<Listed>),
    LookFailed(u64),
    Doubt(Scope),
}

/// What a level-triggered hypervisor reports of a domain: its state, not what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It is in this state.
    Is(State),
    /// It exists no more, and its last run ended for this cause.
    Gone(StopCause),
}

/// A domain in the answer to [`Session::request_list`](super::Session::request_list).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The domain; its id is `None` exactly when it is inactive.
    pub domain: Domain,
    /// Its state.
    pub state: State,
    /// Whether it exists when it does not run; `None` where the hypervisor does not say.
    pub persistent: Option<bool>,
}

impl Listed {
    /// A domain that is in this state.
    #[must_use]
    pub fn new(domain: Domain, state: State, persistent: Option<bool>) -> Self {
        Self { domain, state, persistent }
    }
}

impl Batch {
    /// An empty batch for a connection of this source to this host. The driver makes its own; this
    /// is for the tests of a decoder.
    #[must_use]
    pub fn new(source: &str, host: &str) -> Self {
        Self {
            interner: Interner::new(Host::new(source.into(), host.into())),
            events: Vec::new(),
            controls: Vec::new(),
            received: None,
        }
    }

    /// The domain of this identity on the connection's host. `id` is `None` when it is inactive. A
    /// name is cut to 4,096 bytes, and then ends in `…`.
    ///
    /// Where the hypervisor has no uuids, derive one from what never changes, such as host and
    /// name: `Uuid::new_v5`, with the feature `v5` of the crate `uuid`, which
    /// [`Uuid`](crate::Uuid) is from.
    pub fn domain(&mut self, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        self.interner.domain(uuid, name, id)
    }

    /// The same on a host of a fleet.
    pub fn domain_on(&mut self, host: &str, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        self.interner.domain_on(host, uuid, name, id)
    }

    /// The URI of the source, as its domains and scopes carry it.
    #[must_use]
    pub fn source(&self) -> Arc<str> {
        Arc::clone(&self.interner.home().source)
    }

    /// All of the source.
    #[must_use]
    pub fn source_scope(&self) -> Scope {
        Scope::Source(self.source())
    }

    /// When this batch was received: the time of events that carry none. The clock is read once a
    /// batch.
    pub fn received(&mut self) -> SystemTime {
        *self.received.get_or_insert_with(SystemTime::now)
    }

    /// An event.
    pub fn event(&mut self, event: impl Into<DomainEvent>) {
        self.events.push(event.into());
    }

    /// For hypervisors that only say how domains are: the driver derives what changed. Until the
    /// list is answered the driver takes this for newer than the list, so a session that makes its
    /// list itself must not call this between the request and its answer, except with what the
    /// answer says too: levels and the list of one look may stand in one batch, the levels first.
    pub fn state(&mut self, domain: Domain, state: State) {
        self.control(Control::Level(domain, Level::Is(state)));
    }

    /// For hypervisors that only say how domains are: the domain exists no more. It concerns only
    /// the run that is known. Until the list is answered the same holds as for
    /// [`state`](Self::state).
    pub fn gone(&mut self, domain: &Domain, cause: StopCause) {
        self.control(Control::Level(domain.clone(), Level::Gone(cause)));
    }

    /// The server confirmed [`set_interest`](super::Session::set_interest), but for the `refused`
    /// kinds, which it does not have.
    pub fn interest_done(&mut self, tag: u64, refused: &[Kind]) {
        self.control(Control::InterestDone(tag, refused.to_vec()));
    }

    /// The answer to [`request_list`](super::Session::request_list): every domain there is.
    pub fn listed(&mut self, tag: u64, list: Vec<Listed>) {
        self.control(Control::Listed(tag, list));
    }

    /// The server refuses the list. A first list that is refused ends the connection with this
    /// error; after a verification the driver asks again later.
    pub fn list_failed(&mut self, tag: u64, error: Error) {
        self.control(Control::ListFailed(tag, error));
    }

    /// One of the many sockets or hosts behind this session is unreachable; or, with
    /// [`source_scope`](Self::source_scope), all of them, while the session lives on.
    ///
    /// All may be lost before the first list as well. The driver then acts as if no connection
    /// could be made: a waiting subscription fails, or opens with
    /// [`Disconnected`](crate::GapKind::Disconnected) if it asked to [wait](crate::Options::wait).
    /// The session need not answer a pending list request: the driver makes another after
    /// [`restored`](Self::restored).
    pub fn outage(&mut self, scope: Scope, fault: Fault) {
        self.control(Control::Outage(scope, fault));
    }

    /// The scope is reachable again, and [`state`](Batch::state) and [`gone`](Batch::gone) have
    /// said how its domains are now. For [`source_scope`](Self::source_scope) the driver requests a
    /// list instead.
    pub fn restored(&mut self, scope: Scope) {
        self.control(Control::Restored(scope));
    }

    /// The answer to [`request_state`](super::Session::request_state); `None` when the domain does
    /// not exist.
    pub fn looked(&mut self, tag: u64, found: Option<Listed>) {
        self.control(Control::Looked(tag, found));
    }

    /// The server could not say how the domain is. The driver asks again later.
    pub fn look_failed(&mut self, tag: u64) {
        self.control(Control::LookFailed(tag));
    }

    /// What is believed of this scope may be wrong: a run that began and was not confirmed, an
    /// error that leaves a state open. The driver looks at it after 2 s, then at doubled waits.
    pub fn doubt(&mut self, scope: Scope) {
        self.control(Control::Doubt(scope));
    }

    /// The events so far, for the tests of a decoder.
    #[must_use]
    pub fn events(&self) -> &[DomainEvent] {
        &self.events
    }

    fn control(&mut self, control: Control) {
        self.controls.push((self.events.len(), control));
    }

    /// Drops the identities of domains that no longer exist, if there are many.
    pub(super) fn trim(&mut self, live: usize) {
        self.interner.trim(live);
    }

    /// Begins a connection to another host, or to the same host again.
    pub(super) fn connected(&mut self, home: Arc<Host>) {
        self.clear();
        // Identities are shared by pointer, so none may outlive the host that it points to: the
        // next server may call itself something else.
        self.interner = Interner::new(home);
    }

    /// The next event is received at another time.
    pub(super) fn forget_time(&mut self) {
        self.received = None;
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.controls.clear();
        self.received = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Lifecycle, StartCause};

    #[test]
    fn a_decoder_is_tested_by_the_events_of_its_batch() {
        let mut batch = Batch::new("s:", "h");
        let at = batch.received();
        let domain = batch.domain(Uuid::from_u128(1), "web", Some(3));
        batch.event(Lifecycle::new(domain, Change::Started(StartCause::Booted), at));
        assert_eq!(batch.events().len(), 1);
        assert_eq!(batch.received(), at, "the clock is read once a batch");
    }
}
