//! Floods of events that must take no memory, however long they last. The tests measure the memory
//! of the whole process, so they run one at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::Mutex;
use virevent::{EventSource, Options, Uuid};
use virevent_libvirt::Libvirt;
use virevent_libvirt::wire::{Domain, Header, Lifecycle, message, procs};
use virevent_testkit::assert::{expect_sequence, until_synced};
use virevent_testkit::fakes::libvirtd::FakeLibvirtd;
use virevent_testkit::servers::rss_kib;

static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn events_of_a_peer_that_never_answers_take_no_memory() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let uri = format!("test+unix:///default?socket={}", socket.display());
    let source = Libvirt::new(&uri).unwrap().connect_timeout(Duration::from_secs(600)).source();
    let subscribing = tokio::spawn(async move { source.subscribe_with(Options::default()).await });
    let (mut peer, _) = listener.accept().await.unwrap();

    // Each event has a domain of its own, so that nothing can be shared.
    let mut sent = 0;
    let mut flood = async |events: u128| {
        for _ in 0..events / 1_000 {
            let mut bytes = Vec::new();
            for _ in 0..1_000 {
                sent += 1;
                let domain = Domain { name: b"web", uuid: Uuid::from_u128(sent), id: 1 };
                message(&mut bytes, &Header::event(procs::EVENT_LIFECYCLE), |body| {
                    body.i32(0);
                    Lifecycle { domain, event: 2, detail: 0 }.write(body);
                });
            }
            peer.write_all(&bytes).await.unwrap();
        }
    };
    flood(20_000).await;
    let before = rss_kib(std::process::id()).unwrap();
    flood(200_000).await;
    let grown = rss_kib(std::process::id()).unwrap().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for 200,000 further events");
    assert!(!subscribing.is_finished());
    subscribing.abort();
}

#[tokio::test]
async fn events_during_an_unanswered_list_take_no_memory() {
    let _alone = ALONE.lock().await;
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().create("web").unwrap();
    let list = procs::CONNECT_GET_ALL_DOMAIN_STATS;
    daemon.change(|faults| faults.held.extend([list]));
    let source =
        Libvirt::new(&daemon.uri()).unwrap().call_timeout(Duration::from_secs(600)).source();
    let subscribing = tokio::spawn(async move { source.subscribe_with(Options::default()).await });
    daemon.until(|daemon| daemon.calls(list) == 1).await;

    // The driver buffers up to 65,536 events until the list arrives, and compacts them from there
    // on.
    send_events(&daemon, 80_000).await;
    let before = rss_kib(std::process::id()).unwrap();
    send_events(&daemon, 80_000).await;
    let grown = rss_kib(std::process::id()).unwrap().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for 80,000 further events");

    daemon.release();
    let mut events = subscribing.await.unwrap().unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.host().stop("web").unwrap();
    expect_sequence(&mut events, &["web[1] stopped (destroyed)"]).await.unwrap();
}

async fn send_events(daemon: &FakeLibvirtd, events: usize) {
    for _ in 0..events / 100 {
        for _ in 0..50 {
            daemon.host().suspend("web").unwrap();
            daemon.host().resume("web").unwrap();
        }
        // Lets the fake write its queue, which is not to be measured.
        tokio::task::yield_now().await;
    }
}
