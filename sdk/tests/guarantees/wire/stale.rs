//! Answers that are too late, and answers that do not come.

use tokio::time::Instant;
use virevent::{Kind, PausedReason};

use super::*;

fn paused(id: u32) -> Listed {
    Listed::new(web(Some(id)), State::Paused(PausedReason::User), Some(true))
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_question_of_the_past_is_not_believed() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.hang_up();
    delivered(&mut events, &["disconnected from *"]).await;
    wire.asked_to_list().await;
    let past = wire.server(|server| server.lists.remove(0));
    wire.say(|batch| {
        batch.outage(batch.source_scope(), fault());
        batch.restored(batch.source_scope());
    });
    wire.asked_to_list().await;
    // Neither a number of this connection nor one of those before counts.
    (0..=past).for_each(|tag| wire.list_of(tag, &[running(9)]));
    nothing_within(&mut events, secs(1)).await.unwrap();
    wire.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_of_the_connection_before_is_not_believed() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.asked_to_list().await;
    let past = wire.server(|server| server.lists[0]);
    wire.hang_up();
    delivered(&mut events, &["disconnected from *"]).await;
    wire.asked_to_list().await;
    assert!(wire.server(|server| server.lists[0]) > past, "no number is used twice");
    (0..=past).for_each(|tag| wire.list_of(tag, &[running(9)]));
    nothing_within(&mut events, secs(1)).await.unwrap();
    wire.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_is_answered_by_its_own_number_only() {
    let (wire, source) = Wire::alive();
    wire.server(|server| {
        server.is_ordered = true;
        server.looks = Some(Vec::new());
    });
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    wire.asked_to_look().await;
    let tag = wire.server(|server| server.looks.as_ref().unwrap()[0]);
    wire.say(move |batch| batch.looked(tag - 1, Some(paused(3))));
    wire.list_of(tag, &[paused(3)]);
    nothing_within(&mut events, secs(1)).await.unwrap();
    wire.look(Some(paused(3))).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_verified_while_a_list_is_wanted() {
    for can_look in [false, true] {
        let (wire, source) = Wire::alive();
        wire.server(|server| {
            server.is_ordered = true;
            server.looks = can_look.then(Vec::new);
        });
        let mut events = subscribe(&wire, &source, &[running(3)]).await;
        wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
        let is_asked = |server: &Server| {
            !server.lists.is_empty() || server.looks.as_ref().is_some_and(|looks| !looks.is_empty())
        };
        wire.until(is_asked).await;
        wire.say(|batch| batch.restored(batch.source_scope()));
        tokio::time::sleep(secs(1)).await;
        match can_look {
            true => wire.look(Some(paused(3))).await,
            false => wire.list(&[paused(3)]).await,
        }
        nothing_within(&mut events, secs(1)).await.unwrap();
        wire.list(&[running(3)]).await;
        delivered(&mut events, &["synced with *"]).await;
        assert_eq!(source.counters().corrected, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_after_a_correction_is_no_repetition_of_it() {
    let (wire, source) = Wire::alive();
    wire.server(|server| server.is_ordered = true);
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.list(&[paused(3)]).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
    wire.event(Some(3), SUSPENDED);
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_without_an_answer_ends_the_connection() {
    let (wire, source) = Wire::alive();
    let options = Options::default().kind(Kind::Lifecycle);
    let mut events = subscribe_with(&wire, &source, options, &[running(3)]).await;
    wire.server(|server| server.held = Some(Vec::new()));
    let began = Instant::now();
    let mut late = source.subscribe().await.unwrap();
    wire.server(|server| server.held = None);
    delivered(&mut late, &["disconnected from *"]).await;
    delivered(&mut events, &["disconnected from *no answer to the registration within 10s*"]).await;
    assert_eq!(began.elapsed().as_secs(), 10);
    wire.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_beside_a_list_that_hangs_keeps_the_connection() {
    let (wire, source) = Wire::alive();
    let options = Options::default().kind(Kind::Lifecycle);
    let mut events = subscribe_with(&wire, &source, options, &[running(3)]).await;
    wire.asked_to_list().await;
    wire.server(|server| server.held = Some(Vec::new()));
    source.subscribe().await.unwrap_err();
    let patient = source.clone();
    let patient =
        tokio::spawn(async move { patient.subscribe_with(Options::default().wait(true)).await });
    nothing_within(&mut events, secs(60)).await.unwrap();
    assert_eq!(wire.server(|server| server.connections), 1);
    assert!(!patient.is_finished(), "the source is in reach: it waits for the registration");
    wire.confirm();
    delivered(&mut patient.await.unwrap().unwrap(), &["web[3] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn without_keepalives_a_list_that_hangs_ends_the_connection() {
    let (wire, builder) = Wire::builder();
    let source = builder.keepalive(None, 0).build();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.asked_to_list().await;
    let began = Instant::now();
    delivered(&mut events, &["disconnected from *no answer to the list of domains within 10s*"])
        .await;
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn each_close_has_five_seconds_of_its_own() {
    let (wire, source) = Wire::alive();
    let _keeping = subscribe(&wire, &source, &[running(3)]).await;
    let eights = Options::default().kind("other:99".parse().unwrap());
    let eights = source.subscribe_with(eights).await.unwrap();
    let nines = Options::default().kind("other:98".parse().unwrap());
    let nines = source.subscribe_with(nines).await.unwrap();
    wire.server(|server| server.held = Some(Vec::new()));
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
    let (wire, source) = Wire::alive();
    wire.server(|server| server.held = Some(Vec::new()));
    let is_asked = |server: &Server| server.held.as_ref().is_some_and(|held| !held.is_empty());
    let subscriber = source.clone();
    let subscriber = tokio::spawn(async move { subscriber.subscribe().await });
    wire.until(is_asked).await;
    let stopped = source.clone();
    let stopped = tokio::spawn(async move { stopped.shutdown().await });
    assert!(matches!(subscriber.await.unwrap(), Err(Error::Shutdown)));
    tokio::time::sleep(secs(1)).await;
    assert!(!stopped.is_finished(), "the registration is under way");
    wire.confirm();
    wire.until(is_asked).await;
    tokio::time::sleep(secs(1)).await;
    assert!(!stopped.is_finished(), "the deregistration is under way");
    assert!(wire.server(|server| server.interest.is_empty()));
    wire.confirm();
    tokio::time::timeout(secs(1), stopped).await.unwrap().unwrap();
}

/// Asks for something that is answered behind many events, all of which come while the process is
/// suspended beyond the deadline.
async fn suspended_for(wire: &Wire, answer: impl FnOnce()) {
    (0..50).for_each(|_| wire.event(Some(3), SUSPENDED));
    answer();
    tokio::time::advance(secs(11)).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_all_that_has_come_is_read_before_a_deadline() {
    let (wire, source) = Wire::alive();
    let subscriber = source.clone();
    let options = Options::default().kind(Kind::Lifecycle);
    let subscriber = tokio::spawn(async move { subscriber.subscribe_with(options).await });
    wire.asked_to_list().await;
    let tag = wire.server(|server| server.lists.remove(0));
    suspended_for(&wire, || wire.list_of(tag, &[running(3)])).await;
    let mut events = subscriber.await.unwrap().unwrap();
    // Each deadline is put off on its own.
    for _ in 0..2 {
        wire.server(|server| server.held = Some(Vec::new()));
        let reboots = source.clone();
        let options = Options::default().kind(Kind::Reboot);
        let reboots = tokio::spawn(async move { reboots.subscribe_with(options).await });
        wire.until(|server| server.held.as_ref().is_some_and(|held| !held.is_empty())).await;
        suspended_for(&wire, || wire.confirm()).await;
        wire.server(|server| server.held = None);
        drop(reboots.await.unwrap().unwrap());
        tokio::time::sleep(secs(2)).await;
    }
    while let Ok(event) = next_within(&mut events, secs(1)).await {
        assert!(!matches!(event, DomainEvent::Gap(_)), "{event}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_after_an_overdue_list_have_the_time_of_their_receipt() {
    // Its keepalives are not answered: the event is the next that is read.
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.hang_up();
    delivered(&mut events, &["disconnected from *"]).await;
    wire.asked_to_list().await;
    wire.event(Some(3), SUSPENDED);
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    std::thread::sleep(Duration::from_millis(20));
    let before = SystemTime::now();
    wire.event(None, STOPPED);
    let event = next_within(&mut events, secs(1)).await.unwrap();
    assert!(event.lifecycle().unwrap().at >= before);
}

#[test]
fn a_waiting_subscription_fails_when_the_runtime_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (wire, source) = Wire::alive();
    let drivers = runtime();
    let own = runtime();
    let asked = async {
        tokio::select! {
            outcome = source.subscribe() => panic!("{outcome:?}"),
            () = wire.asked_to_list() => {}
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
    let (wire, source) = Wire::alive();
    let subscribe = |options: Options| {
        let source = source.clone();
        tokio::spawn(async move { source.subscribe_with(options).await })
    };
    let first = subscribe(Options::default().kind(Kind::Lifecycle));
    wire.asked_to_list().await;
    wire.server(|server| server.held = Some(Vec::new()));
    let second = subscribe(Options::default().kind(Kind::Reboot));
    wire.until(|server| server.held.as_ref().is_some_and(|held| !held.is_empty())).await;
    first.abort();
    second.abort();
    tokio::time::sleep(secs(1)).await;
    wire.event(Some(4), STARTED);
    tokio::time::sleep(secs(1)).await;
    let third = subscribe(Options::default());
    tokio::time::sleep(secs(1)).await;
    wire.confirm();
    wire.list(&[]).await;
    wire.list(&[running(4)]).await;
    delivered(&mut third.await.unwrap().unwrap(), &["web[4] existing *", "synced with *"]).await;
}

fn refusal() -> Error {
    Error::protocol("no list for you")
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_ends_the_connection_that_needs_it() {
    let (wire, source) = Wire::alive();
    let refuse = async || {
        wire.asked_to_list().await;
        let tag = wire.server(|server| server.lists.remove(0));
        wire.say(move |batch| batch.list_failed(tag, refusal()));
    };
    let (outcome, ()) = tokio::join!(source.subscribe(), refuse());
    assert!(matches!(outcome, Err(Error::Protocol { .. })), "{outcome:?}");
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.hang_up();
    delivered(&mut events, &["disconnected from *"]).await;
    let connections = wire.server(|server| server.connections);
    refuse().await;
    wire.list(&[running(3)]).await;
    delivered(&mut events, &["synced with *"]).await;
    assert!(wire.server(|server| server.connections) > connections);
}

#[tokio::test(start_paused = true)]
async fn a_refused_list_without_a_subscriber_ends_nothing() {
    let (wire, source) = Wire::alive();
    assert!(tokio::time::timeout(secs(1), source.subscribe()).await.is_err());
    wire.asked_to_list().await;
    let tag = wire.server(|server| server.lists.remove(0));
    wire.say(move |batch| batch.list_failed(tag, refusal()));
    tokio::time::sleep(secs(1)).await;
    subscribe(&wire, &source, &[running(3)]).await;
    assert_eq!(wire.server(|server| server.connections), 1);
}
