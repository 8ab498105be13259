//! A directory of real QEMUs: `cargo test -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;
use virevent::{Change, DomainEvent, DomainStore, EventSource, EventStream, Options, StoredDomain};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::{self, next_within, nothing_within, until_synced};
use virevent_testkit::servers::{Qemu, QemuConfig};

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("vd").tempdir().unwrap()
}

fn client(directory: &Path) -> QmpDir {
    let short = Duration::from_millis(500);
    let uri = format!("qmp-dir:{}", directory.display());
    QmpDir::new(&uri).unwrap().greeting_timeout(short).keepalive(short, short)
}

fn socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.sock"))
}

async fn start(directory: &Path, name: &str) -> Qemu {
    let socket = socket(directory, name);
    QemuConfig::default().name(name).socket(&socket).running().start().await.unwrap()
}

/// An event without the id of its run, and without the source.
fn in_short(event: &DomainEvent) -> String {
    let line = assert::in_short(event);
    line.split(" on qmp-dir").next().unwrap_or_default().to_owned()
}

async fn next(events: &mut EventStream) -> String {
    in_short(&next_within(events, PATIENCE).await.unwrap())
}

/// The processes that are alive, and the events that the stream delivered.
struct World {
    home: TempDir,
    qemus: BTreeMap<String, (Qemu, bool)>,
    events: EventStream,
    store: DomainStore,
    delivered: Vec<DomainEvent>,
    starts: usize,
    stops: usize,
}

impl World {
    async fn new() -> Self {
        let home = directory();
        let source =
            client(home.path()).keepalive(PATIENCE, PATIENCE).greeting_timeout(PATIENCE).source();
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        assert_eq!(until_synced(&mut events).await.unwrap(), []);
        let qemus = BTreeMap::new();
        let store = DomainStore::new();
        let delivered = Vec::new();
        Self { home, qemus, events, store, delivered, starts: 0, stops: 0 }
    }

    async fn start(&mut self, name: &str) {
        let qemu = start(self.home.path(), name).await;
        self.qemus.insert(name.into(), (qemu, true));
        self.starts += 1;
    }

    async fn end(&mut self, name: &str, how: usize) {
        let (mut qemu, _) = self.qemus.remove(name).unwrap();
        match how {
            0 => drop(qemu.run("quit").await),
            1 => qemu.signal("TERM"),
            _ => qemu.signal("KILL"),
        }
        qemu.wait().await.unwrap();
        self.stops += 1;
    }

    async fn pause_or_go_on(&mut self, name: &str) {
        let (qemu, is_running) = self.qemus.get_mut(name).unwrap();
        qemu.run(if *is_running { "stop" } else { "cont" }).await.unwrap();
        *is_running = !*is_running;
    }

    fn truth(&self) -> BTreeMap<String, (Option<u32>, bool)> {
        let entry = |(name, (qemu, is_running)): (&String, &(Qemu, bool))| {
            (name.clone(), (qemu.pid(), *is_running))
        };
        self.qemus.iter().map(entry).collect()
    }

    fn belief(&self) -> BTreeMap<String, (Option<u32>, bool)> {
        let now = self.store.snapshot();
        let entry = |run: &Arc<StoredDomain>| {
            (run.domain.name().to_owned(), (run.domain.id(), run.state.is_running()))
        };
        now.active().map(entry).collect()
    }

    /// Reads until the events add up to the truth.
    async fn settle(&mut self, step: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.truth() != self.belief() {
            let event = next_within(&mut self.events, deadline - Instant::now()).await;
            let event = event.unwrap_or_else(|failure| {
                let delivered: Vec<_> = self.delivered.iter().rev().take(8).map(in_short).collect();
                let truth = self.truth();
                let belief = self.belief();
                panic!(
                    "after {step}: {failure}\n is {truth:?}\n not {belief:?}\n last {delivered:?}"
                )
            });
            self.store.apply(&event);
            self.delivered.push(event);
        }
    }

