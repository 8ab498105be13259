//! The delay of an event while others subscribe without end: `cargo bench -p virevent --bench
//! commands`.
//!
//! The source has 3,000 domains. One run measures three loads: none, 16 loops of `domains()`, and
//! 500 subscriptions under way at once, made again and again.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use virevent::{Change, DomainEvent, EventSource, EventSourceExt, EventStream, Options};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::until_synced;

const DOMAINS: usize = 3000;
const EVENTS: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let fake = FakeHypervisor::new();
    for number in 0..DOMAINS {
        fake.create(&format!("vm{number}")).unwrap();
    }
    let mut events = fake.subscribe_with(Options::default().domain("vm0")).await.unwrap();
    until_synced(&mut events).await.unwrap();

    report("no other load", &mut delays(&fake, &mut events).await);
    let source = fake.clone();
    let loops: Vec<_> = (0..16)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move {
                loop {
                    EventSourceExt::domains(&source).await.unwrap();
                }
            })
        })
        .collect();
    report("16 loops of domains()", &mut delays(&fake, &mut events).await);
    loops.into_iter().for_each(|task| task.abort());
    let many = tokio::spawn(async move {
        loop {
            let streams = join_all((0..500).map(|_| source.subscribe())).await;
            drop(streams);
        }
    });
    report("500 subscriptions at once", &mut delays(&fake, &mut events).await);
    many.abort();
}

/// How long each of some events takes.
async fn delays(fake: &FakeHypervisor, events: &mut EventStream) -> Vec<Duration> {
    let mut delays = Vec::with_capacity(EVENTS);
    for number in 0..EVENTS {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let began = Instant::now();
        match number % 2 {
            0 => fake.suspend("vm0").unwrap(),
            _ => fake.resume("vm0").unwrap(),
        };
        loop {
            let event = events.next().await.unwrap();
            let is_event = |event: &DomainEvent| {
                matches!(event.change(), Some(Change::Suspended(_) | Change::Resumed(_)))
            };
            if is_event(&event) {
                break;
            }
        }
        delays.push(began.elapsed());
    }
    delays
}

fn report(what: &str, delays: &mut [Duration]) {
    delays.sort();
    let median = delays[delays.len() / 2];
    println!("{what}: an event takes {median:?} (median), {:?} at most", delays[delays.len() - 1]);
}
