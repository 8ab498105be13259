//! A fleet of fake daemons, from their sockets to a table of all domains. The benchmark of the same
//! name does this with 1,000 daemons, and measures it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use virevent::DomainStore;

use self::daemons::Daemons;
use self::watcher::Watcher;

#[path = "../benches/fleet/daemons.rs"]
mod daemons;
#[path = "../benches/fleet/watcher.rs"]
mod watcher;

const HOSTS: usize = 20;
const DOMAINS: usize = 5;
const LIMIT: usize = 4;
const EVENTS: usize = 2_000;

#[tokio::test]
async fn a_fleet_recovers_when_all_daemons_restart() {
    let daemons = Daemons::start(HOSTS, DOMAINS);
    let mut watcher = Watcher::start(daemons.home(), LIMIT, Some(DomainStore::new())).await;
    assert_eq!(watcher.reader.seen.synced, HOSTS);
    assert_eq!(watcher.orders.ask("syncs").await, LIMIT as u64, "all that the gate lets through");
    assert_eq!(watcher.check().await, HOSTS * DOMAINS);

    watcher.read_events(&format!("events {EVENTS} 10000 1"), EVENTS).await;
    watcher.check().await;

    watcher.outlast_restart(Duration::from_millis(200)).await;
    let seen = &watcher.reader.seen;
    assert_eq!((seen.lost, seen.synced), (HOSTS, HOSTS));
    assert_eq!((seen.stopped, seen.inferred), (0, 2 * HOSTS), "{seen:?}");
    assert!(watcher.orders.ask("syncs").await <= LIMIT as u64);
    assert_eq!(watcher.check().await, HOSTS * (DOMAINS + 1));
    assert_eq!(watcher.counters().missed, 0);
    drop(watcher);
    daemons.join();
}
