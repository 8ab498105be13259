//! A server whose messages a test sends one by one, and its connection to the driver.

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc};
use virevent::driver::{Batch, Builder, Connect, Driver, Interest, Listed, Session};
use virevent::{Change, Domain, Error, Lifecycle};

use super::web;
use crate::secs;

/// What the server sends, as the session decodes it.
type Message = Box<dyn FnOnce(&mut Batch) + Send>;

/// The server's end of a connection. It confirms registrations by itself; all else that it sends is
/// what the test lets it send.
#[derive(Clone, Debug)]
pub(super) struct ScriptedServer {
    state: Arc<Mutex<ServerState>>,
    /// Notified when the driver connects or requests something.
    requested: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) host: &'static str,
    pub(super) connection: Option<mpsc::UnboundedSender<Message>>,
    /// The tags of list requests without an answer.
    pub(super) lists: Vec<u64>,
    /// The tags of requests for one domain without an answer; `None` where the protocol has none.
    pub(super) looks: Option<Vec<u64>>,
    /// Whether keepalives are answered.
    pub(super) answers_pings: bool,
    /// The number of keepalives that were requested.
    pub(super) pings: usize,
    /// Whether replies and events arrive in the order in which they arose.
    pub(super) is_ordered: bool,
    /// The tags of registrations that the test confirms itself; `None`: the server confirms at
    /// once.
    pub(super) unconfirmed: Option<Vec<u64>>,
    /// The last registration that was requested.
    pub(super) interest: Interest,
    /// Connections made so far.
    pub(super) connections: usize,
}

pub(super) struct ScriptedSession {
    server: ScriptedServer,
    host: &'static str,
    messages: mpsc::UnboundedReceiver<Message>,
}

impl ScriptedServer {
    pub(super) fn new() -> (Self, Driver) {
        let (server, builder) = Self::builder();
        (server, builder.build())
    }

    pub(super) fn builder() -> (Self, Builder<Self>) {
        let state = ServerState {
            host: "h",
            connection: None,
            lists: Vec::new(),
            looks: None,
            answers_pings: false,
            pings: 0,
            is_ordered: false,
            unconfirmed: None,
            interest: Interest::default(),
            connections: 0,
        };
        let server = Self { state: Arc::new(Mutex::new(state)), requested: Arc::default() };
        (server.clone(), Driver::builder(server))
    }

    /// A server that answers keepalives.
    pub(super) fn with_keepalive() -> (Self, Driver) {
        let (server, source) = Self::new();
        server.state(|state| state.answers_pings = true);
        (server, source)
    }

    pub(super) fn state<T>(&self, act: impl FnOnce(&mut ServerState) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    /// Records what the driver does, and wakes the tests that wait for it.
    fn record<T>(&self, act: impl FnOnce(&mut ServerState) -> T) -> T {
        let outcome = self.state(act);
        // After the lock is released: a test that is woken takes it at once.
        self.requested.notify_waiters();
        outcome
    }

    pub(super) fn send(&self, message: impl FnOnce(&mut Batch) + Send + 'static) {
        // Without a connection the message is lost, as bytes for a closed socket are.
        self.state(|state| {
            state.connection.as_ref().map(|connection| connection.send(Box::new(message)))
        });
    }

    pub(super) fn event(&self, id: Option<u32>, change: Change) {
        self.send(move |batch| {
            let domain = batch.domain(web(id).uuid(), "web", id);
            let at = batch.received();
            batch.event(Lifecycle::new(domain, change, at));
        });
    }

    /// Sends a list with this tag, whether or not it was requested.
    pub(super) fn list_of(&self, tag: u64, domains: &[Listed]) {
        let domains = domains.to_vec();
        self.send(move |batch| batch.listed(tag, domains));
    }

    /// Answers the oldest list request.
    pub(super) async fn list(&self, domains: &[Listed]) {
        self.list_requested().await;
        let tag = self.state(|state| state.lists.remove(0));
        self.list_of(tag, domains);
    }

    /// Answers the oldest request for one domain; `None`: it does not exist.
    pub(super) async fn look(&self, found: Option<Listed>) {
        self.look_requested().await;
        let tag = self.state(|state| state.looks.as_mut().unwrap().remove(0));
        self.send(move |batch| batch.looked(tag, found));
    }

    pub(super) async fn look_requested(&self) {
        self.until(|state| state.looks.as_ref().is_some_and(|looks| !looks.is_empty())).await;
    }

    /// Confirms the oldest unconfirmed registration.
    pub(super) fn confirm(&self) {
        let tag = self.state(|state| state.unconfirmed.as_mut().unwrap().remove(0));
        self.send(move |batch| batch.interest_done(tag, &[]));
    }

    pub(super) async fn list_requested(&self) {
        self.until(|state| !state.lists.is_empty()).await;
    }

    /// Waits until the driver has brought the server into a state.
    ///
    /// # Panics
    /// After ten minutes of paused time.
    pub(super) async fn until(&self, reached: impl Fn(&ServerState) -> bool) {
        let waited = async {
            loop {
                // Made before the look at the state: a notification between the two is not missed.
                let requested = self.requested.notified();
                if self.state(|state| reached(state)) {
                    return;
                }
                requested.await;
            }
        };
        tokio::time::timeout(secs(600), waited).await.unwrap();
    }

    pub(super) fn disconnect(&self) {
        self.state(|state| {
            state.connection = None;
            state.lists.clear();
            state.looks.iter_mut().for_each(Vec::clear);
        });
    }
}

impl Connect for ScriptedServer {
    type Session = ScriptedSession;

    fn uri(&self) -> &str {
        "scripted:"
    }

    async fn connect(&self) -> Result<ScriptedSession, Error> {
        let (connection, messages) = mpsc::unbounded_channel();
        let host = self.record(|state| {
            state.connection = Some(connection);
            state.connections += 1;
            state.host
        });
        Ok(ScriptedSession { server: self.clone(), host, messages })
    }
}

impl Session for ScriptedSession {
    fn host(&self) -> &str {
        self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        let is_held = self.server.record(|state| {
            state.interest = interest.clone();
            state.unconfirmed.as_mut().map(|held| held.push(tag)).is_some()
        });
        if !is_held {
            self.server.send(move |batch| batch.interest_done(tag, &[]));
        }
    }

    fn request_list(&mut self, tag: u64) {
        self.server.record(|state| state.lists.push(tag));
    }

    fn request_state(&mut self, _: &Domain, tag: u64) -> bool {
        self.server.record(|state| state.looks.as_mut().map(|looks| looks.push(tag)).is_some())
    }

    fn is_ordered(&self) -> bool {
        self.server.state(|state| state.is_ordered)
    }

    fn ping(&mut self) -> bool {
        let is_answered = self.server.state(|state| {
            state.pings += 1;
            state.answers_pings
        });
        if is_answered {
            self.server.send(|_| {});
        }
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        let closed = Error::closed("scripted", "");
        self.messages.recv().await.ok_or(closed)?(out);
        Ok(())
    }
}
