//! One fake QEMU.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::timeout;
use virevent::EventSource;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{A_TURN, Watched, one_at_a_time, source};

struct FakeRig(FakeQemu, Watched);

impl FakeRig {
    /// Replaces the QEMU, and waits until a source that watches it has delivered that.
    async fn replace(&self, name: &str) {
        let watched = self.0.is_held();
        let asked = self.0.calls("query-status");
        if watched {
            self.0.end(Some("host-qmp-quit"));
        }
        self.0.boot(name).unwrap();
        if watched {
            self.1.until(|| self.0.calls("query-status") > asked).await;
        }
    }
}

#[async_trait]
impl Rig for FakeRig {
    fn source(&self) -> Arc<dyn EventSource> {
        let source = source(&self.0.uri());
        self.1.is(&source);
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
        self.0.stop();
        Ok(())
    }

    async fn resume(&self, _name: &str) -> Result<(), Failure> {
        self.0.cont();
        Ok(())
    }

    async fn break_connection(&self) -> Result<(), Failure> {
        self.0.change(|faults| faults.hang_up = true);
        self.0.cut();
        self.0.until(|qemu| !qemu.is_held()).await;
        Ok(())
    }

    async fn heal(&self) -> Result<(), Failure> {
        self.0.change(|faults| faults.hang_up = false);
        Ok(())
    }

    async fn registrations(&self) -> Result<usize, Failure> {
        // A monitor that stays held is a registration: the suite decides whether that is right.
        let _ = timeout(A_TURN, self.0.until(|qemu| !qemu.is_held())).await;
        Ok(self.0.is_held().into())
    }
}

virevent_testkit::conformance_tests!(
    ignore = [
        "a QEMU is there for as long as it runs: nothing is defined":
            a_definition_and_its_removal_are_delivered
            a_definition_persists_until_it_is_removed,
        "a QEMU ends with its connection: no end is silent":
            a_silent_end_is_corrected_by_verification,
        "one socket has one QEMU, of one name":
            a_domain_filter_passes_only_its_domain
            a_table_folded_from_events_equals_the_list,
    ],
    FakeRig(FakeQemu::start("filler").unwrap(), Watched::default())
);
