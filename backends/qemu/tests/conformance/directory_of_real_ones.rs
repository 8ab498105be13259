//! A directory of real QEMUs.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use virevent::EventSource;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;
use virevent_testkit::servers::{Qemu, QemuConfig};

use super::Directory;

struct RealsRig {
    directory: Directory,
    /// The present QEMUs. One of them is there from the beginning: its held monitor is a
    /// registration.
    qemus: Mutex<HashMap<String, Qemu>>,
}

impl RealsRig {
    async fn new() -> Self {
        let directory = Directory::new();
        let filler = QemuConfig::default().name("filler").socket(&directory.socket("filler"));
        let filler = filler.running().start().await.unwrap();
        Self { directory, qemus: Mutex::new(HashMap::from([("filler".into(), filler)])) }
    }

    async fn run(&self, name: &str, command: &str) -> Result<(), Failure> {
        let mut qemus = self.qemus.lock().await;
        let qemu = qemus.get_mut(name).unwrap();
        qemu.run(command).await.map(drop).map_err(Failure::new)
    }
}

#[async_trait]
impl Rig for RealsRig {
    fn source(&self) -> Arc<dyn EventSource> {
        self.directory.source()
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        let start = async {
            let qemu = QemuConfig::default().name(name).socket(&self.directory.socket(name));
            let qemu = qemu.running().start().await.unwrap();
            self.qemus.lock().await.insert(name.into(), qemu);
        };
        self.directory.seen(1, start).await;
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<(), Failure> {
        let stop = async {
            self.run(name, "quit").await.unwrap();
            let mut qemu = self.qemus.lock().await.remove(name).unwrap();
            qemu.wait().await.unwrap();
        };
        self.directory.seen(2, stop).await;
        Ok(())
    }

    async fn suspend(&self, name: &str) -> Result<(), Failure> {
        self.run(name, "stop").await
    }

    async fn resume(&self, name: &str) -> Result<(), Failure> {
        self.run(name, "cont").await
    }

    async fn break_connection(&self) -> Result<(), Failure> {
        self.directory.take_away();
        Ok(())
    }

    async fn heal(&self) -> Result<(), Failure> {
        self.directory.bring_back();
        Ok(())
    }

    async fn registrations(&self) -> Result<usize, Failure> {
        let mut held = 0;
        for qemu in self.qemus.lock().await.values_mut() {
            held += usize::from(qemu.is_held().await.map_err(Failure::new)?);
        }
        Ok(held)
    }
}

virevent_testkit::conformance_tests!(
    #[ignore = "needs qemu"]
    ignore = [
        "a QEMU is there for as long as it runs: nothing is defined":
            a_definition_and_its_removal_are_delivered
            a_definition_persists_until_it_is_removed,
        "a QEMU ends with its connection: no end is silent":
            a_silent_end_is_corrected_by_verification,
    ],
    RealsRig::new().await
);
