//! The gate: how many sources connect and list at once.

use std::sync::Arc;

use futures::future::join_all;
use virevent::driver::{Gate, Settings};
use virevent::{EventSource, EventSourceExt, Options};
use virevent_testkit::{Asked, FakeHypervisor};

use super::*;

fn behind(gate: &Gate, count: usize) -> Vec<FakeHypervisor> {
    let settings = Settings::default().gate(gate.clone()).call_timeout(Duration::from_secs(10));
    (0..count).map(|_| FakeHypervisor::builder().settings(&settings).build()).collect()
}

fn connected(fakes: &[FakeHypervisor]) -> usize {
    fakes.iter().filter(|fake| fake.journal().contains(&Asked::Connect)).count()
}

#[tokio::test(start_paused = true)]
async fn a_gate_of_two_lets_two_sources_connect_until_they_are_synced() {
    let fakes = behind(&Gate::new(2), 5);
    fakes.iter().for_each(FakeHypervisor::hang_lists);
    let mut subscriptions = Vec::new();
    for fake in &fakes {
        let fake = fake.clone();
        subscriptions.push(tokio::spawn(async move { fake.subscribe().await }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connected(&fakes), 2);
    fakes[0].release_lists();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connected(&fakes), 3, "one is synced, and the next goes through");
    fakes.iter().for_each(FakeHypervisor::release_lists);
    for outcome in join_all(subscriptions).await {
        outcome.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn sources_that_do_not_answer_leave_the_gate_in_time() {
    let gate = Gate::new(1);
    let hung = behind(&gate, 2);
    hung[0].hang_connects();
    hung[1].hang_lists();
    let fine = behind(&gate, 1);
    let options = || Options::default().wait(true);
    for fake in &hung {
        let fake = Arc::new(fake.clone());
        tokio::spawn(async move { fake.subscribe_with(options()).await });
        tokio::task::yield_now().await;
    }
    let since = tokio::time::Instant::now();
    fine[0].subscribe().await.unwrap();
    assert!(since.elapsed() <= Duration::from_secs(21), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_subscription_leaves_the_gate() {
    let gate = Gate::new(1);
    let fakes = behind(&gate, 2);
    fakes[0].hang_connects();
    let first = fakes[0].subscribe();
    assert!(tokio::time::timeout(Duration::from_secs(1), first).await.is_err());
    let since = tokio::time::Instant::now();
    fakes[1].subscribe().await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn sources_reconnect_through_the_gate() {
    let fakes = behind(&Gate::new(1), 3);
    let mut streams = Vec::new();
    for fake in &fakes {
        let mut events = fake.subscribe().await.unwrap();
        until_synced(&mut events).await.unwrap();
        streams.push(events);
    }
    for fake in &fakes {
        fake.hang_lists();
        fake.clear_journal();
        fake.lose_connection();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(connected(&fakes), 1);
    fakes.iter().for_each(FakeHypervisor::release_lists);
    for events in &mut streams {
        until_synced(events).await.unwrap();
    }
}
