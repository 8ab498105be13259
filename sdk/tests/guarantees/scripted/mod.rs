//! Tests on a scripted server: what a real one may send, and when, and the fake hypervisor never
//! does.

mod calls;
mod events;
mod resumes;
mod server;
mod stale;
mod starts;
mod unreachable;
mod verification;

use std::time::{Duration, SystemTime};

use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use virevent::driver::{Batch, Driver, Listed};
use virevent::{
    Change, Domain, DomainEvent, Error, EventSource, EventSourceExt, Fault, FaultKind, Lifecycle,
    Options, Reboot, RunningReason, Scope, ShutoffReason, StartCause, State, Status, StopCause,
    SuspendCause, Uuid,
};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};

use self::server::{ScriptedServer, ServerState};
use crate::{delivered, secs};

const RUNNING: State = State::Running(RunningReason::Booted);
const OFF: State = State::Shutoff(ShutoffReason::Shutdown);
const STARTED: Change = Change::Started(StartCause::Booted);
const SUSPENDED: Change = Change::Suspended(SuspendCause::Paused);
const STOPPED: Change = Change::Stopped(StopCause::Destroyed);

fn web(id: Option<u32>) -> Domain {
    Domain::new("scripted:", "h", Uuid::from_u128(1), "web", id)
}

fn running(id: u32) -> Listed {
    Listed::new(web(Some(id)), RUNNING, Some(true))
}

fn fault() -> Fault {
    Fault::new(FaultKind::Closed, "gone")
}

async fn subscribe(
    server: &ScriptedServer,
    source: &Driver,
    list: &[Listed],
) -> virevent::EventStream {
    subscribe_with(server, source, Options::default(), list).await
}

async fn subscribe_with(
    server: &ScriptedServer,
    source: &Driver,
    options: Options,
    list: &[Listed],
) -> virevent::EventStream {
    let (events, ()) = tokio::join!(source.subscribe_with(options), server.list(list));
    let mut events = events.unwrap();
    until_synced(&mut events).await.unwrap();
    events
}

