//! The source against a scripted daemon on a unix socket, for what a real daemon does not do on
//! demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broken;
mod handshake;
mod lists;
mod peer;

use futures::StreamExt;
use virevent::{Error, EventSource, EventStream, Kind, Options};
use virevent_libvirt::wire::xdr::Reader;
use virevent_libvirt::wire::{Header, Lifecycle, Register, procs};

use self::peer::{Daemon, WEB};

/// The next `n` events as lines, `Synced` without its counts.
async fn take(events: &mut EventStream, n: usize) -> Vec<String> {
    let lines: Vec<_> = events.take(n).map(|event| event.to_string()).collect().await;
    lines.into_iter().map(|line| line.split(" with ").next().unwrap().to_owned()).collect()
}

/// What a new stream delivers of the scripted daemon's domains.
fn existing_and_synced() -> [String; 3] {
    ["db existing (no_state)", "web[3] existing (running (booted))", "synced"].map(Into::into)
}

#[tokio::test(start_paused = true)]
async fn replies_are_matched_by_serial_in_any_order_and_among_events() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let register = procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
    let lifecycle = peer.until(register).await;
    let reboot = peer.until(register).await;
    peer.answer(&reboot).await;
    // An event before the reply to its registration.
    peer.lifecycle(3, 0).await;
    peer.answer(&lifecycle).await;
    let stats = peer.until(procs::CONNECT_GET_ALL_DOMAIN_STATS).await;
    peer.lifecycle(4, 0).await;
    peer.answer(&stats).await;
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    // The suspend and the resume may both be newer than the list, so both are applied.
    let resumed = existing_and_synced().map(|line| line.replace("booted", "unpaused"));
    assert_eq!(take(&mut events, 3).await, resumed);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_callback_ids_gets_legacy_calls() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.event_callbacks = 0;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    assert_eq!(peer.asked[5..7], [167, 167]);
    peer.answer(&last).await;
    let mut events = subscribed.await.unwrap().unwrap();
    assert_eq!(take(&mut events, 3).await, existing_and_synced());
    let event = Lifecycle { domain: WEB, event: 5, detail: 1 };
    peer.send(&Header::event(procs::LEGACY_LIFECYCLE), |body| event.write(body)).await;
    assert_eq!(take(&mut events, 1).await, ["web[3] stopped (destroyed)"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_subscriber_is_deregistered_before_its_close_returns() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default().kind(Kind::Lifecycle));
    let mut peer = daemon.accept().await;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.answer(&last).await;
    let closing = tokio::spawn(subscribed.await.unwrap().unwrap().close());
    for callback in [100, 101, 107] {
        let last = peer.until(procs::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY).await;
        assert_eq!(Reader::new(&last.1).i32(), Ok(callback));
        assert!(!closing.is_finished());
        peer.answer(&last).await;
    }
    closing.await.unwrap();
}

/// While a domain's lock is held a list gets no reply, for as long as that takes.
#[tokio::test]
async fn registrations_are_sent_beside_an_unanswered_list() {
    let daemon = Daemon::new();
    let (source, subscribed) = daemon.subscribe(Options::default().kind(Kind::Lifecycle));
    let mut peer = daemon.accept().await;
    peer.until(procs::CONNECT_GET_ALL_DOMAIN_STATS).await;
    let kinds = ["watchdog", "disk-change", "tray-change", "balloon-change", "device-removed"];
    let options = Options::default();
    let options = kinds.iter().fold(options, |options, kind| options.kind(kind.parse().unwrap()));
    let other = tokio::spawn(async move { source.subscribe_with(options).await });
    let register = procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
    for id in [3, 9, 10, 13, 15] {
        let call = peer.until(register).await;
        assert_eq!(Register::read(&mut Reader::new(&call.1)).unwrap().event, id);
        peer.answer(&call).await;
    }
    other.abort();
    subscribed.abort();
}

#[tokio::test(start_paused = true)]
async fn control_errors_are_delivered_only_to_their_subscribers() {
    for asked in [false, true] {
        let daemon = Daemon::new();
        let options = Options::default().kind(Kind::Lifecycle);
        let options = if asked { options.kind(Kind::ControlError) } else { options };
        let (_source, subscribed) = daemon.subscribe(options);
        let mut peer = daemon.accept().await;
        let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
        peer.answer(&last).await;
        assert_eq!(peer.registered, [0, 1, 7]);
        let mut events = subscribed.await.unwrap().unwrap();
        take(&mut events, 3).await;
        let procedure = procs::EVENTS[7].procedure;
        peer.send(&Header::event(procedure), |body| {
            body.i32(107);
            WEB.write(body);
        })
        .await;
        peer.lifecycle(3, 0).await;
        let lines = take(&mut events, 1 + usize::from(asked)).await;
        let has_error = lines.iter().any(|line| line == "web[3] control-error");
        assert_eq!(has_error, asked, "{lines:?}");
        assert_eq!(lines.last().unwrap(), "web[3] suspended (paused)");
    }
}
