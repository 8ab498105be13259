//! A real libvirtd under load: memory here and at the daemon, registrations, and a stream that is
//! not read. Figures are printed: `cargo test --test real_load -- --ignored --nocapture`.
//!
//! `VIREVENT_EVENTS=1000000` and `VIREVENT_CYCLES=...` make it longer; with `--release` the first
//! is the million-event test of docs/guarantees.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod rpc;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use virevent::driver::Driver;
use virevent::{Change, DomainEvent, DomainStore, EventSource, EventStream, Gap, GapKind, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::servers::{Libvirtd, Tap, rss_kib};

use self::rpc::Rpc;

/// The tests measure the memory of the whole process, so they run one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

const TEST: &str = "test:///default";

/// Allocators keep some of the memory that is freed. What grows with the load is far more than
/// this.
const SLACK_KIB: u64 = 6 * 1024;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn client(uri: &str) -> Driver {
    Libvirt::new(uri).unwrap().source()
}

/// The memory of this process and of the daemon, in KiB.
fn memory(daemon: &Libvirtd) -> (u64, u64) {
    (rss_kib(std::process::id()).unwrap(), daemon.rss_kib().unwrap())
}

fn assert_flat(what: &str, before: (u64, u64), after: (u64, u64)) {
    eprintln!(
        "{what}: {} to {} KiB here, {} to {} KiB there",
        before.0, after.0, before.1, after.1
    );
    assert!(after.0 < before.0 + SLACK_KIB, "{what}: more memory here");
    assert!(after.1 < before.1 + SLACK_KIB, "{what}: more memory there");
}

/// Waits until a condition holds. No event announces it.
async fn until(mut reached: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn subscribing_and_dropping_leaks_nothing() {
    let _alone = ALONE.lock().await;
    let cycles = number("VIREVENT_CYCLES", 1_000);
    let daemon = Libvirtd::start().await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    let source = client(&tap.uri(TEST));
    let cycle = async |n: u64| {
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        match n % 2 {
            0 => drop(events),
            _ => events.close().await,
        }
    };
    for n in 0..cycles / 5 {
        cycle(n).await;
    }
    let before = memory(&daemon);
    for n in 0..cycles {
        cycle(n).await;
    }
    until(|| tap.seen().registered == 0, "a registration is left").await;
    let seen = tap.seen();
    assert_eq!(seen.connections, 1);
    assert_eq!(seen.registrations, seen.deregistrations);
    assert!(seen.registrations >= cycles, "{seen:?}");
    eprintln!(
        "{cycles} cycles: {} registrations and {} deregistrations confirmed, {} left",
        seen.registrations, seen.deregistrations, seen.registered
    );
    assert_flat(&format!("{cycles} cycles"), before, memory(&daemon));
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn connecting_and_shutting_down_leaks_nothing() {
    let _alone = ALONE.lock().await;
    let cycles = number("VIREVENT_CYCLES", 1_000) / 4;
    let daemon = Libvirtd::start().await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    // Without another connection the daemon creates the test driver again for each of ours.
    let _keeper = Rpc::open(&daemon.socket(), TEST);
    let cycle = async || {
        let source = client(&tap.uri(TEST));
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        drop(events);
        source.shutdown().await;
    };
    for _ in 0..cycles / 2 {
        cycle().await;
    }
    let before = memory(&daemon);
    for _ in 0..cycles {
        cycle().await;
    }
    until(|| tap.seen().open == 0, "a connection is left").await;
    assert_eq!(tap.seen().registered, 0);
    assert_flat(&format!("{cycles} connections"), before, memory(&daemon));
}

/// A daemon with some domains, and a stream of them that is not read.
struct UnreadStream {
    daemon: Libvirtd,
    rpc: Arc<std::sync::Mutex<Rpc>>,
    source: Driver,
    events: EventStream,
    /// Folded from the events that were read.
    store: DomainStore,
    /// How many events the daemon has sent since `Synced`.
    sent: u64,
}

impl UnreadStream {
    async fn open(names: &[&str]) -> Self {
        let daemon = Libvirtd::start().await.unwrap();
        let mut rpc = Rpc::open(&daemon.socket(), TEST);
        names.iter().for_each(|name| rpc.define(name));
        let source = client(&daemon.uri(TEST));
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        let store = DomainStore::new();
        store.extend(&until_synced(&mut events).await.unwrap());
        let rpc = Arc::new(std::sync::Mutex::new(rpc));
        Self { daemon, rpc, source, events, store, sent: 0 }
    }

    /// Makes calls that cause `count` events, and waits until the source has received all of them.
    async fn cause(&mut self, count: u64, calls: impl FnOnce(&mut Rpc) + Send + 'static) {
        let rpc = Arc::clone(&self.rpc);
        let calls = tokio::task::spawn_blocking(move || calls(&mut rpc.lock().unwrap()));
        calls.await.unwrap();
        self.sent += count;
        until(|| self.source.counters().events == self.sent, "events are missing").await;
    }

    /// Suspends and resumes these domains in turn, until that has caused `count` events.
    async fn suspend_and_resume(&mut self, names: &'static [&str], count: u64) {
        let a_round = 2 * names.len() as u64;
        let rounds = (count / a_round).max(1);
        let calls = move |rpc: &mut Rpc| {
            for name in (0..rounds).flat_map(|_| names) {
                rpc.suspend(name);
                rpc.resume(name);
            }
        };
        self.cause(rounds * a_round, calls).await;
    }

    /// Reads what the mailbox has kept: how many events it dropped, and the rest.
    async fn read(&mut self) -> (u64, Vec<DomainEvent>) {
        let mut missed = None;
        let mut rest = Vec::new();
        while let Ok(event) = next_within(&mut self.events, Duration::from_millis(500)).await {
            match event {
                DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed: count, .. }, .. }) => {
                    let is_first = missed.replace(count).is_none() && rest.is_empty();
                    assert!(is_first, "lagged comes first, once");
                }
                event => rest.push(event),
            }
        }
        self.store.extend(&rest);
        (missed.expect("lagged"), rest)
    }

    /// The active domains with their states, as the events that were read say.
    fn active(&self) -> BTreeMap<String, String> {
        let now = self.store.snapshot();
        now.active().map(|run| (run.domain.name().into(), run.state.as_str().into())).collect()
    }

    /// The active domains with their states, as virsh says.
    async fn active_in_virsh(&self) -> BTreeMap<String, String> {
        let all = self.daemon.virsh(TEST).list().await.unwrap().into_iter();
        all.filter(|(_, state)| state != "shut off").collect()
    }
}

