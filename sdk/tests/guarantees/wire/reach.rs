//! All of a source, or parts of it, out of reach while its connection lives.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_list_says_nothing_about_unreachable_domains() {
    let (wire, source) = Wire::new();
    let far =
        Listed::new(Domain::new("wire:", "far", Uuid::from_u128(2), "db", Some(1)), RUNNING, None);
    let mut events = subscribe(&wire, &source, &[running(3), far]).await;
    wire.hang_up();
    delivered(&mut events, &["disconnected from wire:*"]).await;
    wire.until(|server| server.line.is_some()).await;
    wire.say(|batch| batch.outage(Scope::on_host("wire:", "far"), fault()));
    wire.list(&[running(3)]).await;
    delivered(
        &mut events,
        &["synced with wire: (2 domains)", "disconnected from host far on wire:*"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn events_are_delivered_while_all_is_unreachable() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| batch.outage(batch.source_scope(), fault()));
    delivered(&mut events, &["disconnected from wire:*"]).await;
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["disconnected from wire:*"]).await;
    wire.say(|batch| batch.gone(&web(Some(3)), StopCause::Failed));
    delivered(&mut events, &["web[3] stopped (failed) [inferred]"]).await;
    wire.say(|batch| batch.restored(batch.source_scope()));
    wire.list(&[running(4)]).await;
    until_synced(&mut events).await.unwrap();
    until_synced(&mut late).await.unwrap();
    assert_eq!(source.health().status(), Status::Synced);
    assert_eq!((source.counters().gaps, source.counters().reconnects), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lost_all_before_its_list_is_an_error() {
    let (wire, source) = Wire::new();
    let waiting = Options::default().wait(true);
    let (hasty, patient, ()) = tokio::join!(
        source.subscribe(),
        source.subscribe_with(waiting),
        wire.asked_to_list()
            .map(|()| wire.say(|batch| batch.outage(batch.source_scope(), fault()))),
    );
    assert!(matches!(hasty, Err(Error::Unreachable { .. })), "{hasty:?}");
    let mut patient = patient.unwrap();
    delivered(&mut patient, &["disconnected from wire:*"]).await;
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["disconnected from wire:*"]).await;
    // The list that was asked for is overdue before it is answered: neither matters any more.
    nothing_within(&mut patient, secs(15)).await.unwrap();
    wire.list(&[]).await;
    nothing_within(&mut patient, secs(5)).await.unwrap();
    wire.say(|batch| batch.restored(batch.source_scope()));
    wire.list(&[running(3)]).await;
    for events in [&mut patient, &mut late] {
        delivered(events, &["web[3] existing *", "synced with wire: (1 domain)"]).await;
    }
    assert_eq!(source.health().status(), Status::Synced);
}

