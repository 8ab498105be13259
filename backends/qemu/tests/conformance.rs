//! The backend passes the testkit's suite, on a fake QEMU and on a real one, and on directories of
//! both.
//!
//! The suite begins with a host that has no domain of the test's, and a first subscription to a socket
//! needs a QEMU: so another one, `filler`, is behind the socket whenever the test's own is not. A
//! directory may be empty.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use virevent::driver::Reconnect;
use virevent::{EventSource, Status};
use virevent_qemu::{Qmp, QmpDir};
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;

fn source(uri: &str) -> Arc<dyn EventSource> {
    let quick = Reconnect::local().max(Duration::from_millis(100));
    Arc::new(Qmp::new(uri).unwrap().look_every(Duration::from_millis(10)).reconnect(quick).source())
}

fn one_at_a_time() -> Failure {
    Failure::unsupported("have two QEMUs behind one socket")
}

/// A directory that can be taken away from a source, with a file put in its place.
struct Directory {
    home: tempfile::TempDir,
    /// The source that was asked for last: it tells what it has seen.
    source: std::sync::Mutex<Option<Arc<dyn EventSource>>>,
}

impl Directory {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("vd").tempdir().unwrap();
        std::fs::create_dir(home.path().join("d")).unwrap();
        Self { home, source: std::sync::Mutex::default() }
    }

    fn source(&self) -> Arc<dyn EventSource> {
        let uri = format!("qmp-dir:{}", self.home.path().join("d").display());
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let source: Arc<dyn EventSource> =
            Arc::new(QmpDir::new(&uri).unwrap().reconnect(quick).source());
        *self.source.lock().unwrap() = Some(Arc::clone(&source));
        source
    }

    /// Where the next socket of a QEMU of this name is to be.
    fn socket(&self, name: &str) -> PathBuf {
        let (here, away) = (self.home.path().join("d"), self.home.path().join("away"));
        let path = if away.exists() { away } else { here }.join(format!("{name}.sock"));
        // One that was left behind.
        let _ = std::fs::remove_file(&path);
        path
    }

    fn take_away(&self) {
        let here = self.home.path().join("d");
        std::fs::rename(&here, self.home.path().join("away")).unwrap();
        std::fs::write(&here, "").unwrap();
    }

    fn bring_back(&self) {
        let here = self.home.path().join("d");
        std::fs::remove_file(&here).unwrap();
        std::fs::rename(self.home.path().join("away"), &here).unwrap();
    }

    /// Does something, and waits until the source, if it is watched and whole, has told so many events
    /// of it.
    async fn seen(&self, events: u64, deed: impl Future<Output = ()>) {
        let source = self.source.lock().unwrap().clone();
        let source = source.filter(|source| source.health().status() == Status::Synced);
        let before = source.as_ref().map(|source| source.counters().events);
        deed.await;
        let Some(source) = source else { return };
        let seen = async {
            while Some(source.counters().events) < before.map(|before| before + events) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // One whose streams are all closed tells no more.
        let _ = tokio::time::timeout(Duration::from_secs(2), seen).await;
    }
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

mod directory_of_fakes {
    use std::sync::Mutex;

    use virevent_testkit::qmp::FakeQemu;

    use super::*;

    struct FakesRig {
        directory: Directory,
        /// How many runs there have been, and those there are. One of them is there from the beginning:
        /// that its monitor is held is a registration.
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
            // Shutting down, stopped.
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
            // Whoever has hung up is noticed at the next turn of the fakes.
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(self.qemus.lock().unwrap().1.values().filter(|qemu| qemu.is_held()).count())
        }
    }

    virevent_testkit::conformance_tests!(FakesRig::new());
}

mod directory_of_real_ones {
    use tokio::sync::Mutex;
    use virevent_testkit::servers::{Qemu, QemuConfig};

    use super::*;

    struct RealsRig {
        directory: Directory,
        /// One of them is there from the beginning: that its monitor is held is a registration.
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
        RealsRig::new().await
    );
}
