//! A relay, and a reader that folds what it is told into a table.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use virevent::{DomainEvent, DomainStore, Error, EventSource, EventStream, Options, Scope, Uuid};
use virevent_nats::{Nats, Relay};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::servers::NatsServer;

pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(200);

pub(crate) type Row = (Uuid, String, String, Option<u32>, Option<bool>);

/// A domain as both sides know it.
fn row(domain: &virevent::Domain, state: virevent::State, persistent: Option<bool>) -> Row {
    (domain.uuid(), domain.name().into(), state.to_string(), domain.id(), persistent)
}

pub(crate) fn truth(fake: &FakeHypervisor) -> Vec<Row> {
    let listed = fake.domains();
    let mut rows: Vec<_> =
        listed.iter().map(|one| row(&one.domain, one.state, one.persistent)).collect();
    rows.sort();
    rows
}

pub(crate) fn folded(snapshot: &virevent::Snapshot) -> Vec<Row> {
    let mut rows: Vec<_> =
        snapshot.iter().map(|one| row(&one.domain, one.state, one.persistent)).collect();
    rows.sort();
    rows
}

pub(crate) struct Running {
    pub(crate) task: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Ends the relay as a kill does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) fn relay(name: &str, fake: &Arc<FakeHypervisor>, server: &NatsServer) -> Running {
    let relay = Relay::new(name, Arc::clone(fake)).unwrap().heartbeat(HEARTBEAT);
    let uri = server.uri();
    Running { task: tokio::spawn(async move { relay.run(&uri).await }) }
}

pub(crate) fn fake() -> Arc<FakeHypervisor> {
    Arc::new(FakeHypervisor::builder().host("web.1").build())
}

/// A stream of the fleet, and the table that it leads to.
pub(crate) struct Reader {
    events: EventStream,
    pub(crate) store: DomainStore,
    pub(crate) seen: Vec<DomainEvent>,
}

impl Reader {
    pub(crate) async fn new(server: &NatsServer) -> Self {
        Self::of(&Nats::new(&server.uri()).unwrap().source()).await
    }

    pub(crate) async fn of(source: &dyn EventSource) -> Self {
        // A reader may start before the first relay has made the stream.
        let events = source.subscribe_with(Options::default().wait(true)).await.unwrap();
        Self { events, store: DomainStore::new(), seen: Vec::new() }
    }

    /// Reads until the condition holds, and returns what came.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Vec<DomainEvent> {
        let start = self.seen.len();
        let read = async {
            while !condition(self) {
                let event = self.events.next().await.expect("the stream ended");
                self.store.apply(&event);
                self.seen.push(event);
            }
        };
        if timeout(PATIENCE, read).await.is_err() {
            panic!("not {what}: {:#?}\n{:#?}", self.seen, folded(&self.store.snapshot()));
        }
        self.seen[start..].to_vec()
    }

    pub(crate) async fn until_equal(&mut self, fake: &FakeHypervisor) -> Vec<DomainEvent> {
        let truth = truth(fake);
        self.until("equal", |reader| {
            let snapshot = reader.store.snapshot();
            snapshot.is_certain() && folded(&snapshot) == truth
        })
        .await
    }

    pub(crate) async fn until_host_is_lost(&mut self) -> Vec<DomainEvent> {
        self.until("lost", |reader| {
            reader
                .store
                .snapshot()
                .uncertain()
                .any(|scope| matches!(scope, Scope::Host { host, .. } if &**host == "web.1"))
        })
        .await
    }
}

/// What happened, as text, without the time.
pub(crate) fn happened(events: &[DomainEvent]) -> Vec<String> {
    events.iter().filter(|event| event.is_happening()).map(ToString::to_string).collect()
}

pub(crate) fn populate(fake: &FakeHypervisor) {
    fake.define("db").unwrap();
    fake.create("web").unwrap();
    fake.create("paused").unwrap();
    fake.suspend("paused").unwrap();
    fake.define("mail").unwrap();
    fake.start("mail").unwrap();
}
