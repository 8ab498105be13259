//! Random histories, with the turns of server and client left to chance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use virevent::driver::Driver;
use virevent::{Change, DomainEvent, EventSource, Kind, Options};

use super::store::MemoryStore;
use super::{EventLines, Harness};

#[tokio::test(start_paused = true)]
async fn a_name_read_after_its_domain_ended_is_no_rename() {
    // The values of two domains with one id, read one by one: by chance, but often.
    for seed in 0..200 {
        let random = Some(Arc::new(Mutex::new(Rng::with_seed(seed))));
        let harness = Harness { random, ..Harness::default() };
        harness.act(|store| store.start(3, 3, "web"));
        let mut events = harness.synced().await;
        harness.act(|store| store.write("/local/domain/3/name", "web"));
        pause(seed as usize % 10).await;
        harness.act(|store| store.write_down(3, 4, "db"));
        assert_eq!(events.lines().await, ["web[3] stopped", "db[3] started"], "{seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_in_any_order_add_up_to_the_store() {
    for seed in 0..seeds() {
        History::new(seed, Duration::ZERO).play(Losses::None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn verification_finds_nothing_where_no_event_is_lost() {
    for verify in [Duration::from_millis(50), Duration::from_secs(2)] {
        for seed in 0..seeds() {
            History::new(seed, verify).play(Losses::None).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn verification_corrects_lost_events() {
    for seed in 0..seeds() {
        History::new(seed, Duration::from_secs(2)).play(Losses::Some).await;
    }
}

/// The number of random histories: `VIREVENT_SEEDS=10000` for more.
fn seeds() -> u64 {
    std::env::var("VIREVENT_SEEDS").map_or(60, |text| text.parse().unwrap())
}

/// Lets the others run.
async fn pause(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// Whether the watch events of some changes are lost.
#[derive(Clone, Copy, PartialEq)]
enum Losses {
    None,
    Some,
}

/// A random history of a store and of a subscriber that comes at some time.
struct History {
    seed: u64,
    random: Rng,
    harness: Harness,
    source: Driver,
    /// The domains of the store: uuid and name by id.
    truth: BTreeMap<u16, (u128, String)>,
    events: Option<EventLines>,
}

impl History {
    fn new(seed: u64, verify: Duration) -> Self {
        let mut random = Rng::with_seed(seed);
        let turns = Some(Arc::new(Mutex::new(random.fork())));
        let harness = Harness { random: turns, verify, seed, ..Harness::default() };
        harness.act(|store| store.has_depth = seed % 3 == 0);
        let source = harness.source();
        Self { seed, random, harness, source, truth: BTreeMap::new(), events: None }
    }

    async fn play(mut self, losses: Losses) {
        if self.random.bool() {
            self.subscribe().await;
        }
        for step in 0..self.random.usize(1..60) {
            let is_lost = losses == Losses::Some && self.random.u8(0..3) == 0;
            self.harness.act(|store| store.is_silent = is_lost);
            self.change_something(step).await;
            self.harness.act(|store| store.is_silent = false);
            pause(self.random.usize(0..30)).await;
            if self.events.is_none() && self.random.u8(0..10) == 0 {
                self.subscribe().await;
            }
        }
        if self.events.is_none() {
            self.subscribe().await;
        }
        self.check(losses).await;
    }

    async fn subscribe(&mut self) {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other).capacity(100_000);
        self.events = Some(EventLines(self.source.subscribe_with(options).await.unwrap()));
    }

    async fn change_something(&mut self, step: usize) {
        let domid = self.random.u16(1..6);
        match (self.random.u8(0..8), self.truth.contains_key(&domid)) {
            (0..3, false) => self.start(domid, step),
            (0, true) => self.rename(domid, step),
            (1, true) => self.write_down(domid, 1_000 + step as u128, "reused"),
            (2, true) => self.harness.act(|store| store.request(domid, "poweroff")),
            (3, true) => self.harness.act(|store| store.shut_down(domid)),
            (4, true) => self.end(domid, |store| store.release(domid)),
            (5, true) => self.end(domid, |store| store.destroy(domid)),
            (6, true) => self.write_directory_again(domid, step).await,
            _ => {}
        }
    }

    fn start(&mut self, domid: u16, step: usize) {
        // A uuid never runs twice at once, but comes again.
        let mut uuid = u128::from(self.random.u8(1..20));
        while self.truth.values().any(|(other, _)| *other == uuid) {
            uuid += 1;
        }
        let name = format!("vm{uuid}-{step}");
        self.harness.act(|store| store.start(domid, uuid, &name));
        self.truth.insert(domid, (uuid, name));
    }

    fn rename(&mut self, domid: u16, step: usize) {
        let name = format!("renamed{step}");
        self.harness.act(|store| store.write(&format!("/local/domain/{domid}/name"), &name));
        self.truth.get_mut(&domid).unwrap().1 = name;
    }

    fn write_down(&mut self, domid: u16, uuid: u128, name: &str) {
        self.harness.act(|store| store.write_down(domid, uuid, name));
        self.truth.insert(domid, (uuid, name.into()));
    }

    fn end(&mut self, domid: u16, act: impl FnOnce(&mut MemoryStore)) {
        self.harness.act(act);
        self.truth.remove(&domid);
    }

    /// The directory goes, and is written again when no list follows an introduction any more. The pause before
    /// lets the observer find the domain: one that it has not found yet it would find only within 5 s of its
    /// introduction.
    async fn write_directory_again(&mut self, domid: u16, step: usize) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.harness.act(|store| store.remove(&format!("/local/domain/{domid}")));
        tokio::time::sleep(Duration::from_secs(self.random.u64(0..12))).await;
        self.write_down(domid, 2_000 + step as u128, "again");
    }

    /// Checks that the events add up to the store, and that the watches are those of its domains.
    async fn check(self, losses: Losses) {
        let seed = self.seed;
        let mut stream = self.events.unwrap();
        let events = stream.received(Duration::from_secs(8)).await;
        let text: Vec<_> = events.iter().map(ToString::to_string).collect();
        let domains = self.truth.len();
        let truth: BTreeMap<_, _> = self
            .truth
            .into_iter()
            .map(|(domid, (uuid, name))| (uuid, (u32::from(domid), name)))
            .collect();
        assert_eq!(folded(&events), truth, "seed {seed}: {text:#?}");
        let corrected = self.source.counters().corrected;
        let may_correct = losses == Losses::Some;
        assert!(may_correct || corrected == 0, "seed {seed}: {corrected} corrected: {text:#?}");
        let special = if seed % 3 == 0 { 3 } else { 2 };
        let watches = self.harness.act(|store| store.watches.len());
        assert_eq!(watches, special + 3 * domains, "seed {seed}");
        stream.0.close().await;
        assert!(self.harness.act(|store| store.watches.is_empty()));
    }
}

/// The running domains after these events: id and name by uuid. Panics at an event that cannot be.
fn folded(events: &[DomainEvent]) -> BTreeMap<u128, (u32, String)> {
    let mut runs = BTreeMap::new();
    for event in events {
        let (Some(domain), Some(change)) = (event.domain(), event.change()) else { continue };
        let uuid = domain.uuid().as_u128();
        let id = domain.id();
        match change {
            Change::Existing(_) | Change::Started(_) => {
                let before = runs.insert(uuid, (id.unwrap(), domain.name().to_owned()));
                assert!(before.is_none(), "started twice: {event}");
            }
            Change::Stopped(_) => {
                let run = runs.remove(&uuid);
                assert_eq!(run.map(|run| run.0), id, "was not running: {event}");
            }
            Change::Undefined(_) => {}
            _ => {
                let run = runs.get_mut(&uuid).unwrap_or_else(|| panic!("not running: {event}"));
                assert_eq!(Some(run.0), id);
                run.1 = domain.name().to_owned();
            }
        }
    }
    runs
}
