//! Random changes of a directory and its QEMUs.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use virevent::DomainStore;
use virevent_testkit::assert::next_within;
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{PATIENCE, TestDirectory};

/// The delivered events of random changes add up to the truth whenever all is quiet.
#[tokio::test]
async fn random_changes_add_up_to_the_truth() {
    for seed in 0..8 {
        chaos(seed).await;
    }
}

async fn chaos(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = TestDirectory::new();
    let (mut events, _) = directory.watch().await;
    let mut qemus = BTreeMap::new();
    let store = DomainStore::new();
    let mut runs = 0;
    for round in 0..6 {
        for _ in 0..20 {
            happen(&directory, &mut qemus, &mut runs, &mut random).await;
        }
        for (qemu, _) in qemus.values() {
            qemu.change(|faults| faults.hang_up = false);
        }
        let truth: Vec<_> = qemus
            .iter()
            .map(|(name, (qemu, run))| (name.as_str(), Some(*run), qemu.is_running()))
            .collect();
        loop {
            let now = store.snapshot();
            let mut belief: Vec<_> = now
                .active()
                .map(|run| (run.domain.name(), run.domain.id(), run.state.is_running()))
                .collect();
            belief.sort();
            if belief == truth {
                break;
            }
            match next_within(&mut events, PATIENCE).await {
                Ok(event) => drop(store.apply(&event)),
                Err(failure) => {
                    panic!("seed {seed}, round {round}: {failure}: {belief:?}, not {truth:?}")
                }
            }
        }
    }
}

/// Makes one random change. Each QEMU has the name of its socket, and each run a number of its own.
async fn happen(
    directory: &TestDirectory,
    qemus: &mut BTreeMap<String, (FakeQemu, u32)>,
    runs: &mut u32,
    random: &mut fastrand::Rng,
) {
    let name = format!("vm{}", random.usize(..6));
    let path = directory.path(&format!("{name}.sock"));
    match (random.usize(..9), qemus.get(&name).map(|(qemu, _)| qemu)) {
        (0..=3, None) => {
            // A stale socket: no process listens.
            let _ = fs::remove_file(&path);
            let qemu = FakeQemu::absent_at(&path);
            qemu.skip_runs(*runs);
            qemu.boot(&name).unwrap();
            *runs += 1;
            qemus.insert(name, (qemu, *runs));
        }
        (0, Some(qemu)) => {
            qemu.end(random.bool().then_some("host-qmp-quit"));
            qemus.remove(&name);
        }
        (1, Some(qemu)) => {
            qemu.kill();
            qemus.remove(&name);
        }
        (2, Some(qemu)) => qemu.cut(),
        (3, Some(qemu)) => qemu.stop(),
        (4, Some(qemu)) => qemu.cont(),
        (5, Some(qemu)) => qemu.change(|faults| faults.hang_up = random.bool()),
        (6, _) => {
            let away = directory.0.path().join("away");
            fs::rename(directory.path(""), &away).unwrap();
            tokio::time::sleep(Duration::from_millis(random.u64(..20))).await;
            fs::rename(&away, directory.path("")).unwrap();
        }
        _ => tokio::time::sleep(Duration::from_millis(random.u64(..20))).await,
    }
}
