//! The relay: any source's events into JetStream.
//!
//! ```text
//!   source ──▶ mailbox: the spool ──▶ one event at a time ──▶ stream, until its ack
//!              bounded, compacts          │
//!                                         └──▶ its domain's entry in the bucket
//! ```
//!
//! One event is under way at a time, so that the stream has a host's events in their order whatever
//! is sent twice. While the broker is away the relay reads nothing, and the mailbox keeps what it
//! can. If the mailbox drops events, a new epoch begins: the gap is in the stream, and what changed
//! is inferred.

mod hosts;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Interval, MissedTickBehavior, interval};
use virevent::{
    DomainEvent, DomainStore, Error, EventSource, EventStream, GapKind, Kinds, Options, Scope,
    Synced,
};

use self::hosts::hosts_of;
use self::writer::Writer;
use crate::subject::check_name;
use crate::uri::NatsUri;

/// A relay: the events of one source, into the stream of a fleet. By value:
/// `Relay::new("web1-libvirt", source)?.run("nats://server/virevent").await`.
///
/// Its name is its own: two relays of one host, of libvirt and of QEMU's monitors, have two names.
#[derive(Debug)]
#[must_use = "call run()"]
pub struct Relay {
    name: String,
    source: Arc<dyn EventSource>,
    host: Option<String>,
    heartbeat: Duration,
    spool: usize,
}

/// Why an epoch has ended.
enum EpochEnd {
    /// Events were dropped while the broker was away.
    Lagged,
    /// The source's stream has ended.
    Ended,
}

impl Relay {
    /// A relay of this name. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]: a name is 1 to 64 letters, digits, `-`, `_` and `.`.
    pub fn new(name: &str, source: impl EventSource) -> Result<Self, Error> {
        check_name(name)?;
        Ok(Self {
            name: name.into(),
            source: Arc::new(source),
            host: None,
            heartbeat: Duration::from_secs(5),
            spool: 8192,
        })
    }

    /// The host that markers name while no domain is known. Default: the host of the domains that
    /// were relayed before, else this machine's name.
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The interval of heartbeats. A reader takes a relay that misses three for silent, and its
    /// hosts for unreachable. Default: 5 s; at least 10 ms, at most an hour.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval.clamp(Duration::from_millis(10), Duration::from_secs(3600));
        self
    }

    /// How many events the relay keeps while the broker is away, before it drops all that final
    /// states do not need: [`Options::capacity`]. Default: 8192.
    pub fn spool(mut self, events: usize) -> Self {
        self.spool = events;
        self
    }

    /// Relays until the source's stream ends. While the server is unreachable it goes on, and
    /// retries.
    ///
    /// # Errors
    /// The URI cannot be used; the stream or the bucket is not as relays need it; the source
    /// refuses; another relay of the same name runs.
    ///
    /// # Cancel safety
    /// Dropping the future ends the relay as a kill does: readers get a gap for its hosts. The next
    /// relay of that name goes on where this one was.
    pub async fn run(self, uri: &str) -> Result<(), Error> {
        let uri = NatsUri::parse(uri)?;
        let members = self.source.members();
        let sources = [self.source.uri()].into_iter().chain(members.iter().map(|one| one.uri()));
        let sources: Vec<_> = sources.map(Arc::<str>::from).collect();
        let store = DomainStore::new();
        let mut writer = Writer::begin(&uri, &self.name, self.heartbeat, &sources, &store).await?;
        let mut heartbeat = interval(self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The bucket stands for what was relayed, and its difference to what is now is inferred.
            let options = Options::default()
                .kinds(Kinds::all())
                .wait(true)
                .capacity(self.spool)
                .resume(store.snapshot());
            let outcome = match self.source.subscribe_with(options).await {
                Ok(events) => self.epoch(&mut writer, &store, events, &mut heartbeat).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(EpochEnd::Lagged) => writer.next_epoch().await?,
                Ok(EpochEnd::Ended) => return writer.finish().await,
                Err(error) => {
                    // The reason to end counts more than that the farewell failed.
                    let _ = writer.finish().await;
                    return Err(error);
                }
            }
        }
    }

    async fn epoch(
        &self,
        writer: &mut Writer,
        store: &DomainStore,
        mut events: EventStream,
        heartbeat: &mut Interval,
    ) -> Result<EpochEnd, Error> {
        loop {
            // Events first: a heartbeat says that everything before it is relayed.
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                _ = heartbeat.tick() => {
                    writer.put_status().await?;
                    continue;
                }
            };
            match event {
                None => return Ok(EpochEnd::Ended),
                Some(DomainEvent::Lifecycle(event)) => writer.change(store, event).await?,
                Some(DomainEvent::Gap(gap)) => {
                    for scope in self.scopes(&gap.scope, store) {
                        let gap = virevent::Gap::new(scope, gap.kind.clone());
                        writer.open_gap(gap.into()).await?;
                    }
                    if matches!(gap.kind, GapKind::Lagged { .. }) {
                        return Ok(EpochEnd::Lagged);
                    }
                    writer.put_status().await?;
                }
                Some(DomainEvent::Synced(synced)) => {
                    let is_whole = synced.scope.is_source();
                    let scopes = self.scopes(&synced.scope, store);
                    writer.set_hosts(scopes.iter().filter_map(host_of));
                    for scope in scopes {
                        let count = store.snapshot();
                        let count =
                            count.iter().filter(|stored| scope.contains(&stored.domain)).count();
                        writer.close_gap(Synced::new(scope, count as u64)).await?;
                    }
                    writer.synced(is_whole).await?;
                }
                Some(event) => {
                    let host = match event.domain() {
                        Some(domain) => domain.host().to_owned(),
                        None => self.home(store),
                    };
                    writer.publish(&host, &event).await?;
                }
            }
        }
    }

    /// The scopes of (source, host) that a marker's scope consists of.
    fn scopes(&self, scope: &Scope, store: &DomainStore) -> Vec<Scope> {
        if !scope.is_source() {
            return vec![scope.clone()];
        }
        let source = scope.source();
        let mut hosts = hosts_of(&store.snapshot());
        if hosts.is_empty() {
            hosts.insert(self.home(store));
        }
        hosts.into_iter().map(|host| Scope::on_host(source, host)).collect()
    }

    fn home(&self, store: &DomainStore) -> String {
        let known = || hosts_of(&store.snapshot()).pop_first();
        self.host.clone().or_else(known).unwrap_or_else(virevent_transport::host_name)
    }
}

fn host_of(scope: &Scope) -> Option<String> {
    match scope {
        Scope::Host { host, .. } => Some(host.to_string()),
        _ => None,
    }
}
