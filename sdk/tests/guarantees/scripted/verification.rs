//! Tests of verification: the driver compares what it believes with replies, and corrects it.

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
pub(super) async fn with_looks(
    domains: &[Listed],
) -> (ScriptedServer, Driver, virevent::EventStream) {
    let (server, source) = ScriptedServer::with_keepalive();
    server.state(|state| state.looks = Some(Vec::new()));
    let events = subscribe(&server, &source, domains).await;
    (server, source, events)
}

#[tokio::test(start_paused = true)]
async fn a_silent_change_is_inferred_when_two_replies_agree() {
    let (server, source, mut events) = with_looks(&[running(3)]).await;
    let synced = source.health().verified().unwrap();
    let began = Instant::now();
    server.list(&[paused(3)]).await;
    // 60 s with a jitter of a tenth.
    assert!((54..=66).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    nothing_within(&mut events, ms(1900)).await.unwrap();
    server.look(Some(paused(3))).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
    assert_eq!(source.counters().corrected, 1);
    assert!(source.health().verified().unwrap() >= synced);
    server.list(&[paused(3)]).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_look_is_asked_for_lists() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.list(&[]).await;
    server.list(&[]).await;
    delivered(&mut events, &["web[3] stopped [inferred]", "web undefined [inferred]"]).await;
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn one_reply_of_an_ordered_session_is_enough() {
    let (server, source) = ScriptedServer::with_keepalive();
    server.state(|state| state.is_ordered = true);
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.list(&[paused(3)]).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn two_replies_with_an_event_between_prove_nothing() {
    let (server, source, mut events) = with_looks(&[running(3)]).await;
    server.list_requested().await;
    server.event(Some(3), SUSPENDED);
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    // Both replies were taken before the pause, and arrive after its event.
    server.list(&[running(3)]).await;
    server.look(Some(running(3))).await;
    nothing_within(&mut events, secs(1)).await.unwrap();
    server.look(Some(paused(3))).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(source.counters().corrected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_without_an_event_is_found() {
    let (server, source, mut events) = with_looks(&[off(OFF)]).await;
    server.event(Some(4), RESUMED);
    delivered(&mut events, &["web[4] resumed (unpaused)"]).await;
    let began = Instant::now();
    server.look(Some(off(FAILED))).await;
    server.look(Some(off(FAILED))).await;
    delivered(&mut events, &["web[4] started [inferred]", "web[4] stopped (failed) [inferred]"])
        .await;
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_completed_start_needs_no_look() {
    let (server, _source, mut events) = with_looks(&[off(OFF)]).await;
    server.event(Some(4), RESUMED);
    server.event(Some(4), STARTED);
    delivered(&mut events, &["web[4] resumed (unpaused)", "web[4] started (booted)"]).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(server.state(|state| state.looks.clone()), Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_start_under_way_is_looked_at_at_doubled_waits() {
    let starting = State::Paused(virevent::PausedReason::StartingUp);
    let starting = Listed::new(web(Some(4)), starting, Some(true));
    let (server, builder) = ScriptedServer::builder();
    server.state(|state| {
        state.answers_pings = true;
        state.looks = Some(Vec::new());
    });
    // Long enough that no list of all domains comes between.
    let source = builder.verify(Some(secs(600))).build();
    let mut events = subscribe(&server, &source, std::slice::from_ref(&starting)).await;
    let began = Instant::now();
    // At 2 s, then after 4, 8, 16 and 32 s.
    for due in [2, 6, 14, 30, 62] {
        server.look(Some(starting.clone())).await;
        assert_eq!(began.elapsed().as_secs(), due);
    }
    server.look(Some(off(FAILED))).await;
    server.look(Some(off(FAILED))).await;
    delivered(&mut events, &["web[4] stopped (failed) [inferred]"]).await;
    assert_eq!(source.counters().corrected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_migrated_away_is_undefined() {
    let (server, _source, mut events) = with_looks(&[running(3)]).await;
    server.event(None, Change::Stopped(StopCause::Migrated));
    delivered(&mut events, &["web[3] stopped (migrated)"]).await;
    server.look(None).await;
    server.look(None).await;
    delivered(&mut events, &["web undefined [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_doubt_of_the_session_is_looked_at() {
    let (server, _source, mut events) = with_looks(&[running(3)]).await;
    server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    server.look(Some(off(FAILED))).await;
    server.look(Some(off(FAILED))).await;
    delivered(&mut events, &["web[3] stopped (failed) [inferred]"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_repeated_later() {
    let (server, source, mut events) = with_looks(&[running(3)]).await;
    server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    server.look_requested().await;
    let failed = server.state(|state| state.looks.as_mut().unwrap().remove(0));
    server.send(move |batch| batch.look_failed(failed));
    let began = Instant::now();
    server.look(Some(running(3))).await;
    assert_eq!(began.elapsed().as_secs(), 4);
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert_eq!(source.counters().corrected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_verification_is_requested_again_later() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    for _ in 0..3 {
        server.list_requested().await;
        let tag = server.state(|state| state.lists.remove(0));
        let began = Instant::now();
        let busy = ServerError::new("list", 38, "out of memory");
        server.send(move |batch| batch.list_failed(tag, busy.into()));
        server.list_requested().await;
        assert!(began.elapsed() > secs(3), "{:?}", began.elapsed());
    }
    server.list(&[paused(3)]).await;
    server.list(&[paused(3)]).await;
    delivered(&mut events, &["web[3] suspended (paused) [inferred]"]).await;
    assert_eq!(source.counters().reconnects, 0);
}

#[tokio::test(start_paused = true)]
async fn a_doubt_ends_when_its_domain_is_gone() {
    let (server, source) = ScriptedServer::with_keepalive();
    let transient = Listed::new(web(Some(3)), RUNNING, Some(false));
    let mut events = subscribe(&server, &source, &[transient]).await;
    server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    server.event(None, STOPPED);
    delivered(&mut events, &["web[3] stopped (destroyed)"]).await;
    server.list(&[]).await;
    nothing_within(&mut events, secs(30)).await.unwrap();
    assert!(server.state(|state| state.lists.is_empty()), "there is nothing left to look at");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_about_an_unreachable_domain_is_put_off() {
    let (server, source) = ScriptedServer::with_keepalive();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    server.send(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    delivered(&mut events, &["disconnected from domain web on *"]).await;
    let mut lists = Vec::new();
    for _ in 0..4 {
        let began = Instant::now();
        server.list(&[]).await;
        lists.push(began.elapsed().as_secs());
    }
    assert_eq!(lists, [2, 4, 8, 16]);
}

#[tokio::test(start_paused = true)]
async fn verifications_never_run_in_a_busy_loop() {
    let (server, builder) = ScriptedServer::builder();
    server.state(|state| state.answers_pings = true);
    let source = builder.verify(Some(Duration::from_nanos(1))).build();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    let began = Instant::now();
    for _ in 0..20 {
        server.list(&[running(3)]).await;
    }
    assert!(began.elapsed() > secs(1), "{:?}", began.elapsed());
    nothing_within(&mut events, secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_an_interval_nothing_is_verified() {
    let (server, builder) = ScriptedServer::builder();
    server.state(|state| state.answers_pings = true);
    let source = builder.verify(None).build();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    server.send(|batch| batch.doubt(batch.source_scope()));
    server.send(|batch| batch.doubt(Scope::Domain(web(Some(3)))));
    nothing_within(&mut events, secs(3600)).await.unwrap();
    assert!(server.state(|state| state.lists.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn the_longest_interval_is_accepted() {
    let (server, builder) = ScriptedServer::builder();
    server.state(|state| state.answers_pings = true);
    let source = builder.verify(Some(Duration::MAX)).build();
    let mut events = subscribe(&server, &source, &[running(3)]).await;
    nothing_within(&mut events, secs(600)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_domain_is_not_corrected() {
    let (server, source, mut events) = with_looks(&[running(3)]).await;
    server.send(|batch| batch.outage(Scope::Domain(web(Some(3))), fault()));
    delivered(&mut events, &["disconnected from domain web on *"]).await;
    let unreachable = source.health().unreachable();
    assert!(matches!(&unreachable[..], [(Scope::Domain(domain), _)] if domain.name() == "web"));
    server.list(&[]).await;
    nothing_within(&mut events, secs(20)).await.unwrap();
    assert_eq!(source.counters().corrected, 0);
    server.send(|batch| batch.restored(Scope::Domain(web(Some(3)))));
    delivered(&mut events, &["synced with domain web on *"]).await;
    assert!(source.health().unreachable().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reboot_may_give_the_run_a_new_id() {
    let (server, _source, mut events) = with_looks(&[running(3)]).await;
    server.send(|batch| {
        let at = batch.received();
        let domain = batch.domain(web(None).uuid(), "web", Some(9));
        batch.event(Reboot::new(domain, at));
    });
    server.event(None, STOPPED);
    delivered(&mut events, &["web[9] rebooted", "web[9] stopped (destroyed)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_run_ends_the_first_that_sent_no_stop() {
    let (server, _source, mut events) = with_looks(&[running(3)]).await;
    server.event(Some(4), STARTED);
    delivered(&mut events, &["web[3] stopped [inferred]", "web[4] started (booted)"]).await;
    server.event(Some(4), Change::Started(StartCause::Booted));
    server.event(None, STOPPED);
    delivered(&mut events, &["web[4] stopped (destroyed)"]).await;
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
