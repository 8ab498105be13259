//! Tests of streams and their combinators: what they pass, their `size_hint`, and how they end.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use futures::stream::{FusedStream, iter};
use futures::{Stream, StreamExt};
use virevent::{
    Change, Domain, DomainEvent, DomainEvents, EventSource, EventSourceExt, Lifecycle, Options,
    Reboot, ResumeCause, Scope, StartCause, StopCause, Synced, Uuid,
};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::until_synced;

fn domain(name: &str) -> Domain {
    Domain::new("s:", "h", Uuid::from_u128(name.len() as u128), name, Some(1))
}

fn event(name: &str, change: Change) -> DomainEvent {
    Lifecycle::new(domain(name), change, SystemTime::UNIX_EPOCH).into()
}

/// A start, a reboot, a resume and a stop of `web`, a start of `other`, and `Synced`.
fn events() -> impl FusedStream<Item = DomainEvent> + Unpin {
    let events = [
        event("web", Change::Started(StartCause::Booted)),
        Reboot::new(domain("web"), SystemTime::UNIX_EPOCH).into(),
        event("web", Change::Resumed(ResumeCause::Unpaused)),
        event("other", Change::Started(StartCause::Booted)),
        event("web", Change::Stopped(StopCause::Shutdown)),
        Synced::new(Scope::source_wide("s:"), 0).into(),
    ];
    iter(events).fuse()
}

async fn lines(stream: impl Stream<Item = Lifecycle>) -> Vec<String> {
    stream.map(|event| DomainEvent::from(event).to_string()).collect().await
}

#[tokio::test]
async fn lifecycle_passes_every_step_and_nothing_else() {
    let expected = ["web[1] started", "web[1] resumed", "other[1] started", "web[1] stopped"];
    let lines = lines(events().lifecycle()).await;
    assert!(lines.iter().zip(expected).all(|(line, start)| line.starts_with(start)), "{lines:?}");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn started_and_stopped_pass_the_ends_of_runs() {
    assert_eq!(
        lines(events().started()).await,
        ["web[1] started (booted)", "other[1] started (booted)"]
    );
    assert_eq!(lines(events().stopped()).await, ["web[1] stopped (shutdown)"]);
}

#[tokio::test]
async fn of_domain_passes_its_domain_and_the_markers() {
    let passed: Vec<_> = events().of_domain("other").collect().await;
    assert_eq!(passed.len(), 2);
    assert_eq!(passed[0], event("other", Change::Started(StartCause::Booted)));
    assert!(passed[1].is_marker());
}

#[tokio::test]
async fn combinators_promise_no_more_than_their_stream() {
    let mut lifecycle = events().lifecycle();
    assert_eq!(lifecycle.size_hint(), (0, Some(6)));
    lifecycle.next().await;
    assert_eq!(lifecycle.size_hint(), (0, Some(5)));
    assert_eq!(lifecycle.into_inner().size_hint(), (5, Some(5)));
    let mut of_domain = events().of_domain("web");
    assert_eq!(of_domain.size_hint(), (0, Some(6)));
    of_domain.next().await;
    assert_eq!(of_domain.size_hint(), (0, Some(5)));
    assert_eq!(of_domain.into_inner().size_hint(), (5, Some(5)));
}

#[tokio::test]
async fn combinators_end_with_their_stream() {
    let mut lifecycle = events().lifecycle();
    assert!(!lifecycle.is_terminated());
    while lifecycle.next().await.is_some() {}
    assert!(lifecycle.is_terminated());
    let mut of_domain = events().of_domain("web");
    assert!(!of_domain.is_terminated());
    while of_domain.next().await.is_some() {}
    assert!(of_domain.is_terminated());
}

#[tokio::test(start_paused = true)]
async fn size_hint_counts_the_events_at_hand() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    fake.create("db").unwrap();
    let mut events = fake.subscribe().await.unwrap();
    assert_eq!(events.size_hint(), (0, None), "nothing was taken yet");
    events.next().await;
    assert_eq!(events.size_hint(), (2, None));
    let (mut events, guard) = events.split();
    assert_eq!(events.size_hint(), (2, None));
    drop(guard);
    assert_eq!(events.size_hint(), (0, None));
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_terminated_after_its_end() {
    let fake = FakeHypervisor::new();
    let mut events = fake.subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.shutdown().await;
    assert!(!events.is_terminated() && events.end().is_some());
    assert!(events.next().await.is_none());
    assert!(events.is_terminated());
    assert!(events.next().await.is_none());
    let (events, _guard) = events.split();
    assert!(events.is_terminated());
}

#[tokio::test(start_paused = true)]
async fn debug_shows_the_id_of_the_subscription() {
    let fake = FakeHypervisor::new();
    let first = fake.subscribe().await.unwrap();
    let second = fake.subscribe_with(Options::default()).await.unwrap();
    let (first, _first_guard) = first.split();
    let (second, second_guard) = second.split();
    let lines = [format!("{first:?}"), format!("{second:?}"), format!("{second_guard:?}")];
    assert!(
        lines[0].starts_with("Events { id: Some(")
            && lines[2].starts_with("Subscription { id: Some(")
    );
    assert_ne!(lines[0], lines[1]);
    assert_eq!(lines[1].replace("Events", "Subscription"), lines[2]);
}

#[tokio::test(start_paused = true)]
async fn domains_fails_with_the_reason_of_the_end() {
    let fake = FakeHypervisor::new();
    fake.hang_lists();
    let asking = fake.clone();
    let asked = tokio::spawn(async move { EventSourceExt::domains(&asking).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.shutdown().await;
    assert_eq!(
        asked.await.unwrap().unwrap_err().to_string(),
        virevent::Error::Shutdown.to_string()
    );
}
