//! Tests of the bounds on the memory that a peer can make a source allocate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::future::pending;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::StreamExt;
use virevent::driver::{Batch, Driver, Listed};
use virevent::{
    Change, DomainEvent, EventData, EventName, EventSource, EventStream, Gap, GapKind, Kind,
    Lifecycle, Options, RawEvent, ShutoffReason, StartCause, State, StopCause, Uuid,
};

use self::common::Hypervisor;

const MIB: u64 = 1 << 20;

/// The bound of a queue: 16 MiB before it compacts, and as much again if all of it must be kept.
const QUEUE: u64 = 32 * MIB;

/// The number of events in one read.
const READ: u64 = 64;

/// A hypervisor that floods its client.
#[derive(Clone, Debug)]
struct Peer {
    flood: Flood,
    /// The number of events that it sends.
    events: u64,
    /// Whether it answers lists only after it has sent all events.
    lists_last: bool,
    /// The number of other domains in its list, each with a name of 4 KiB.
    listed: u128,
    sent: Arc<AtomicU64>,
    lists: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
enum Flood {
    /// Untyped events of this name, with 64 KiB of data.
    Names(Arc<str>),
    /// Runs of transient domains, each of another one with a name of 4 KiB: compaction drops the
    /// starts and must keep the ends.
    Runs,
}

impl Peer {
    fn new(flood: Flood, events: u64) -> Self {
        Self {
            flood,
            events,
            lists_last: false,
            listed: 0,
            sent: Arc::default(),
            lists: Arc::default(),
        }
    }

    async fn subscribe(&self) -> EventStream {
        let source = Driver::builder(Hypervisor(self.clone()))
            // The flood takes real time in a debug build: the list must not count as overdue
            // meanwhile.
            .call_timeout(Duration::from_secs(600))
            .build();
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
        source.subscribe_with(options).await.unwrap()
    }

    fn is_done(&self) -> bool {
        self.sent.load(Ordering::SeqCst) >= self.events
    }

    fn send(&self, number: u64, out: &mut Batch) {
        let at = out.received();
        match &self.flood {
            Flood::Names(name) => {
                let data = EventData::Bytes(vec![0; 64 << 10].into());
                let name = EventName::Name(Arc::from(&**name));
                out.event(RawEvent::new("flood:", None, name, data, at));
            }
            Flood::Runs => {
                let uuid = Uuid::from_u128((number / 2).into());
                let domain = out.domain(uuid, &name((number / 2).into()), Some(1));
                let change = match number % 2 {
                    0 => Change::Started(StartCause::Booted),
                    _ => Change::Stopped(StopCause::Shutdown),
                };
                out.event(Lifecycle::new(domain, change, at));
            }
        }
    }

    async fn has_sent_all(&self) {
        while self.sent.load(Ordering::SeqCst) < self.events {
            tokio::task::yield_now().await;
        }
        // Lets the driver process its last read.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

impl common::Peer for Peer {
    const URI: &'static str = "flood:";

    fn answers_lists(&self) -> bool {
        self.is_done() || !self.lists_last
    }

    fn list_requested(&self) {
        self.lists.fetch_add(1, Ordering::SeqCst);
    }

    fn list(&self, out: &mut Batch) -> Vec<Listed> {
        let listed = (0..self.listed).map(|number| {
            let domain = out.domain(Uuid::from_u128(number << 64), &name(number), None);
            Listed::new(domain, State::Shutoff(ShutoffReason::Shutdown), Some(true))
        });
        listed.collect()
    }

    async fn read(&mut self, out: &mut Batch) {
        // The connection stays open and idle: an end would discard what the test measures.
        if self.is_done() {
            pending::<()>().await;
        }
        // As a socket does: without a pause the driver would never run its other work between two
        // reads.
        tokio::task::yield_now().await;
        let sent = self.sent.load(Ordering::SeqCst);
        (sent..sent + READ).for_each(|number| self.send(number, out));
        self.sent.store(sent + READ, Ordering::SeqCst);
    }
}

/// The longest name that a domain keeps.
fn name(number: u128) -> String {
    static REST: LazyLock<String> = LazyLock::new(|| "n".repeat(4080));
    format!("{number:016}{}", *REST)
}

/// The peak of the bytes that `act` allocates.
fn peak(act: impl AsyncFnOnce()) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    allocation_counter::measure(|| runtime.block_on(act())).bytes_max
}

fn lagged(event: Option<DomainEvent>) -> (u64, bool) {
    match event {
        Some(DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, reset, .. }, .. })) => {
            (missed, reset)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_of_four_mib_cost_little_without_a_reader() {
    const EVENTS: u64 = 640;
    let peer = Peer::new(Flood::Names("N".repeat(4 << 20).into()), EVENTS);
    let held = peak(async || {
        let mut events = peer.subscribe().await;
        peer.has_sent_all().await;
        let (missed, reset) = lagged(events.next().await);
        assert!(!reset);
        let mut read = 0;
        while read + missed < EVENTS {
            let event = events.next().await.unwrap();
            if let DomainEvent::Other(event) = &event {
                assert_eq!(event.name().to_string().len(), 4096);
                read += 1;
            }
        }
    });
    assert!(held < QUEUE, "{} MiB of {} MiB", held / MIB, EVENTS * (4 << 20) / MIB);
}

#[test]
fn long_names_that_must_be_kept_end_in_a_reset() {
    const EVENTS: u64 = 64_000;
    let peer = Peer::new(Flood::Runs, EVENTS);
    let held = peak(async || {
        let mut events = peer.subscribe().await;
        peer.has_sent_all().await;
        assert_eq!(lagged(events.next().await), (EVENTS, true));
        assert!(matches!(events.next().await, Some(DomainEvent::Synced(_))));
    });
    assert!(held < QUEUE + 2 * MIB, "{} MiB of {} MiB", held / MIB, EVENTS / 2 * 4096 / MIB);
}

#[test]
fn a_reset_beyond_the_byte_bound_of_a_mailbox_does_not_loop() {
    const EVENTS: u64 = 64_000;
    let mut peer = Peer::new(Flood::Runs, EVENTS);
    // 40 MiB.
    peer.listed = 10_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reset = async {
        let mut events = peer.subscribe().await;
        peer.has_sent_all().await;
        assert_eq!(lagged(events.next().await), (EVENTS, true));
        for _ in 0..peer.listed {
            let event = events.next().await.unwrap();
            assert!(matches!(event.change(), Some(Change::Existing(_))), "{event}");
        }
        assert!(matches!(events.next().await, Some(DomainEvent::Synced(_))));
        let silence = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
        assert!(silence.is_err(), "{silence:?}");
    };
    let minute = Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(minute, reset).await }).expect("it loops");
}

#[test]
fn a_list_without_an_answer_under_a_flood_costs_little() {
    const EVENTS: u64 = 64_000;
    let mut peer = Peer::new(Flood::Runs, EVENTS);
    peer.lists_last = true;
    let held = peak(async || {
        let mut events = peer.subscribe().await;
        assert_eq!(peer.sent.load(Ordering::SeqCst), EVENTS);
        while !matches!(events.next().await, Some(DomainEvent::Synced(_))) {}
        assert_eq!(
            peer.lists.load(Ordering::SeqCst),
            2,
            "the first list is older than the events that were lost"
        );
    });
    assert!(held < QUEUE + 2 * MIB, "{} MiB of {} MiB", held / MIB, EVENTS / 2 * 4096 / MIB);
}