#[tokio::test(start_paused = true)]
async fn one_list_is_requested_at_a_time_and_old_ones_dropped() {
    let (server, source) = ScriptedServer::new();
    for _ in 0..3 {
        assert!(tokio::time::timeout(secs(1), source.subscribe()).await.is_err());
        assert_eq!(server.state(|state| state.lists.len()), 1);
    }
    let answers = async {
        // The reply to the first request, whose subscription has been dropped.
        server.list(&[running(3)]).await;
        server.list(&[running(4)]).await;
    };
    let (events, ()) = tokio::join!(source.subscribe(), answers);
    delivered(&mut events.unwrap(), &["web[4] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_has_the_time_of_its_receipt() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    let _later = source.subscribe().await.unwrap();
    // Real time, since the paused clock of tokio does not move the system's.
    std::thread::sleep(Duration::from_millis(20));
    let before = SystemTime::now();
    server.event(Some(3), SUSPENDED);
    let event = next_within(&mut events, secs(1)).await.unwrap();
    assert!(event.lifecycle().unwrap().at >= before);
}

#[tokio::test(start_paused = true)]
async fn held_events_beyond_the_bound_are_counted_exactly() {
    // More than the 65,536 events that are held for a list.
    const REBOOTS: u64 = 70_000;
    let (server, source) = ScriptedServer::new();
    let mut small = subscribe(&server, &source, &[running(3)]).await;
    let large = Options::default().capacity(200_000);
    let mut large = source.subscribe_with(large).await.unwrap();
    until_synced(&mut large).await.unwrap();
    server.disconnect();
    delivered(&mut small, &["disconnected from *"]).await;
    delivered(&mut large, &["disconnected from *"]).await;
    server.list_requested().await;
    server.send(|batch| {
        let reboot = Reboot::new(web(Some(3)), SystemTime::UNIX_EPOCH);
        (0..REBOOTS).for_each(|_| batch.event(reboot.clone()));
    });
    server.list(&[running(3)]).await;
    for events in [&mut small, &mut large] {
        let mut missed = 0;
        let mut came = 0;
        while let Ok(event) = next_within(events, secs(1)).await {
            match event {
                DomainEvent::Gap(gap) => match gap.kind {
                    virevent::GapKind::Lagged { missed: n, .. } => missed += n,
                    other => panic!("{other:?}"),
                },
                event => came += u64::from(event.is_happening()),
            }
        }
        assert_eq!(missed + came, REBOOTS);
    }
}

#[tokio::test(start_paused = true)]
async fn a_level_before_the_list_is_delivered_once() {
    let (server, source) = ScriptedServer::new();
    let mut first = subscribe(&server, &source, &[]).await;
    server.disconnect();
    delivered(&mut first, &["disconnected from *"]).await;
    let mut second = source.subscribe().await.unwrap();
    server.list_requested().await;
    server.send(|batch| batch.state(web(Some(7)), RUNNING));
    server.list(&[]).await;
    delivered(&mut first, &["web[7] started (booted)", "synced with scripted: (1 domain)"]).await;
    delivered(&mut second, &["disconnected from *", "web[7] started (booted)", "synced with *"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn two_runs_that_end_before_a_list_leave_no_ghost() {
    let (server, source) = ScriptedServer::new();
    let subscribing = tokio::spawn({
        let source = source.clone();
        async move { source.subscribe().await.unwrap() }
    });
    server.list_requested().await;
    let transient = Listed::new(web(Some(7)), RUNNING, Some(false));
    server.send(|batch| batch.gone(&web(Some(7)), StopCause::Shutdown));
    server.send(|batch| batch.state(web(Some(8)), RUNNING));
    server.send(|batch| batch.gone(&web(Some(8)), StopCause::Shutdown));
    server.list(&[transient]).await;
    delivered(&mut subscribing.await.unwrap(), &["synced with scripted: (0 domains)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_transient_domain_leaves_no_level_ghost() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[]).await;
    server.send(|batch| batch.state(web(Some(7)), RUNNING));
    server.send(|batch| batch.state(web(None), OFF));
    delivered(&mut events, &["web[7] started (booted)", "web[7] stopped (shutdown)"]).await;
    nothing_within(&mut events, secs(1)).await.unwrap();
    delivered(&mut source.subscribe().await.unwrap(), &["synced with scripted: (0 domains)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_renamed_host_keeps_the_name_that_is_known() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.state(|state| state.host = "renamed");
    server.disconnect();
    server.list_requested().await;
    let tag = server.state(|state| state.lists.remove(0));
    server.send(move |batch| {
        let web = batch.domain(web(None).uuid(), "web", Some(3));
        batch.listed(tag, vec![Listed::new(web, RUNNING, Some(true))]);
    });
    delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    server.event(Some(3), SUSPENDED);
    assert_eq!(events.next().await.unwrap().domain().unwrap().host(), "h");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_the_driver_reads_before_a_timeout() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    // One second before the driver would find the server silent: 5 s times 6.
    tokio::time::sleep(secs(29)).await;
    server.event(Some(3), SUSPENDED);
    tokio::time::advance(secs(60)).await;
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    nothing_within(&mut events, secs(29)).await.unwrap();
    delivered(&mut events, &["disconnected from *no answer to a keepalive within 30s*"]).await;
}

#[tokio::test(start_paused = true)]
async fn endless_events_do_not_extend_a_call_without_answer() {
    let (server, source) = ScriptedServer::new();
    let flood = async {
        server.list_requested().await;
        for _ in 0..15 {
            (0..100).for_each(|_| server.event(Some(3), SUSPENDED));
            tokio::time::advance(secs(1)).await;
        }
    };
    let error = tokio::select! {
        outcome = source.subscribe() => outcome.unwrap_err(),
        () = flood => panic!("it still waits"),
    };
    assert!(matches!(error, Error::Timeout { call: "the list of domains", .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_endless_timeout_does_not_panic() {
    let (server, builder) = ScriptedServer::builder();
    let builder = builder.call_timeout(Duration::MAX).idle_timeout(Duration::MAX);
    let builder = builder.connect_timeout(Duration::MAX).keepalive(Some(Duration::MAX), 3);
    let source = builder.build();
    let events = subscribe(&server, &source, &[running(3)]).await;
    events.close().await;
    tokio::time::sleep(secs(1_000_000)).await;
    assert_eq!(source.health().status(), Status::Idle);
    subscribe(&server, &source, &[running(3)]).await;
}

#[tokio::test(start_paused = true)]
async fn events_before_a_lost_connection_precede_the_gap() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.event(None, STOPPED);
    server.event(Some(4), STARTED);
    server.disconnect();
    delivered(&mut events, &["web[3] stopped *", "web[4] started *", "disconnected from *"]).await;
}
