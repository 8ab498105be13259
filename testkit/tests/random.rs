//! Random operations and faults from a seed: after the last fault every subscriber's fold equals
//! the truth, and its events are a possible sequence.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use virevent::driver::Reconnect;
use virevent::{
    Change, DomainEvent, DomainStore, EventSource, EventStream, Fault, FaultKind, Gap, GapKind,
    Options, Scope, State, Status, Uuid,
};
use virevent_testkit::assert::{check_store, until_synced};
use virevent_testkit::{Asked, FakeHypervisor};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A subscriber with its events.
struct Reader {
    stream: EventStream,
    events: Vec<DomainEvent>,
    /// It reads only at the end.
    lazy: bool,
}

impl Reader {
    fn read(&mut self) {
        while let Some(Some(event)) = self.stream.next().now_or_never() {
            self.events.push(event);
        }
    }
}

struct World {
    fake: FakeHypervisor,
    random: fastrand::Rng,
    readers: Vec<Reader>,
    /// Parts that are unreachable.
    unreachable: Vec<Scope>,
    level_triggered: bool,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, level_triggered: bool) -> Self {
        let builder = FakeHypervisor::builder()
            .reconnect(Reconnect::local().seed(seed))
            .call_timeout(Duration::from_secs(3));
        let builder = if level_triggered { builder.level_triggered() } else { builder };
        Self {
            fake: builder.build(),
            random: fastrand::Rng::with_seed(seed),
            readers: Vec::new(),
            unreachable: Vec::new(),
            level_triggered,
            log: Vec::new(),
        }
    }

    /// An operation, which may be refused.
    fn operate(&mut self) {
        let fake = &self.fake;
        let name = NAMES[self.random.usize(..NAMES.len())];
        let (op, outcome) = match self.random.u8(..12) {
            0 => ("define", fake.define(name)),
            1 => ("create", fake.create(name)),
            2 | 3 => ("start", fake.start(name)),
            4 => ("suspend", fake.suspend(name)),
            5 => ("resume", fake.resume(name)),
            6 => ("shut_down", fake.shut_down(name)),
            7 | 8 => ("stop", fake.stop(name)),
            9 => ("crash", fake.crash(name)),
            10 => ("undefine", fake.undefine(name)),
            _ => ("rename", fake.rename(name, NAMES[self.random.usize(..NAMES.len())])),
        };
        if let Ok(domain) = outcome {
            self.log.push(format!("{op} {name} -> {domain}"));
        }
    }

    /// One domain's socket becomes unreachable, or reachable again. Only for level-triggered
    /// hypervisors: definitions do not come over such a socket.
    fn scoped_fault(&mut self) {
        match self.unreachable.pop() {
            Some(scope) if self.random.bool() => {
                self.log.push(format!("reachable: {scope}"));
                self.fake.restored(scope);
            }
            other => {
                self.unreachable.extend(other);
                let name = NAMES[self.random.usize(..NAMES.len())];
                let Some(domain) = self.fake.domain(name) else { return };
                let scope = Scope::Domain(domain);
                self.log.push(format!("unreachable: {scope}"));
                self.fake.disconnected(scope.clone(), Fault::new(FaultKind::Closed, "closed"));
                self.unreachable.push(scope);
            }
        }
    }

    fn fault(&mut self, stepping: bool) {
        let fake = &self.fake;
        let choice = self.random.u8(..if stepping { 12 } else { 8 });
        let faults: [(&str, &dyn Fn()); 12] = [
            ("lose_connection", &|| fake.lose_connection()),
            ("go_down", &|| fake.go_down()),
            ("restore", &|| fake.restore()),
            ("restore", &|| fake.restore()),
            ("hang_lists", &|| fake.hang_lists()),
            ("release_lists", &|| fake.release_lists()),
            ("hang_registrations", &|| fake.hang_registrations()),
            ("release_registrations", &|| fake.release_registrations()),
            ("single_step", &|| fake.single_step()),
            ("step", &|| assert!(fake.step() | true)),
            ("step", &|| assert!(fake.step() | true)),
            ("release", &|| fake.release()),
        ];
        let (name, act) = faults[choice as usize];
        self.log.push(name.into());
        act();
    }

    async fn subscribe(&mut self) {
        let lazy = self.random.bool();
        let capacity = if lazy { 4 } else { 1024 };
        let options = Options::default().capacity(capacity).wait(true);
        let subscription = self.fake.subscribe_with(options);
        self.log.push(format!("subscribe, lazy: {lazy}"));
        // A subscribe that hangs with its server is dropped.
        let patience = Duration::from_millis(self.random.u64(1..200));
        if let Ok(stream) = tokio::time::timeout(patience, subscription).await {
            self.readers.push(Reader { stream: stream.unwrap(), events: Vec::new(), lazy });
        }
    }

    async fn live(&mut self, stepping: bool) {
        for _ in 0..80 {
            match self.random.u8(..20) {
                0 => self.subscribe().await,
                1 if !self.readers.is_empty() => {
                    let at = self.random.usize(..self.readers.len());
                    self.readers.swap_remove(at);
                    self.log.push("drop a stream".into());
                }
                2 if self.level_triggered => self.scoped_fault(),
                2..5 => self.fault(stepping),
                5..8 => {
                    let time = Duration::from_millis(self.random.u64(0..400));
                    tokio::time::sleep(time).await;
                    self.log.push(format!("{time:?} pass"));
                }
                _ => self.operate(),
            }
            self.readers.iter_mut().filter(|reader| !reader.lazy).for_each(Reader::read);
            self.note_asked();
        }
        self.fake.restore();
        self.fake.release();
        self.unreachable.drain(..).for_each(|scope| self.fake.restored(scope));
        self.log.push("restore and release".into());
        self.subscribe().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        self.note_asked();
    }

    fn note_asked(&mut self) {
        let asked = self.fake.journal().into_iter().filter(|asked| *asked != Asked::Ping);
        self.log.extend(asked.map(|asked| format!("    driver: {asked}")));
        self.fake.clear_journal();
    }

    /// The first difference from the truth at the end.
    async fn verdict(&mut self, strict: bool) -> Result<(), String> {
        let mut truth = self.fake.domains();
        if self.level_triggered {
            // It has runs and no definitions.
            truth.retain(|entry| entry.domain.is_active());
            truth.iter_mut().for_each(|entry| entry.persistent = Some(false));
        }
        if !self.readers.is_empty() && self.fake.health().status() != Status::Synced {
            return Err(format!("not synced but {:?}", self.fake.health().status()));
        }
        for reader in &mut self.readers {
            reader.read();
            let lines: Vec<_> = reader.events.iter().map(ToString::to_string).collect();
            let because = |what: String| format!("{what}\n  events:\n    {}", lines.join("\n    "));
            let store = DomainStore::new();
            store.extend(&reader.events);
            check_store(&store, &truth).map_err(|failure| because(failure.to_string()))?;
            if strict && !reader.lazy {
                possible(&reader.events).map_err(because)?;
            }
        }
        Ok(())
    }

    /// Compares a new stream, served from the roster, with the truth, inactive domains included.
    async fn newcomer(&mut self) -> Result<(), String> {
        let mut stream = self.fake.subscribe_with(Options::default()).await.unwrap();
        let events = until_synced(&mut stream).await.unwrap();
        let listed: Vec<_> = events
            .iter()
            .filter_map(|event| match event.change()? {
                Change::Existing(state) => Some((event.domain()?.to_string(), state.as_str())),
                _ => None,
            })
            .collect();
        let truth = self.fake.domains();
        let truth: Vec<_> =
            truth.iter().map(|entry| (entry.domain.to_string(), entry.state.as_str())).collect();
        match listed == truth {
            true => Ok(()),
            false => Err(format!("a new stream has {listed:?}\n  but the truth is {truth:?}")),
        }
    }
}

