//! Streams that resume: starts under way, and unreachable parts.

use virevent::{DomainStore, ResumeCause, Snapshot};

use super::*;

const STARTING: State = State::Paused(virevent::PausedReason::StartingUp);
const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);

async fn known_of(list: &[Listed]) -> Snapshot {
    let (server, source) = ScriptedServer::new();
    let (store, ()) = tokio::join!(source.store(), server.list(list));
    store.unwrap().wait_for(Snapshot::is_certain).await.unwrap()
}

/// What is delivered until nothing is for a second, as lines.
async fn all(events: &mut virevent::EventStream, store: &DomainStore) -> Vec<String> {
    all_within(events, store, secs(1)).await
}

async fn all_within(
    events: &mut virevent::EventStream,
    store: &DomainStore,
    quiet: Duration,
) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(quiet, events.next()).await {
        store.apply(&event);
        lines.push(event.to_string());
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn a_start_under_way_is_delivered_when_it_is_complete() {
    let known = known_of(&[Listed::new(web(None), OFF, Some(true))]).await;
    let (server, source) = ScriptedServer::new();
    let store = DomainStore::resumed(known.clone());
    let options = Options::default().resume(known);
    let half = Listed::new(web(Some(4)), STARTING, Some(true));
    let list = [half];
    let (events, ()) = tokio::join!(source.subscribe_with(options), server.list(&list));
    let mut events = events.unwrap();
    let mut lines = all(&mut events, &store).await;
    server.event(Some(4), RESUMED);
    server.event(Some(4), STARTED);
    lines.extend(all(&mut events, &store).await);
    let started = lines.iter().filter(|line| line.starts_with("web[4] started")).count();
    assert_eq!(started, 1, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_under_way_hides_no_end_of_the_run_before() {
    let known = known_of(&[Listed::new(web(Some(3)), RUNNING, Some(false))]).await;
    let (server, source) = ScriptedServer::new();
    let store = DomainStore::resumed(known.clone());
    let options = Options::default().resume(known);
    let list = [Listed::new(web(Some(4)), STARTING, Some(false))];
    let (events, ()) = tokio::join!(source.subscribe_with(options), server.list(&list));
    let mut events = events.unwrap();
    let lines = all(&mut events, &store).await;
    assert_eq!(lines[0], "web[3] stopped [inferred]");
    assert!(store.snapshot().is_empty());
    assert!(store.snapshot().is_certain());
}

/// A domain on another host of the source.
fn db() -> Domain {
    Domain::new("scripted:", "far", Uuid::from_u128(2), "db", Some(1))
}

/// A stream that resumes while that host is unreachable, and what it began with.
async fn resumed_without_far()
-> (ScriptedServer, Driver, virevent::EventStream, DomainStore, Vec<String>) {
    let known = known_of(&[running(3), Listed::new(db(), RUNNING, Some(false))]).await;
    let (server, source) = ScriptedServer::new();
    let store = DomainStore::resumed(known.clone());
    let act = async {
        server.list_requested().await;
        server.send(|batch| batch.outage(Scope::on_host("scripted:", "far"), fault()));
        server.list(&[running(3)]).await;
    };
    let options = Options::default().resume(known);
    let (events, ()) = tokio::join!(source.subscribe_with(options), act);
    let mut events = events.unwrap();
    let lines = all(&mut events, &store).await;
    (server, source, events, store, lines)
}

#[tokio::test(start_paused = true)]
async fn an_end_in_an_unreachable_part_is_delivered_at_its_return() {
    let (server, _source, mut events, store, mut lines) = resumed_without_far().await;
    assert!(!store.snapshot().get("db").unwrap().certain);
    // As a session does at the return of a part: the levels of what is in it, then restored.
    server.send(move |batch| batch.gone(&db(), StopCause::Failed));
    server.send(|batch| batch.restored(Scope::on_host("scripted:", "far")));
    lines.extend(all(&mut events, &store).await);
    let stopped = lines.iter().filter(|line| line.starts_with("db[1] stopped (failed)")).count();
    assert_eq!(stopped, 1, "{lines:#?}");
    assert!(store.snapshot().get("db").is_none());
    assert!(store.snapshot().is_certain());
}

#[tokio::test(start_paused = true)]
async fn a_run_in_an_unreachable_part_is_not_started_again() {
    let (server, _source, mut events, store, mut lines) = resumed_without_far().await;
    server.send(move |batch| batch.state(db(), RUNNING));
    server.send(|batch| batch.restored(Scope::on_host("scripted:", "far")));
    lines.extend(all(&mut events, &store).await);
    assert!(!lines.iter().any(|line| line.contains("started")), "{lines:#?}");
    assert!(store.snapshot().get("db").unwrap().certain);
}

#[tokio::test(start_paused = true)]
async fn counters_include_what_a_resumed_stream_infers() {
    let known = known_of(&[running(3)]).await;
    let (server, source) = ScriptedServer::new();
    let options = Options::default().resume(known);
    let list = [running(4)];
    let (events, ()) = tokio::join!(source.subscribe_with(options), server.list(&list));
    let _events = events.unwrap();
    assert_eq!(source.counters().events, 2);
}

#[tokio::test(start_paused = true)]
async fn a_part_without_identity_hides_what_may_be_behind_it() {
    let listed = Listed::new(web(Some(3)), RUNNING, Some(false));
    let known = known_of(std::slice::from_ref(&listed)).await;
    for is_alive in [true, false] {
        let (server, source) = ScriptedServer::new();
        let store = DomainStore::resumed(known.clone());
        let options = Options::default().resume(known.clone());
        let placeholder = || Domain::new("scripted:", "h", Uuid::from_u128(77), "web", None);
        let act = async {
            server.list_requested().await;
            server.send(move |batch| batch.outage(Scope::Domain(placeholder()), fault()));
            server.list(&[]).await;
        };
        let (events, ()) = tokio::join!(source.subscribe_with(options), act);
        let mut events = events.unwrap();
        let lines = all(&mut events, &store).await;
        assert!(!lines.iter().any(|line| line.contains("stopped")), "{lines:#?}");
        assert!(!store.snapshot().get("web").unwrap().certain);

        // A list follows the return of what may have hidden it.
        let alive = listed.clone();
        server.send(move |batch| {
            if is_alive {
                batch.state(alive.domain.clone(), RUNNING);
            }
            batch.restored(Scope::Domain(placeholder()));
        });
        let list: &[Listed] = if is_alive { std::slice::from_ref(&listed) } else { &[] };
        let (lines, ()) = tokio::join!(all_within(&mut events, &store, secs(30)), async {
            server.list(list).await;
            if !is_alive {
                // One reply is no proof.
                server.list(list).await;
            }
        });
        let stopped = lines.iter().filter(|line| line.contains("stopped")).count();
        assert_eq!(stopped, usize::from(!is_alive), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("started")), "{lines:#?}");
        assert!(store.snapshot().is_certain());
        assert_eq!(store.snapshot().len(), usize::from(is_alive));
    }
}
