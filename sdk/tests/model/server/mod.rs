//! A hypervisor in memory: its domains, and the connection to it.

mod operations;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use virevent::driver::{Batch, Connect, Interest, Listed, Session};
use virevent::{Domain, Error, Kind, ShutoffReason, State, Uuid};

use crate::run::Variant;
use crate::steps::{DOMAINS, Operation};

pub(crate) const URI: &str = "model:";

type Message = Box<dyn FnOnce(&mut Batch) + Send>;

#[derive(Clone, Debug)]
pub(crate) struct Server(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(crate) struct Inner {
    variant: Variant,
    /// Every domain that may exist.
    pub(crate) domains: Vec<Truth>,
    last_id: u32,
    /// The recent ids: domain, id, and how many lists had been answered then.
    used: Vec<(u8, u32, u64)>,
    /// The number of answered lists.
    lists: u64,
    refuses: bool,
    connection: Option<Connection>,
    connections: u64,
    /// Whether a domain changed without an event.
    pub(crate) was_silent: bool,
}

/// The actual state of a domain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Truth {
    pub(crate) number: u8,
    pub(crate) name: String,
    pub(crate) persistent: bool,
    pub(crate) run: Option<u32>,
    pub(crate) state: State,
    /// A start is under way.
    is_starting: bool,
}

struct Connection {
    number: u64,
    messages: mpsc::UnboundedSender<Message>,
    registered: Interest,
    interest: VecDeque<(u64, Interest)>,
    call: Option<Call>,
    /// Events that were sent and have not arrived, where they may be late.
    in_flight: Vec<Message>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("registered", &self.registered).finish_non_exhaustive()
    }
}

/// A call that may block, and its answer once the server has taken it.
struct Call {
    tag: u64,
    /// One domain, or all.
    one: Option<(String, Uuid)>,
    answer: Option<Vec<Truth>>,
}

impl Truth {
    pub(crate) fn exists(&self) -> bool {
        self.persistent || self.run.is_some()
    }

    fn listed(&self, batch: &mut Batch) -> Listed {
        Listed::new(self.domain(batch, self.run), self.state, Some(self.persistent))
    }

    fn domain(&self, batch: &mut Batch, id: Option<u32>) -> Domain {
        batch.domain_on(host(self.number), uuid(self.number), &self.name, id)
    }
}

/// The first and the last domain have the same uuid, on two hosts.
pub(crate) fn uuid(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number % (DOMAINS - 1)) + 1)
}

pub(crate) fn host(number: u8) -> &'static str {
    if number == DOMAINS - 1 { "other" } else { "host" }
}

const OFF: State = State::Shutoff(ShutoffReason::Shutdown);

impl Server {
    pub(crate) fn new(variant: Variant) -> Self {
        let domain = |number| Truth {
            number,
            name: format!("vm{number}"),
            persistent: false,
            run: None,
            state: OFF,
            is_starting: false,
        };
        Self(Arc::new(Mutex::new(Inner {
            variant,
            domains: (0..DOMAINS).map(domain).collect(),
            last_id: 0,
            used: Vec::new(),
            lists: 0,
            refuses: false,
            connection: None,
            connections: 0,
            was_silent: false,
        })))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// The kinds that are registered and stay so; `None` without a connection.
    pub(crate) fn registered(&self) -> Option<Interest> {
        self.with(|inner| inner.connection.as_ref().map(|connection| connection.registered.clone()))
    }
}

impl Inner {
    /// Answers all that the driver waits for. False if it waited for nothing.
    pub(crate) fn serve(&mut self) -> bool {
        let mut any = false;
        loop {
            let did = [self.confirm(), self.take(), self.flush(), self.reply()];
            if !did.contains(&true) {
                return any;
            }
            any = true;
        }
    }

    pub(crate) fn confirm(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let Some((tag, interest)) = connection.interest.pop_front() else { return false };
        let fresh = connection.registered.is_empty() && !interest.is_empty();
        let lacking = |kind: &&Kind| self.variant.lacking && **kind == Kind::Reboot;
        let refused: Vec<Kind> = interest.kinds().iter().filter(lacking).cloned().collect();
        connection.registered =
            interest.kinds().iter().filter(|kind| !refused.contains(kind)).cloned().collect();
        // The session may be gone: its channel is closed then, and the message is lost with it.
        let _ = connection.messages.send(Box::new(move |batch| batch.interest_done(tag, &refused)));
        if fresh && self.variant.level {
            // As a level-triggered hypervisor does: a fresh registration gets nothing from before
            // it.
            connection.in_flight.clear();
        }
        true
    }

