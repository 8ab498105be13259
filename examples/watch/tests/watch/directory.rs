//! The program against a directory of real QEMUs.
#![allow(clippy::panic)]

use std::collections::BTreeMap;

use fastrand::Rng;
use rustix::process::Signal;
use virevent::{DomainEvent, DomainStore};
use virevent_testkit::servers::{Qemu, QemuConfig};

use super::run::{Run, start};

/// The running processes, by name, and the store of the printed events.
struct World {
    home: tempfile::TempDir,
    qemus: BTreeMap<String, Qemu>,
    watch: Run,
    store: DomainStore,
}

impl World {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("vd").tempdir().unwrap();
        let uri = format!("qmp-dir:{}", home.path().display());
        // With a time limit, so that a failing test does not hang.
        let mut watch = start(&["--json", "--for", "120", &uri]);
        watch.until_synced();
        Self { home, qemus: BTreeMap::new(), watch, store: DomainStore::new() }
    }

    async fn start(&mut self, name: &str) {
        let qemu = QemuConfig::default().name(name).running();
        let socket = self.home.path().join(format!("{name}.sock"));
        self.qemus.insert(name.into(), qemu.socket(&socket).start().await.unwrap());
    }

    async fn end(&mut self, name: &str, kill: bool) {
        let mut qemu = self.qemus.remove(name).unwrap();
        match kill {
            true => qemu.signal("KILL"),
            false => drop(qemu.run("quit").await),
        }
        qemu.wait().await.unwrap();
    }

    /// Reads until the store of the printed events equals the running processes.
    fn settle(&mut self) {
        let truth: BTreeMap<_, _> =
            self.qemus.iter().map(|(name, qemu)| (name.as_str(), qemu.pid())).collect();
        loop {
            let now = self.store.snapshot();
            let folded: BTreeMap<_, _> =
                now.active().map(|run| (run.domain.name(), run.domain.id())).collect();
            if truth == folded {
                return;
            }
            let line = self.watch.line();
            let event: DomainEvent = serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("{error} in {line:?}: {folded:?}, not {truth:?}"));
            self.store.apply(&event);
        }
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn the_store_of_a_directory_equals_its_running_processes() {
    let mut random = Rng::with_seed(20);
    let mut world = World::new();
    let names: Vec<_> = (0..20).map(|number| format!("vm{number}")).collect();
    for name in &names {
        world.start(name).await;
    }
    world.settle();
    for _ in 0..60 {
        let name = random.choice(&names).unwrap();
        if world.qemus.contains_key(name) {
            world.end(name, random.bool()).await;
        }
        // Under a name that was used before, sometimes before the end of its last run was printed.
        if random.bool() {
            world.start(name).await;
        }
        world.settle();
    }
    world.watch.signal(Signal::INT);
    let outcome = world.watch.end();
    assert_eq!((outcome.status, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""));
}
