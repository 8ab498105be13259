//! The testkit's suite, on the fake.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use virevent::EventSource;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;

use crate::fake::{Fake, INTERVAL};
use crate::watched::Watched;

#[derive(Default)]
struct FakeRig {
    fake: Fake,
    watched: Watched,
}

#[async_trait]
impl Rig for FakeRig {
    fn source(&self) -> Arc<dyn EventSource> {
        let source: Arc<dyn EventSource> = Arc::new(self.fake.source());
        self.watched.set(&source);
        source
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(async { self.fake.start(name) }).await;
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(async { self.fake.stop(name) }).await;
        Ok(())
    }

    async fn suspend(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(async { self.fake.pause(name, true) }).await;
        Ok(())
    }

    async fn resume(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(async { self.fake.pause(name, false) }).await;
        Ok(())
    }

    async fn break_connection(&self) -> Result<(), Failure> {
        self.fake.world().is_down = true;
        Ok(())
    }

    async fn heal(&self) -> Result<(), Failure> {
        self.fake.world().is_down = false;
        Ok(())
    }

    fn silence(&self) -> Duration {
        3 * INTERVAL
    }
}

virevent_testkit::conformance_tests!(
    paused,
    ignore = [
        "a guest is there for as long as it runs: nothing is defined":
            a_definition_and_its_removal_are_delivered
            a_definition_persists_until_it_is_removed,
        "there are no events to be registered for":
            dropping_the_stream_deregisters
            close_returns_once_deregistered,
        "every end is silent: the next look finds it":
            a_silent_end_is_corrected_by_verification,
    ],
    FakeRig::default()
);