/// How many endings of each domain there are.
fn endings(events: &[DomainEvent]) -> BTreeMap<&str, u32> {
    let mut endings = BTreeMap::new();
    for event in events.iter().filter_map(DomainEvent::lifecycle) {
        if let Change::Stopped(_) = event.change {
            *endings.entry(event.domain.name()).or_default() += 1;
        }
    }
    endings
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_reader_that_stops_reading_gets_count_and_final_state() {
    let _alone = ALONE.lock().await;
    let wanted = number("VIREVENT_EVENTS", 20_000);
    let mut stream = UnreadStream::open(&["a", "b", "c", "d"]).await;
    // Each domain ends once, long before the mailbox overflows. "d" stays off.
    let start_and_stop = |rpc: &mut Rpc| {
        for name in ["a", "b", "c", "d"] {
            rpc.start(name);
            rpc.stop(name);
        }
        ["a", "b", "c"].iter().for_each(|name| rpc.start(name));
    };
    stream.cause(11, start_and_stop).await;

    let begun = Instant::now();
    stream.suspend_and_resume(&["a", "b", "c"], wanted / 5).await;
    let before = memory(&stream.daemon);
    stream.suspend_and_resume(&["a", "b", "c"], wanted - wanted / 5).await;
    stream.cause(1, |rpc| rpc.suspend("b")).await;
    let sent = stream.sent;
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    assert_flat(&format!("{sent} unread events at {rate:.0}/s"), before, memory(&stream.daemon));

    let (missed, rest) = stream.read().await;
    eprintln!("lagged: {missed} missed, {} kept, {sent} in all", rest.len());
    assert_eq!(missed + rest.len() as u64, sent, "the count is exact");
    assert_eq!(stream.source.counters().missed, missed);
    assert_eq!(endings(&rest), ["a", "b", "c", "d"].map(|name| (name, 1)).into());
    assert_eq!(stream.active(), stream.active_in_virsh().await);
    assert_eq!(stream.active().len(), 4, "a, b, c and the test driver's own domain");
}

/// What a verification costs the daemon.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_list_of_many_domains_costs_the_daemon_little() {
    let _alone = ALONE.lock().await;
    let domains = number("VIREVENT_DOMAINS", 2_000);
    let daemon = Libvirtd::start().await.unwrap();
    let mut rpc = Rpc::open(&daemon.socket(), TEST);
    for n in 0..domains {
        rpc.define(&format!("vm{n}"));
    }
    let lists = 20;
    let before = cpu(daemon.pid().unwrap());
    let since = Instant::now();
    for _ in 0..lists {
        assert!(rpc.list() > domains as usize);
    }
    let wall = since.elapsed() / lists;
    let cpu = (cpu(daemon.pid().unwrap()) - before) / lists;
    eprintln!("a list of {domains} domains: {cpu:?} of CPU there, answered after {wall:?}");
    assert!(cpu < Duration::from_millis(100), "{cpu:?}");
}

/// CPU time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // utime and stime, in ticks of 10 ms. They come after the program's name, which is in brackets
    // and may contain spaces.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
