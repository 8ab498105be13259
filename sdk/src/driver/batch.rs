//! What one read of a session brought.

use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use super::roster::Roster;
use crate::domain::Host;
use crate::{Domain, DomainEvent, Error, Fault, Kind, Scope, State, StopCause};

/// What one read of a session brought: events in their order, and answers.
///
/// It also knows the domains of the connection, so that an event about a known one allocates
/// nothing.
#[derive(Debug)]
pub struct Batch {
    pub(super) roster: Roster,
    pub(super) events: Vec<DomainEvent>,
    /// What is not an event, with the number of events before it.
    pub(super) controls: Vec<(usize, Control)>,
    received: Option<SystemTime>,
}

#[derive(Debug)]
pub(super) enum Control {
    State(Domain, State),
    Gone(Domain, StopCause),
    InterestDone(u64, Vec<Kind>),
    Listed(u64, Vec<Listed>),
    ListFailed(u64, Error),
    Outage(Scope, Fault),
    Restored(Scope),
    Looked(u64, Option<Listed>),
    LookFailed(u64),
    Doubt(Scope),
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
    pub fn new(domain: Domain, state: State, persistent: Option<bool>) -> Self {
        Self { domain, state, persistent }
    }
}

impl Batch {
    /// An empty batch for a connection of this source to this host. The driver makes its own; this is
    /// for the tests of a decoder.
    pub fn new(source: &str, host: &str) -> Self {
        Self {
            roster: Roster::new(Host::new(source.into(), host.into())),
            events: Vec::new(),
            controls: Vec::new(),
            received: None,
        }
    }

    /// The domain of that identity on the connection's host. `id` is `None` when it is inactive. Of a
    /// name no more than 4,096 bytes are kept; one that is cut ends in `…`.
    pub fn domain(&mut self, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        self.roster.intern(uuid, name, id)
    }

    /// The same on a host of a fleet.
    pub fn domain_on(&mut self, host: &str, uuid: Uuid, name: &str, id: Option<u32>) -> Domain {
        self.roster.intern_on(host, uuid, name, id)
    }

    /// The URI of the source, as its domains and scopes carry it.
    pub fn source(&self) -> Arc<str> {
        Arc::clone(&self.roster.home().source)
    }

    /// All of the source.
    pub fn source_scope(&self) -> Scope {
        Scope::Source(self.source())
    }

    /// When this batch was received: the stamp for events that bring none. The clock is read once a
    /// batch.
    pub fn received(&mut self) -> SystemTime {
        *self.received.get_or_insert_with(SystemTime::now)
    }

    /// An event.
    pub fn event(&mut self, event: impl Into<DomainEvent>) {
        self.events.push(event.into());
    }

    /// For hypervisors that only say how things are: the driver derives what changed. Before the list is
    /// answered it is taken for newer than the list: a session that makes its list itself says nothing of
    /// this kind while one is asked for.
    pub fn state(&mut self, domain: Domain, state: State) {
        self.control(Control::State(domain, state));
    }

    /// For hypervisors that only say how things are: the domain is no more. Of another run than the one
    /// that is known it says nothing. Before the list is answered the same holds as for
    /// [`state`](Self::state).
    pub fn gone(&mut self, domain: &Domain, cause: StopCause) {
        self.control(Control::Gone(domain.clone(), cause));
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

    /// The server refuses the list. Where it was to make the domains known, the connection ends with this
    /// error; where it was to verify them, the driver asks again later.
    pub fn list_failed(&mut self, tag: u64, error: Error) {
        self.control(Control::ListFailed(tag, error));
    }

    /// One of the many sockets or hosts behind this session is out of reach; or with
    /// [`source_scope`](Self::source_scope) all there is, while the session lives on.
    ///
    /// All there is may be lost before the first list as well. It is then as if no connection could be
    /// made: whoever waits gets an error, or a stream that opens with
    /// [`Disconnected`](crate::GapKind::Disconnected) if it asked to [wait](crate::Options::wait). A list
    /// that is asked for need not be answered any more: another is, after
    /// [`restored`](Self::restored).
    pub fn outage(&mut self, scope: Scope, fault: Fault) {
        self.control(Control::Outage(scope, fault));
    }

    /// It is back, and [`state`](Batch::state) and [`gone`](Batch::gone) have told how it is now. Of
    /// [`source_scope`](Self::source_scope) the driver asks for a list, and tells from that.
    pub fn restored(&mut self, scope: Scope) {
        self.control(Control::Restored(scope));
    }

    /// The answer to [`request_state`](super::Session::request_state): how the domain is; `None` when it
    /// does not exist.
    pub fn looked(&mut self, tag: u64, found: Option<Listed>) {
        self.control(Control::Looked(tag, found));
    }

    /// The server could not say how the domain is. The driver asks again later.
    pub fn look_failed(&mut self, tag: u64) {
        self.control(Control::LookFailed(tag));
    }

    /// What is believed of this scope may be wrong: a run that began and was not confirmed, an error
    /// that leaves a state open. The driver looks again after 2 s, then at doubled waits.
    pub fn doubt(&mut self, scope: Scope) {
        self.control(Control::Doubt(scope));
    }

    /// The events so far, for the tests of a decoder.
    pub fn events(&self) -> &[DomainEvent] {
        &self.events
    }

    fn control(&mut self, control: Control) {
        self.controls.push((self.events.len(), control));
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
