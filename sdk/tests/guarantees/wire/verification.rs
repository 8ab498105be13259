//! What is believed is compared with what the server says, and corrected.

use tokio::time::Instant;
use virevent::{ResumeCause, ServerError, StartCause};

use super::*;

const PAUSED: State = State::Paused(virevent::PausedReason::User);
const FAILED: State = State::Shutoff(ShutoffReason::Failed);
const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);

fn paused(id: u32) -> Listed {
    Listed::new(web(Some(id)), PAUSED, Some(true))
}

fn off(state: State) -> Listed {
    Listed::new(web(None), state, Some(true))
}

/// A server that can look at single domains, and a stream of it that knows `web`.
async fn looking(domains: &[Listed]) -> (Wire, Driver, virevent::EventStream) {
    let (wire, source) = Wire::alive();
    wire.server(|server| server.looks = Some(Vec::new()));
    let events = subscribe(&wire, &source, domains).await;
    (wire, source, events)
}

#[tokio::test(start_paused = true)]
async fn a_silent_change_is_inferred_when_two_replies_agree() {
    let (wire, source, mut events) = looking(&[running(3)]).await;
    let synced = source.health().verified().unwrap();
    let began = Instant::now();
    wire.list(&[paused(3)]).await;
    assert!((54..=66).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    nothing_within(&mut events, ms(1900)).await.unwrap();
    wire.look(Some(paused(3))).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
    assert_eq!(source.counters().corrected, 1);
    assert!(source.health().verified().unwrap() >= synced);
    wire.list(&[paused(3)]).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_look_is_asked_for_lists() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.list(&[]).await;
    wire.list(&[]).await;
    delivered(&mut events, &["web[3] stopped [inferred]", "web undefined [inferred]"]).await;
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn an_ordered_session_is_believed_at_once() {
    let (wire, source) = Wire::alive();
    wire.server(|server| server.is_ordered = true);
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.list(&[paused(3)]).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn two_replies_with_an_event_between_prove_nothing() {
    let (wire, source, mut events) = looking(&[running(3)]).await;
    wire.asked_to_list().await;
    wire.event(Some(3), SUSPENDED);
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    // Taken before the pause, like the next.
    wire.list(&[running(3)]).await;
    wire.look(Some(running(3))).await;
    nothing_within(&mut events, secs(1)).await.unwrap();
    wire.look(Some(paused(3))).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(source.counters().corrected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_without_an_event_is_found() {
    let (wire, source, mut events) = looking(&[off(OFF)]).await;
    wire.event(Some(4), RESUMED);
    delivered(&mut events, &["web[4] resumed (unpaused)"]).await;
    let began = Instant::now();
    wire.look(Some(off(FAILED))).await;
    wire.look(Some(off(FAILED))).await;
    delivered(&mut events, &["web[4] started [inferred]", "web[4] stopped (failed) [inferred]"])
        .await;
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_through_needs_no_look() {
    let (wire, _source, mut events) = looking(&[off(OFF)]).await;
    wire.event(Some(4), RESUMED);
    wire.event(Some(4), STARTED);
    delivered(&mut events, &["web[4] resumed (unpaused)", "web[4] started (booted)"]).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(wire.server(|server| server.looks.clone()), Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_start_under_way_is_looked_at_at_doubled_waits() {
    let starting = State::Paused(virevent::PausedReason::StartingUp);
    let starting = Listed::new(web(Some(4)), starting, Some(true));
    let (wire, builder) = Wire::builder();
    wire.server(|server| {
        server.answers_pings = true;
        server.looks = Some(Vec::new());
    });
    // Long enough that no list of all comes between.
    let source = builder.verify(Some(secs(600))).build();
    let mut events = subscribe(&wire, &source, std::slice::from_ref(&starting)).await;
    let began = Instant::now();
    for due in [2, 6, 14, 30, 62] {
        wire.look(Some(starting.clone())).await;
        assert_eq!(began.elapsed().as_secs(), due);
    }
    wire.look(Some(off(FAILED))).await;
    wire.look(Some(off(FAILED))).await;
    delivered(&mut events, &["web[4] stopped (failed) [inferred]"]).await;
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_migrated_away_is_undefined() {
    let (wire, _source, mut events) = looking(&[running(3)]).await;
    wire.event(None, Change::Stopped(StopCause::Migrated));
    delivered(&mut events, &["web[3] stopped (migrated)"]).await;
    wire.look(None).await;
    wire.look(None).await;
    delivered(&mut events, &["web undefined [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_doubt_of_the_session_is_looked_at() {
    let (wire, _source, mut events) = looking(&[running(3)]).await;
    wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    wire.look(Some(off(FAILED))).await;
    wire.look(Some(off(FAILED))).await;
    delivered(&mut events, &["web[3] stopped (failed) [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_repeated_later() {
    let (wire, source, mut events) = looking(&[running(3)]).await;
    wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    wire.asked_to_look().await;
    let failed = wire.server(|server| server.looks.as_mut().unwrap().remove(0));
    wire.say(move |batch| batch.look_failed(failed));
    let began = Instant::now();
    wire.look(Some(running(3))).await;
    assert_eq!(began.elapsed().as_secs(), 4);
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(source.counters().corrected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_verifying_list_that_is_refused_is_asked_for_later() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    for _ in 0..3 {
        wire.asked_to_list().await;
        let tag = wire.server(|server| server.lists.remove(0));
        let began = Instant::now();
        let busy = ServerError::new("list", 38, "out of memory");
        wire.say(move |batch| batch.list_failed(tag, busy.into()));
        wire.asked_to_list().await;
        assert!(began.elapsed() > secs(3), "{:?}", began.elapsed());
    }
    wire.list(&[paused(3)]).await;
    wire.list(&[paused(3)]).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
    assert_eq!(source.counters().reconnects, 0);
}

#[tokio::test(start_paused = true)]
async fn a_doubt_of_a_domain_that_is_gone_is_over() {
    let (wire, source) = Wire::alive();
    let transient = Listed::new(web(Some(3)), RUNNING, Some(false));
    let mut events = subscribe(&wire, &source, &[transient]).await;
    wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    wire.event(None, STOPPED);
    delivered(&mut events, &["web[3] stopped (destroyed)"]).await;
    wire.list(&[]).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert!(wire.server(|server| server.lists.is_empty()), "there is nothing left to look at");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_about_an_unreachable_domain_is_put_off() {
    let (wire, source) = Wire::alive();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    wire.say(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    delivered(&mut events, &["disconnected from domain web on *"]).await;
    let mut lists = Vec::new();
    for _ in 0..4 {
        let began = Instant::now();
        wire.list(&[]).await;
        lists.push(began.elapsed().as_secs());
    }
    assert_eq!(lists, [2, 4, 8, 16]);
}

#[tokio::test(start_paused = true)]
async fn questions_never_come_in_a_loop() {
    let (wire, builder) = Wire::builder();
    wire.server(|server| server.answers_pings = true);
    let source = builder.verify(Some(Duration::from_nanos(1))).build();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    let began = Instant::now();
    for _ in 0..20 {
        wire.list(&[running(3)]).await;
    }
    assert!(began.elapsed() > secs(1), "{:?}", began.elapsed());
    nothing_within(&mut events, secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_an_interval_nothing_is_verified() {
    let (wire, builder) = Wire::builder();
    wire.server(|server| server.answers_pings = true);
    let source = builder.verify(None).build();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| batch.doubt(batch.source_scope()));
    wire.say(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    nothing_within(&mut events, secs(3600)).await.unwrap();
    assert!(wire.server(|server| server.lists.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_ever_is_an_interval() {
    let (wire, builder) = Wire::builder();
    wire.server(|server| server.answers_pings = true);
    let source = builder.verify(Some(Duration::MAX)).build();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    nothing_within(&mut events, secs(600)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_domain_is_not_corrected() {
    let (wire, source, mut events) = looking(&[running(3)]).await;
    wire.say(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    delivered(&mut events, &["disconnected from domain web on *"]).await;
    let unreachable = source.health().unreachable();
    assert!(matches!(&unreachable[..], [(Scope::Domain(domain), _)] if domain.name() == "web"));
    wire.list(&[]).await;
    nothing_within(&mut events, secs(20)).await.unwrap();
    assert_eq!(source.counters().corrected, 0);
    wire.say(|batch| batch.restored(Scope::Domain(web(Some(3)))));
    delivered(&mut events, &["synced with domain web on *"]).await;
    assert!(source.health().unreachable().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reboot_may_give_the_run_a_new_id() {
    let (wire, _source, mut events) = looking(&[running(3)]).await;
    wire.say(|batch| {
        let at = batch.received();
        let domain = batch.domain(web(None).uuid(), "web", Some(9));
        batch.event(Reboot::new(domain, at));
    });
    wire.event(None, STOPPED);
    delivered(&mut events, &["web[9] rebooted", "web[9] stopped (destroyed)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_run_ends_the_first_that_sent_no_stop() {
    let (wire, _source, mut events) = looking(&[running(3)]).await;
    wire.event(Some(4), STARTED);
    delivered(&mut events, &["web[3] stopped [inferred]", "web[4] started (booted)"]).await;
    wire.event(Some(4), Change::Started(StartCause::Booted));
    wire.event(None, STOPPED);
    delivered(&mut events, &["web[4] stopped (destroyed)"]).await;
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
