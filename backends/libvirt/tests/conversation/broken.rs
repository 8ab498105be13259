//! Faults that end a connection.

use std::time::Duration;

use virevent_libvirt::wire::{MAX_LENGTH, message};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_reply_of_the_wrong_procedure_is_a_broken_protocol() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::CONNECT_OPEN).await;
    peer.ints(&Header::reply(procs::AUTH_LIST, header.serial), &[1, 0]).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_half_open_peer_is_detected_within_30_seconds() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.answer(&last).await;
    let mut events = subscribed.await.unwrap().unwrap();
    take(&mut events, 3).await;
    let since = tokio::time::Instant::now();
    let gap = events.next().await.unwrap().to_string();
    assert!(gap.contains("keepalive"), "{gap}");
    assert!(since.elapsed() <= Duration::from_secs(31), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_a_gap_and_then_a_new_connection() {
    let garbage: [(&str, Vec<u8>); 4] = [
        ("length", vec![0; 28]),
        ("length", (MAX_LENGTH as u32 + 1).to_be_bytes().to_vec()),
        ("program", {
            let mut bytes = Vec::new();
            message(&mut bytes, &Header { program: 7, ..Header::event(1) }, |_| {});
            bytes
        }),
        ("procedure 318", {
            let mut bytes = Vec::new();
            message(&mut bytes, &Header::event(procs::EVENT_LIFECYCLE), |body| body.i32(1));
            bytes
        }),
    ];
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.answer(&last).await;
    let mut events = subscribed.await.unwrap().unwrap();
    take(&mut events, 3).await;
    for (what, bytes) in garbage {
        peer.raw(&bytes).await;
        let gap = take(&mut events, 1).await;
        assert!(gap[0].contains(what), "{gap:?}");
        peer = daemon.accept().await;
        let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
        peer.answer(&last).await;
        assert_eq!(take(&mut events, 1).await, ["synced"]);
    }
}
