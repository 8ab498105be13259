//! The backend passes the testkit's suite, on a fake QEMU and on a real one.
//!
//! The suite begins with a host that has no domain of the test's, and a first subscription needs a
//! QEMU: so another one, `filler`, is behind the socket whenever the test's own is not.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use virevent::EventSource;
use virevent::driver::Reconnect;
use virevent_qemu::Qmp;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;

fn source(uri: &str) -> Arc<dyn EventSource> {
    let quick = Reconnect::local().max(Duration::from_millis(100));
    Arc::new(Qmp::new(uri).unwrap().look_every(Duration::from_millis(10)).reconnect(quick).source())
}

fn one_at_a_time() -> Failure {
    Failure::unsupported("have two QEMUs behind one socket")
}

mod fake {
    use virevent_testkit::qmp::FakeQemu;

    use super::*;

    struct FakeRig(FakeQemu);

    impl FakeRig {
        /// Another QEMU is there now. If somebody watches, it is seen.
        async fn replace(&self, name: &str) {
            let (watched, asked) = (self.0.is_held(), self.0.calls("query-status"));
            if watched {
                self.0.end(Some("host-qmp-quit"));
            }
            self.0.boot(name).unwrap();
            if watched {
                // A client that has just left comes no more.
                let seen = self.0.until(|qemu| qemu.calls("query-status") > asked);
                let _ = tokio::time::timeout(Duration::from_secs(1), seen).await;
            }
        }
    }

    #[async_trait]
    impl Rig for FakeRig {
        fn source(&self) -> Arc<dyn EventSource> {
            source(&self.0.uri())
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
            // Whoever has hung up is noticed at the next turn of the fake.
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(self.0.is_held().into())
        }
    }

    virevent_testkit::conformance_tests!(FakeRig(FakeQemu::start("filler").unwrap()));
}

mod real {
    use tokio::sync::Mutex;
    use tokio::time::Instant;
    use virevent_testkit::servers::{Qemu, QemuConfig};

    use super::*;

    struct RealRig {
        qemu: Mutex<Qemu>,
        /// The source that was asked for last: its counters tell what it has seen.
        source: std::sync::Mutex<Option<Arc<dyn EventSource>>>,
        home: tempfile::TempDir,
    }

    impl RealRig {
        async fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let filler = QemuConfig::default().name("filler").socket(&home.path().join("vm.sock"));
            let qemu = Mutex::new(filler.running().start().await.unwrap());
            Self { qemu, source: std::sync::Mutex::default(), home }
        }

        /// How much the source has seen.
        fn seen(&self) -> u64 {
            self.source.lock().unwrap().as_ref().map_or(0, |source| source.counters().events)
        }

        /// Another QEMU is there now. If somebody watches, it is seen.
        async fn replace(&self, name: &str) {
            let mut qemu = self.qemu.lock().await;
            let (watched, seen) = (qemu.is_held().await.unwrap(), self.seen());
            qemu.run("quit").await.unwrap();
            qemu.wait().await.unwrap();
            let next = QemuConfig::default().name(name).socket(&self.home.path().join("vm.sock"));
            *qemu = next.running().start().await.unwrap();
            // A client that has just left comes no more.
            let deadline = Instant::now() + Duration::from_secs(2);
            // Shutting down, stopped, started.
            while watched && self.seen() < seen + 3 && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[async_trait]
    impl Rig for RealRig {
        fn source(&self) -> Arc<dyn EventSource> {
            let source = source(&format!("qmp:{}", self.home.path().join("vm.sock").display()));
            *self.source.lock().unwrap() = Some(Arc::clone(&source));
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
        RealRig::new().await
    );
}
