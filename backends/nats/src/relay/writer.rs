//! What a relay writes, in the order that readers rely on: each write until its ack.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::kv::UpdateErrorKind;
use virevent::{Domain, DomainEvent, DomainStore, Error, Lifecycle, Scope, Synced};

use crate::broker::{Broker, connect, failed, now_micros};
use crate::envelope::{self, EventId, Position};
use crate::link::Link;
use crate::state::{DomainEntry, RelaySnapshot, RelayStatus};
use crate::subject;
use crate::uri::NatsUri;

/// The longest body, in bytes. The server's own limit is 1 MiB by default.
const MAX_BODY: usize = 900 << 10;

#[derive(Debug)]
pub(super) struct Writer {
    broker: Broker,
    link: Link,
    name: String,
    status: RelayStatus,
    /// The revision of the status that we wrote last.
    revision: u64,
}

impl Writer {
    /// Connects, and takes up what the relay of this name wrote before into `store`.
    ///
    /// # Errors
    /// The stream or the bucket is unfit, or the states are of other sources than these.
    pub(super) async fn begin(
        uri: &NatsUri,
        name: &str,
        heartbeat: Duration,
        sources: &[Arc<str>],
        store: &DomainStore,
    ) -> Result<Self, Error> {
        let (options, mut link) = Link::options();
        let client = connect(uri, options.retry_on_initial_connect()).await?;
        let broker = loop {
            let found = link.attempt(async {
                // A refusal passes through as a value: another attempt would be refused, too.
                match Broker::find_or_create(client.clone(), uri).await {
                    Err(error) if !error.is_refusal() => Err(error),
                    outcome => Ok(outcome),
                }
            });
            match found.await {
                Ok(outcome) => break outcome?,
                Err(error) => link.pause("finding the stream", &error).await,
            }
        };
        let known = loop {
            match link.attempt(read_known(&broker, name)).await {
                Ok(known) => break known,
                Err(error) => link.pause("reading the bucket", &error).await,
            }
        };
        let Known { snapshot, revision, last, last_sequence } = known;
        for entry in snapshot.existing() {
            check_source(name, entry.event.source(), sources)?;
            store.apply(&entry.event);
        }
        for source in sources {
            // All domains of the source are in the bucket: so what is new is told as such.
            store.apply(&Synced::new(Scope::source_wide(Arc::clone(source)), 0).into());
        }
        let leftover: Vec<_> = snapshot.domains.iter().filter(|(_, entry)| entry.gone).collect();
        let leftover: Vec<_> = leftover.into_iter().map(|(key, _)| key.clone()).collect();
        let before = snapshot.position();
        let status = RelayStatus {
            position: Position { epoch: before.epoch, sequence: before.sequence },
            stream_sequence: last_sequence,
            hosts: snapshot.status.map(|status| status.hosts).unwrap_or_default(),
            heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX),
            synced: false,
            ended: false,
            gaps: Vec::new(),
        };
        let mut writer = Self { broker, link, name: name.into(), status, revision };
        // One event is under way at a time, so that at most one is ahead of the states.
        match last {
            Some((position, DomainEvent::Lifecycle(event))) if position > before => {
                writer.status.position = position;
                writer.put_state(store, &event).await?;
            }
            _ => {}
        }
        writer.next_epoch().await?;
        for key in leftover {
            writer.remove(&key).await;
        }
        Ok(writer)
    }

    /// Begins an epoch.
    ///
    /// # Errors
    /// Another relay of this name runs.
    pub(super) async fn next_epoch(&mut self) -> Result<(), Error> {
        let epoch = now_micros().max(self.status.position.epoch.saturating_add(1));
        self.status.position = Position { epoch, sequence: 0 };
        self.status.synced = false;
        self.status.gaps.clear();
        tracing::info!(relay = self.name, epoch, "an epoch of the relay begins");
        self.put_status().await
    }

    /// Says that the relay ends in order.
    ///
    /// # Errors
    /// Another relay of this name runs.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        self.status.ended = true;
        self.put_status().await
    }

    pub(super) fn set_hosts(&mut self, hosts: impl Iterator<Item = String>) {
        let hosts: BTreeSet<_> = hosts.chain(self.status.hosts.drain(..)).collect();
        self.status.hosts = hosts.into_iter().collect();
    }

    /// A domain changed.
    pub(super) async fn change(
        &mut self,
        store: &DomainStore,
        event: Lifecycle,
    ) -> Result<(), Error> {
        let host = event.domain.host().to_owned();
        self.publish(&host, &event.clone().into()).await?;
        self.put_state(store, &event).await
    }

    /// Applies the event that was published last, and stores the state.
    async fn put_state(&mut self, store: &DomainStore, event: &Lifecycle) -> Result<(), Error> {
        let domain: &Domain = &event.domain;
        store.apply(&event.clone().into());
        let key = subject::domain_key(&self.name, domain.host(), domain.uuid());
        let position = self.status.position;
        match store.same(domain) {
            Some(stored) => self.put(&key, &DomainEntry::of(&stored, position, event)).await,
            None => {
                self.put(&key, &DomainEntry::gone(position, event)).await?;
                // Before the removal: a reader that misses the entry has this status.
                self.put_status().await?;
                self.remove(&key).await;
                Ok(())
            }
        }
    }

    /// A gap opens, of a host or a domain.
    pub(super) async fn open_gap(&mut self, gap: DomainEvent) -> Result<(), Error> {
        let DomainEvent::Gap(virevent::Gap { scope, .. }) = &gap else { return Ok(()) };
        let host = host_of(scope).to_owned();
        self.status.gaps.retain(|known| !is_in(known, scope));
        self.status.gaps.push(gap.clone());
        self.publish(&host, &gap).await
    }

    /// All is known of a host or a domain.
    pub(super) async fn close_gap(&mut self, synced: Synced) -> Result<(), Error> {
        let host = host_of(&synced.scope).to_owned();
        self.status.gaps.retain(|known| !is_in(known, &synced.scope));
        self.publish(&host, &synced.into()).await
    }

    /// The source is synced: all of it if `is_whole`.
    pub(super) async fn synced(&mut self, is_whole: bool) -> Result<(), Error> {
        self.status.synced |= is_whole;
        self.put_status().await
    }

    /// Publishes an event until its ack, always with the same id. The server drops a second copy.
    pub(super) async fn publish(&mut self, host: &str, event: &DomainEvent) -> Result<(), Error> {
        let mut position = self.status.position;
        position.sequence += 1;
        let id = EventId { relay: self.name.clone(), position };
        let body = match envelope::write(&id, event) {
            Ok(body) if body.len() <= MAX_BODY => body,
            outcome => {
                let reason = outcome.map_or_else(|error| error.to_string(), |_| "too long".into());
                tracing::warn!(%event, reason, "an event cannot be relayed");
                return Ok(());
            }
        };
        let subject = subject::of_event(&self.name, host, event);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.to_string());
        headers.insert("Content-Type", "application/cloudevents+json");
        let ack = loop {
            let context = &self.broker.context;
            let call =
                context.publish_with_headers(subject.clone(), headers.clone(), body.clone().into());
            let outcome = self.link.attempt(async { call.await?.await }).await;
            match outcome {
                Ok(ack) => break ack,
                Err(error) => self.link.pause("publishing an event", &error).await,
            }
        };
        self.status.position = position;
        self.status.stream_sequence = ack.sequence;
        Ok(())
    }

    /// Stores the status: the heartbeat.
    ///
    /// # Errors
    /// Another relay of this name runs.
    pub(super) async fn put_status(&mut self) -> Result<(), Error> {
        let key = subject::status_key(&self.name);
        let body = to_json(&self.status)?;
        loop {
            let update = self.broker.bucket.update(&key, body.clone().into(), self.revision);
            let call = async {
                match update.await {
                    Ok(revision) => Ok(Some(revision)),
                    Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                    Err(error) => Err(error),
                }
            };
            match self.link.attempt(call).await {
                Ok(Some(revision)) => {
                    self.revision = revision;
                    return Ok(());
                }
                // An update of ours may have been stored although its ack was lost.
                Ok(None) => self.check_owner(&key).await?,
                Err(error) => self.link.pause("storing the status", &error).await,
            }
        }
    }

    async fn check_owner(&mut self, key: &str) -> Result<(), Error> {
        let entry = loop {
            match self.link.attempt(self.broker.bucket.entry(key)).await {
                Ok(entry) => break entry,
                Err(error) => self.link.pause("reading the status", &error).await,
            }
        };
        let Some(entry) = entry else {
            self.revision = 0;
            return Ok(());
        };
        let owner = RelayStatus::read(&entry.value).map(|status| status.position.epoch);
        if owner.is_ok_and(|epoch| epoch > self.status.position.epoch) {
            return Err(Error::invalid_option(
                "name of a relay",
                &self.name,
                "a name that no other relay has: another one of this name has taken over",
            ));
        }
        self.revision = entry.revision;
        Ok(())
    }

    async fn put(&mut self, key: &str, entry: &DomainEntry) -> Result<(), Error> {
        let body = to_json(entry)?;
        loop {
            match self.link.attempt(self.broker.bucket.put(key, body.clone().into())).await {
                Ok(_) => return Ok(()),
                Err(error) => self.link.pause("storing a state", &error).await,
            }
        }
    }

    /// Removes an entry without a trace: a marker for each domain that ever was would fill the bucket.
    async fn remove(&mut self, key: &str) {
        let subject = format!("{}{key}", self.broker.bucket.prefix);
        loop {
            let purge = self.broker.bucket.stream.purge().filter(subject.clone());
            match self.link.attempt(purge.into_future()).await {
                Ok(_) => return,
                Err(error) => self.link.pause("removing a state", &error).await,
            }
        }
    }
}

