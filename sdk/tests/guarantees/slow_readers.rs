//! Guarantees for slow readers: what they are delivered, and that no other subscriber is affected.

use std::time::SystemTime;

use futures::StreamExt;
use virevent::{
    Change, Domain, DomainEvent, DomainStore, EventSource, Fault, FaultKind, Gap, GapKind,
    Lifecycle, Options, Scope, StartCause, StopCause, Uuid,
};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::{check_store, until_synced};

use crate::{delivered, secs, synced};

/// Everything that is buffered, once the driver has nothing left to deliver.
async fn drain(events: &mut virevent::EventStream) -> Vec<DomainEvent> {
    tokio::time::sleep(secs(1)).await;
    let mut all = Vec::new();
    while let Ok(event) = virevent_testkit::assert::next_within(events, secs(1)).await {
        all.push(event);
    }
    all
}

fn missed(event: &DomainEvent) -> u64 {
    match event {
        DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, .. }, .. }) => *missed,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_exact_count_and_final_states() {
    let fake = FakeHypervisor::new();
    let mut events = fake.subscribe_with(Options::default().capacity(32)).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let mut happened = 0;
    for n in 0..500 {
        let name = format!("vm{}", n % 5);
        match fake.domain(&name) {
            Some(domain) if domain.is_active() => fake.stop(&name).unwrap(),
            _ => fake.create(&name).unwrap(),
        };
        happened += 1;
        // The driver must deliver in several batches, or only one compaction would happen.
        if n % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let delivered = drain(&mut events).await;
    assert!(delivered.len() <= 33, "{}", delivered.len());
    assert_eq!(missed(&delivered[0]) as usize + delivered.len() - 1, happened);
    assert_eq!(fake.counters().missed, missed(&delivered[0]));
    let store = DomainStore::new();
    store.extend(&delivered);
    check_store(&store, &fake.domains()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn lagged_stands_before_the_first_kept_event() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    let mut events = fake.subscribe_with(Options::default().capacity(4)).await.unwrap();
    until_synced(&mut events).await.unwrap();
    for _ in 0..8 {
        fake.start("web").unwrap();
        fake.stop("web").unwrap();
    }
    let backlog = drain(&mut events).await;
    let lagged = |event: &&DomainEvent| matches!(event, DomainEvent::Gap(_));
    assert_eq!(backlog.iter().filter(lagged).count(), 1);
    assert_eq!(missed(&backlog[0]) as usize + backlog.len() - 1, 16);
    assert_eq!(backlog.last().unwrap().to_string(), "web[8] stopped (destroyed)");
    fake.start("web").unwrap();
    delivered(&mut events, &["web[9] started *"]).await;
}

/// Fills a mailbox of four: the next push compacts it, which drops two of the four.
fn fill_four(fake: &FakeHypervisor) {
    for _ in 0..2 {
        fake.stop("web").unwrap();
        fake.start("web").unwrap();
    }
}

async fn synced_with_four() -> (FakeHypervisor, virevent::EventStream) {
    let (fake, _) = synced().await;
    let mut events = fake.subscribe_with(Options::default().capacity(4)).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (fake, events)
}

#[tokio::test(start_paused = true)]
async fn counters_include_what_the_marker_of_an_outage_displaces() {
    let (fake, mut events) = synced_with_four().await;
    fill_four(&fake);
    tokio::time::sleep(secs(1)).await;
    fake.go_down();
    let delivered = drain(&mut events).await;
    assert_eq!(missed(&delivered[0]), 2, "{delivered:?}");
    assert!(crate::lines(&delivered).last().unwrap().starts_with("disconnected from fake:"));
    assert_eq!(fake.counters().missed, 2);
}

#[tokio::test(start_paused = true)]
async fn counters_include_what_the_markers_of_a_part_displace() {
    let (fake, mut events) = synced_with_four().await;
    let db = Scope::Domain(fake.create("db").unwrap());
    delivered(&mut events, &["db[2] started *"]).await;
    fill_four(&fake);
    tokio::time::sleep(secs(1)).await;
    fake.disconnected(db.clone(), Fault::new(FaultKind::Closed, "its socket closed"));
    let lost = drain(&mut events).await;
    assert_eq!(missed(&lost[0]), 2, "{lost:?}");
    assert_eq!(fake.counters().missed, 2);

    fill_four(&fake);
    tokio::time::sleep(secs(1)).await;
    fake.restored(db);
    let restored = drain(&mut events).await;
    assert_eq!(missed(&restored[0]), 2, "{restored:?}");
    assert_eq!(fake.counters().missed, 4);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_slows_neither_the_others_nor_the_source() {
    let (fake, mut quick) = synced().await;
    // Never read: its mailbox overflows at each event.
    let _slow = fake.subscribe_with(Options::default().capacity(1)).await.unwrap();
    for _ in 0..100 {
        fake.suspend("web").unwrap();
        fake.resume("web").unwrap();
        delivered(&mut quick, &["web[1] suspended *", "web[1] resumed *"]).await;
    }
}

/// A transient domain starts and stops.
fn emit_run(fake: &FakeHypervisor, number: u64) {
    // A domain of its own: compaction must keep the end of each.
    let uuid = Uuid::from_u128(number.into());
    let domain = Domain::new("fake:", "fake", uuid, "brief", Some(1));
    for change in [Change::Started(StartCause::Booted), Change::Stopped(StopCause::Shutdown)] {
        fake.emit(Lifecycle::new(domain.clone(), change, SystemTime::UNIX_EPOCH));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_too_slow_for_the_final_states_is_reset() {
    // Two events each: more than the capacity and the slack of 65,536 can keep.
    const DOMAINS: u64 = 140_000;
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let mut events = fake.subscribe_with(Options::default().capacity(8)).await.unwrap();
    until_synced(&mut events).await.unwrap();
    for n in 0..DOMAINS {
        emit_run(&fake, n);
        if n % 1000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let delivered = drain(&mut events).await;
    let lines = crate::lines(&delivered);
    assert_eq!(missed(&delivered[0]), 2 * DOMAINS);
    assert_eq!(lines[1..], ["web[1] existing (running (booted))", "synced with fake: (1 domain)"]);
}

/// A stream without `Existing` events whose mailbox overflows: it needs a reset.
async fn stale(fake: &FakeHypervisor) -> virevent::EventStream {
    let options = Options::default().capacity(4).slack(0).existing(false);
    let mut events = fake.subscribe_with(options).await.unwrap();
    assert!(until_synced(&mut events).await.unwrap().is_empty());
    (0..20).for_each(|number| emit_run(fake, number));
    tokio::time::sleep(secs(1)).await;
    events
}

#[tokio::test(start_paused = true)]
async fn a_reset_delivers_existing_whatever_the_options() {
    let (fake, _others) = synced().await;
    let mut events = stale(&fake).await;
    let delivered = drain(&mut events).await;
    assert_eq!(missed(&delivered[0]), 40);
    assert_eq!(
        crate::lines(&delivered[1..]),
        ["web[1] existing (running (booted))", "synced with fake: (1 domain)"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_in_an_outage_delivers_existing_at_its_end() {
    let (fake, _others) = synced().await;
    let mut events = stale(&fake).await;
    fake.go_down();
    // Created in the outage: the reset at its end shows it, too.
    fake.create("db").unwrap();
    let delivered = drain(&mut events).await;
    assert_eq!(missed(&delivered[0]), 40);
    assert!(
        delivered.len() == 2 && delivered[1].to_string().starts_with("disconnected from"),
        "{delivered:?}"
    );
    fake.restore();
    let delivered = drain(&mut events).await;
    assert_eq!(
        crate::lines(&delivered),
        [
            "db[2] existing (running (booted))",
            "web[1] existing (running (booted))",
            "synced with fake: (2 domains)"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn lagged_is_delivered_before_the_stream_ends() {
    const DOMAINS: u64 = 140_000;
    let fake = FakeHypervisor::new();
    let mut events = fake.subscribe_with(Options::default().capacity(8)).await.unwrap();
    until_synced(&mut events).await.unwrap();
    for n in 0..DOMAINS {
        emit_run(&fake, n);
    }
    tokio::time::sleep(secs(1)).await;
    fake.shutdown().await;
    assert_eq!(missed(&events.next().await.unwrap()), 2 * DOMAINS);
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_small_mailbox_keeps_the_opening_events() {
    let fake = FakeHypervisor::new();
    for n in 0..100 {
        fake.create(&format!("vm{n}")).unwrap();
    }
    let mut events = fake.subscribe_with(Options::default().capacity(1)).await.unwrap();
    assert_eq!(until_synced(&mut events).await.unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_capacity_of_zero_is_an_error() {
    let error = FakeHypervisor::new().subscribe_with(Options::default().capacity(0)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("capacity") && error.contains("1 or more"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn counters_add_up_what_each_subscriber_missed() {
    let (fake, _others) = synced().await;
    let small = || Options::default().capacity(4);
    let mut streams = Vec::new();
    for options in [small(), small(), small().domain("web"), small().domain("web")] {
        let mut events = fake.subscribe_with(options).await.unwrap();
        until_synced(&mut events).await.unwrap();
        streams.push(events);
    }
    for _ in 0..10 {
        fake.stop("web").unwrap();
        fake.start("web").unwrap();
        tokio::time::sleep(secs(1)).await;
    }
    let mut sum = 0;
    for events in &mut streams {
        let delivered = drain(events).await;
        assert!(missed(&delivered[0]) > 10, "{delivered:?}");
        sum += missed(&delivered[0]);
    }
    assert_eq!(fake.counters().missed, sum);
}
