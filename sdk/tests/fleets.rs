//! Fleets of fake hypervisors, on paused time.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt;
use tokio::time::{Instant, sleep, timeout};
use virevent::driver::{Reconnect, Settings};
use virevent::{
    DomainEvent, DomainStore, End, Error, EventSource, EventSourceExt, EventStream, Fleet, Options,
    Scope, Snapshot, Status, Synced,
};
use virevent_testkit::assert::{check_store, next_within};
use virevent_testkit::{Asked, FakeHypervisor};

const MINUTE: Duration = Duration::from_secs(60);

fn fakes<const N: usize>() -> [FakeHypervisor; N] {
    std::array::from_fn(|n| {
        let fake = FakeHypervisor::builder().uri(&format!("fake:{n}")).build();
        fake.create(&format!("vm{n}")).unwrap();
        fake
    })
}

fn fleet_of(fakes: &[FakeHypervisor]) -> Fleet {
    let fleet = Fleet::new("fleet:all");
    for fake in fakes {
        fleet.add(Arc::new(fake.clone())).unwrap();
    }
    fleet
}

/// What is delivered within a second, as lines.
async fn lines(events: &mut EventStream) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), events.next()).await {
        lines.push(event.to_string());
    }
    lines
}

fn is_synced_with(event: &DomainEvent, uri: &str) -> bool {
    matches!(event, DomainEvent::Synced(Synced { scope, .. }) if scope.source() == uri)
}

