//! A daemon with a hook that hangs: the lock of one domain is held for long. Every list waits for
//! it and occupies one of the daemon's workers, also when its client has gone.
//!
//! `VIREVENT_WATCHERS=10 VIREVENT_SECONDS=600 cargo test --test real sick -- --ignored` takes
//! longer.

use std::time::Instant;

use virevent::{Change, Kind, StartCause, StopCause};
use virevent_testkit::servers::{Config, Guest, Hook, Libvirtd, Virsh};

use super::watcher::{CALL_TIMEOUT, Watcher};
use super::*;

/// Starts and stops another domain, and waits until each watcher has the events.
async fn rounds(watchers: &mut [Watcher], virsh: &Virsh, rounds: usize) {
    for _ in 0..rounds {
        virsh.run(&["start", "well"]).await.unwrap();
        virsh.run(&["destroy", "well"]).await.unwrap();
        for watcher in watchers.iter_mut() {
            watcher.until("well", Change::Started(StartCause::Booted)).await;
            watcher.until("well", Change::Stopped(StopCause::Destroyed)).await;
        }
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_locked_domain_occupies_one_worker_for_each_watcher() {
    let daemon = Libvirtd::start_with(Config::default().hook(true)).await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    for name in ["sick", "well"] {
        virsh.define(&daemon.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
    }
    let count = number("VIREVENT_WATCHERS", 3);
    let long = Duration::from_secs(number("VIREVENT_SECONDS", 12) as u64);
    let mut watchers = Vec::new();
    for _ in 0..count {
        let mut watcher = Watcher::new(&daemon, CALL_TIMEOUT).await;
        watcher.until_equal(&virsh).await;
        watchers.push(watcher);
    }
    daemon.set_hook("sick", "prepare", Hook::Hang).unwrap();
    let starting = {
        let virsh = virsh.clone();
        tokio::spawn(async move { virsh.run(&["start", "sick"]).await })
    };
    // Each watcher verifies every second, and its list hangs.
    while daemon.busy_workers().await.unwrap() != 1 + count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One worker for the start that hangs, one for virsh, and one for each watcher.
    let fair = 2 + count;
    let most = async |most: usize, long: Duration| {
        let since = Instant::now();
        while since.elapsed() < long {
            let busy = daemon.busy_workers().await.unwrap();
            assert!(busy <= most, "{busy} workers are busy after {:?}", since.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let times = long.as_secs() as usize / 3;
    tokio::join!(most(fair, long), rounds(&mut watchers, &virsh, times));
    assert!(watchers.iter().all(|watcher| watcher.tap.seen().connections == 1));

    // Another subscriber occupies no further worker, and its end is confirmed.
    let registered = watchers[1].tap.seen().registered;
    let late = watchers[1].source.subscribe_with(Options::default().kind(Kind::BlockJob)).await;
    tokio::time::timeout(CALL_TIMEOUT * 2, late.unwrap().close()).await.unwrap();
    assert_eq!(watchers[1].tap.seen().registered, registered);
    most(fair, CALL_TIMEOUT).await;

    // A reconnect may occupy another worker: the daemon does not end the old list. So may a new
    // watcher, which waits for its first list.
    watchers[0].cut();
    let mut late = Watcher::new(&daemon, CALL_TIMEOUT).await;
    tokio::join!(most(fair + 2, CALL_TIMEOUT * 6), rounds(&mut watchers, &virsh, 3));

    daemon.set_hook("sick", "prepare", Hook::Pass).unwrap();
    starting.await.unwrap().unwrap();
    for watcher in watchers.iter_mut().chain([&mut late]) {
        watcher.until_equal(&virsh).await;
    }
    while daemon.busy_workers().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
