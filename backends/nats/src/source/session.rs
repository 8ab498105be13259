//! The session: the connection, the consumers, and when to make them.
//!
//! ```text
//!   Listing ──list──▶ Live ──connection lost──▶ Lost ──connected──▶ Resuming ──caught up──▶ Relisting ──list──▶ Live
//! ```
//!
//! After the loss of a connection an ordered consumer stays silent for a minute or more, so the
//! session makes a new one, from the next message on. The gap is open until what was in the stream by
//! then is delivered.

use std::future::pending;
use std::pin::Pin;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};
use virevent::driver::{Batch, Interest, Session};
use virevent::{Error, Fault, FaultKind};

use super::Refused;
use super::fleet::Fleet;
use crate::broker::{Broker, failed};
use crate::link::{Link, LinkState};
use crate::state::{BucketSnapshot, RelayStatus};
use crate::subject;
use crate::uri::NatsUri;

/// The number of messages in one batch.
const MAX_BATCH: usize = 256;

/// How many messages before the newest the stream is read from at most: a relay that ended long ago
/// has an old position.
const MAX_BACKLOG: u64 = 100_000;

type Messages = Pin<Box<pull::Ordered>>;

pub(super) struct FleetSession {
    host: String,
    broker: Broker,
    link: Link,
    losses: u64,
    fleet: Fleet,
    consumers: Option<Consumers>,
    stage: Stage,
    job: Option<BoxFuture<'static, Result<Done, Error>>>,
    interest: Option<u64>,
    /// The list that the driver waits for.
    list: Option<u64>,
    /// What the bucket said, while messages that it includes are still to come.
    snapshot: Option<BucketSnapshot>,
    /// The place in the stream of the last message.
    last: u64,
}

struct Consumers {
    events: Messages,
    statuses: Messages,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first list.
    Listing,
    Live,
    /// There is no connection.
    Lost,
    /// Messages up to this place are still to come.
    Resuming(u64),
    /// The driver is about to request a list. No message is read until it has the list: it would
    /// drop events that stand before the list and that the list includes.
    Relisting,
}

/// What a job brought.
enum Done {
    Begun(BucketSnapshot, Consumers, u64),
    Read(BucketSnapshot),
    Resumed(Consumers, u64),
}

/// What woke the session.
enum Woken {
    Link(LinkState),
    Done(Result<Done, Error>),
    Event(Option<Result<Message, Error>>),
    Status(Option<Result<Message, Error>>),
    Deadline,
}

impl FleetSession {
    pub(super) fn new(uri: &NatsUri, broker: Broker, link: Link, refused: Refused) -> Self {
        Self {
            host: uri.endpoint.clone(),
            broker,
            losses: link.state().losses,
            link,
            fleet: Fleet::new(&uri.shown, refused),
            consumers: None,
            stage: Stage::Listing,
            job: None,
            interest: None,
            list: None,
            snapshot: None,
            last: 0,
        }
    }

    /// Starts the job that is due.
    fn start_job(&mut self) {
        if self.job.is_some() {
            return;
        }
        let broker = self.broker.clone();
        let is_list_due = self.list.is_some() && self.snapshot.is_none();
        match self.stage {
            Stage::Listing if is_list_due => self.job = Some(begin(broker).boxed()),
            Stage::Live if is_list_due => {
                self.job =
                    Some(async move { Ok(Done::Read(broker.read_bucket(">").await?)) }.boxed());
            }
            Stage::Lost if self.link.state().is_connected => {
                self.job = Some(resume(broker, self.last).boxed());
            }
            _ => {}
        }
    }

    async fn woken(&mut self) -> Woken {
        let deadline = match self.stage {
            Stage::Live => self.fleet.silent_at(),
            _ => None,
        };
        let job = async {
            match &mut self.job {
                Some(job) => job.await,
                None => pending().await,
            }
        };
        let (events, statuses) = match &mut self.consumers {
            Some(Consumers { events, statuses }) if self.stage != Stage::Relisting => {
                (Some(events), Some(statuses))
            }
            _ => (None, None),
        };
        tokio::select! {
            state = self.link.changed() => Woken::Link(state),
            done = job => Woken::Done(done),
            event = next(events) => Woken::Event(event),
            status = next(statuses) => Woken::Status(status),
            () = at(deadline) => Woken::Deadline,
        }
    }

    fn link_changed(&mut self, state: LinkState, out: &mut Batch) -> Result<(), Error> {
        if state.losses == self.losses {
            return Ok(());
        }
        self.losses = state.losses;
        let detail = "the connection to the broker is lost";
        if self.stage == Stage::Listing {
            return Err(Error::closed(&self.host, detail));
        }
        if self.stage != Stage::Lost {
            out.outage(out.source_scope(), Fault::new(FaultKind::Closed, detail));
        }
        self.stage = Stage::Lost;
        self.consumers = None;
        self.job = None;
        // The driver requests another list when the source is restored.
        self.list = None;
        self.snapshot = None;
        Ok(())
    }