#[tokio::test(start_paused = true)]
async fn a_fleet_is_synced_when_each_member_is() {
    let [a, b] = fakes();
    let fleet = fleet_of(&[a.clone(), b.clone()]);
    let mut events = fleet.subscribe().await.unwrap();
    let mut first = lines(&mut events).await;
    assert_eq!(first.pop().unwrap(), "synced with fleet:all (2 domains)");
    first.sort();
    assert_eq!(
        first,
        [
            "synced with fake:0 (1 domain)",
            "synced with fake:1 (1 domain)",
            "vm0[1] existing (running (booted))",
            "vm1[1] existing (running (booted))",
        ]
    );
    b.stop("vm1").unwrap();
    assert_eq!(lines(&mut events).await, ["vm1[1] stopped (destroyed)"]);
    assert_eq!(fleet.domains().await.unwrap().len(), 1, "of all members, not of the first");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_member_is_a_gap_and_the_others_go_on() {
    let [a, b, refusing] = fakes();
    a.go_down();
    refusing.refuse(Error::authentication("log in"));
    let fleet = fleet_of(&[a.clone(), b.clone(), refusing.clone()]);
    let mut events = fleet.subscribe().await.unwrap();
    let first = lines(&mut events).await;
    assert_eq!(first.last().unwrap(), "synced with fleet:all (1 domain)");
    let mut gaps: Vec<_> = first.iter().filter(|line| line.starts_with("disconnected")).collect();
    gaps.sort();
    assert_eq!(gaps.len(), 2, "{first:?}");
    assert!(gaps[0].starts_with("disconnected from fake:0"), "{gaps:?}");
    assert!(gaps[1].starts_with("disconnected from fake:2") && gaps[1].contains("log in"));
    b.create("db").unwrap();
    assert_eq!(lines(&mut events).await, ["db[2] started (booted)"]);
    a.restore();
    refusing.accept();
    sleep(MINUTE).await;
    let mut later = lines(&mut events).await;
    later.retain(|line| line.starts_with("synced"));
    later.sort();
    assert_eq!(later, ["synced with fake:0 (1 domain)", "synced with fake:2 (1 domain)"]);
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go_in_a_stream() {
    let [a, b] = fakes();
    let fleet = fleet_of(std::slice::from_ref(&a));
    let mut events = fleet.subscribe().await.unwrap();
    let store = DomainStore::new();
    while !store.snapshot().is_certain() {
        store.apply(&events.next().await.unwrap());
    }
    fleet.add(Arc::new(b.clone())).unwrap();
    let again = fleet.add(Arc::new(b.clone())).unwrap_err();
    assert!(again.to_string().contains("each source once"), "{again}");
    while !is_synced_with(&next_within(&mut events, MINUTE).await.unwrap(), "fake:1") {}
    assert_eq!(fleet.members().len(), 2);
    assert!(fleet.remove("fake:0").is_some() && fleet.remove("fake:0").is_none());
    a.stop("vm0").unwrap();
    let removed = next_within(&mut events, MINUTE).await.unwrap();
    assert_eq!(removed.to_string(), "fake:0 was removed");
    let [forgotten] = store.apply(&removed).try_into().unwrap();
    assert!(forgotten.is_forgotten && forgotten.after.is_none());
    assert_eq!(forgotten.ended_run(), None, "it may still run");
    assert_eq!(lines(&mut events).await, [""; 0]);
    assert!(a.journal().contains(&Asked::Deregister));
    fleet.add(Arc::new(a)).unwrap();
    let back = lines(&mut events).await;
    assert_eq!(back, ["vm0 shutoff", "synced with fake:0 (0 domains)"][1..]);
}

#[tokio::test(start_paused = true)]
async fn a_store_of_a_fleet_follows_each_member() {
    let fakes = fakes::<8>();
    let fleet = fleet_of(&fakes);
    let store = fleet.store().await.unwrap();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    for fake in &fakes[..4] {
        fake.go_down();
        fake.create("new").unwrap();
    }
    store.wait_for(|now| now.uncertain().count() == 4).await.unwrap();
    let certain = |now: &Snapshot| now.iter().filter(|stored| stored.certain).count();
    assert_eq!(certain(&store.snapshot()), 4);
    fakes[7].shutdown().await;
    fakes[..4].iter().for_each(FakeHypervisor::restore);
    store.wait_for(|now| certain(now) == 11).await.unwrap();
    let truth: Vec<_> = fakes.iter().flat_map(FakeHypervisor::domains).collect();
    check_store(&store, &truth).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fleet_of_fleets_keeps_the_scopes() {
    let [a, b, c] = fakes();
    let inner = fleet_of(&[a.clone(), b.clone()]);
    let outer = Fleet::new("fleet:outer");
    outer.add(Arc::new(inner.clone())).unwrap();
    outer.add(Arc::new(c.clone())).unwrap();
    let mut events = outer.subscribe().await.unwrap();
    let store = DomainStore::new();
    let scope = loop {
        let event = next_within(&mut events, MINUTE).await.unwrap();
        store.apply(&event);
        if is_synced_with(&event, "fleet:outer") {
            let DomainEvent::Synced(synced) = event else { unreachable!() };
            break synced.scope;
        }
    };
    for uri in ["fake:0", "fake:1", "fake:2", "fleet:all", "fleet:outer"] {
        assert!(scope.includes(&Scope::source_wide(uri)), "{uri}");
    }
    assert!(!scope.includes(&Scope::source_wide("fake:3")));
    assert_eq!(outer.domains().await.unwrap().len(), 3);
    outer.remove("fleet:all").unwrap();
    store.apply(&next_within(&mut events, MINUTE).await.unwrap());
    assert_eq!(store.snapshot().iter().map(|one| one.domain.name()).collect::<Vec<_>>(), ["vm2"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_failed_for_good_is_tried_again() {
    let [a, b] = fakes();
    let fleet = fleet_of(&[a.clone(), b]);
    let store = fleet.store().await.unwrap();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    a.refuse(Error::authentication("log in"));
    a.lose_connection();
    sleep(2 * MINUTE).await;
    a.stop("vm0").unwrap();
    a.create("new").unwrap();
    a.accept();
    let is_back = |now: &Snapshot| now.is_certain() && now.get("new").is_some();
    timeout(5 * MINUTE, store.wait_for(is_back)).await.unwrap().unwrap();
    assert!(store.get("vm0").is_none(), "no ghost of the stream before");
}

/// When the fleet tries a member again that was synced, and then refuses for good.
async fn attempts_at(uri: &str, seed: u64) -> Vec<Duration> {
    // The member's own waits, until it gives up and its stream ends.
    let settings = Settings::default().reconnect(Reconnect::local().seed(1));
    let fake = FakeHypervisor::builder().uri(uri).settings(&settings).build();
    let fleet = Fleet::new("fleet:all").seed(seed);
    fleet.add(Arc::new(fake.clone())).unwrap();
    let store = fleet.store().await.unwrap();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    fake.refuse(Error::authentication("log in"));
    let begun = Instant::now();
    fake.lose_connection();
    let mut attempts = Vec::new();
    while begun.elapsed() < 5 * MINUTE {
        fake.clear_journal();
        fake.asked(|asked| *asked == Asked::Connect).await;
        attempts.push(begun.elapsed());
    }
    attempts
}

#[tokio::test(start_paused = true)]
async fn a_seed_makes_the_waits_for_a_member_repeatable() {
    let attempts = attempts_at("fake:0", 7).await;
    assert_eq!(attempts_at("fake:0", 7).await, attempts);
    assert_ne!(attempts_at("fake:0", 8).await, attempts);
    assert_ne!(attempts_at("fake:1", 7).await, attempts, "members do not wait in step");
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_fleets_stream_cancels_each_member() {
    for way in 0..4 {
        let fakes = fakes::<2>();
        let fleet = fleet_of(&fakes);
        let events = fleet.subscribe().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        match way {
            0 => drop(events),
            1 => events.close().await,
            2 => {
                let (events, subscription) = events.split();
                drop(events);
                subscription.close().await;
            }
            _ => {
                let (mut events, subscription) = events.split();
                drop(subscription);
                assert!(events.next().await.is_none());
                assert!(matches!(events.end(), Some(End::Cancelled)));
            }
        }
        for fake in &fakes {
            if matches!(way, 1 | 2) {
                assert!(fake.journal().contains(&Asked::Deregister), "close has waited");
            }
            fake.asked(|asked| *asked == Asked::Deregister).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_streams_of_a_fleet() {
    let fakes = fakes::<2>();
    let fleet = fleet_of(&fakes);
    let mut events = fleet.subscribe().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    fleet.shutdown().await;
    let rest: Vec<_> = events.by_ref().collect().await;
    assert!(rest.iter().all(|event| !matches!(event, DomainEvent::Gap(_))), "{rest:?}");
    assert!(matches!(events.end(), Some(End::Shutdown)));
    assert!(matches!(fleet.subscribe().await, Err(Error::Shutdown)));
    assert_eq!(fleet.health().status(), Status::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn health_and_counters_of_a_fleet_are_those_of_its_members() {
    let [a, b] = fakes();
    let fleet = fleet_of(&[a.clone(), b.clone()]);
    assert_eq!(fleet.health().status(), Status::Idle);
    let store = fleet.store().await.unwrap();
    let mut health = fleet.health();
    health.wait_for(|status| *status == Status::Synced).await;
    store.wait_for(Snapshot::is_certain).await.unwrap();
    a.go_down();
    store.wait_for(|now| !now.is_certain()).await.unwrap();
    assert_eq!(health.status(), Status::Synced, "one of two is");
    let unreachable = health.unreachable();
    assert_eq!(unreachable.len(), 1);
    assert_eq!(unreachable[0].0, Scope::source_wide("fake:0"));
    b.go_down();
    health.wait_for(|status| matches!(status, Status::Disconnected(_))).await;
    assert_eq!(fleet.counters().gaps, 2);
    fleet.remove("fake:0").unwrap();
    assert_eq!(fleet.counters().gaps, 2, "what a former member counted stays");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_without_members_is_synced() {
    let fleet = Fleet::new("fleet:all");
    let mut events = fleet.subscribe_with(Options::default()).await.unwrap();
    assert_eq!(lines(&mut events).await, ["synced with fleet:all (0 domains)"]);
    assert!(fleet.subscribe_with(Options::default().capacity(0)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_store_of_a_fleet_is_certain_when_each_member_is_known() {
    let fakes = fakes::<3>();
    fakes[1].hang_lists();
    let store = fleet_of(&fakes).store().await.unwrap();
    assert!(timeout(Duration::from_secs(5), store.wait_for(Snapshot::is_certain)).await.is_err());
    assert!(store.snapshot().len() == 2 && !store.snapshot().is_certain());
    fakes[1].release_lists();
    assert_eq!(store.wait_for(Snapshot::is_certain).await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_is_never_certain_while_a_member_is_down() {
    let fakes = fakes::<3>();
    fakes[1].go_down();
    let store = fleet_of(&fakes).store().await.unwrap();
    assert!(timeout(MINUTE, store.wait_for(Snapshot::is_certain)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_grew_is_forgotten_whole() {
    let [a, b, c] = fakes();
    let inner = fleet_of(&[a, b]);
    let outer = Fleet::new("fleet:outer");
    outer.add(Arc::new(inner.clone())).unwrap();
    let store = outer.store().await.unwrap();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    inner.add(Arc::new(c)).unwrap();
    store.wait_for(|now| now.len() == 3 && now.is_certain()).await.unwrap();
    outer.remove("fleet:all").unwrap();
    timeout(MINUTE, store.wait_for(Snapshot::is_empty)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fleet_removed_before_it_is_synced_leaves_no_domain() {
    let [a, b] = fakes();
    b.hang_lists();
    let outer = Fleet::new("fleet:outer");
    outer.add(Arc::new(fleet_of(&[a, b]))).unwrap();
    let store = outer.store().await.unwrap();
    store.wait_for(|now| now.len() == 1).await.unwrap();
    outer.remove("fleet:all").unwrap();
    timeout(MINUTE, store.wait_for(Snapshot::is_empty)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_rejoins_stops_no_domain() {
    let [a] = fakes();
    let fleet = fleet_of(std::slice::from_ref(&a));
    let mut events = fleet.subscribe_with(Options::default().existing(false)).await.unwrap();
    let store = DomainStore::new();
    store.apply(&events.next().await.unwrap());
    a.create("web").unwrap();
    a.create("db").unwrap();
    sleep(Duration::from_secs(1)).await;
    a.refuse(Error::authentication("log in"));
    a.lose_connection();
    sleep(2 * MINUTE).await;
    a.accept();
    sleep(5 * MINUTE).await;
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), events.next()).await {
        for transition in store.apply(&event) {
            assert_eq!(transition.ended_run(), None, "{transition:?}");
        }
    }
    assert!(store.get("web").is_some() && store.get("db").is_some());
}

#[tokio::test(start_paused = true)]
async fn the_status_recovers_after_the_only_member_was_shut_down() {
    let [a, b] = fakes();
    let fleet = fleet_of(std::slice::from_ref(&a));
    let _store = fleet.store().await.unwrap();
    let mut health = fleet.health();
    health.wait_for(|status| *status == Status::Synced).await;
    a.shutdown().await;
    health.wait_for(|status| matches!(status, Status::Disconnected(_))).await;
    fleet.add(Arc::new(b)).unwrap();
    health.wait_for(|status| *status == Status::Synced).await;
}

#[test]
fn members_that_come_and_go_on_many_threads_leave_the_last_ones() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fakes = fakes::<4>();
        let fleet = Fleet::new("fleet:all");
        let store = fleet.store().await.unwrap();
        let churn = fakes.iter().enumerate().map(|(n, fake)| {
            let fleet = fleet.clone();
            let fake = Arc::new(fake.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    fleet.add(fake.clone()).unwrap();
                    tokio::task::yield_now().await;
                    fleet.remove(fake.uri()).unwrap();
                }
                if n % 2 == 0 {
                    fleet.add(fake).unwrap();
                }
            })
        });
        for churn in churn.collect::<Vec<_>>() {
            churn.await.unwrap();
        }
        let is_right = |now: &Snapshot| {
            let names: Vec<_> = now.iter().map(|stored| stored.domain.name()).collect();
            now.is_certain() && names == ["vm0", "vm2"]
        };
        timeout(MINUTE, store.wait_for(is_right)).await.unwrap().unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn domains_leaves_out_what_stops_while_others_are_listed() {
    let [a, b] = fakes();
    b.hang_lists();
    let fleet = fleet_of(&[a.clone(), b.clone()]);
    let asking = tokio::spawn(async move { fleet.domains().await });
    sleep(Duration::from_secs(1)).await;
    a.stop("vm0").unwrap();
    sleep(Duration::from_secs(1)).await;
    b.release_lists();
    let domains = asking.await.unwrap().unwrap();
    assert_eq!(domains.iter().map(|(domain, _)| domain.name()).collect::<Vec<_>>(), ["vm1"]);
}
