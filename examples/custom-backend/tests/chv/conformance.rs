//! The testkit's suite, on the fake.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use virevent::EventSource;
use virevent_testkit::Failure;
use virevent_testkit::conformance::{self, Rig};

use crate::fake::{Fake, VERIFY};

pub(crate) fn another() -> Failure {
    Failure::unsupported("have two VMs behind one socket")
}

#[async_trait]
impl Rig for Fake {
    fn source(&self) -> Arc<dyn EventSource> {
        Arc::new(self.source())
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        if name != self.name() {
            return Err(another());
        }
        self.boot();
        Ok(())
    }

    async fn stop(&self, _name: &str) -> Result<(), Failure> {
        self.shut_down();
        Ok(())
    }

    async fn suspend(&self, _name: &str) -> Result<(), Failure> {
        self.enter(Some("Paused"), &["pausing", "paused"]);
        Ok(())
    }

    async fn resume(&self, _name: &str) -> Result<(), Failure> {
        self.enter(Some("Running"), &["resuming", "resumed"]);
        Ok(())
    }

    async fn define(&self, name: &str) -> Result<(), Failure> {
        if name != self.name() {
            return Err(another());
        }
        // It reports nothing: the next verification finds it.
        self.create();
        Ok(())
    }

    async fn undefine(&self, _name: &str) -> Result<(), Failure> {
        self.enter(None, &["deleted"]);
        Ok(())
    }

    async fn break_connection(&self) -> Result<(), Failure> {
        self.go_down();
        Ok(())
    }

    async fn heal(&self) -> Result<(), Failure> {
        self.come_back();
        Ok(())
    }

    async fn stop_silently(&self, _name: &str) -> Result<(), Failure> {
        self.enter(Some("Created"), &[]);
        Ok(())
    }

    fn verification(&self) -> Duration {
        VERIFY
    }
}

virevent_testkit::conformance_tests!(
    ignore = [
        "one process has one VM, of one name":
            a_domain_filter_passes_only_its_domain
            a_table_folded_from_events_equals_the_list,
        "nothing is registered: the file is written without a reader too":
            dropping_the_stream_deregisters
            close_returns_once_deregistered,
        "of the name db, below":
            a_definition_and_its_removal_are_delivered
            a_definition_persists_until_it_is_removed,
    ],
    Fake::start("web")
);

#[tokio::test]
async fn definitions_of_db_conform() -> Result<(), Failure> {
    conformance::a_definition_and_its_removal_are_delivered(&Fake::start("db")).await?;
    conformance::a_definition_persists_until_it_is_removed(&Fake::start("db")).await
}
