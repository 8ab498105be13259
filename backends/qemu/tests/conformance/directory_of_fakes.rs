//! A directory of fake QEMUs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use virevent::EventSource;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{A_TURN, Directory};

struct FakesRig {
    directory: Directory,
    /// The number of runs so far, and the present ones. One is there from the beginning: its held
    /// monitor is a registration.
    qemus: Mutex<(u32, HashMap<String, FakeQemu>)>,
}

impl FakesRig {
    fn new() -> Self {
        let directory = Directory::new();
        let filler = FakeQemu::at(&directory.socket("filler"), "filler").unwrap();
        Self { directory, qemus: Mutex::new((1, HashMap::from([("filler".into(), filler)]))) }
    }

    fn with(&self, name: &str, deed: impl FnOnce(&FakeQemu)) {
        deed(self.qemus.lock().unwrap().1.get(name).unwrap());
    }
}

#[async_trait]
impl Rig for FakesRig {
    fn source(&self) -> Arc<dyn EventSource> {
        self.directory.source()
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        let start = async {
            let (runs, qemus) = &mut *self.qemus.lock().unwrap();
            let qemu = FakeQemu::absent_at(&self.directory.socket(name));
            qemu.skip_runs(*runs);
            qemu.boot(name).unwrap();
            qemus.insert(name.into(), qemu);
            *runs += 1;
        };
        self.directory.seen(1, start).await;
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<(), Failure> {
        let stop = async { self.with(name, |qemu| qemu.end(Some("host-qmp-quit"))) };
        // Two events: shutting down, stopped.
        self.directory.seen(2, stop).await;
        Ok(())
    }

    async fn suspend(&self, name: &str) -> Result<(), Failure> {
        self.with(name, FakeQemu::stop);
        Ok(())
    }

    async fn resume(&self, name: &str) -> Result<(), Failure> {
        self.with(name, FakeQemu::cont);
        Ok(())
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
        let held = || self.qemus.lock().unwrap().1.values().filter(|qemu| qemu.is_held()).count();
        // The monitors that stay held are registrations: the suite decides whether that is right.
        let deadline = Instant::now() + A_TURN;
        while held() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(held())
    }
}

virevent_testkit::conformance_tests!(
    ignore = [
        "a QEMU is there for as long as it runs: nothing is defined":
            a_definition_and_its_removal_are_delivered
            a_definition_persists_until_it_is_removed,
        "a QEMU ends with its connection: no end is silent":
            a_silent_end_is_corrected_by_verification,
    ],
    FakesRig::new()
);
