//! Whose turn it is, and what happens, is left to chance.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use virevent::{DomainEvent, EventSource, Kind, Options};

use super::{EventLines, Harness};

#[tokio::test(start_paused = true)]
async fn a_name_read_after_its_domain_ended_is_no_rename() {
    // The values of two domains with one id, read one by one: by chance, but often.
    for seed in 0..200 {
        let random = Some(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))));
        let harness = Harness { random, ..Harness::default() };
        harness.act(|store| store.start(3, 3, "web"));
        let mut told = harness.synced().await;
        harness.act(|store| store.write("/local/domain/3/name", "web"));
        for _ in 0..seed % 10 {
            tokio::task::yield_now().await;
        }
        harness.act(|store| store.write_down(3, 4, "db"));
        assert_eq!(told.lines().await, ["web[3] stopped", "db[3] started"], "{seed}");
    }
}

/// What a reader believes after all, and how often it was told what: for each uuid the run, if any.
fn believed(events: &[DomainEvent]) -> std::collections::BTreeMap<u128, (u32, String)> {
    use virevent::Change;
    let mut runs = std::collections::BTreeMap::new();
    for event in events {
        let (Some(domain), Some(change)) = (event.domain(), event.change()) else { continue };
        let (uuid, id) = (domain.uuid().as_u128(), domain.id());
        match change {
            Change::Existing(_) | Change::Started(_) => {
                let before = runs.insert(uuid, (id.unwrap(), domain.name().to_owned()));
                assert!(before.is_none(), "told twice: {event}");
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

/// How many random stories to try: `VIREVENT_SEEDS=10000` for more.
fn seeds() -> u64 {
    std::env::var("VIREVENT_SEEDS").map_or(60, |text| text.parse().unwrap())
}

/// Lives through random stories, of which some events are lost if there is `silence`.
async fn live(verify: Duration, silence: bool) {
    for seed in 0..seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let turns = Some(Arc::new(Mutex::new(random.fork())));
        let harness = Harness { random: turns, verify, seed, ..Harness::default() };
        let source = harness.source();
        let subscribe = async || {
            let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
            EventLines(source.subscribe_with(options.capacity(100_000)).await.unwrap())
        };
        harness.act(|store| store.has_depth = seed % 3 == 0);
        let mut truth = std::collections::BTreeMap::<u16, (u128, String)>::new();
        let mut told = if random.bool() { Some(subscribe().await) } else { None };
        let mut events = Vec::new();
        for step in 0..random.usize(1..60) {
            let domid = random.u16(1..6);
            let is_silent = silence && random.u8(0..3) == 0;
            harness.act(|store| store.is_silent = is_silent);
            match (random.u8(0..8), truth.contains_key(&domid)) {
                (0..3, false) => {
                    // The same uuid never runs twice at once, but comes again.
                    let mut uuid = u128::from(random.u8(1..20));
                    while truth.values().any(|(other, _)| *other == uuid) {
                        uuid += 1;
                    }
                    let name = format!("vm{uuid}-{step}");
                    harness.act(|store| store.start(domid, uuid, &name));
                    truth.insert(domid, (uuid, name));
                }
                (0, true) => {
                    let name = format!("renamed{step}");
                    harness.act(|store| store.write(&format!("/local/domain/{domid}/name"), &name));
                    truth.get_mut(&domid).unwrap().1 = name;
                }
                (1, true) => {
                    let uuid = 1_000 + step as u128;
                    harness.act(|store| store.write_down(domid, uuid, "reused"));
                    truth.insert(domid, (uuid, "reused".into()));
                }
                (2, true) => harness.act(|store| store.request(domid, "poweroff")),
                (3, true) => harness.act(|store| store.shut_down(domid)),
                (4, true) => {
                    harness.act(|store| store.release(domid));
                    truth.remove(&domid);
                }
                (5, true) => {
                    harness.act(|store| store.destroy(domid));
                    truth.remove(&domid);
                }
                (6, true) => {
                    // Its place goes, and is written anew when nobody lists any more. A number that nobody
                    // has heard of by then would be found only within 5 s of its introduction.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    harness.act(|store| store.remove(&format!("/local/domain/{domid}")));
                    tokio::time::sleep(Duration::from_secs(random.u64(0..12))).await;
                    let uuid = 2_000 + step as u128;
                    harness.act(|store| store.write_down(domid, uuid, "anew"));
                    truth.insert(domid, (uuid, "anew".into()));
                }
                _ => {}
            }
            harness.act(|store| store.is_silent = false);
            for _ in 0..random.usize(0..30) {
                tokio::task::yield_now().await;
            }
            if told.is_none() && random.u8(0..10) == 0 {
                told = Some(subscribe().await);
            }
        }
        let mut told = match told {
            Some(told) => told,
            None => subscribe().await,
        };
        events.extend(told.events(Duration::from_secs(8)).await);
        let truth: std::collections::BTreeMap<_, _> = truth
            .into_iter()
            .map(|(domid, (uuid, name))| (uuid, (u32::from(domid), name)))
            .collect();
        let lines: Vec<_> = events.iter().map(ToString::to_string).collect();
        assert_eq!(believed(&events), truth, "seed {seed}: {lines:#?}");
        let corrected = source.counters().corrected;
        assert!(silence || corrected == 0, "seed {seed}: {corrected} corrected: {lines:#?}");
        let watches = harness.act(|store| store.watches.len());
        let special = if seed % 3 == 0 { 3 } else { 2 };
        assert_eq!(watches, special + 3 * truth.len(), "seed {seed}");
        told.0.close().await;
        assert!(harness.act(|store| store.watches.is_empty()));
    }
}

#[tokio::test(start_paused = true)]
async fn events_in_any_order_add_up_to_the_store() {
    live(Duration::ZERO, false).await;
}

#[tokio::test(start_paused = true)]
async fn verification_finds_nothing_where_no_event_is_lost() {
    for verify in [Duration::from_millis(50), Duration::from_secs(2)] {
        live(verify, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn verification_corrects_lost_events() {
    live(Duration::from_secs(2), true).await;
}