/// Checks that each event is possible after those before it.
fn possible(events: &[DomainEvent]) -> Result<(), String> {
    let mut active: BTreeMap<Uuid, (Option<u32>, State)> = BTreeMap::new();
    for event in events {
        if matches!(event, DomainEvent::Gap(Gap { kind: GapKind::Lagged { .. }, .. })) {
            return Err("a reader that reads all events lagged".into());
        }
        let Some(lifecycle) = event.lifecycle() else { continue };
        let uuid = lifecycle.domain.uuid();
        let id = lifecycle.domain.id();
        let known = active.get(&uuid).copied();
        let possible = match lifecycle.change {
            Change::Started(_) => known.is_none() && id.is_some(),
            Change::Stopped(_) => known.is_some_and(|(run, _)| run == id),
            Change::Suspended(_) | Change::Resumed(_) | Change::ShuttingDown(_) => {
                known.is_some_and(|(run, _)| run == id)
            }
            _ => true,
        };
        if !possible {
            return Err(format!("impossible: {event} after {known:?}"));
        }
        match (lifecycle.change, State::after(lifecycle.change)) {
            (Change::Stopped(_), _) => drop(active.remove(&uuid)),
            (_, Some(state)) if id.is_some() => drop(active.insert(uuid, (id, state))),
            _ => {}
        }
    }
    Ok(())
}

async fn run(seeds: std::ops::Range<u64>, level_triggered: bool, stepping: bool) {
    for seed in seeds {
        let mut world = World::new(seed, level_triggered);
        world.live(stepping).await;
        let mut outcome = world.verdict(!stepping).await;
        if outcome.is_ok() && !level_triggered {
            outcome = world.newcomer().await;
        }
        if let Err(wrong) = outcome {
            let log = world.log.join("\n    ");
            panic!("seed {seed}: {wrong}\n  after:\n    {log}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_fold_equals_the_truth_after_random_faults() {
    run(0..300, false, false).await;
}

#[tokio::test(start_paused = true)]
async fn every_fold_equals_the_truth_when_level_triggered() {
    run(0..300, true, false).await;
}

#[tokio::test(start_paused = true)]
async fn every_fold_equals_the_truth_when_lists_overtake_events() {
    run(0..300, false, true).await;
}
