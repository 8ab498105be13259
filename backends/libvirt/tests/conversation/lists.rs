//! Lists of domains.

use std::time::Duration;

use virevent_libvirt::wire::{Domain, ListAllDomains, code};
use virevent_testkit::assert::until_synced;

use super::peer::{Call, DB, Peer, WEB};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_server_without_the_bulk_list_is_asked_for_each_domain() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.bulk = false;
    for (state, reason) in [(3, 1), (5, 2)] {
        let (header, _) = peer.until(procs::DOMAIN_GET_STATE).await;
        peer.ints(&Header::reply(header.procedure, header.serial), &[state, reason]).await;
    }
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    let lines = take(&mut events, 3).await;
    assert_eq!(
        lines,
        ["db existing (shutoff (destroyed))", "web[3] existing (paused (user))", "synced"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_ends_during_a_list_is_left_out() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.bulk = false;
    let (web, _) = peer.until(procs::DOMAIN_GET_STATE).await;
    // web stopped after it was listed as running.
    peer.ints(&Header::reply(web.procedure, web.serial), &[5, 1]).await;
    let (db, _) = peer.until(procs::DOMAIN_GET_STATE).await;
    peer.error(&db, code::NO_DOMAIN).await;
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    assert_eq!(take(&mut events, 2).await, ["web existing (shutoff (shutdown))", "synced"]);
}

/// Each call can wait for a domain's lock and occupy a worker of the daemon meanwhile.
#[tokio::test(start_paused = true)]
async fn states_are_asked_for_one_domain_at_a_time() {
    let daemon = Daemon::new();
    let (_source, _subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.bulk = false;
    peer.until(procs::DOMAIN_GET_STATE).await;
    let second = tokio::time::timeout(Duration::from_secs(4), peer.until(procs::DOMAIN_GET_STATE));
    assert!(second.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_transient_domain_is_forgotten_when_it_stops() {
    let daemon = Daemon::new();
    let (source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let call = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    list(&mut peer, &call, &[DB], &[WEB]).await;
    let mut events = subscribed.await.unwrap().unwrap();
    take(&mut events, 3).await;
    peer.lifecycle(5, 0).await;
    take(&mut events, 1).await;
    let mut later = source.subscribe_with(Options::default()).await.unwrap();
    assert_eq!(take(&mut later, 2).await, ["db existing (no_state)", "synced"]);
}

/// It is missing from every list that is made after its end, also from that of the transient
/// domains.
#[tokio::test(start_paused = true)]
async fn a_transient_domain_that_ends_during_a_list_is_gone() {
    let daemon = Daemon::new();
    let (source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let call = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.lifecycle(5, 0).await;
    list(&mut peer, &call, &[DB], &[]).await;
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    let first = until_synced(&mut events).await.unwrap();
    let first: Vec<_> = first.iter().map(ToString::to_string).collect();
    let is_left = |line: &String| line.contains("shutoff");
    assert!(!first.iter().any(is_left), "{first:?}");
    let mut later = source.subscribe_with(Options::default()).await.unwrap();
    assert_eq!(take(&mut later, 2).await, ["db existing (no_state)", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_undefined_during_a_list_is_left_out() {
    let daemon = Daemon::new();
    let (source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.bulk = false;
    for (state, reason) in [(1, 1), (5, 1)] {
        let (header, _) = peer.until(procs::DOMAIN_GET_STATE).await;
        peer.ints(&Header::reply(header.procedure, header.serial), &[state, reason]).await;
    }
    let call = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.lifecycle_of(DB, 1, 0).await;
    list(&mut peer, &call, &[WEB], &[]).await;
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    until_synced(&mut events).await.unwrap();
    let mut later = source.subscribe_with(Options::default()).await.unwrap();
    assert_eq!(take(&mut later, 2).await, ["web[3] existing (running (booted))", "synced"]);
}

/// Answers a call of LIST_ALL_DOMAINS with those domains that its flags select.
async fn list(
    peer: &mut Peer,
    (header, args): &Call,
    persistent: &[Domain<'_>],
    transient: &[Domain<'_>],
) {
    let asked = ListAllDomains::read(&mut Reader::new(args)).unwrap();
    let domains = match asked.flags {
        0 => [persistent, transient].concat(),
        ListAllDomains::PERSISTENT => persistent.to_vec(),
        _ => transient.to_vec(),
    };
    let reply = Header::reply(header.procedure, header.serial);
    peer.send(&reply, |body| Domain::write_all(&domains, body)).await;
}
