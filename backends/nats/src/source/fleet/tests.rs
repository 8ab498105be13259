//! What a message means, given what the list included.

use std::time::SystemTime;

use virevent::{StartCause, StopCause};

use super::*;
use crate::state::DomainEntry;
use crate::subject;

fn at(sequence: u64) -> Position {
    Position { epoch: 5, sequence }
}

fn domain(host: &str) -> Domain {
    Domain::new("s:", host, Uuid::from_u128(1), "web", Some(3))
}

fn event(host: &str, change: Change) -> Lifecycle {
    Lifecycle::new(domain(host), change, SystemTime::UNIX_EPOCH).persistent(true)
}

/// A bucket with one domain, as of sequence 4 of epoch 5.
fn bucket(relay: &str) -> BucketSnapshot {
    let event = event("h", Change::Started(StartCause::Booted));
    let store = DomainStore::new();
    store.apply(&event.clone().into());
    let entry = DomainEntry::of(&store.same(&event.domain).unwrap(), at(4), &event);
    let key = subject::domain_key(relay, "h", event.domain.uuid());
    let mut bucket = BucketSnapshot::default();
    bucket.take(&key, &serde_json::to_vec(&entry).unwrap());
    bucket
}

struct Rig {
    fleet: Fleet,
    batch: Batch,
    counter: Counter,
}

impl Rig {
    fn new(bucket: &BucketSnapshot) -> Self {
        let counter = Counter::default();
        let mut fleet = Fleet::new("nats:", counter.clone());
        let mut batch = Batch::new("nats:", "server");
        fleet.begin(bucket, Instant::now(), &mut batch).unwrap();
        fleet.list(bucket, &mut batch);
        Self { fleet, batch, counter }
    }

    fn take(&mut self, relay: &str, position: Position, event: Lifecycle) -> Result<(), Error> {
        let event = DomainEvent::from(event);
        let id = EventId { relay: relay.into(), position };
        let body = envelope::write(&id, &event).unwrap();
        let host = event.domain().unwrap().host();
        let subject = subject::of_event(relay, host, &event);
        self.fleet.take(&subject, &body, Instant::now(), &mut self.batch)
    }

    fn events(&self) -> Vec<String> {
        self.batch.events().iter().map(ToString::to_string).collect()
    }
}

fn stopped(host: &str) -> Lifecycle {
    event(host, Change::Stopped(StopCause::Destroyed))
}

#[tokio::test]
async fn what_the_list_includes_or_came_before_is_dropped() {
    let mut rig = Rig::new(&bucket("r"));
    for sequence in [3, 4, 5, 5, 4] {
        rig.take("r", at(sequence), stopped("h")).unwrap();
    }
    assert_eq!(rig.events(), ["web[3] stopped (destroyed)"]);
    assert_eq!(rig.counter.count(), 0);
}

#[tokio::test]
async fn an_event_that_is_missing_ends_the_session() {
    let mut rig = Rig::new(&bucket("r"));
    assert!(rig.take("r", at(6), stopped("h")).is_err());
    let mut rig = Rig::new(&bucket("r"));
    assert!(rig.take("r", Position { epoch: 6, sequence: 2 }, stopped("h")).is_err());
    let mut rig = Rig::new(&bucket("r"));
    rig.take("r", Position { epoch: 6, sequence: 1 }, stopped("h")).unwrap();
    rig.take("r", at(5), stopped("h")).unwrap();
    assert_eq!(rig.events().len(), 1, "an older epoch is over");
}

#[tokio::test]
async fn a_second_relay_of_a_host_is_refused_and_counted() {
    let mut rig = Rig::new(&bucket("r"));
    rig.take("other", at(1), stopped("h")).unwrap();
    assert_eq!(rig.events(), [""; 0]);
    assert_eq!(rig.counter.count(), 1);
    rig.take("other", at(2), stopped("g")).unwrap();
    assert_eq!(rig.events().len(), 1, "another host is its own");
}

#[tokio::test]
async fn a_list_keeps_what_was_delivered_after_it() {
    let mut rig = Rig::new(&bucket("r"));
    let old = bucket("r");
    rig.take("r", at(5), stopped("h")).unwrap();
    let list = rig.fleet.list(&old, &mut rig.batch);
    assert_eq!(list.len(), 1);
    assert!(!list[0].domain.is_active(), "{list:?}");
    assert!(rig.fleet.has_reached(&old));
}
