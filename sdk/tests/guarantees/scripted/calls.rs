//! Tests of calls without an answer, and of many calls at once.

use tokio::time::Instant;
use virevent::{Kind, Status};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_list_without_an_answer_is_not_the_end_of_the_connection() {
    let (server, source) = ScriptedServer::with_keepalive();
    let began = Instant::now();
    let error = source.subscribe().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { call: "the list of domains", .. }), "{error}");
    assert_eq!(began.elapsed().as_secs(), 10);
    // The list is older than the second subscription's registration, so it needs another.
    let next = source.clone();
    let next = tokio::spawn(async move { next.subscribe().await.unwrap() });
    tokio::time::sleep(secs(2)).await;
    assert_eq!(server.state(|state| (state.connections, state.lists.len())), (1, 1));
    server.list(&[]).await;
    server.list(&[running(3)]).await;
    delivered(&mut next.await.unwrap(), &["web[3] existing *", "synced with *"]).await;
    assert_eq!(server.state(|state| state.connections), 1);
}

#[tokio::test(start_paused = true)]
async fn keepalives_go_on_while_a_deadline_is_put_off() {
    let (server, builder) = ScriptedServer::builder();
    server.state(|state| state.answers_pings = true);
    let source = builder.keepalive(Some(Duration::from_millis(300)), 3).build();
    let began = Instant::now();
    // The deadline passes while there is something to read, so it is put off by a second.
    let event = async {
        tokio::time::sleep_until(began + secs(10)).await;
        server.event(Some(3), SUSPENDED);
        server.state(|state| state.pings)
    };
    let (outcome, pings_before) = tokio::join!(source.subscribe(), event);
    outcome.unwrap_err();
    assert_eq!(began.elapsed(), secs(11));
    assert_eq!(server.state(|state| state.pings) - pings_before, 3);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_while_a_list_is_unanswered() {
    let (server, source) = ScriptedServer::with_keepalive();
    source.subscribe().await.unwrap_err();
    tokio::time::sleep(secs(600)).await;
    assert!(server.state(|state| state.interest.is_empty()));
    let next = source.clone();
    let next = tokio::spawn(async move { next.subscribe().await.map(drop) });
    tokio::time::sleep(secs(1)).await;
    assert_eq!(server.state(|state| (state.connections, state.lists.len())), (1, 1));
    next.await.unwrap().unwrap_err();
    // With the answer no worker of the server is bound any more: the idle connection is dropped.
    server.list(&[]).await;
    tokio::time::sleep(secs(31)).await;
    assert!(
        server
            .state(|state| state.connection.as_ref().is_some_and(mpsc::UnboundedSender::is_closed))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_opens_with_a_gap_when_the_list_is_late() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = source.subscribe_with(Options::default().wait(true)).await.unwrap();
    delivered(&mut events, &["disconnected from *no answer to the list of domains within 10s*"])
        .await;
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    server.list(&[running(3)]).await;
    delivered(&mut events, &["web[3] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn events_go_on_while_the_list_after_an_outage_is_late() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    server.list_requested().await;
    server.event(Some(3), SUSPENDED);
    let held = Instant::now();
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    assert!(held.elapsed() > secs(9), "held back until the list is overdue");
    server.event(None, STOPPED);
    delivered(&mut events, &["web[3] stopped (destroyed)"]).await;
    let db = Domain::new("scripted:", "h", Uuid::from_u128(2), "db", Some(8));
    let off = Listed::new(web(None), OFF, Some(true));
    server.list(&[off, Listed::new(db, RUNNING, Some(false))]).await;
    delivered(&mut events, &["db[8] started (booted) [inferred]", "synced with * (2 domains)"])
        .await;
    assert_eq!(source.counters().corrected, 0);
}

#[tokio::test(start_paused = true)]
async fn close_is_confirmed_beside_a_list_without_an_answer() {
    let (server, source) = ScriptedServer::with_keepalive();
    let events = subscribe(&server, &source, &[running(3)]).await;
    server.list_requested().await;
    let began = Instant::now();
    events.close().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(server.state(|state| state.interest.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn close_ends_after_five_seconds_without_a_confirmation() {
    let (server, source) = ScriptedServer::with_keepalive();
    let events = subscribe(&server, &source, &[running(3)]).await;
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let began = Instant::now();
    events.close().await;
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn after_two_losses_with_a_list_open_the_next_list_waits() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.disconnect();
    let mut waits = Vec::new();
    for _ in 0..6 {
        let began = Instant::now();
        server.list_requested().await;
        waits.push(began.elapsed().as_secs() / 10 * 10);
        // Longer than a call may take: it hangs.
        tokio::time::sleep(secs(11)).await;
        server.disconnect();
    }
    // The first loss delays nothing: its cause may have been the connection itself.
    assert_eq!(waits, [0, 0, 30, 60, 120, 240]);
    server.list(&[running(3)]).await;
    delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    server.disconnect();
    let began = Instant::now();
    server.list_requested().await;
    assert!(began.elapsed() < secs(6), "an answer ends the waits");
    tokio::time::sleep(secs(11)).await;
    server.disconnect();
    let began = Instant::now();
    server.list_requested().await;
    assert!(began.elapsed() < secs(6), "and the next list that hangs is the first");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_waits_for_a_kind_being_deregistered() {
    let (server, source) = ScriptedServer::with_keepalive();
    let lifecycle = Options::default().kind(Kind::Lifecycle);
    let keeping = subscribe_with(&server, &source, lifecycle, &[running(3)]).await;
    let reboots = source.subscribe_with(Options::default().kind(Kind::Reboot)).await.unwrap();
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    drop(reboots);
    tokio::time::sleep(secs(1)).await;
    let late = source.clone();
    let late =
        tokio::spawn(
            async move { late.subscribe_with(Options::default().kind(Kind::Reboot)).await },
        );
    tokio::time::sleep(secs(1)).await;
    assert!(!late.is_finished(), "reboots are being deregistered");
    server.confirm();
    tokio::time::sleep(secs(1)).await;
    assert!(server.state(|state| state.interest.contains(&Kind::Reboot)));
    server.confirm();
    late.await.unwrap().unwrap();
    drop(keeping);
}

#[tokio::test(start_paused = true)]
async fn a_late_registration_is_no_outage_of_a_synced_source() {
    let (server, source) = ScriptedServer::with_keepalive();
    let lifecycle = Options::default().kind(Kind::Lifecycle);
    let mut first = subscribe_with(&server, &source, lifecycle.clone(), &[running(3)]).await;
    server.list_requested().await;
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let reboots = Options::default().kind(Kind::Reboot);
    let patient = {
        let source = source.clone();
        let options = reboots.clone().wait(true);
        tokio::spawn(async move { source.subscribe_with(options).await })
    };
    tokio::task::yield_now().await;
    source.subscribe_with(reboots).await.unwrap_err();
    assert_eq!(source.health().status(), Status::Synced);
    let mut later = source.subscribe_with(lifecycle).await.unwrap();
    delivered(&mut later, &["web[3] existing *", "synced with *"]).await;
    server.confirm();
    until_synced(&mut patient.await.unwrap().unwrap()).await.unwrap();
    server.event(Some(3), SUSPENDED);
    delivered(&mut first, &["web[3] suspended (paused)"]).await;
    delivered(&mut later, &["web[3] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn failed_subscriptions_do_not_delay_the_next_list() {
    let (server, source) = ScriptedServer::with_keepalive();
    for _ in 0..2 {
        let events = source.subscribe_with(Options::default().wait(true)).await.unwrap();
        server.disconnect();
        drop(events);
        tokio::time::sleep(secs(60)).await;
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (outcome, ()) = tokio::join!(source.subscribe(), async {
            tokio::time::sleep(secs(9)).await;
            if server.state(|state| !state.lists.is_empty()) {
                server.list(&[running(3)]).await;
            }
        });
        if outcome.is_ok() {
            break;
        }
        assert!(attempts < 40, "no list was ever requested");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_though_no_deregistration_is_confirmed() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.list_requested().await;
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let began = Instant::now();
    source.shutdown().await;
    assert!(began.elapsed() <= secs(6), "{:?}", began.elapsed());
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn commands_do_not_hold_up_events() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    let mut asking: Vec<_> = (0..500).map(|_| Box::pin(source.subscribe())).collect();
    for asking in &mut asking {
        assert!(asking.as_mut().now_or_never().is_none());
    }
    server.event(Some(3), SUSPENDED);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let first = events.next().now_or_never();
    let answered = asking.iter_mut().filter_map(|asking| asking.as_mut().now_or_never()).count();
    assert!(first.is_some(), "the event waits behind {answered} commands");
    assert!(answered < 400, "{answered} of 500 came before the event");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_next_server_has_is_registered() {
    let (server, source) = ScriptedServer::with_keepalive();
    server.state(|state| state.unconfirmed = Some(Vec::new()));
    let subscriber = source.clone();
    let subscriber = tokio::spawn(async move { subscriber.subscribe().await.unwrap() });
    server.until(|state| state.unconfirmed.as_ref().is_some_and(|held| !held.is_empty())).await;
    let tag = server.state(|state| state.unconfirmed.take().unwrap()[0]);
    server.send(move |batch| batch.interest_done(tag, &[Kind::Reboot]));
    server.list(&[]).await;
    let mut events = subscriber.await.unwrap();
    assert!(!source.capabilities().kinds.contains(&Kind::Reboot));
    assert!(source.capabilities().lacking.contains(&Kind::Reboot));
    server.disconnect();
    server.list(&[]).await;
    delivered(&mut events, &["synced *", "disconnected from *", "synced *"]).await;
    assert!(source.capabilities().kinds.contains(&Kind::Reboot));
    assert!(source.capabilities().lacking.is_empty());
    assert!(server.state(|state| state.interest.contains(&Kind::Reboot)));
}
