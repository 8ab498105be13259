//! Everything at once, by chance.

use virevent::Counters;
use virevent_libvirt::wire::procs;

use super::*;

/// Random operations on the host and random faults of the daemon; whatever happened, once the faults
/// are over the stream becomes synced, and what was told adds up to how the host is.
#[tokio::test]
async fn whatever_goes_wrong_the_events_add_up_to_the_truth() {
    let counters = futures::future::join_all((0..16).map(chaos)).await;
    // How much goes wrong is a matter of timing; that much does is what the test rests on.
    let total = |count: fn(&Counters) -> u64| counters.iter().map(count).sum::<u64>();
    assert!(total(|c| c.reconnects) > 50 && total(|c| c.missed) > 50, "{counters:?}");
}

async fn chaos(seed: u64) -> Counters {
    let mut random = fastrand::Rng::with_seed(seed);
    let daemon = FakeLibvirtd::start().unwrap();
    let source = hasty_client(&daemon);
    let mut events = source.subscribe_with(Options::default().capacity(8)).await.unwrap();
    let mut fold = Fold::default();
    fold.extend(&until_synced(&mut events).await.unwrap());
    for _ in 0..150 {
        for _ in 0..random.usize(0..20) {
            act(daemon.host(), &mut random);
        }
        go_wrong(&daemon, &mut random);
        tokio::time::sleep(Duration::from_millis(random.u64(0..8))).await;
        // Now and then the reader is too slow as well.
        while random.u8(..10) > 0 {
            match next_within(&mut events, Duration::ZERO).await {
                Ok(event) => fold.apply(&event),
                Err(_) => break,
            }
        }
    }
    daemon.change(|faults| *faults = Default::default());
    daemon.cut();
    // The last of the syncs that are under way is the one after which nothing more comes.
    while let Ok(event) = next_within(&mut events, Duration::from_secs(1)).await {
        fold.apply(&event);
    }
    assert!(events.end().is_none(), "seed {seed}: {:?}", events.end());
    let truth = fold.check(&daemon.host().domains());
    assert!(truth.is_ok(), "seed {seed}: {truth:?}");
    source.counters()
}

fn act(host: &Host, random: &mut fastrand::Rng) {
    let name = ["a", "b", "c", "d", "e", "f"][random.usize(..6)];
    // Most are refused, since the domain is not in the state for it.
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

fn go_wrong(daemon: &FakeLibvirtd, random: &mut fastrand::Rng) {
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
