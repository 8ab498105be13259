//! Tests of outages that the session reports: of the source, or of parts of it, on a live
//! connection.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_list_says_nothing_about_unreachable_domains() {
    let (server, source) = ScriptedServer::new();
    let far = Listed::new(
        Domain::new("scripted:", "far", Uuid::from_u128(2), "db", Some(1)),
        RUNNING,
        None,
    );
    let mut events = subscribe(&server, &source, &[running(3), far]).await;
    server.disconnect();
    delivered(&mut events, &["disconnected from scripted:*"]).await;
    server.until(|state| state.connection.is_some()).await;
    server.send(|batch| batch.outage(Scope::on_host("scripted:", "far"), fault()));
    server.list(&[running(3)]).await;
    delivered(
        &mut events,
        &["synced with scripted: (2 domains)", "disconnected from host far on scripted:*"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn events_are_delivered_while_all_is_unreachable() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.outage(batch.source_scope(), fault()));
    delivered(&mut events, &["disconnected from scripted:*"]).await;
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["disconnected from scripted:*"]).await;
    server.send(|batch| batch.gone(&web(Some(3)), StopCause::Failed));
    delivered(&mut events, &["web[3] stopped (failed) [inferred]"]).await;
    server.send(|batch| batch.restored(batch.source_scope()));
    server.list(&[running(4)]).await;
    until_synced(&mut events).await.unwrap();
    until_synced(&mut late).await.unwrap();
    assert_eq!(source.health().status(), Status::Synced);
    assert_eq!((source.counters().gaps, source.counters().reconnects), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lost_all_before_its_list_is_an_error() {
    let (server, source) = ScriptedServer::new();
    let waiting = Options::default().wait(true);
    let (hasty, patient, ()) = tokio::join!(
        source.subscribe(),
        source.subscribe_with(waiting),
        server
            .list_requested()
            .map(|()| server.send(|batch| batch.outage(batch.source_scope(), fault()))),
    );
    assert!(matches!(hasty, Err(Error::Unreachable { .. })), "{hasty:?}");
    let mut patient = patient.unwrap();
    delivered(&mut patient, &["disconnected from scripted:*"]).await;
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["disconnected from scripted:*"]).await;
    // The request from before the outage goes overdue, then is answered: neither has an effect.
    nothing_within(&mut patient, secs(15)).await.unwrap();
    server.list(&[]).await;
    nothing_within(&mut patient, secs(5)).await.unwrap();
    server.send(|batch| batch.restored(batch.source_scope()));
    server.list(&[running(3)]).await;
    for events in [&mut patient, &mut late] {
        delivered(events, &["web[3] existing *", "synced with scripted: (1 domain)"]).await;
    }
    assert_eq!(source.health().status(), Status::Synced);
}