    fn count(&self, what: impl Fn(Change) -> bool) -> usize {
        self.delivered.iter().filter_map(DomainEvent::change).filter(|change| what(*change)).count()
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn twenty_random_qemus_add_up_to_the_truth() {
    let seed = std::env::var("VIREVENT_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("VIREVENT_SEED is a number"),
    );
    println!("VIREVENT_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let mut world = World::new().await;
    for number in 0..20 {
        world.start(&format!("vm{number}")).await;
        world.settle("a start").await;
    }
    for step in 0..100 {
        let (alive, dead): (Vec<_>, Vec<_>) =
            (0..20).map(|n| format!("vm{n}")).partition(|name| world.qemus.contains_key(name));
        let step = match random.usize(..10) {
            // A name that was used before: its stale socket may be there still.
            0..=2 if !dead.is_empty() => {
                let name = random.choice(&dead).unwrap();
                world.start(name).await;
                format!("step {step}, a start of {name}")
            }
            3 => {
                let name = random.choice(&alive).unwrap();
                world.pause_or_go_on(name).await;
                format!("step {step}, a pause or its end of {name}")
            }
            // Its successor starts at once, before the end may have been seen.
            4..=5 => {
                let name = random.choice(&alive).unwrap();
                let how = random.usize(..4);
                world.end(name, how).await;
                world.start(name).await;
                format!("step {step}, {how} and a new start of {name}")
            }
            _ if alive.len() > 3 => {
                let name = random.choice(&alive).unwrap();
                let how = random.usize(..4);
                world.end(name, how).await;
                format!("step {step}, {how} of {name}")
            }
            _ => continue,
        };
        world.settle(&step).await;
    }
    nothing_within(&mut world.events, Duration::from_millis(300)).await.unwrap();
    assert_eq!(world.count(|change| matches!(change, Change::Started(_))), world.starts);
    assert_eq!(world.count(|change| matches!(change, Change::Stopped(_))), world.stops);
    assert!(!world.delivered.iter().any(DomainEvent::is_marker), "no gap was due");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_frozen_or_held_qemu_delays_no_other() {
    let home = directory();
    let web = start(home.path(), "web").await;
    let held = start(home.path(), "held").await;
    let mut db = start(home.path(), "db").await;
    web.signal("STOP");
    let mut holder = BufReader::new(UnixStream::connect(held.socket()).await.unwrap());
    holder.read_line(&mut String::new()).await.unwrap();
    let began = Instant::now();
    let source = client(home.path()).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let existing: Vec<_> = until_synced(&mut events).await.unwrap().iter().map(in_short).collect();
    // A first list waits a second for answers, and not for the greeting's deadline of 5 s.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(existing, ["db existing (running)"]);
    let mut gaps = [next(&mut events).await, next(&mut events).await];
    gaps.sort();
    assert_eq!(gaps, ["disconnected from domain held", "disconnected from domain web"]);
    db.run("stop").await.unwrap();
    assert_eq!(next(&mut events).await, "db suspended (paused)");
    web.signal("CONT");
    assert_eq!(next(&mut events).await, "web started (booted) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain web");
    drop(holder);
    assert_eq!(next(&mut events).await, "held started (booted) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain held");
    // A QEMU that is frozen later, and killed.
    web.signal("STOP");
    assert_eq!(next(&mut events).await, "disconnected from domain web");
    nothing_within(&mut events, Duration::from_secs(2)).await.unwrap();
    web.signal("KILL");
    assert_eq!(next(&mut events).await, "web stopped (failed) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain web");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_qemu_goes_on_when_another_takes_its_socket_name() {
    let home = directory();
    let mut old = start(home.path(), "old").await;
    let mut events = client(home.path()).source().subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let path = socket(home.path(), "old");
    let mut new = QemuConfig::default().name("new").socket(&path).running().start().await.unwrap();
    assert_eq!(next(&mut events).await, "new started (booted)");
    old.run("stop").await.unwrap();
    assert_eq!(next(&mut events).await, "old suspended (paused)");
    old.signal("KILL");
    old.wait().await.unwrap();
    assert_eq!(next(&mut events).await, "old stopped (failed)");
    new.run("quit").await.unwrap();
    assert_eq!(next(&mut events).await, "new shutting_down (host)");
    assert_eq!(next(&mut events).await, "new stopped (destroyed)");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_qemu_in_a_removed_directory_goes_on_until_it_ends() {
    let home = directory();
    let here = home.path().join("d");
    std::fs::create_dir(&here).unwrap();
    let web = start(&here, "web").await;
    let mut events = client(&here).source().subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    std::fs::remove_dir_all(&here).unwrap();
    nothing_within(&mut events, Duration::from_secs(2)).await.unwrap();
    web.signal("KILL");
    assert_eq!(next(&mut events).await, "web stopped (failed)");
    std::fs::create_dir(&here).unwrap();
    let _db = start(&here, "db").await;
    assert_eq!(next(&mut events).await, "db started (booted)");
}
