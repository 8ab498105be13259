//! The memory that a peer can make a source allocate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::pending;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::StreamExt;
use virevent::driver::{Batch, Connect, Driver, Interest, Listed, Session};
use virevent::{
    Change, DomainEvent, Error, EventData, EventName, EventSource, EventStream, Gap, GapKind, Kind,
    Lifecycle, Options, RawEvent, ShutoffReason, StartCause, State, StopCause, Uuid,
};

const MIB: u64 = 1 << 20;

/// What a queue may hold: 16 MiB before it compacts, and as much again where all of it is needed.
const QUEUE: u64 = 32 * MIB;

/// How many events a read of the peer brings.
const READ: u64 = 64;

/// A hypervisor that sends what it likes.
#[derive(Clone, Debug)]
struct Peer {
    flood: Flood,
    /// How many events it sends.
    events: u64,
    /// It answers no list before it has sent them.
    lists_last: bool,
    /// How many other domains it lists, each with a name of 4 KiB.
    listed: u128,
    sent: Arc<AtomicU64>,
    lists: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
enum Flood {
    /// Untyped events of this name, with 64 KiB of data.
    Names(Arc<str>),
    /// Runs of transient domains, each another one with a name of 4 KiB: the starts are dropped, the
    /// ends have to be kept.
    Runs,
}

impl Peer {
    fn new(flood: Flood, events: u64) -> Self {
        let sent = Arc::default();
        let lists = Arc::default();
        Self { flood, events, lists_last: false, listed: 0, sent, lists }
    }

    async fn subscribe(&self) -> EventStream {
        let source = Driver::builder(self.clone()).call_timeout(Duration::from_secs(600)).build();
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
        source.subscribe_with(options).await.unwrap()
    }

    async fn has_sent_all(&self) {
        while self.sent.load(Ordering::SeqCst) < self.events {
            tokio::task::yield_now().await;
        }
        // The driver takes in what it read last before it waits again.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

struct Connection {
    peer: Peer,
    interest: Option<u64>,
    list: Option<u64>,
}

impl Connect for Peer {
    type Session = Connection;

    fn uri(&self) -> &str {
        "flood:"
    }

    async fn connect(&self) -> Result<Connection, Error> {
        Ok(Connection { peer: self.clone(), interest: None, list: None })
    }
}

impl Session for Connection {
    fn host(&self) -> &str {
        "host"
    }

    fn set_interest(&mut self, _: &Interest, tag: u64) {
        self.interest = Some(tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.list = Some(tag);
        self.peer.lists.fetch_add(1, Ordering::SeqCst);
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        let sent = self.peer.sent.load(Ordering::SeqCst);
        let is_done = sent >= self.peer.events;
        if let Some(tag) = self.interest.take() {
            out.interest_done(tag, &[]);
        } else if let Some(tag) = self.list.take_if(|_| is_done || !self.peer.lists_last) {
            let listed = (0..self.peer.listed).map(|number| {
                let domain = out.domain(Uuid::from_u128(number << 64), &name(number), None);
                Listed::new(domain, State::Shutoff(ShutoffReason::Shutdown), Some(true))
            });
            let listed = listed.collect();
            out.listed(tag, listed);
        } else if is_done {
            pending::<()>().await;
        } else {
            tokio::task::yield_now().await;
            (sent..sent + READ).for_each(|number| self.send(number, out));
            self.peer.sent.store(sent + READ, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Connection {
    fn send(&self, number: u64, out: &mut Batch) {
        let at = out.received();
        match &self.peer.flood {
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
}

/// The longest name that a domain keeps.
fn name(number: u128) -> String {
    static REST: LazyLock<String> = LazyLock::new(|| "n".repeat(4080));
    format!("{number:016}{}", *REST)
}

/// The most that `act` holds at once.
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
fn names_of_four_mib_cost_a_reader_that_never_reads_little() {
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
        assert_eq!(peer.lists.load(Ordering::SeqCst), 2, "the first is older than what was lost");
    });
    assert!(held < QUEUE + 2 * MIB, "{} MiB of {} MiB", held / MIB, EVENTS / 2 * 4096 / MIB);
}
