//! Events that do not fit what is known, or fit it in an unusual way.

use virevent::DefineCause;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_rename_of_an_active_domain_keeps_its_run() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| {
        let at = batch.received();
        let domain = batch.domain(web(None).uuid(), "www", None);
        batch.event(Lifecycle::new(domain, Change::Defined(DefineCause::Renamed), at));
    });
    delivered(&mut events, &["www defined (renamed)"]).await;
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["www[3] existing *", "synced with *"]).await;
    wire.event(None, STOPPED);
    delivered(&mut events, &["*[3] stopped (destroyed)"]).await;
}

/// Short runs of domains with long names: the ends of 10,000 are more than the driver holds.
fn say_runs(batch: &mut Batch, runs: u64) {
    for number in 0..runs {
        let name = format!("{number:x<4000}");
        let uuid = Uuid::from_u128(u128::from(number) << 64);
        let domain = Domain::new("wire:", "h", uuid, &name, Some(1));
        let at = SystemTime::UNIX_EPOCH;
        batch.event(Lifecycle::new(domain.clone(), STARTED, at));
        batch.event(Lifecycle::new(domain, STOPPED, at));
    }
}

/// How many events a marker stands for.
fn missed(event: &DomainEvent) -> u64 {
    match event {
        DomainEvent::Gap(gap) => match gap.kind {
            virevent::GapKind::Lagged { missed, .. } => missed,
            _ => 0,
        },
        _ => 0,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_for_a_late_list_is_counted_once() {
    const RUNS: u64 = 10_000;
    for is_late in [false, true] {
        let (wire, source) = Wire::alive();
        let mut events = subscribe(&wire, &source, &[]).await;
        wire.hang_up();
        wire.asked_to_list().await;
        // Before the list is overdue, or after.
        tokio::time::sleep(secs(if is_late { 11 } else { 1 })).await;
        wire.say(|batch| say_runs(batch, RUNS));
        tokio::time::sleep(secs(11)).await;
        wire.list(&[running(3)]).await;
        wire.list(&[]).await;
        let mut counted = 0;
        while let Ok(event) = next_within(&mut events, secs(1)).await {
            assert_ne!(event.domain().map(Domain::uuid), Some(web(None).uuid()), "{event}");
            counted += missed(&event) + u64::from(event.is_happening());
        }
        assert_eq!(counted, 2 * RUNS, "{is_late}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_while_a_list_is_under_way_is_counted() {
    const RUNS: u64 = 10_000;
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[]).await;
    wire.hang_up();
    wire.asked_to_list().await;
    wire.say(|batch| say_runs(batch, RUNS));
    // That list is older than what was lost.
    wire.list(&[running(3)]).await;
    wire.list(&[]).await;
    let delivered = until_synced(&mut events).await.unwrap();
    assert!(delivered.iter().all(DomainEvent::is_marker), "{delivered:?}");
    assert_eq!(delivered.iter().map(missed).sum::<u64>(), 2 * RUNS);
    assert_eq!(source.counters().missed, 2 * RUNS);
}

#[tokio::test(start_paused = true)]
async fn a_read_is_taken_in_in_its_order() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| {
        let at = batch.received();
        let db = |batch: &mut Batch| batch.domain(Uuid::from_u128(2), "db", Some(7));
        for state in [RUNNING, State::Paused(virevent::PausedReason::User)] {
            batch.event(Lifecycle::new(web(Some(3)), SUSPENDED, at));
            let db = db(batch);
            batch.state(db, state);
        }
        batch.doubt(Scope::Domain(web(Some(3))));
        batch.event(Lifecycle::new(web(None), STOPPED, at));
    });
    delivered(
        &mut events,
        &[
            "web[3] suspended (paused)",
            "db[7] started (booted)",
            "web[3] suspended (paused)",
            "db[7] suspended (paused)",
            "web[3] stopped (destroyed)",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_by_name_brings_no_other_kind() {
    use virevent::{EventData, RawEvent};

    let (wire, source) = Wire::new();
    let options = Options::default().kind("other:99".parse().unwrap());
    let mut events = subscribe_with(&wire, &source, options, &[]).await;
    let raw = |name: &str| {
        let data = EventData::Bytes([1].into());
        RawEvent::new("wire:", None, name.into(), data, SystemTime::UNIX_EPOCH)
    };
    for name in ["98", "99", "7"] {
        let event = raw(name);
        wire.say(|batch| batch.event(event));
    }
    assert_eq!(events.next().await.unwrap(), DomainEvent::Other(raw("99")));
    nothing_within(&mut events, secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_is_known_by_its_new_name_once_nothing_is_known_of_it() {
    let (wire, source) = Wire::new();
    drop(subscribe(&wire, &source, &[running(3)]).await);
    tokio::time::sleep(secs(60)).await;
    wire.server(|server| server.host = "renamed");
    let source = &source;
    let answer = async {
        wire.asked_to_list().await;
        let tag = wire.server(|server| server.lists.remove(0));
        wire.say(move |batch| {
            let web = batch.domain(web(None).uuid(), "web", Some(3));
            batch.listed(tag, vec![Listed::new(web, RUNNING, Some(true))]);
        });
    };
    let (events, ()) = tokio::join!(source.subscribe(), answer);
    assert_eq!(events.unwrap().next().await.unwrap().domain().unwrap().host(), "renamed");
}

#[tokio::test(start_paused = true)]
async fn events_of_a_sync_are_counted_once_each() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.hang_up();
    wire.asked_to_list().await;
    wire.event(Some(3), SUSPENDED);
    wire.event(None, STOPPED);
    let db = Domain::new("wire:", "h", Uuid::from_u128(2), "db", Some(8));
    wire.list(&[running(3), Listed::new(db, RUNNING, Some(false))]).await;
    delivered(
        &mut events,
        &[
            "disconnected from *",
            "db[8] started (booted) [inferred]",
            "web[3] suspended (paused)",
            "web[3] stopped (destroyed)",
            "synced with *",
        ],
    )
    .await;
    assert_eq!(source.counters().events, 3);
}
