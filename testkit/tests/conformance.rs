//! The fake hypervisor passes the suite that it is there to test others with.

use std::sync::Arc;

use async_trait::async_trait;
use virevent::EventSource;
use virevent_testkit::conformance::{self, Rig};
use virevent_testkit::{Failure, FakeHypervisor, OpError};

struct FakeRig(FakeHypervisor);

impl FakeRig {
    fn new() -> Self {
        Self(FakeHypervisor::new())
    }

    fn level_triggered() -> Self {
        Self(FakeHypervisor::builder().level_triggered().build())
    }
}

fn done<T>(outcome: Result<T, OpError>) -> Result<(), Failure> {
    outcome.map(drop).map_err(Failure::new)
}

#[async_trait]
impl Rig for FakeRig {
    fn source(&self) -> Arc<dyn EventSource> {
        Arc::new(self.0.clone())
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        match self.0.domain(name) {
            Some(_) => done(self.0.start(name)),
            None => done(self.0.create(name)),
        }
    }

    async fn stop(&self, name: &str) -> Result<(), Failure> {
        done(self.0.stop(name))
    }

    async fn suspend(&self, name: &str) -> Result<(), Failure> {
        done(self.0.suspend(name))
    }

    async fn resume(&self, name: &str) -> Result<(), Failure> {
        done(self.0.resume(name))
    }

    async fn define(&self, name: &str) -> Result<(), Failure> {
        done(self.0.define(name))
    }

    async fn undefine(&self, name: &str) -> Result<(), Failure> {
        done(self.0.undefine(name))
    }

    async fn break_connection(&self) -> Result<(), Failure> {
        self.0.go_down();
        Ok(())
    }

    async fn heal(&self) -> Result<(), Failure> {
        self.0.restore();
        Ok(())
    }

    async fn registrations(&self) -> Result<usize, Failure> {
        Ok(self.0.registered().iter().count())
    }
}

virevent_testkit::conformance_tests!(paused, FakeRig::new());

mod level_triggered {
    use super::*;

    /// Knows runs only: no definitions.
    struct LevelRig(FakeRig);

    #[async_trait]
    impl Rig for LevelRig {
        fn source(&self) -> Arc<dyn EventSource> {
            self.0.source()
        }

        async fn start(&self, name: &str) -> Result<(), Failure> {
            self.0.start(name).await
        }

        async fn stop(&self, name: &str) -> Result<(), Failure> {
            self.0.stop(name).await
        }

        async fn suspend(&self, name: &str) -> Result<(), Failure> {
            self.0.suspend(name).await
        }

        async fn resume(&self, name: &str) -> Result<(), Failure> {
            self.0.resume(name).await
        }

        async fn break_connection(&self) -> Result<(), Failure> {
            self.0.break_connection().await
        }

        async fn heal(&self) -> Result<(), Failure> {
            self.0.heal().await
        }

        async fn registrations(&self) -> Result<usize, Failure> {
            self.0.registrations().await
        }
    }

    virevent_testkit::conformance_tests!(paused, LevelRig(FakeRig::level_triggered()));
}

#[tokio::test(start_paused = true)]
async fn all_checks_run_one_after_the_other_too() {
    let skipped = conformance::all(async || FakeRig::new()).await.unwrap();
    assert!(skipped.is_empty(), "{skipped:?}");
}

/// A rig that can do no more than it must.
struct Bare(FakeRig);

#[async_trait]
impl Rig for Bare {
    fn source(&self) -> Arc<dyn EventSource> {
        self.0.source()
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        self.0.start(name).await
    }

    async fn stop(&self, name: &str) -> Result<(), Failure> {
        self.0.stop(name).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_rig_cannot_do_is_skipped_and_named() {
    let skipped = conformance::all(async || Bare(FakeRig::new())).await.unwrap();
    assert!(skipped.contains(&"unreachable_is_never_stopped"), "{skipped:?}");
    assert!(!skipped.contains(&"a_start_and_a_stop_are_told_in_order_once"), "{skipped:?}");
}

/// A rig whose domains do not do what they should.
struct Deaf(FakeRig);

#[async_trait]
impl Rig for Deaf {
    fn source(&self) -> Arc<dyn EventSource> {
        self.0.source()
    }

    async fn start(&self, _name: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn stop(&self, _name: &str) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_tells_nothing_fails_with_what_was_expected() {
    let failure = conformance::all(async || Deaf(FakeRig::new())).await.unwrap_err().to_string();
    let line = "a_start_and_a_stop_are_told_in_order_once: expected web started, but nothing \
        came within 10s; nothing came before";
    assert!(failure.lines().any(|failed| failed == line), "{failure}");
}
