//! A test of fairness: a reader with a long backlog leaves room for other tasks.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use virevent::{DomainEvent, EventSource, Options};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::until_synced;

const EVENTS: usize = 40_000;

#[tokio::test(start_paused = true)]
async fn a_reader_with_a_long_backlog_yields_to_other_tasks() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let mut events = fake.subscribe_with(Options::default().capacity(EVENTS)).await.unwrap();
    until_synced(&mut events).await.unwrap();
    for _ in 0..EVENTS / 2 {
        fake.suspend("web").unwrap();
        fake.resume("web").unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    let turns = Arc::new(AtomicUsize::new(0));
    let turn = Arc::clone(&turns);
    let neighbour = tokio::spawn(async move {
        loop {
            turn.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });
    let reader = tokio::spawn(async move {
        for _ in 0..EVENTS {
            let event = events.next().await.unwrap();
            assert!(matches!(event, DomainEvent::Lifecycle(_)), "{event}");
        }
    });
    reader.await.unwrap();
    neighbour.abort();
    let turns = turns.load(Ordering::SeqCst);
    // tokio's budget is 128 operations a turn, each worth 64 events here: 40,000 events take at
    // least four turns.
    assert!(turns >= 4, "{turns} turns in {EVENTS} events");
}
