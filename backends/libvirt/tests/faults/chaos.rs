//! Random faults at random times.

use futures::StreamExt;
use virevent::{Counters, DomainStore};
use virevent_libvirt::wire::procs;

use super::*;

/// Random operations on the host and random faults of the daemon. Once the faults are over the
/// stream becomes synced, and a table folded from its events equals the host's domains.
#[tokio::test]
async fn after_random_faults_the_events_add_up_to_the_state() {
    let counters = futures::future::join_all((0..16).map(chaos)).await;
    // How many faults there are depends on timing. With few the test would prove nothing.
    let total = |count: fn(&Counters) -> u64| counters.iter().map(count).sum::<u64>();
    assert!(total(|c| c.reconnects) > 50 && total(|c| c.missed) > 50, "{counters:?}");
}

async fn chaos(seed: u64) -> Counters {
    let mut random = fastrand::Rng::with_seed(seed);
    let daemon = FakeLibvirtd::start().unwrap();
    let source = hasty_client(&daemon);
    let mut events = source.subscribe_with(Options::default().capacity(8)).await.unwrap();
    let store = DomainStore::new();
    store.extend(&until_synced(&mut events).await.unwrap());
    for _ in 0..150 {
        for _ in 0..random.usize(0..20) {
            act(daemon.host(), &mut random);
        }
        inject_fault(&daemon, &mut random);
        tokio::time::sleep(Duration::from_millis(random.u64(0..8))).await;
        // Sometimes the reader is too slow as well, so that its mailbox overflows.
        while random.u8(..10) > 0 {
            match next_within(&mut events, Duration::ZERO).await {
                Ok(event) => drop(store.apply(&event)),
                Err(_) => break,
            }
        }
    }
    daemon.change(|faults| *faults = Default::default());
    daemon.cut();
    // The table becomes equal, and stays so.
    let truth = daemon.host().domains();
    let settle = async {
        while check_store(&store, &truth).is_err() {
            store.apply(&events.next().await.expect("the stream has not ended"));
        }
        while let Ok(event) = next_within(&mut events, Duration::from_millis(300)).await {
            store.apply(&event);
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(60), settle).await;
    let believed = check_store(&store, &truth);
    assert!(settled.is_ok() && believed.is_ok(), "seed {seed}: {believed:?}");
    source.counters()
}

fn act(host: &Host, random: &mut fastrand::Rng) {
    let name = ["a", "b", "c", "d", "e", "f"][random.usize(..6)];
    // Most fail, because the domain is not in the state for it.
    let _ = match random.u8(..9) {
        0 => host.define(name),
        1 => host.create(name),
        2 | 3 => host.start(name),
        4 => host.suspend(name),
        5 => host.resume(name),
        6 => host.stop(name),
        7 => host.shut_down(name),
        _ => host.undefine(name),
    };
}

fn inject_fault(daemon: &FakeLibvirtd, random: &mut fastrand::Rng) {
    let stats = procs::CONNECT_GET_ALL_DOMAIN_STATS;
    match random.u8(..24) {
        0 | 1 => daemon.cut(),
        2 => daemon.send(&(0..random.usize(1..200)).map(|_| random.u8(1..)).collect::<Vec<_>>()),
        3 => daemon.change(|faults| faults.silent = true),
        4 => daemon.change(|faults| faults.piece = Some(random.usize(1..100))),
        5 => daemon.change(|faults| faults.held.extend([stats])),
        6 => daemon.change(|faults| faults.truncated.extend([stats])),
        7 => daemon.change(|faults| faults.refuse(stats, 38, "cannot")),
        8..=11 => daemon.release(),
        _ => daemon.change(|faults| *faults = Default::default()),
    }
}
