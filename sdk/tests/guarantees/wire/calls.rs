//! Calls that the server does not answer, and many at once.

use tokio::time::Instant;
use virevent::{Kind, Status};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_list_without_an_answer_is_not_the_end_of_the_connection() {
    let (wire, source) = Wire::alive();
    let began = Instant::now();
    let error = source.subscribe().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { call: "the list of domains", .. }), "{error}");
    assert_eq!(began.elapsed().as_secs(), 10);
    // The next one waits for the same answer, which is too old for it, and for its own.
    let next = source.clone();
    let next = tokio::spawn(async move { next.subscribe().await.unwrap() });
    tokio::time::sleep(secs(2)).await;
    assert_eq!(wire.server(|server| (server.connections, server.lists.len())), (1, 1));
    wire.list(&[]).await;
    wire.list(&[running(3)]).await;
    delivered(&mut next.await.unwrap(), &["web[3] existing *", "synced with *"]).await;
    assert_eq!(wire.server(|server| server.connections), 1);
}

#[tokio::test(start_paused = true)]
async fn keepalives_go_on_while_a_deadline_is_put_off() {
    let (wire, builder) = Wire::builder();
    wire.server(|server| server.answers_pings = true);
    let source = builder.keepalive(Some(Duration::from_millis(300)), 3).build();
    let began = Instant::now();
    // When the deadline passes there is something to read: it is put off by a second.
    let event = async {
        tokio::time::sleep_until(began + secs(10)).await;
        wire.event(Some(3), SUSPENDED);
        wire.server(|server| server.pings)
    };
    let (outcome, pings_before) = tokio::join!(source.subscribe(), event);
    outcome.unwrap_err();
    assert_eq!(began.elapsed(), secs(11));
    assert_eq!(wire.server(|server| server.pings) - pings_before, 3);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_while_a_list_is_unanswered() {
    let (wire, source) = Wire::alive();
    source.subscribe().await.unwrap_err();
    tokio::time::sleep(secs(600)).await;
    assert!(wire.server(|server| server.interest.is_empty()));
    let next = source.clone();
    let next = tokio::spawn(async move { next.subscribe().await.map(drop) });
    tokio::time::sleep(secs(1)).await;
    assert_eq!(wire.server(|server| (server.connections, server.lists.len())), (1, 1));
    next.await.unwrap().unwrap_err();
    // Answered at last, it is of no use any more, and the connection goes.
    wire.list(&[]).await;
    tokio::time::sleep(secs(31)).await;
    assert!(
        wire.server(|server| server.line.as_ref().is_some_and(mpsc::UnboundedSender::is_closed))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_opens_with_a_gap_when_the_list_is_late() {
    let (wire, source) = Wire::alive();
    let mut events = source.subscribe_with(Options::default().wait(true)).await.unwrap();
    delivered(&mut events, &["disconnected from *no answer to the list of domains within 10s*"])
        .await;
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    wire.list(&[running(3)]).await;
    delivered(&mut events, &["web[3] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn events_go_on_while_the_list_after_an_outage_is_late() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.hang_up();
    delivered(&mut events, &["disconnected from *"]).await;
    wire.asked_to_list().await;
    wire.event(Some(3), SUSPENDED);
    let held = Instant::now();
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    assert!(held.elapsed() > secs(9), "until then the list might have come");
    wire.event(None, STOPPED);
    delivered(&mut events, &["web[3] stopped (destroyed)"]).await;
    let db = Domain::new("wire:", "h", Uuid::from_u128(2), "db", Some(8));
    let off = Listed::new(web(None), OFF, Some(true));
    wire.list(&[off, Listed::new(db, RUNNING, Some(false))]).await;
    delivered(&mut events, &["db[8] started (booted) [inferred]", "synced with * (2 domains)"])
        .await;
    assert_eq!(source.counters().corrected, 0);
}

#[tokio::test(start_paused = true)]
async fn close_is_confirmed_beside_a_list_without_an_answer() {
    let (wire, source) = Wire::alive();
    let events = subscribe(&wire, &source, &[running(3)]).await;
    wire.asked_to_list().await;
    let began = Instant::now();
    events.close().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(wire.server(|server| server.interest.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn close_ends_after_five_seconds_without_a_confirmation() {
    let (wire, source) = Wire::alive();
    let events = subscribe(&wire, &source, &[running(3)]).await;
    wire.server(|server| server.held = Some(Vec::new()));
    let began = Instant::now();
    events.close().await;
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn after_two_losses_with_a_list_open_the_next_list_waits() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.hang_up();
    let mut waits = Vec::new();
    for _ in 0..6 {
        let began = Instant::now();
        wire.asked_to_list().await;
        waits.push(began.elapsed().as_secs() / 10 * 10);
        // Longer than a call may take: it hangs.
        tokio::time::sleep(secs(11)).await;
        wire.hang_up();
    }
    assert_eq!(waits, [0, 0, 30, 60, 120, 240]);
    wire.list(&[running(3)]).await;
    delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    wire.hang_up();
    let began = Instant::now();
    wire.asked_to_list().await;
    assert!(began.elapsed() < secs(6), "an answer ends the waits");
    tokio::time::sleep(secs(11)).await;
    wire.hang_up();
    let began = Instant::now();
    wire.asked_to_list().await;
    assert!(began.elapsed() < secs(6), "and the next list that hangs is the first");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_waits_for_a_kind_being_deregistered() {
    let (wire, source) = Wire::alive();
    let lifecycle = Options::default().kind(Kind::Lifecycle);
    let keeping = subscribe_with(&wire, &source, lifecycle, &[running(3)]).await;
    let reboots = source.subscribe_with(Options::default().kind(Kind::Reboot)).await.unwrap();
    wire.server(|server| server.held = Some(Vec::new()));
    drop(reboots);
    tokio::time::sleep(secs(1)).await;
    let newcomer = source.clone();
    let newcomer = tokio::spawn(async move {
        newcomer.subscribe_with(Options::default().kind(Kind::Reboot)).await
    });
    tokio::time::sleep(secs(1)).await;
    assert!(!newcomer.is_finished(), "reboots are being deregistered");
    wire.confirm();
    tokio::time::sleep(secs(1)).await;
    assert!(wire.server(|server| server.interest.contains(&Kind::Reboot)));
    wire.confirm();
    newcomer.await.unwrap().unwrap();
    drop(keeping);
}

#[tokio::test(start_paused = true)]
async fn a_late_registration_is_no_outage_of_a_synced_source() {
    let (wire, source) = Wire::alive();
    let lifecycle = Options::default().kind(Kind::Lifecycle);
    let mut first = subscribe_with(&wire, &source, lifecycle.clone(), &[running(3)]).await;
    wire.asked_to_list().await;
    wire.server(|server| server.held = Some(Vec::new()));
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
    wire.confirm();
    until_synced(&mut patient.await.unwrap().unwrap()).await.unwrap();
    wire.event(Some(3), SUSPENDED);
    delivered(&mut first, &["web[3] suspended (paused)"]).await;
    delivered(&mut later, &["web[3] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn failed_subscriptions_do_not_delay_the_next_list() {
    let (wire, source) = Wire::alive();
    for _ in 0..2 {
        let events = source.subscribe_with(Options::default().wait(true)).await.unwrap();
        wire.hang_up();
        drop(events);
        tokio::time::sleep(secs(60)).await;
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (outcome, ()) = tokio::join!(source.subscribe(), async {
            tokio::time::sleep(secs(9)).await;
            if wire.server(|server| !server.lists.is_empty()) {
                wire.list(&[running(3)]).await;
            }
        });
        if outcome.is_ok() {
            break;
        }
        assert!(attempts < 40, "no list was ever asked for");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_though_no_deregistration_is_confirmed() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.asked_to_list().await;
    wire.server(|server| server.held = Some(Vec::new()));
    let began = Instant::now();
    source.shutdown().await;
    assert!(began.elapsed() <= secs(6), "{:?}", began.elapsed());
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn commands_do_not_hold_up_events() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    let mut asking: Vec<_> = (0..500).map(|_| Box::pin(source.subscribe())).collect();
    for asking in &mut asking {
        assert!(asking.as_mut().now_or_never().is_none());
    }
    wire.event(Some(3), SUSPENDED);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let first = events.next().now_or_never();
    let answered = asking.iter_mut().filter_map(|asking| asking.as_mut().now_or_never()).count();
    assert!(first.is_some(), "the event waits behind {answered} commands");
    assert!(answered < 400, "{answered} of 500 came before the event");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_next_server_has_is_registered() {
    let (wire, source) = Wire::alive();
    wire.server(|server| server.held = Some(Vec::new()));
    let subscriber = source.clone();
    let subscriber = tokio::spawn(async move { subscriber.subscribe().await.unwrap() });
    wire.until(|server| server.held.as_ref().is_some_and(|held| !held.is_empty())).await;
    let tag = wire.server(|server| server.held.take().unwrap()[0]);
    wire.say(move |batch| batch.interest_done(tag, &[Kind::Reboot]));
    wire.list(&[]).await;
    let mut events = subscriber.await.unwrap();
    assert!(!source.capabilities().kinds.contains(&Kind::Reboot));
    assert!(source.capabilities().lacking.contains(&Kind::Reboot));
    wire.hang_up();
    wire.list(&[]).await;
    delivered(&mut events, &["synced *", "disconnected from *", "synced *"]).await;
    assert!(source.capabilities().kinds.contains(&Kind::Reboot));
    assert!(source.capabilities().lacking.is_empty());
    assert!(wire.server(|server| server.interest.contains(&Kind::Reboot)));
}