#[tokio::test(start_paused = true)]
async fn subscribe_after_total_outage_returns_an_error() {
    let (server, source) = ScriptedServer::new();
    let lose = || server.send(|batch| batch.outage(batch.source_scope(), fault()));
    for _ in 0..3 {
        let (events, ()) =
            tokio::join!(source.subscribe(), server.list_requested().map(|()| lose()));
        assert!(matches!(events, Err(Error::Unreachable { .. })), "{events:?}");
        server.state(|state| state.lists.clear());
    }
    let list = [running(3)];
    let (events, ()) = tokio::join!(source.subscribe(), server.list(&list));
    delivered(&mut events.unwrap(), &["web[3] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_its_last_subscriber() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[]).await;
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    server.list_requested().await;
    drop(events);
    server.list(&[]).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(source.health().status(), Status::Idle);
    let (events, ()) = tokio::join!(source.subscribe(), server.list(&[]));
    delivered(&mut events.unwrap(), &["synced with *"]).await;
    server.disconnect();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(source.health().status(), Status::Idle);
    assert!(
        server.state(|state| state.connection.is_none()),
        "without a subscriber there is no new connection"
    );
}

#[tokio::test(start_paused = true)]
async fn parts_that_come_and_go_without_end_fill_no_mailbox() {
    // As many as make the markers of one batch exceed the mailbox many times over.
    const PARTS: u128 = 20_000;
    let (server, source) = ScriptedServer::new();
    let options = Options::default().capacity(16);
    let (events, ()) = tokio::join!(source.subscribe_with(options), server.list(&[]));
    let mut events = events.unwrap();
    until_synced(&mut events).await.unwrap();
    for _ in 0..4 {
        server.send(|batch| {
            for n in 0..PARTS {
                let part =
                    Scope::Domain(Domain::new("scripted:", "h", Uuid::from_u128(n), "vm", Some(1)));
                batch.outage(part.clone(), fault());
                batch.restored(part);
            }
        });
    }
    tokio::time::sleep(secs(1)).await;
    let mut waiting = 0;
    while let Some(Some(_)) = events.next().now_or_never() {
        waiting += 1;
    }
    // Of each part the newest marker, and as many again until the next compaction.
    assert!((1..=2 * PARTS).contains(&waiting), "{waiting}");
}

#[tokio::test(start_paused = true)]
async fn an_event_after_a_part_is_restored_is_delivered() {
    let (server, source) = ScriptedServer::new();
    let paused = State::Paused(virevent::PausedReason::User);
    let listed = Listed::new(web(Some(7)), paused, Some(false));
    let mut events = subscribe(&server, &source, &[listed]).await;
    let part = Scope::Domain(web(Some(7)));
    let of = part.clone();
    server.send(move |batch| batch.outage(of, fault()));
    server.send(move |batch| {
        let domain = batch.domain(web(None).uuid(), "web", Some(7));
        batch.state(domain, State::Running(RunningReason::Unspecified));
        batch.restored(part);
    });
    delivered(&mut events, &["disconnected from *", "web[7] resumed [inferred]", "synced with *"])
        .await;
    server.event(Some(7), Change::Suspended(SuspendCause::Paused));
    delivered(&mut events, &["web[7] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_past_run_does_not_end_the_current_one() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(8)]).await;
    server.send(|batch| {
        let past = batch.domain(web(None).uuid(), "web", Some(7));
        batch.gone(&past, StopCause::Failed);
    });
    nothing_within(&mut events, secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restored_part_is_listed_for_new_subscribers() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    server.send(|batch| batch.restored(Scope::Domain(web(Some(3)))));
    delivered(&mut events, &["disconnected from domain web *", "synced with domain web *"]).await;
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["web[3] existing *", "synced with scripted: (1 domain)"]).await;
    nothing_within(&mut late, secs(1)).await.unwrap();
    server.send(|batch| {
        let domain = batch.domain(web(None).uuid(), "web", Some(3));
        batch.state(domain, State::Paused(virevent::PausedReason::User));
    });
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_lost_again_while_syncing_is_one_outage() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    for _ in 0..2 {
        server.send(|batch| batch.outage(batch.source_scope(), fault()));
        server.send(|batch| batch.outage(batch.source_scope(), fault()));
        server.send(|batch| batch.restored(batch.source_scope()));
        server.list_requested().await;
        tokio::time::sleep(secs(1)).await;
        assert_eq!(source.health().status(), Status::Syncing);
        // Lost again before the list.
        server.state(|state| state.lists.clear());
        server.send(|batch| batch.outage(batch.source_scope(), fault()));
        server.send(|batch| batch.restored(batch.source_scope()));
        server.list(&[running(3)]).await;
        delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    }
    assert_eq!(source.counters().gaps, 2);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_lost_during_a_list_is_a_gap_after_it() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.restored(batch.source_scope()));
    server.list_requested().await;
    server.send(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    server.list(&[]).await;
    delivered(&mut events, &["synced with scripted: (1 domain)", "disconnected from domain web *"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_was_not_lost_is_not_restored() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.restored(Scope::Domain(web(Some(3)))));
    nothing_within(&mut events, secs(1)).await.unwrap();
    assert_eq!(source.counters().reconnects, 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_counts_for_domains_beside_an_unreachable_part() {
    let (server, source) = ScriptedServer::new();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.disconnect();
    server.list_requested().await;
    server.send(|batch| batch.outage(Scope::on_host("scripted:", "far"), fault()));
    server.list(&[]).await;
    delivered(&mut events, &["disconnected from scripted:*", "web[3] stopped [inferred]"]).await;
}

/// A session that is connected again does not know what is behind a part that does not answer.
#[tokio::test(start_paused = true)]
async fn after_an_outage_a_part_without_identity_hides_a_domain() {
    for is_alive in [true, false] {
        let (server, source) = ScriptedServer::new();
        let transient = || Listed::new(web(Some(3)), RUNNING, Some(false));
        let mut events = subscribe(&server, &source, &[transient()]).await;
        let placeholder = || Domain::new("scripted:", "h", Uuid::from_u128(77), "web", None);
        server.disconnect();
        delivered(&mut events, &["disconnected from *"]).await;
        server.list_requested().await;
        server.send(move |batch| batch.outage(Scope::Domain(placeholder()), fault()));
        server.list(&[]).await;
        let expected =
            ["synced with *", "disconnected from domain web*", "disconnected from domain web*"];
        delivered(&mut events, &expected).await;
        nothing_within(&mut events, secs(3)).await.unwrap();

        server.send(move |batch| batch.restored(Scope::Domain(placeholder())));
        delivered(&mut events, &["synced with domain web*"]).await;
        let list: &[Listed] = if is_alive { &[transient()] } else { &[] };
        server.list(list).await;
        delivered(&mut events, &["synced with domain web*"]).await;
        if is_alive {
            nothing_within(&mut events, secs(3)).await.unwrap();
        } else {
            server.list(list).await;
            delivered(&mut events, &["web[3] stopped [inferred]"]).await;
        }
    }
}