    pub(crate) fn take(&mut self) -> bool {
        // Taken now and sent later, as a real server does: what happens in between is not in the
        // list.
        let domains = &self.domains;
        let Some(call) = self.connection.as_mut().and_then(|connection| connection.call.as_mut())
        else {
            return false;
        };
        if call.answer.is_some() {
            return false;
        }
        let is_asked = |truth: &&Truth| {
            let is_one = |(host, uuid): &(String, Uuid)| {
                *host == self::host(truth.number) && *uuid == self::uuid(truth.number)
            };
            truth.exists() && call.one.as_ref().is_none_or(is_one)
        };
        call.answer = Some(domains.iter().filter(is_asked).cloned().collect());
        true
    }

    pub(crate) fn reply(&mut self) -> bool {
        let level = self.variant.level;
        let Some(connection) = &mut self.connection else { return false };
        let Some(call) = connection.call.take_if(|call| call.answer.is_some()) else {
            return false;
        };
        let Call { tag, one, answer } = call;
        self.lists += u64::from(one.is_none());
        let mut domains = answer.unwrap_or_default();
        if level {
            domains.retain(|truth| truth.run.is_some());
        }
        let _ = connection.messages.send(Box::new(move |batch| {
            let list: Vec<Listed> = domains.iter().map(|truth| truth.listed(batch)).collect();
            match one {
                Some(_) => batch.looked(tag, list.into_iter().next()),
                None => batch.listed(tag, list),
            }
        }));
        true
    }

    pub(crate) fn flush(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let any = !connection.in_flight.is_empty();
        for message in connection.in_flight.drain(..) {
            let _ = connection.messages.send(message);
        }
        any
    }

    pub(crate) fn cut(&mut self) {
        self.connection = None;
    }

    /// The server restarts: it drops the connection, and its ids start over.
    pub(crate) fn restart(&mut self) {
        self.cut();
        self.last_id = 0;
    }

    pub(crate) fn refuse(&mut self, refuses: bool) {
        self.refuses = refuses;
    }

    /// Completes the starts that are under way.
    pub(crate) fn end_starts(&mut self) {
        (0..DOMAINS).for_each(|number| self.act(Operation::EndStart, number));
    }
}

impl Connect for Server {
    type Session = ModelSession;

    fn uri(&self) -> &str {
        URI
    }

    async fn connect(&self) -> Result<ModelSession, Error> {
        let (messages, received) = mpsc::unbounded_channel();
        self.with(|inner| {
            if inner.refuses {
                let source = io::Error::from(io::ErrorKind::ConnectionRefused);
                return Err(Error::unreachable(URI, "it is down", source));
            }
            inner.connections += 1;
            inner.connection = Some(Connection {
                number: inner.connections,
                messages,
                registered: Interest::default(),
                interest: VecDeque::new(),
                call: None,
                in_flight: Vec::new(),
            });
            Ok(())
        })?;
        let (number, level) = self.with(|inner| (inner.connections, inner.variant.level));
        Ok(ModelSession { server: self.clone(), number, messages: received, level })
    }
}

#[derive(Debug)]
pub(crate) struct ModelSession {
    server: Server,
    number: u64,
    messages: mpsc::UnboundedReceiver<Message>,
    level: bool,
}

impl ModelSession {
    fn connection(&self, act: impl FnOnce(&mut Connection)) {
        let number = self.number;
        self.server.with(|inner| {
            inner.connection.as_mut().filter(|connection| connection.number == number).map(act);
        });
    }
}

/// The server drops the connection of a session that was dropped.
impl Drop for ModelSession {
    fn drop(&mut self) {
        let number = self.number;
        self.server
            .with(|inner| _ = inner.connection.take_if(|connection| connection.number == number));
    }
}

impl Session for ModelSession {
    fn host(&self) -> &str {
        "host"
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.connection(|connection| connection.interest.push_back((tag, interest.clone())));
    }

    fn request_list(&mut self, tag: u64) {
        self.request(tag, None);
    }

    fn request_state(&mut self, domain: &Domain, tag: u64) -> bool {
        if !self.level {
            self.request(tag, Some((domain.host().to_owned(), domain.uuid())));
        }
        !self.level
    }

    fn is_ordered(&self) -> bool {
        self.level
    }

    fn ping(&mut self) -> bool {
        // Keepalives are always answered: calls may hang, the connection does not.
        self.connection(|connection| {
            let _ = connection.messages.send(Box::new(|_| {}));
        });
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        let closed = Error::closed(URI, "");
        self.messages.recv().await.ok_or(closed)?(out);
        // As one read of a socket: everything that has arrived is one batch.
        while let Ok(message) = self.messages.try_recv() {
            message(out);
        }
        Ok(())
    }
}

impl ModelSession {
    fn request(&self, tag: u64, one: Option<(String, Uuid)>) {
        self.connection(|connection| {
            assert!(connection.call.is_none(), "two blocking calls at once");
            connection.call = Some(Call { tag, one, answer: None });
        });
    }
}
