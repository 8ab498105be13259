//! Streams of several sources as one, on fake hypervisors and paused time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::stream::{FusedStream, StreamExt};
use tokio::time::timeout;
use virevent::{DomainStore, End, EventSource, EventSourceExt, MergedItem, Options, merge};
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
async fn a_store_is_not_certain_of_a_source_whose_stream_ended() {
    let [a, b] = hypervisors();
    a.create("web").unwrap();
    b.create("db").unwrap();
    let store = DomainStore::new();
    let mut merged = merge([a.subscribe().await.unwrap(), b.subscribe().await.unwrap()]);
    let is_certain = |name: &str| store.get(name).map(|stored| stored.certain);
    a.shutdown().await;
    while let Ok(Some(item)) = timeout(Duration::from_secs(1), merged.next()).await {
        item.apply_to(&store);
    }
    assert_eq!([is_certain("web"), is_certain("db")], [Some(false), Some(true)]);
    // Of a stream in its place the list counts.
    let [again, _] = hypervisors();
    merged.push(again.subscribe().await.unwrap());
    while let Ok(Some(item)) = timeout(Duration::from_secs(1), merged.next()).await {
        item.apply_to(&store);
    }
    assert_eq!([is_certain("web"), is_certain("db")], [None, Some(true)]);
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