/// What a relay of this name wrote before.
struct Known {
    snapshot: RelaySnapshot,
    revision: u64,
    /// The last event that it published.
    last: Option<(Position, DomainEvent)>,
    /// The place of the newest message in the stream, of any relay.
    last_sequence: u64,
}

async fn read_known(broker: &Broker, name: &str) -> Result<Known, Error> {
    let last_sequence = broker.last_sequence().await?;
    let mut bucket = broker.read_bucket(&subject::domain_keys(name)).await?;
    let mut snapshot = bucket.relays.remove(name).unwrap_or_default();
    let entry = broker.bucket.entry(subject::status_key(name)).await;
    let entry = entry.map_err(|error| failed("reading the status", &error))?;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    snapshot.status = entry.and_then(|entry| RelayStatus::read(&entry.value).ok());
    let last = match broker.stream.get_last_raw_message_by_subject(&subject::of_relay(name)).await {
        Ok(message) => envelope::read(&message.subject, &message.payload)
            .ok()
            .map(|(_, id, event)| (id.position, event)),
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(failed("reading the last event", &error)),
    };
    Ok(Known { snapshot, revision, last, last_sequence })
}

fn is_not_found(error: &async_nats::jetstream::stream::LastRawMessageError) -> bool {
    use async_nats::jetstream::stream::LastRawMessageErrorKind;
    error.kind() == LastRawMessageErrorKind::NoMessageFound
}

fn check_source(name: &str, source: &str, sources: &[Arc<str>]) -> Result<(), Error> {
    match sources.iter().any(|known| &**known == source) {
        true => Ok(()),
        false => Err(Error::invalid_option(
            "name of a relay",
            name,
            format!("another name: the states under this one are of {source}"),
        )),
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::protocol(error.to_string()))
}

fn host_of(scope: &Scope) -> &str {
    match scope {
        Scope::Host { host, .. } => host,
        Scope::Domain(domain) => domain.host(),
        _ => "",
    }
}

fn is_in(gap: &DomainEvent, scope: &Scope) -> bool {
    matches!(gap, DomainEvent::Gap(gap) if scope.includes(&gap.scope))
}
