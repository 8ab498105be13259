//! A hypervisor in memory: what is true there, and the connection to it.

mod deeds;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use virevent::driver::{Batch, Connect, Interest, Listed, Session};
use virevent::{Domain, Error, Kind, ShutoffReason, State, Uuid};

use crate::run::Variant;
use crate::steps::{DOMAINS, Deed};

pub(crate) const URI: &str = "model:";

type Word = Box<dyn FnOnce(&mut Batch) + Send>;

#[derive(Clone, Debug)]
pub(crate) struct Server(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(crate) struct Inner {
    variant: Variant,
    /// What is true.
    pub(crate) domains: Vec<Truth>,
    last_id: u32,
    /// Which domain had which id, and after how many lists.
    used: Vec<(u8, u32, u64)>,
    /// How many lists were answered.
    lists: u64,
    refuses: bool,
    line: Option<Line>,
    lines: u64,
    /// Whether anything was changed in silence.
    pub(crate) was_silent: bool,
}

/// How a domain is.
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

struct Line {
    number: u64,
    words: mpsc::UnboundedSender<Word>,
    registered: Interest,
    interest: VecDeque<(u64, Interest)>,
    asked: Option<Asked>,
    /// Events that are on their way, where they may be late.
    held: Vec<Word>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("registered", &self.registered).finish_non_exhaustive()
    }
}

/// A question, and its answer once it was taken.
struct Asked {
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
            line: None,
            lines: 0,
            was_silent: false,
        })))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// The kinds that are registered and stay so; `None` without a connection.
    pub(crate) fn registered(&self) -> Option<Interest> {
        self.with(|inner| inner.line.as_ref().map(|line| line.registered.clone()))
    }
}

impl Inner {
    /// Does what the client waits for, until it waits for nothing. False if there was nothing to do.
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
        let Some(line) = &mut self.line else { return false };
        let Some((tag, interest)) = line.interest.pop_front() else { return false };
        let fresh = line.registered.is_empty() && !interest.is_empty();
        let lacking = |kind: &&Kind| self.variant.lacking && **kind == Kind::Reboot;
        let refused: Vec<Kind> = interest.kinds().iter().filter(lacking).cloned().collect();
        line.registered =
            interest.kinds().iter().filter(|kind| !refused.contains(kind)).cloned().collect();
        let _ = line.words.send(Box::new(move |batch| batch.interest_done(tag, &refused)));
        if fresh && self.variant.level {
            // As a real one, it says nothing of what was before.
            line.held.clear();
        }
        true
    }

    pub(crate) fn take(&mut self) -> bool {
        let domains = &self.domains;
        let Some(asked) = self.line.as_mut().and_then(|line| line.asked.as_mut()) else {
            return false;
        };
        if asked.answer.is_some() {
            return false;
        }
        let is_asked = |truth: &&Truth| {
            let is_one = |(host, uuid): &(String, Uuid)| {
                *host == self::host(truth.number) && *uuid == self::uuid(truth.number)
            };
            truth.exists() && asked.one.as_ref().is_none_or(is_one)
        };
        asked.answer = Some(domains.iter().filter(is_asked).cloned().collect());
        true
    }

    pub(crate) fn reply(&mut self) -> bool {
        let level = self.variant.level;
        let Some(line) = &mut self.line else { return false };
        let Some(asked) = line.asked.take_if(|asked| asked.answer.is_some()) else { return false };
        let Asked { tag, one, answer } = asked;
        self.lists += u64::from(one.is_none());
        let mut domains = answer.unwrap_or_default();
        if level {
            domains.retain(|truth| truth.run.is_some());
        }
        let _ = line.words.send(Box::new(move |batch| {
            let list: Vec<Listed> = domains.iter().map(|truth| truth.listed(batch)).collect();
            match one {
                Some(_) => batch.looked(tag, list.into_iter().next()),
                None => batch.listed(tag, list),
            }
        }));
        true
    }

    pub(crate) fn flush(&mut self) -> bool {
        let Some(line) = &mut self.line else { return false };
        let any = !line.held.is_empty();
        for word in line.held.drain(..) {
            let _ = line.words.send(word);
        }
        any
    }

    pub(crate) fn cut(&mut self) {
        self.line = None;
    }

    /// The server restarts: it cuts the connection, and counts runs from the beginning.
    pub(crate) fn restart(&mut self) {
        self.cut();
        self.last_id = 0;
    }

    pub(crate) fn refuse(&mut self, refuses: bool) {
        self.refuses = refuses;
    }

    /// Starts that are under way get through.
    pub(crate) fn end_starts(&mut self) {
        (0..DOMAINS).for_each(|number| self.act(Deed::EndStart, number));
    }
}

impl Connect for Server {
    type Session = Client;

    fn uri(&self) -> &str {
        URI
    }

    async fn connect(&self) -> Result<Client, Error> {
        let (words, received) = mpsc::unbounded_channel();
        self.with(|inner| {
            if inner.refuses {
                let source = io::Error::from(io::ErrorKind::ConnectionRefused);
                return Err(Error::unreachable(URI, "it is down", source));
            }
            inner.lines += 1;
            inner.line = Some(Line {
                number: inner.lines,
                words,
                registered: Interest::default(),
                interest: VecDeque::new(),
                asked: None,
                held: Vec::new(),
            });
            Ok(())
        })?;
        let (number, level) = self.with(|inner| (inner.lines, inner.variant.level));
        Ok(Client { server: self.clone(), number, words: received, level })
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    server: Server,
    number: u64,
    words: mpsc::UnboundedReceiver<Word>,
    level: bool,
}

impl Client {
    fn line(&self, act: impl FnOnce(&mut Line)) {
        let number = self.number;
        self.server.with(|inner| {
            inner.line.as_mut().filter(|line| line.number == number).map(act);
        });
    }
}

/// The server notices that its client is gone.
impl Drop for Client {
    fn drop(&mut self) {
        let number = self.number;
        self.server.with(|inner| _ = inner.line.take_if(|line| line.number == number));
    }
}

impl Session for Client {
    fn host(&self) -> &str {
        "host"
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.line(|line| line.interest.push_back((tag, interest.clone())));
    }

    fn request_list(&mut self, tag: u64) {
        self.ask(tag, None);
    }

    fn request_state(&mut self, domain: &Domain, tag: u64) -> bool {
        if !self.level {
            self.ask(tag, Some((domain.host().to_owned(), domain.uuid())));
        }
        !self.level
    }

    fn is_ordered(&self) -> bool {
        self.level
    }

    fn ping(&mut self) -> bool {
        // The server always answers: whatever hangs, the connection lives.
        self.line(|line| {
            let _ = line.words.send(Box::new(|_| {}));
        });
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        let closed = Error::closed(URI, "");
        self.words.recv().await.ok_or(closed)?(out);
        while let Ok(word) = self.words.try_recv() {
            word(out);
        }
        Ok(())
    }
}

impl Client {
    fn ask(&self, tag: u64, one: Option<(String, Uuid)>) {
        self.line(|line| {
            assert!(line.asked.is_none(), "two calls at once that may block");
            line.asked = Some(Asked { tag, one, answer: None });
        });
    }
}
