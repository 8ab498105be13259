//! Streams of several sources as one, on fake hypervisors and paused time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::stream::{FusedStream, StreamExt};
use tokio::time::timeout;
use virevent::{End, EventSource, EventSourceExt, MergedItem, Options, merge};
use virevent_testkit::{Asked, FakeHypervisor};

fn hypervisors() -> [FakeHypervisor; 2] {
    ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build())
}

fn line(item: &MergedItem) -> String {
    match item {
        MergedItem::Event(event) => format!("{} {event}", event.source()),
        MergedItem::Ended { source, end, .. } => format!("{source} ended: {end}"),
        _ => "another item".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn each_item_names_its_source_and_ends_are_items() {
    let [a, b] = hypervisors();
    let quiet = || Options::default().existing(false);
    let mut merged =
        merge([a.subscribe_with(quiet()).await.unwrap(), b.subscribe_with(quiet()).await.unwrap()]);
    for _ in 0..2 {
        merged.next().await.unwrap();
    }
    a.create("web").unwrap();
    assert_eq!(line(&merged.next().await.unwrap()), "fake:a web[1] started (booted)");
    a.shutdown().await;
    assert_eq!(line(&merged.next().await.unwrap()), "fake:a ended: the source was shut down");
    assert_eq!(merged.len(), 1);
    b.create("db").unwrap();
    assert_eq!(line(&merged.next().await.unwrap()), "fake:b db[1] started (booted)");
    b.shutdown().await;
    let end = merged.next().await.unwrap();
    assert!(matches!(end, MergedItem::Ended { end: End::Shutdown, .. }));
    assert!(merged.next().await.is_none() && merged.is_terminated() && merged.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_pushed_later_is_merged_too() {
    let [a, b] = hypervisors();
    let mut merged = merge([a.subscribe().await.unwrap()]);
    merged.next().await.unwrap();
    assert!(timeout(Duration::from_secs(1), merged.next()).await.is_err());
    merged.push(b.subscribe().await.unwrap());
    assert!(line(&merged.next().await.unwrap()).starts_with("fake:b synced"));
}

#[tokio::test(start_paused = true)]
async fn close_of_merged_streams_waits_for_each_deregistration() {
    let [a, b] = hypervisors();
    let merged = merge([a.subscribe().await.unwrap(), b.subscribe().await.unwrap()]);
    merged.close().await;
    for hypervisor in [a, b] {
        assert!(hypervisor.journal().contains(&Asked::Deregister));
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_merged_streams_cancels_them() {
    let [a, b] = hypervisors();
    drop(merge([a.subscribe().await.unwrap(), b.subscribe().await.unwrap()]));
    for hypervisor in [a, b] {
        hypervisor.asked(|asked| *asked == Asked::Deregister).await;
    }
}
