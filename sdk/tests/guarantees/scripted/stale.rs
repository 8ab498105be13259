//! Tests of replies that are outdated, and of calls that are never answered.

use tokio::time::Instant;
use virevent::{Kind, PausedReason};

use super::*;

fn paused(id: u32) -> Listed {
    Listed::new(web(Some(id)), State::Paused(PausedReason::User), Some(true))
}

#[tokio::test(start_paused = true)]
async fn a_reply_to_an_outdated_request_is_ignored() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    server.list_requested().await;
    let past = server.state(|state| state.lists.remove(0));
    server.send(|batch| {
        batch.outage(batch.source_scope(), fault());
        batch.restored(batch.source_scope());
    });
    server.list_requested().await;
    // No tag counts but that of the pending request.
    (0..=past).for_each(|tag| server.list_of(tag, &[running(9)]));
    nothing_within(&mut events, secs(1)).await.unwrap();
    server.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_of_an_earlier_connection_is_ignored() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.list_requested().await;
    let past = server.state(|state| state.lists[0]);
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    server.list_requested().await;
    assert!(server.state(|state| state.lists[0]) > past, "no tag is used twice");
    (0..=past).for_each(|tag| server.list_of(tag, &[running(9)]));
    nothing_within(&mut events, secs(1)).await.unwrap();
    server.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_accepts_only_the_reply_with_its_tag() {
    let (server, source) = ScriptedServer::with_keepalive();
    server.state(|state| {
        state.is_ordered = true;
        state.looks = Some(Vec::new());
    });
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    server.look_requested().await;
    let tag = server.state(|state| state.looks.as_ref().unwrap()[0]);
    server.send(move |batch| batch.looked(tag - 1, Some(paused(3))));
    server.list_of(tag, &[paused(3)]);
    nothing_within(&mut events, secs(1)).await.unwrap();
    server.look(Some(paused(3))).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_verified_while_a_list_is_wanted() {
    for can_look in [false, true] {
        let (server, source) = ScriptedServer::with_keepalive();
        server.state(|state| {
            state.is_ordered = true;
            state.looks = can_look.then(Vec::new);
        });
        let mut events = subscribe(&server, &source, &[running(3)]).await;
        server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
        let is_asked = |state: &ServerState| {
            !state.lists.is_empty() || state.looks.as_ref().is_some_and(|looks| !looks.is_empty())
        };
        server.until(is_asked).await;
        server.send(|batch| batch.restored(batch.source_scope()));
        tokio::time::sleep(secs(1)).await;
        match can_look {
            true => server.look(Some(paused(3))).await,
            false => server.list(&[paused(3)]).await,
        }
        nothing_within(&mut events, secs(1)).await.unwrap();
        server.list(&[running(3)]).await;
        delivered(&mut events, &["synced with *"]).await;
        assert_eq!(source.counters().corrected, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_after_a_correction_is_delivered() {
    let (server, source) = ScriptedServer::with_keepalive();
    server.state(|state| state.is_ordered = true);
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.list(&[paused(3)]).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
    server.event(Some(3), SUSPENDED);
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_without_an_answer_ends_the_connection() {
    let (server, source) = ScriptedServer::with_keepalive();
    let options = Options::default().kind(Kind::Lifecycle);
    let mut events = subscribe_with(&server, &source, options, &[running(3)]).await;
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let began = Instant::now();
    let mut late = source.subscribe().await.unwrap();
    server.state(|state| state.unconfirmed = None);
    delivered(&mut late, &["disconnected from *"]).await;
    delivered(&mut events, &["disconnected from *no answer to the registration within 10s*"]).await;
    assert_eq!(began.elapsed().as_secs(), 10);
    server.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_beside_a_list_that_hangs_keeps_the_connection() {
    let (server, source) = ScriptedServer::with_keepalive();
    let options = Options::default().kind(Kind::Lifecycle);
    let mut events = subscribe_with(&server, &source, options, &[running(3)]).await;
    server.list_requested().await;
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    source.subscribe().await.unwrap_err();
    let patient = source.clone();
    let patient =
        tokio::spawn(async move { patient.subscribe_with(Options::default().wait(true)).await });
    nothing_within(&mut events, secs(60)).await.unwrap();
    assert_eq!(server.state(|state| state.connections), 1);
    assert!(!patient.is_finished(), "the source is reachable: it waits for the registration");
    server.confirm();
    delivered(&mut patient.await.unwrap().unwrap(), &["web[3] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn without_keepalives_a_list_that_hangs_ends_the_connection() {
    let (server, builder) = ScriptedServer::builder();
    let source = builder.keepalive(None, 0).build();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.list_requested().await;
    let began = Instant::now();
    delivered(&mut events, &["disconnected from *no answer to the list of domains within 10s*"])
        .await;
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn each_close_has_five_seconds_of_its_own() {
    let (server, source) = ScriptedServer::with_keepalive();
    let _keeping = subscribe(&server, &source, &[running(3)]).await;
    let eights = Options::default().kind("other:99".parse().unwrap());
    let eights = source.subscribe_with(eights).await.unwrap();
    let nines = Options::default().kind("other:98".parse().unwrap());
    let nines = source.subscribe_with(nines).await.unwrap();
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let began = Instant::now();
    let first = tokio::spawn(eights.close());
    tokio::time::sleep(secs(3)).await;
    let second = tokio::spawn(nines.close());
    first.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 5);
    second.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_until_nothing_is_registered() {
    let (server, source) = ScriptedServer::with_keepalive();
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let is_asked =
        |state: &ServerState| state.unconfirmed.as_ref().is_some_and(|held| !held.is_empty());
    let subscriber = source.clone();
    let subscriber = tokio::spawn(async move { subscriber.subscribe().await });
    server.until(is_asked).await;
    let stopped = source.clone();
    let stopped = tokio::spawn(async move { stopped.shutdown().await });
    assert!(matches!(subscriber.await.unwrap(), Err(Error::Shutdown)));
    tokio::time::sleep(secs(1)).await;
    assert!(!stopped.is_finished(), "the registration is under way");
    server.confirm();
    server.until(is_asked).await;
    tokio::time::sleep(secs(1)).await;
    assert!(!stopped.is_finished(), "the deregistration is under way");
    assert!(server.state(|state| state.interest.is_empty()));
    server.confirm();
    tokio::time::timeout(secs(1), stopped).await.unwrap().unwrap();
}

/// Asks for something that is answered behind many events, all of which come while the process is
/// suspended beyond the deadline.
async fn answer_after_suspend(server: &ScriptedServer, answer: impl FnOnce()) {
    (0..50).for_each(|_| server.event(Some(3), SUSPENDED));
    answer();
    tokio::time::advance(secs(11)).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_queued_input_is_read_before_a_deadline() {
    let (server, source) = ScriptedServer::with_keepalive();
    let subscriber = source.clone();
    let options = Options::default().kind(Kind::Lifecycle);
    let subscriber = tokio::spawn(async move { subscriber.subscribe_with(options).await });
    server.list_requested().await;
    let tag = server.state(|state| state.lists.remove(0));
    answer_after_suspend(&server, || server.list_of(tag, &[running(3)])).await;
    let mut events = subscriber.await.unwrap().unwrap();
    // Each deadline is put off by itself: the first one must not use up the others' chance.
    for _ in 0..2 {
        server.state(|state| state.unconfirmed = Some(Vec::new()));
        let reboots = source.clone();
        let options = Options::default().kind(Kind::Reboot);
        let reboots = tokio::spawn(async move { reboots.subscribe_with(options).await });
        server.until(|state| state.unconfirmed.as_ref().is_some_and(|held| !held.is_empty())).await;
        answer_after_suspend(&server, || server.confirm()).await;
        server.state(|state| state.unconfirmed = None);
        drop(reboots.await.unwrap().unwrap());
        tokio::time::sleep(secs(2)).await;
    }
    while let Ok(event) = next_within(&mut events, secs(1)).await {
        assert!(!matches!(event, DomainEvent::Gap(_)), "{event}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_after_an_overdue_list_have_the_time_of_their_receipt() {
    // No keepalive is answered, so that the event is the next thing that is read.
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    server.list_requested().await;
    server.event(Some(3), SUSPENDED);
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    std::thread::sleep(Duration::from_millis(20));
    let before = SystemTime::now();
    server.event(None, STOPPED);
    let event = next_within(&mut events, secs(1)).await.unwrap();
    assert!(event.lifecycle().unwrap().at >= before);
}

#[test]
fn a_waiting_subscription_fails_when_the_runtime_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (server, source) = ScriptedServer::with_keepalive();
    // Two runtimes: the one of the driver ends, the one of the subscriber lives on.
    let drivers = runtime();
    let own = runtime();
    let asked = async {
        tokio::select! {
            outcome = source.subscribe() => panic!("{outcome:?}"),
            () = server.list_requested() => {}
        }
    };
    drivers.block_on(asked);
    let subscriber = source.clone();
    let subscriber = own.spawn(async move { subscriber.subscribe().await });
    own.block_on(tokio::task::yield_now());
    // The driver takes the command.
    drivers.block_on(async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    });
    assert!(!subscriber.is_finished());
    drop(drivers);
    let outcome = own.block_on(subscriber).unwrap();
    assert!(matches!(outcome, Err(Error::DriverEnded)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_older_than_a_dropped_event_is_stale() {
    let (server, source) = ScriptedServer::with_keepalive();
    let subscribe = |options: Options| {
        let source = source.clone();
        tokio::spawn(async move { source.subscribe_with(options).await })
    };
    let first = subscribe(Options::default().kind(Kind::Lifecycle));
    server.list_requested().await;
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let second = subscribe(Options::default().kind(Kind::Reboot));
    server.until(|state| state.unconfirmed.as_ref().is_some_and(|held| !held.is_empty())).await;
    // Both leave while a registration is under way, so that an event of the old one still arrives.
    first.abort();
    second.abort();
    tokio::time::sleep(secs(1)).await;
    server.event(Some(4), STARTED);
    tokio::time::sleep(secs(1)).await;
    let third = subscribe(Options::default());
    tokio::time::sleep(secs(1)).await;
    server.confirm();
    server.list(&[]).await;
    server.list(&[running(4)]).await;
    delivered(&mut third.await.unwrap().unwrap(), &["web[4] existing *", "synced with *"]).await;
}

fn refusal() -> Error {
    Error::protocol("no list for you")
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_ends_the_connection_that_needs_it() {
    let (server, source) = ScriptedServer::with_keepalive();
    let refuse = async || {
        server.list_requested().await;
        let tag = server.state(|state| state.lists.remove(0));
        server.send(move |batch| batch.list_failed(tag, refusal()));
    };
    let (outcome, ()) = tokio::join!(source.subscribe(), refuse());
    assert!(matches!(outcome, Err(Error::Protocol { .. })), "{outcome:?}");
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    let connections = server.state(|state| state.connections);
    refuse().await;
    server.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
    assert!(server.state(|state| state.connections) > connections);
}

#[tokio::test(start_paused = true)]
async fn a_refused_list_without_a_subscriber_ends_nothing() {
    let (server, source) = ScriptedServer::with_keepalive();
    assert!(tokio::time::timeout(secs(1), source.subscribe()).await.is_err());
    server.list_requested().await;
    let tag = server.state(|state| state.lists.remove(0));
    server.send(move |batch| batch.list_failed(tag, refusal()));
    tokio::time::sleep(secs(1)).await;
    subscribe(&server, &source, &[running(3)]).await;
    assert_eq!(server.state(|state| state.connections), 1);
}
