//! How the domains are listed.

use std::time::Duration;

use virevent_libvirt::wire::{Domain, ListAllDomains, code};

use super::peer::WEB;
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
    let told = take(&mut events, 3).await;
    assert_eq!(
        told,
        ["db existing (shutoff (destroyed))", "web[3] existing (paused (user))", "synced"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_vanishes_while_it_is_asked_about_is_not_listed() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.bulk = false;
    let (web, _) = peer.until(procs::DOMAIN_GET_STATE).await;
    // It stopped after it was listed as running.
    peer.ints(&Header::reply(web.procedure, web.serial), &[5, 1]).await;
    let (db, _) = peer.until(procs::DOMAIN_GET_STATE).await;
    peer.error(&db, code::NO_DOMAIN).await;
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    assert_eq!(take(&mut events, 2).await, ["web existing (shutoff (shutdown))", "synced"]);
}

/// Each could wait for a domain's lock, and keep one of the daemon's workers.
#[tokio::test(start_paused = true)]
async fn domains_are_asked_for_their_states_one_at_a_time() {
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
    let (header, args) = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    let list = ListAllDomains { need_results: true, flags: ListAllDomains::TRANSIENT };
    assert_eq!(ListAllDomains::read(&mut Reader::new(&args)), Ok(list));
    let reply = Header::reply(header.procedure, header.serial);
    peer.send(&reply, |body| Domain::write_all(&[WEB], body)).await;
    let mut events = subscribed.await.unwrap().unwrap();
    take(&mut events, 3).await;
    peer.lifecycle(5, 0).await;
    take(&mut events, 1).await;
    let mut later = source.subscribe_with(Options::default()).await.unwrap();
    assert_eq!(take(&mut later, 2).await, ["db existing (no_state)", "synced"]);
}
