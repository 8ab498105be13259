//! The handshake: what comes before the first registration.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use virevent::EventSourceExt;
use virevent_libvirt::Libvirt;
use virevent_libvirt::wire::{Open, code};

use super::*;

#[tokio::test(start_paused = true)]
async fn the_handshake_opens_read_only_what_the_uri_names() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, args) = peer.until(procs::CONNECT_OPEN).await;
    let open = Open::read(&mut Reader::new(&args)).unwrap();
    assert_eq!(open, Open { name: Some(b"test:///default?x=1"), flags: 1 });
    peer.answer(&(header, args)).await;
    peer.until(procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY).await;
    assert_eq!(peer.asked, [66, 60, 1, 60, 59, 316]);
    subscribed.abort();
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_during_the_handshake() {
    let daemon = Daemon::new();
    let (_source, _subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.until(procs::CONNECT_OPEN).await;
    peer.send(&Header::keepalive(procs::PING), |_| {}).await;
    assert_eq!(peer.next().await.unwrap().0, Header::keepalive(procs::PONG));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_may_be_of_any_length() {
    let daemon = Daemon::new();
    let source = daemon
        .libvirt()
        .connect_timeout(Duration::MAX)
        .call_timeout(Duration::MAX)
        .keepalive(Duration::MAX, u32::MAX)
        .source();
    let subscribed = tokio::spawn(async move { source.subscribe().await });
    tokio::spawn(async move { daemon.accept().await.serve().await });
    assert_eq!(take(&mut subscribed.await.unwrap().unwrap(), 3).await, existing_and_synced());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_method_of_authentication_is_refused() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::AUTH_LIST).await;
    peer.ints(&Header::reply(header.procedure, header.serial), &[1, 7]).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("unknown method (7)"), "{error}");
}

#[cfg(not(feature = "sasl"))]
#[tokio::test(start_paused = true)]
async fn sasl_without_the_feature_is_refused_with_its_name() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::AUTH_LIST).await;
    peer.ints(&Header::reply(header.procedure, header.serial), &[1, procs::auth::SASL]).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("its feature \"sasl\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_error_from_polkit_is_a_refusal() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::AUTH_LIST).await;
    peer.ints(&Header::reply(header.procedure, header.serial), &[1, procs::auth::POLKIT]).await;
    let (header, _) = peer.until(procs::AUTH_POLKIT).await;
    peer.error(&header, code::INTERNAL_ERROR).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("polkit"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_close_before_the_handshake_is_a_clear_error() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    drop(daemon.accept().await);
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("max_clients"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_refuses_to_open_is_an_error_with_its_message() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::CONNECT_OPEN).await;
    peer.error(&header, code::NO_CONNECT).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("CONNECT_OPEN failed: no (code 5"));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_on_tcp_gets_the_same_handshake() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("test+tcp://{}/default", listener.local_addr().unwrap());
    let source = Libvirt::new(&uri).unwrap().source();
    let subscribed = tokio::spawn(async move { source.subscribe_with(Options::default()).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut call = [0; 28];
    stream.read_exact(&mut call).await.unwrap();
    assert_eq!(call[12..16], procs::AUTH_LIST.to_be_bytes());
    drop(stream);
    assert!(matches!(subscribed.await.unwrap(), Err(Error::Closed { .. })));
}
