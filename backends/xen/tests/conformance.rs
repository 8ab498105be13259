//! The testkit's conformance suite, on a fake xenstored and on a real one.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use virevent::EventSource;
use virevent::driver::{Reconnect, Settings};
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;
use virevent_testkit::toolstack::Toolstack;
use virevent_xen::XenStore;

/// The interval of verification.
const VERIFICATION: Duration = Duration::from_millis(100);

/// The source that was opened last. Its counters show what it has received.
#[derive(Default)]
struct LastSource(Mutex<Option<Arc<dyn EventSource>>>);

impl LastSource {
    fn open(&self, uri: &str) -> Arc<dyn EventSource> {
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let settings = Settings::default().verify(Some(VERIFICATION));
        let store = XenStore::new(uri).unwrap().reconnect(quick).settings(settings);
        let source = Arc::new(store.source());
        *self.0.lock().unwrap() = Some(Arc::clone(&source) as _);
        source
    }

    /// Changes the store and, if it is watched, waits for an event: a store has no trace of a domain that starts and
    /// ends between two looks.
    async fn sees(&self, watched: bool, act: impl FnOnce()) {
        let seen = || self.0.lock().unwrap().as_ref().map_or(0, |source| source.counters().events);
        let before = seen();
        act();
        // A source whose subscriber has just gone receives nothing.
        let deadline = Instant::now() + Duration::from_secs(1);
        while watched && seen() == before && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn destroy(xl: &Toolstack, name: &str) {
    let known = xl.domains().unwrap();
    let web = known.iter().find(|known| known.name.as_deref() == Some(name));
    xl.destroy(web.unwrap().domid).unwrap();
}

mod fake {
    use virevent_testkit::fakes::xenstored::FakeXenstored;

    use super::*;

    struct FakeRig(FakeXenstored, LastSource);

    impl FakeRig {
        fn new() -> Self {
            Self(FakeXenstored::start().unwrap(), LastSource::default())
        }
    }

    #[async_trait]
    impl Rig for FakeRig {
        fn source(&self) -> Arc<dyn EventSource> {
            self.1.open(&self.0.uri())
        }

        async fn start(&self, name: &str) -> Result<(), Failure> {
            let watched = !self.0.watches().is_empty();
            self.1
                .sees(watched, || {
                    let _ = self.0.toolstack().introduce(name).unwrap();
                })
                .await;
            Ok(())
        }

        async fn stop(&self, name: &str) -> Result<(), Failure> {
            let watched = !self.0.watches().is_empty();
            self.1.sees(watched, || destroy(self.0.toolstack(), name)).await;
            Ok(())
        }

        async fn stop_silently(&self, name: &str) -> Result<(), Failure> {
            self.0.change(|faults| faults.no_events = true);
            destroy(self.0.toolstack(), name);
            self.0.change(|faults| faults.no_events = false);
            Ok(())
        }

        fn verification(&self) -> Duration {
            VERIFICATION
        }

        fn observes_silent_ends(&self) -> bool {
            true
        }

        async fn break_connection(&self) -> Result<(), Failure> {
            self.0.go_down();
            Ok(())
        }

        async fn heal(&self) -> Result<(), Failure> {
            self.0.come_back().map_err(Failure::new)
        }

        async fn registrations(&self) -> Result<usize, Failure> {
            Ok(self.0.watches().len())
        }
    }

    virevent_testkit::conformance_tests!(
        ignore = [
            "a store does not know whether a domain is paused":
                a_pause_and_a_resume_are_delivered
                a_paused_domain_is_listed_as_paused
                a_pause_in_an_outage_is_delivered_once_and_listed
                an_outage_does_not_change_a_paused_domain,
            "a domain of a store exists only while it runs":
                a_definition_and_its_removal_are_delivered
                a_definition_persists_until_it_is_removed,
        ],
        FakeRig::new()
    );
}

mod real {
    use virevent_testkit::assert::eventually;
    use virevent_testkit::servers::{StoreTap, Xenstored};

    use super::*;

    /// The daemon, behind a tap that can be cut.
    struct RealRig {
        tap: StoreTap,
        daemon: Xenstored,
        last: LastSource,
    }

    impl RealRig {
        async fn new() -> Self {
            let daemon = Xenstored::start().await.unwrap();
            Self { tap: StoreTap::before(&daemon).unwrap(), daemon, last: LastSource::default() }
        }
    }

    #[async_trait]
    impl Rig for RealRig {
        fn source(&self) -> Arc<dyn EventSource> {
            self.last.open(&self.tap.uri())
        }

        async fn start(&self, name: &str) -> Result<(), Failure> {
            let watched = !self.daemon.watches().unwrap().is_empty();
            self.last
                .sees(watched, || {
                    let _ = self.daemon.toolstack().introduce(name).unwrap();
                })
                .await;
            Ok(())
        }

        async fn stop(&self, name: &str) -> Result<(), Failure> {
            let watched = !self.daemon.watches().unwrap().is_empty();
            self.last.sees(watched, || destroy(self.daemon.toolstack(), name)).await;
            Ok(())
        }

        async fn stop_silently(&self, name: &str) -> Result<(), Failure> {
            // From now on: what follows the end may say as much.
            self.tap.drop_events(true);
            destroy(self.daemon.toolstack(), name);
            Ok(())
        }

        fn verification(&self) -> Duration {
            VERIFICATION
        }

        fn observes_silent_ends(&self) -> bool {
            true
        }

        async fn break_connection(&self) -> Result<(), Failure> {
            self.tap.go_down();
            Ok(())
        }

        async fn heal(&self) -> Result<(), Failure> {
            self.tap.come_back().map_err(Failure::new)
        }

        async fn registrations(&self) -> Result<usize, Failure> {
            // The daemon learns of a disconnect when the tap has closed its side.
            let is_known =
                || self.daemon.connections().is_ok_and(|all| all as u64 == self.tap.seen().open);
            eventually("the daemon has noticed each disconnect", is_known).await?;
            Ok(self.daemon.watches().map_err(Failure::new)?.len())
        }
    }

    virevent_testkit::conformance_tests!(
        #[ignore = "needs xenstored"]
        ignore = [
            "a store does not know whether a domain is paused":
                a_pause_and_a_resume_are_delivered
                a_paused_domain_is_listed_as_paused
                a_pause_in_an_outage_is_delivered_once_and_listed
                an_outage_does_not_change_a_paused_domain,
            "a domain of a store exists only while it runs":
                a_definition_and_its_removal_are_delivered
                a_definition_persists_until_it_is_removed,
        ],
        RealRig::new().await
    );
}
