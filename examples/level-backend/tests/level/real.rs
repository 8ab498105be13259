//! Real QEMUs, each with a pid file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use level_backend::PidDir;
use tempfile::TempDir;
use tokio::sync::Mutex;
use virevent::driver::{Driver, Reconnect, Settings};
use virevent::{EventSource, EventSourceExt};
use virevent_testkit::Failure;
use virevent_testkit::assert::{eventually, expect_sequence, until_synced};
use virevent_testkit::conformance::Rig;
use virevent_testkit::servers::{Qemu, QemuConfig};

use crate::watched::Watched;

const INTERVAL: Duration = Duration::from_millis(20);

struct RealRig {
    home: TempDir,
    watched: Watched,
    guests: Mutex<Vec<(String, Qemu)>>,
}

impl RealRig {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("lvl").tempdir().unwrap();
        std::fs::create_dir(home.path().join("d")).unwrap();
        Self { home, watched: Watched::default(), guests: Mutex::default() }
    }

    fn driver(&self) -> Driver {
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let uri = format!("pid-dir:{}", self.home.path().join("d").display());
        let settings = Settings::default().reconnect(quick);
        PidDir::new(&uri).unwrap().interval(INTERVAL).settings(settings).source()
    }

    /// Where the directory is now.
    fn dir(&self) -> PathBuf {
        let away = self.home.path().join("away");
        if away.exists() { away } else { self.home.path().join("d") }
    }

    async fn run(&self, name: &str) {
        let file = self.dir().join(format!("{name}.pid"));
        let file = file.to_str().unwrap();
        let config = QemuConfig::default().name(name).args(&["-pidfile", file]);
        // It answers on its monitor, and has written its pid file before.
        let qemu = config.running().start().await.unwrap();
        self.guests.lock().await.push((name.into(), qemu));
    }

    /// Ends a guest; a signal that it cannot catch leaves its pid file.
    async fn end(&self, name: &str, signal: &str) {
        let mut guests = self.guests.lock().await;
        let place = guests.iter().position(|(other, _)| other == name).unwrap();
        let (_, mut qemu) = guests.remove(place);
        qemu.signal(signal);
        qemu.wait().await.unwrap();
    }

    async fn pause(&self, name: &str, is_paused: bool) {
        let guests = self.guests.lock().await;
        let (_, qemu) = guests.iter().find(|(other, _)| other == name).unwrap();
        qemu.signal(if is_paused { "STOP" } else { "CONT" });
        // The signal is sent at once, and takes effect when the process runs next.
        let stat = format!("/proc/{}/stat", qemu.pid().unwrap());
        let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
        eventually("the signal takes effect", || is_stopped() == is_paused).await.unwrap();
    }
}

#[async_trait]
impl Rig for RealRig {
    fn source(&self) -> Arc<dyn EventSource> {
        let source: Arc<dyn EventSource> = Arc::new(self.driver());
        self.watched.set(&source);
        source
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(self.run(name)).await;
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(self.end(name, "KILL")).await;
        Ok(())
    }

    async fn suspend(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(self.pause(name, true)).await;
        Ok(())
    }

    async fn resume(&self, name: &str) -> Result<(), Failure> {
        self.watched.seen(self.pause(name, false)).await;
        Ok(())
    }

    async fn break_connection(&self) -> Result<(), Failure> {
        let here = self.home.path().join("d");
        std::fs::rename(&here, self.home.path().join("away")).map_err(Failure::new)
    }

    async fn heal(&self) -> Result<(), Failure> {
        let here = self.home.path().join("d");
        std::fs::rename(self.home.path().join("away"), here).map_err(Failure::new)
    }
}

virevent_testkit::conformance_tests!(
    #[ignore = "needs qemu"]
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
    RealRig::new()
);

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_qemu_that_ends_by_itself_is_stopped_like_a_killed_one() {
    let rig = RealRig::new();
    rig.run("web").await;
    rig.run("db").await;
    let mut events = rig.driver().subscribe().await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    let guests = rig.guests.lock().await;
    for (name, qemu) in &*guests {
        let found = existing.iter().filter_map(|event| event.domain());
        let ids: Vec<_> =
            found.filter(|domain| domain.name() == name).map(|domain| domain.id()).collect();
        assert_eq!(ids, [qemu.pid()]);
    }
    drop(guests);
    rig.end("web", "TERM").await;
    expect_sequence(&mut events, &["web[*] stopped"]).await.unwrap();
    assert!(!rig.dir().join("web.pid").exists());
    rig.end("db", "KILL").await;
    expect_sequence(&mut events, &["db[*] stopped"]).await.unwrap();
    assert!(rig.dir().join("db.pid").exists(), "nothing removes the file of a killed process");
    rig.run("db").await;
    expect_sequence(&mut events, &["db[*] started"]).await.unwrap();
}