    fn done(&mut self, done: Done, out: &mut Batch) -> Result<(), Error> {
        match done {
            Done::Begun(snapshot, consumers, last) => {
                self.fleet.begin(&snapshot, Instant::now(), out)?;
                self.consumers = Some(consumers);
                self.last = last;
                self.stage = Stage::Live;
                self.snapshot = Some(snapshot);
            }
            Done::Read(snapshot) => self.snapshot = Some(snapshot),
            Done::Resumed(consumers, until) => {
                self.fleet.reconnected(Instant::now());
                self.consumers = Some(consumers);
                self.stage = Stage::Resuming(until);
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &Message, out: &mut Batch) -> Result<(), Error> {
        let info = message.info().map_err(|error| Error::protocol(error.to_string()))?;
        self.last = info.stream_sequence;
        self.fleet.take(&message.subject, &message.payload, Instant::now(), out)
    }

    fn take_status(&mut self, message: &Message, out: &mut Batch) -> Result<(), Error> {
        let Some(key) = self.broker.key(&message.subject, message.headers.as_ref()) else {
            return Ok(());
        };
        let Some(name) = key.strip_prefix("relay.").and_then(subject::unescape) else {
            return Ok(());
        };
        match RelayStatus::read(&message.payload) {
            Ok(status) => {
                if self.list.is_none() {
                    self.fleet.forget_included(&name, &status);
                }
                self.fleet.take_status(&name, &status, Instant::now(), out)
            }
            Err(refused) => {
                tracing::warn!(key, %refused, "a status is refused");
                Ok(())
            }
        }
    }

    /// Answers what can be answered now.
    fn answer(&mut self, out: &mut Batch) {
        if matches!(self.stage, Stage::Resuming(until) if self.last >= until) {
            self.stage = Stage::Relisting;
            out.restored(out.source_scope());
        }
        let Some(tag) = self.list else { return };
        if let Some(snapshot) = self.snapshot.take_if(|snapshot| self.fleet.has_reached(snapshot)) {
            let list = self.fleet.list(&snapshot, out);
            self.list = None;
            out.listed(tag, list);
        }
    }
}

impl Session for FleetSession {
    fn host(&self) -> &str {
        &self.host
    }

    fn set_interest(&mut self, _: &Interest, tag: u64) {
        // The stream has every kind; the driver filters.
        self.interest = Some(tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.list = Some(tag);
        self.snapshot = None;
    }

    fn is_ordered(&self) -> bool {
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        if let Some(tag) = self.interest.take() {
            out.interest_done(tag, &[]);
            return Ok(());
        }
        if let (Stage::Relisting, Some(tag)) = (self.stage, self.list) {
            // What has been delivered is what is known: nothing between the loss and now is missing.
            self.list = None;
            self.stage = Stage::Live;
            let list = self.fleet.delivered();
            out.listed(tag, list);
            return Ok(());
        }
        self.start_job();
        match self.woken().await {
            Woken::Link(state) => self.link_changed(state, out)?,
            Woken::Done(done) => {
                self.job = None;
                self.done(done?, out)?;
            }
            Woken::Event(message) => {
                self.take(&received(message)?, out)?;
                for _ in 1..MAX_BATCH {
                    if matches!(self.stage, Stage::Resuming(until) if self.last >= until) {
                        break;
                    }
                    let Some(consumers) = &mut self.consumers else { break };
                    let Some(next) = next(Some(&mut consumers.events)).now_or_never() else {
                        break;
                    };
                    self.take(&received(next)?, out)?;
                }
            }
            Woken::Status(message) => self.take_status(&received(message)?, out)?,
            Woken::Deadline => self.fleet.check_silent(Instant::now(), out),
        }
        self.answer(out);
        Ok(())
    }
}

fn received(message: Option<Result<Message, Error>>) -> Result<Message, Error> {
    message.unwrap_or_else(|| Err(Error::closed("the stream", "its consumer ended")))
}

async fn next(messages: Option<&mut Messages>) -> Option<Result<Message, Error>> {
    match messages {
        Some(messages) => Some(messages.next().await?.map_err(|error| failed("reading", &error))),
        None => pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

async fn begin(broker: Broker) -> Result<Done, Error> {
    // Before the bucket is read: an event that no state includes is behind this, or behind the
    // position of its relay.
    let newest = broker.last_sequence().await?;
    let snapshot = broker.read_bucket(">").await?;
    let statuses = snapshot.relays.values().filter_map(|relay| relay.status.as_ref());
    let running = statuses.filter(|status| !status.ended).map(|status| status.stream_sequence);
    let last = running.min().unwrap_or(newest).min(newest).max(newest.saturating_sub(MAX_BACKLOG));
    let consumers = consume(&broker, last).await?;
    Ok(Done::Begun(snapshot, consumers, last))
}

async fn resume(broker: Broker, last: u64) -> Result<Done, Error> {
    let newest = broker.last_sequence().await?;
    if newest < last {
        return Err(Error::protocol("the stream is another one than before, or was restored"));
    }
    let consumers = consume(&broker, last).await?;
    Ok(Done::Resumed(consumers, newest))
}

/// Consumers of everything behind the place `last`.
async fn consume(broker: &Broker, last: u64) -> Result<Consumers, Error> {
    let events = broker.events_from(last + 1).await?;
    let events = events.messages().await.map_err(|error| failed("reading the stream", &error))?;
    let statuses = broker.entries(subject::STATUS_KEYS).await?;
    let statuses =
        statuses.messages().await.map_err(|error| failed("reading the bucket", &error))?;
    Ok(Consumers { events: Box::pin(events), statuses: Box::pin(statuses) })
}
