//! One real QEMU.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use virevent::EventSource;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;
use virevent_testkit::servers::{Qemu, QemuConfig};

use super::{Watched, one_at_a_time, source};

struct RealRig {
    qemu: Mutex<Qemu>,
    watched: Watched,
    home: tempfile::TempDir,
}

impl RealRig {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let filler = QemuConfig::default().name("filler").socket(&home.path().join("vm.sock"));
        let qemu = Mutex::new(filler.running().start().await.unwrap());
        Self { qemu, watched: Watched::default(), home }
    }

    /// Replaces the QEMU, and waits until a source that watches it has delivered that.
    async fn replace(&self, name: &str) {
        let mut qemu = self.qemu.lock().await;
        let watched = qemu.is_held().await.unwrap();
        let seen = self.watched.events();
        qemu.run("quit").await.unwrap();
        qemu.wait().await.unwrap();
        let next = QemuConfig::default().name(name).socket(&self.home.path().join("vm.sock"));
        *qemu = next.running().start().await.unwrap();
        if watched {
            // Three events: shutting down, stopped, started.
            self.watched.until(|| self.watched.events() >= seen + 3).await;
        }
    }
}

#[async_trait]
impl Rig for RealRig {
    fn source(&self) -> Arc<dyn EventSource> {
        let source = source(&format!("qmp:{}", self.home.path().join("vm.sock").display()));
        self.watched.is(&source);
        source
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        if name != "web" {
            return Err(one_at_a_time());
        }
        self.replace(name).await;
        Ok(())
    }

    async fn stop(&self, _name: &str) -> Result<(), Failure> {
        self.replace("filler").await;
        Ok(())
    }

    async fn suspend(&self, _name: &str) -> Result<(), Failure> {
        self.qemu.lock().await.run("stop").await.map(drop).map_err(Failure::new)
    }

    async fn resume(&self, _name: &str) -> Result<(), Failure> {
        self.qemu.lock().await.run("cont").await.map(drop).map_err(Failure::new)
    }

    async fn registrations(&self) -> Result<usize, Failure> {
        Ok(self.qemu.lock().await.is_held().await.unwrap().into())
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
        "one socket has one QEMU, of one name":
            a_domain_filter_passes_only_its_domain
            a_table_folded_from_events_equals_the_list,
        "the socket is QEMU's own: it cannot be taken away and brought back":
            an_outage_is_a_gap_then_inferred_events_then_synced
            a_restart_in_an_outage_is_a_stop_and_a_start
            a_pause_in_an_outage_is_delivered_once_and_listed
            an_outage_does_not_change_a_paused_domain
            unreachable_is_never_stopped
            subscribing_in_an_outage_opens_with_disconnected
            first_subscribe_to_an_unreachable_source_fails_without_wait,
    ],
    RealRig::new().await
);
