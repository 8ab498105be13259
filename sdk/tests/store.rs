//! A store that follows a stream in the background, on the fake hypervisor and paused time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::StreamExt;
use tokio::time::timeout;
use virevent::{DomainStore, End, EventSource, EventSourceExt, Options, Snapshot};
use virevent_testkit::assert::check_store;
use virevent_testkit::{Asked, FakeHypervisor};

#[tokio::test(start_paused = true)]
async fn a_store_equals_the_list_through_an_outage() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    fake.define("db").unwrap();
    let store = fake.store().await.unwrap();
    let now = store.wait_for(Snapshot::is_certain).await.unwrap();
    assert_eq!(now.len(), 2);
    fake.go_down();
    store.wait_for(|now| !now.is_certain()).await.unwrap();
    assert!(store.get("web").unwrap().domain.is_active(), "unreachable is not stopped");
    fake.stop("web").unwrap();
    fake.start("db").unwrap();
    fake.restore();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    check_store(&store, &fake.domains()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_clone_of_a_store_cancels() {
    let fake = FakeHypervisor::new();
    let store = fake.store().await.unwrap();
    let clone = store.clone();
    let changed = clone.changed();
    drop(store);
    drop(clone);
    assert!(!fake.journal().contains(&Asked::Deregister), "a reader keeps the store");
    drop(changed);
    fake.asked(|asked| *asked == Asked::Deregister).await;
}

#[tokio::test(start_paused = true)]
async fn close_of_a_store_waits_for_the_deregistration() {
    let fake = FakeHypervisor::new();
    let store = fake.store().await.unwrap();
    store.close().await;
    assert!(fake.journal().contains(&Asked::Deregister));
    let end = store.wait_for(|_| false).await.unwrap_err();
    assert!(matches!(end, End::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_source_leaves_nothing_certain() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let store = fake.store().await.unwrap();
    let mut changed = store.changed();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    fake.shutdown().await;
    let mut last = None;
    while let Some(transition) = changed.next().await {
        last = transition.after;
    }
    assert!(!last.unwrap().certain);
    let end = store.wait_for(|_| false).await.unwrap_err();
    assert!(matches!(end, End::Shutdown) && matches!(store.end(), Some(End::Shutdown)));
}

#[tokio::test(start_paused = true)]
async fn a_store_of_a_slow_reader_equals_the_list_after_a_reset() {
    let fake = FakeHypervisor::new();
    for n in 0..40 {
        fake.define(&format!("vm{n}")).unwrap();
    }
    let options = Options::default().capacity(4).slack(8);
    let mut events = fake.subscribe_with(options).await.unwrap();
    let store = DomainStore::new();
    while !store.snapshot().is_certain() {
        store.apply(&events.next().await.unwrap());
    }
    for n in 0..40 {
        fake.start(&format!("vm{n}")).unwrap();
    }
    fake.stop("vm3").unwrap();
    fake.undefine("vm3").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    while let Ok(event) = timeout(Duration::from_secs(1), events.next()).await {
        store.apply(&event.unwrap());
    }
    check_store(&store, &fake.domains()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_by_name_forgets_a_domain_that_has_another_name() {
    let fake = FakeHypervisor::new();
    let web = fake.define("web").unwrap();
    let by = |options| fake.store_with(options);
    let by_name = by(Options::default().domain("web")).await.unwrap();
    let by_uuid = by(Options::default().domain(&web)).await.unwrap();
    for store in [&by_name, &by_uuid] {
        store.wait_for(|now| now.is_certain() && now.len() == 1).await.unwrap();
    }
    fake.rename("web", "www").unwrap();
    by_uuid.wait_for(|now| now.get("www").is_some()).await.unwrap();
    by_name.wait_for(Snapshot::is_empty).await.unwrap();
    fake.rename("www", "web").unwrap();
    fake.start("web").unwrap();
    by_name.wait_for(|now| now.get("web").is_some_and(|web| web.state.is_running())).await.unwrap();
}
