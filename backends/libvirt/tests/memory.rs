//! What takes no memory, however long it goes on. One test, since it measures the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use virevent::{EventSource, Options};
use virevent_libvirt::Libvirt;
use virevent_libvirt::wire::procs;
use virevent_testkit::assert::{expect_sequence, until_synced};
use virevent_testkit::libvirtd::FakeLibvirtd;
use virevent_testkit::servers::rss_kib;

#[tokio::test]
async fn a_list_that_never_comes_takes_no_memory_for_the_events_that_do() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().create("web").unwrap();
    let list = procs::CONNECT_GET_ALL_DOMAIN_STATS;
    daemon.change(|faults| faults.held.extend([list]));
    let source =
        Libvirt::new(&daemon.uri()).unwrap().call_timeout(Duration::from_secs(600)).source();
    let subscribing = tokio::spawn(async move { source.subscribe_with(Options::default()).await });
    daemon.until(|daemon| daemon.calls(list) == 1).await;

    // The driver holds up to 65,536 events for the list, and compacts them from there on.
    flow(&daemon, 80_000).await;
    let before = rss_kib(std::process::id()).unwrap();
    flow(&daemon, 80_000).await;
    let grown = rss_kib(std::process::id()).unwrap().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for 80,000 events more");

    daemon.release();
    let mut events = subscribing.await.unwrap().unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.host().stop("web").unwrap();
    expect_sequence(&mut events, &["web[1] stopped (destroyed)"]).await.unwrap();
}

async fn flow(daemon: &FakeLibvirtd, events: usize) {
    for _ in 0..events / 100 {
        for _ in 0..50 {
            daemon.host().suspend("web").unwrap();
            daemon.host().resume("web").unwrap();
        }
        // The fake's own queue is not what is measured here.
        tokio::task::yield_now().await;
    }
}
