//! Random operations and faults, from a seed: whatever happened, once all is well again every
//! subscriber believes the truth, and every story on the way made sense.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use virevent::driver::Reconnect;
use virevent::{
    Change, DomainEvent, EventSource, EventStream, Fault, FaultKind, Gap, GapKind, Options, Scope,
    State, Status, Uuid,
};
use virevent_testkit::assert::{Fold, until_synced};
use virevent_testkit::{Asked, FakeHypervisor};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A subscriber with all that it was told.
struct Reader {
    stream: EventStream,
    story: Vec<DomainEvent>,
    /// Reads only at the end.
    lazy: bool,
}

impl Reader {
    fn read(&mut self) {
        while let Some(Some(event)) = self.stream.next().now_or_never() {
            self.story.push(event);
        }
    }
}

struct World {
    fake: FakeHypervisor,
    random: fastrand::Rng,
    readers: Vec<Reader>,
    /// Parts that are out of reach.
    out: Vec<Scope>,
    level_triggered: bool,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, level_triggered: bool) -> Self {
        let builder = FakeHypervisor::builder()
            .reconnect(Reconnect::local().seed(seed))
            .call_timeout(Duration::from_secs(3));
        let builder = if level_triggered { builder.level_triggered() } else { builder };
        let (fake, random) = (builder.build(), fastrand::Rng::with_seed(seed));
        Self {
            fake,
            random,
            readers: Vec::new(),
            out: Vec::new(),
            level_triggered,
            log: Vec::new(),
        }
    }

    /// An operation that may well be refused.
    fn operate(&mut self) {
        let (fake, name) = (&self.fake, NAMES[self.random.usize(..NAMES.len())]);
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

    /// One domain's socket goes out of reach, or comes back. Only runs have sockets: definitions are
    /// told in another way, or not at all.
    fn scoped_fault(&mut self) {
        match self.out.pop() {
            Some(scope) if self.random.bool() => {
                self.log.push(format!("back: {scope}"));
                self.fake.restored(scope);
            }
            other => {
                self.out.extend(other);
                let name = NAMES[self.random.usize(..NAMES.len())];
                let Some(domain) = self.fake.domain(name) else { return };
                let scope = Scope::Domain(domain);
                self.log.push(format!("out: {scope}"));
                self.fake.disconnected(scope.clone(), Fault::new(FaultKind::Closed, "closed"));
                self.out.push(scope);
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
        // A subscription that hangs with its server is dropped again.
        let patience = Duration::from_millis(self.random.u64(1..200));
        if let Ok(stream) = tokio::time::timeout(patience, subscription).await {
            self.readers.push(Reader { stream: stream.unwrap(), story: Vec::new(), lazy });
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
        self.out.drain(..).for_each(|scope| self.fake.restored(scope));
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

    /// What is wrong at the end, if anything.
    async fn verdict(&mut self, strict: bool) -> Result<(), String> {
        let mut truth = self.fake.domains();
        if self.level_triggered {
            // It knows runs and no definitions.
            truth.retain(|entry| entry.domain.is_active());
            truth.iter_mut().for_each(|entry| entry.persistent = Some(false));
        }
        if !self.readers.is_empty() && self.fake.health().status() != Status::Synced {
            return Err(format!("not synced but {:?}", self.fake.health().status()));
        }
        for reader in &mut self.readers {
            reader.read();
            let lines: Vec<_> = reader.story.iter().map(ToString::to_string).collect();
            let because = |what: String| format!("{what}\n  told:\n    {}", lines.join("\n    "));
            let mut fold = Fold::default();
            fold.extend(&reader.story);
            fold.check(&truth).map_err(|failure| because(failure.to_string()))?;
            if strict && !reader.lazy {
                lawful(&reader.story).map_err(because)?;
            }
        }
        Ok(())
    }

    /// What a newcomer is told from the roster is the truth, of inactive domains too.
    async fn newcomer(&mut self) -> Result<(), String> {
        let mut stream = self.fake.subscribe_with(Options::default()).await.unwrap();
        let told = until_synced(&mut stream).await.unwrap();
        let told: Vec<_> = told
            .iter()
            .filter_map(|event| match event.change()? {
                Change::Existing(state) => Some((event.domain()?.to_string(), state.as_str())),
                _ => None,
            })
            .collect();
        let truth = self.fake.domains();
        let truth: Vec<_> =
            truth.iter().map(|entry| (entry.domain.to_string(), entry.state.as_str())).collect();
        if told == truth { Ok(()) } else { Err(format!("told {told:?}\n  but truth {truth:?}")) }
    }
}

/// That each event of a story is possible after those before it.
fn lawful(story: &[DomainEvent]) -> Result<(), String> {
    let mut active: BTreeMap<Uuid, (Option<u32>, State)> = BTreeMap::new();
    for event in story {
        if matches!(event, DomainEvent::Gap(Gap { kind: GapKind::Lagged { .. }, .. })) {
            return Err("a reader that kept up lagged".into());
        }
        let Some(lifecycle) = event.lifecycle() else { continue };
        let (uuid, id) = (lifecycle.domain.uuid(), lifecycle.domain.id());
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
            return Err(format!("impossible: {event}, when it was known as {known:?}"));
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
async fn every_subscriber_ends_up_with_the_truth_and_a_story_that_makes_sense() {
    run(0..300, false, false).await;
}

#[tokio::test(start_paused = true)]
async fn so_it_does_when_the_hypervisor_only_says_how_things_are() {
    run(0..300, true, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_overtakes_events_still_leads_to_the_truth() {
    run(0..300, false, true).await;
}
