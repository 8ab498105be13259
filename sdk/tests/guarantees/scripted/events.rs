//! Tests of events that contradict what is known, or fit it in an unusual way.

use virevent::DefineCause;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_rename_of_an_active_domain_keeps_its_run() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| {
        let at = batch.received();
        let domain = batch.domain(web(None).uuid(), "www", None);
        batch.event(Lifecycle::new(domain, Change::Defined(DefineCause::Renamed), at));
    });
    delivered(&mut events, &["www defined (renamed)"]).await;
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["www[3] existing *", "synced with *"]).await;
    server.event(None, STOPPED);
    delivered(&mut events, &["*[3] stopped (destroyed)"]).await;
}

/// Short runs of domains with long names: the ends of 10,000 are more than the driver holds.
fn send_runs(batch: &mut Batch, runs: u64) {
    for number in 0..runs {
        let name = format!("{number:x<4000}");
        let uuid = Uuid::from_u128(u128::from(number) << 64);
        let domain = Domain::new("scripted:", "h", uuid, &name, Some(1));
        let at = SystemTime::UNIX_EPOCH;
        batch.event(Lifecycle::new(domain.clone(), STARTED, at));
        batch.event(Lifecycle::new(domain, STOPPED, at));
    }
}

/// How many missed events a marker reports.
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
async fn events_held_for_a_late_list_are_counted_once() {
    const RUNS: u64 = 10_000;
    for is_late in [false, true] {
        let (server, source) = ScriptedServer::with_keepalive();
        let mut events = subscribe(&server, &source, &[]).await;
        server.disconnect();
        server.list_requested().await;
        // Before the list is overdue, or after.
        tokio::time::sleep(secs(if is_late { 11 } else { 1 })).await;
        server.send(|batch| send_runs(batch, RUNS));
        tokio::time::sleep(secs(11)).await;
        server.list(&[running(3)]).await;
        server.list(&[]).await;
        let mut counted = 0;
        while let Ok(event) = next_within(&mut events, secs(1)).await {
            assert_ne!(event.domain().map(Domain::uuid), Some(web(None).uuid()), "{event}");
            counted += missed(&event) + u64::from(event.is_happening());
        }
        assert_eq!(counted, 2 * RUNS, "{is_late}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_dropped_while_a_list_is_pending_are_counted() {
    const RUNS: u64 = 10_000;
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[]).await;
    server.disconnect();
    server.list_requested().await;
    server.send(|batch| send_runs(batch, RUNS));
    // Older than the events that were dropped, so it says nothing about them: a second list
    // follows.
    server.list(&[running(3)]).await;
    server.list(&[]).await;
    let delivered = until_synced(&mut events).await.unwrap();
    assert!(delivered.iter().all(DomainEvent::is_marker), "{delivered:?}");
    assert_eq!(delivered.iter().map(missed).sum::<u64>(), 2 * RUNS);
    assert_eq!(source.counters().missed, 2 * RUNS);
}

#[tokio::test(start_paused = true)]
async fn a_read_is_processed_in_order() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| {
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

    let (server, source) = ScriptedServer::new();
    let options = Options::default().kind("other:99".parse().unwrap());
    let mut events = subscribe_with(&server, &source, options, &[]).await;
    let raw = |name: &str| {
        let data = EventData::Bytes([1].into());
        RawEvent::new("scripted:", None, name.into(), data, SystemTime::UNIX_EPOCH)
    };
    for name in ["98", "99", "7"] {
        let event = raw(name);
        server.send(|batch| batch.event(event));
    }
    assert_eq!(events.next().await.unwrap(), DomainEvent::Other(raw("99")));
    nothing_within(&mut events, secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renamed_host_gets_its_new_name_without_subscribers() {
    let (server, source) = ScriptedServer::new();
    drop(subscribe(&server, &source, &[running(3)]).await);
    tokio::time::sleep(secs(60)).await;
    server.state(|state| state.host = "renamed");
    let source = &source;
    let answer = async {
        server.list_requested().await;
        let tag = server.state(|state| state.lists.remove(0));
        server.send(move |batch| {
            let web = batch.domain(web(None).uuid(), "web", Some(3));
            batch.listed(tag, vec![Listed::new(web, RUNNING, Some(true))]);
        });
    };
    let (events, ()) = tokio::join!(source.subscribe(), answer);
    assert_eq!(events.unwrap().next().await.unwrap().domain().unwrap().host(), "renamed");
}

#[tokio::test(start_paused = true)]
async fn events_of_a_sync_are_counted_once_each() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.disconnect();
    server.list_requested().await;
    server.event(Some(3), SUSPENDED);
    server.event(None, STOPPED);
    let db = Domain::new("scripted:", "h", Uuid::from_u128(2), "db", Some(8));
    server.list(&[running(3), Listed::new(db, RUNNING, Some(false))]).await;
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