#[tokio::test(start_paused = true)]
async fn subscribe_after_total_outage_returns_an_error() {
    let (wire, source) = Wire::new();
    let lose = || wire.say(|batch| batch.outage(batch.source_scope(), fault()));
    for _ in 0..3 {
        let (events, ()) = tokio::join!(source.subscribe(), wire.asked_to_list().map(|()| lose()));
        assert!(matches!(events, Err(Error::Unreachable { .. })), "{events:?}");
        wire.server(|server| server.lists.clear());
    }
    let list = [running(3)];
    let (events, ()) = tokio::join!(source.subscribe(), wire.list(&list));
    delivered(&mut events.unwrap(), &["web[3] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_its_last_subscriber() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[]).await;
    wire.hang_up();
    delivered(&mut events, &["disconnected from *"]).await;
    wire.asked_to_list().await;
    drop(events);
    wire.list(&[]).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(source.health().status(), Status::Idle);
    let (events, ()) = tokio::join!(source.subscribe(), wire.list(&[]));
    delivered(&mut events.unwrap(), &["synced with *"]).await;
    wire.hang_up();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(source.health().status(), Status::Idle);
    assert!(wire.server(|server| server.line.is_none()), "nobody cares: no new connection");
}

#[tokio::test(start_paused = true)]
async fn parts_that_come_and_go_without_end_fill_no_mailbox() {
    const PARTS: u128 = 20_000;
    let (wire, source) = Wire::new();
    let options = Options::default().capacity(16);
    let (events, ()) = tokio::join!(source.subscribe_with(options), wire.list(&[]));
    let mut events = events.unwrap();
    until_synced(&mut events).await.unwrap();
    for _ in 0..4 {
        wire.say(|batch| {
            for n in 0..PARTS {
                let part =
                    Scope::Domain(Domain::new("wire:", "h", Uuid::from_u128(n), "vm", Some(1)));
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
async fn what_happens_after_a_part_is_back_is_no_echo_of_the_sync() {
    let (wire, source) = Wire::new();
    let paused = State::Paused(virevent::PausedReason::User);
    let listed = Listed::new(web(Some(7)), paused, Some(false));
    let mut events = subscribe(&wire, &source, &[listed]).await;
    let part = Scope::Domain(web(Some(7)));
    let of = part.clone();
    wire.say(move |batch| batch.outage(of, fault()));
    wire.say(move |batch| {
        let domain = batch.domain(web(None).uuid(), "web", Some(7));
        batch.state(domain, State::Running(RunningReason::Unspecified));
        batch.restored(part);
    });
    delivered(&mut events, &["disconnected from *", "web[7] resumed [inferred]", "synced with *"])
        .await;
    wire.event(Some(7), Change::Suspended(SuspendCause::Paused));
    delivered(&mut events, &["web[7] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn word_of_a_run_that_is_over_says_nothing_of_the_next() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(8)]).await;
    wire.say(|batch| {
        let past = batch.domain(web(None).uuid(), "web", Some(7));
        batch.gone(&past, StopCause::Failed);
    });
    nothing_within(&mut events, secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restored_part_is_listed_for_new_subscribers() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    wire.say(|batch| batch.restored(Scope::Domain(web(Some(3)))));
    delivered(&mut events, &["disconnected from domain web *", "synced with domain web *"]).await;
    let mut late = source.subscribe().await.unwrap();
    delivered(&mut late, &["web[3] existing *", "synced with wire: (1 domain)"]).await;
    nothing_within(&mut late, secs(1)).await.unwrap();
    wire.say(|batch| {
        let domain = batch.domain(web(None).uuid(), "web", Some(3));
        batch.state(domain, State::Paused(virevent::PausedReason::User));
    });
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn all_that_is_lost_twice_is_one_outage() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    for _ in 0..2 {
        wire.say(|batch| batch.outage(batch.source_scope(), fault()));
        wire.say(|batch| batch.outage(batch.source_scope(), fault()));
        wire.say(|batch| batch.restored(batch.source_scope()));
        wire.asked_to_list().await;
        tokio::time::sleep(secs(1)).await;
        assert_eq!(source.health().status(), Status::Syncing);
        // Lost again before it is whole.
        wire.server(|server| server.lists.clear());
        wire.say(|batch| batch.outage(batch.source_scope(), fault()));
        wire.say(|batch| batch.restored(batch.source_scope()));
        wire.list(&[running(3)]).await;
        delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    }
    assert_eq!(source.counters().gaps, 2);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_lost_during_a_list_is_a_gap_after_it() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| batch.restored(batch.source_scope()));
    wire.asked_to_list().await;
    wire.say(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    wire.list(&[]).await;
    delivered(&mut events, &["synced with wire: (1 domain)", "disconnected from domain web *"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_list_counts_for_domains_beside_an_unreachable_part() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.hang_up();
    wire.asked_to_list().await;
    wire.say(|batch| batch.outage(Scope::on_host("wire:", "far"), fault()));
    wire.list(&[]).await;
    delivered(&mut events, &["disconnected from wire:*", "web[3] stopped [inferred]"]).await;
}
