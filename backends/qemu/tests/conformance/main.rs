//! The backend passes the testkit's suite, on a fake QEMU and on a real one, and on directories of
//! both.
//!
//! The suite begins with a host without a domain of the test's, but a first subscription to a
//! socket needs a QEMU: so another one, `filler`, listens there whenever the test's own does not. A
//! directory may be empty.
#![allow(clippy::unwrap_used)]

mod directory_of_fakes;
mod directory_of_real_ones;
mod fake;
mod real;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use virevent::driver::Reconnect;
use virevent::{EventSource, Status};
use virevent_qemu::{Qmp, QmpDir};
use virevent_testkit::Failure;

fn source(uri: &str) -> Arc<dyn EventSource> {
    let quick = Reconnect::local().max(Duration::from_millis(100));
    Arc::new(Qmp::new(uri).unwrap().look_every(Duration::from_millis(10)).reconnect(quick).source())
}

fn one_at_a_time() -> Failure {
    Failure::unsupported("have two QEMUs behind one socket")
}

/// How long a source may take to deliver what a test has done.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a fake may take to detect that its client has disconnected, which it does at its next
/// turn.
const A_TURN: Duration = Duration::from_millis(500);

/// The source that the suite asked for last, with its status and the number of its events.
#[derive(Default)]
struct Watched(Mutex<Option<Arc<dyn EventSource>>>);

impl Watched {
    fn is(&self, source: &Arc<dyn EventSource>) {
        *self.0.lock().unwrap() = Some(Arc::clone(source));
    }

    fn status(&self) -> Status {
        self.0.lock().unwrap().as_ref().map_or(Status::Idle, |source| source.health().status())
    }

    /// The number of events that it has delivered.
    fn events(&self) -> u64 {
        self.0.lock().unwrap().as_ref().map_or(0, |source| source.counters().events)
    }

    /// Waits until `reached` holds, or the source is not watched any more.
    async fn until(&self, mut reached: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached() && self.status() != Status::Idle {
            // A failure here would else be a hang of the whole suite.
            assert!(Instant::now() < deadline, "it is not seen; the source is {:?}", self.status());
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A directory that can be removed from a source, with a file put in its place.
struct Directory {
    home: tempfile::TempDir,
    watched: Watched,
}

impl Directory {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("vd").tempdir().unwrap();
        std::fs::create_dir(home.path().join("d")).unwrap();
        Self { home, watched: Watched::default() }
    }

    fn source(&self) -> Arc<dyn EventSource> {
        let uri = format!("qmp-dir:{}", self.home.path().join("d").display());
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let source: Arc<dyn EventSource> =
            Arc::new(QmpDir::new(&uri).unwrap().reconnect(quick).source());
        self.watched.is(&source);
        source
    }

    /// The path for the next socket of a QEMU of this name.
    fn socket(&self, name: &str) -> PathBuf {
        let here = self.home.path().join("d");
        let away = self.home.path().join("away");
        let path = if away.exists() { away } else { here }.join(format!("{name}.sock"));
        // The socket of an earlier run may be there still.
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

    /// Does something, and waits until the source, if it is watched and has no gap, has delivered
    /// this many events of it.
    async fn seen(&self, events: u64, deed: impl Future<Output = ()>) {
        let status = self.watched.status();
        let before = self.watched.events();
        deed.await;
        if status == Status::Synced {
            self.watched.until(|| self.watched.events() >= before + events).await;
        }
    }
}
