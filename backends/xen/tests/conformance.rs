//! The backend passes the testkit's suite, on a fake xenstored and on a real one.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use virevent::EventSource;
use virevent::driver::Reconnect;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;
use virevent_testkit::xen::Toolstack;
use virevent_xen::XenStore;

/// The source that was asked for last: its counters tell what it has seen.
#[derive(Default)]
struct Last(Mutex<Option<Arc<dyn EventSource>>>);

impl Last {
    fn open(&self, uri: &str) -> Arc<dyn EventSource> {
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let source = Arc::new(XenStore::new(uri).unwrap().reconnect(quick).source());
        *self.0.lock().unwrap() = Some(Arc::clone(&source) as _);
        source
    }

    /// Does something, and if somebody watches, waits until it was seen: what comes and goes between
    /// two looks at a store was never there.
    async fn sees(&self, watched: bool, act: impl FnOnce()) {
        let seen = || self.0.lock().unwrap().as_ref().map_or(0, |source| source.counters().events);
        let before = seen();
        act();
        // One who has just left sees nothing any more.
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
    use virevent_testkit::xenstored::FakeXenstored;

    use super::*;

    struct FakeRig(FakeXenstored, Last);

    impl FakeRig {
        fn new() -> Self {
            Self(FakeXenstored::start().unwrap(), Last::default())
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

    virevent_testkit::conformance_tests!(FakeRig::new());
}

mod real {
    use std::path::PathBuf;

    use tokio::net::{UnixListener, UnixStream};
    use tokio::task::{AbortHandle, JoinSet};
    use virevent_testkit::servers::Xenstored;

    use super::*;

    /// The daemon behind a door that can be shut.
    struct RealRig {
        daemon: Xenstored,
        last: Last,
        home: tempfile::TempDir,
        door: Mutex<Option<AbortHandle>>,
    }

    impl RealRig {
        async fn new() -> Self {
            let (daemon, home) = (Xenstored::start().await.unwrap(), tempfile::tempdir().unwrap());
            let rig = Self { daemon, last: Last::default(), home, door: Mutex::default() };
            rig.heal().await.unwrap();
            rig
        }

        fn socket(&self) -> PathBuf {
            self.home.path().join("door")
        }
    }

    async fn let_in(door: UnixListener, to: PathBuf) {
        let mut guests = JoinSet::new();
        while let Ok((mut guest, _)) = door.accept().await {
            let mut daemon = UnixStream::connect(&to).await.unwrap();
            guests.spawn(async move {
                // Whoever hangs up ends both.
                let _ = tokio::io::copy_bidirectional(&mut guest, &mut daemon).await;
            });
        }
    }

    #[async_trait]
    impl Rig for RealRig {
        fn source(&self) -> Arc<dyn EventSource> {
            self.last.open(&format!("xenstore:{}", self.socket().display()))
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

        async fn break_connection(&self) -> Result<(), Failure> {
            std::fs::remove_file(self.socket()).unwrap();
            if let Some(door) = self.door.lock().unwrap().take() {
                door.abort();
            }
            Ok(())
        }

        async fn heal(&self) -> Result<(), Failure> {
            let door = UnixListener::bind(self.socket()).map_err(Failure::new)?;
            let open = tokio::spawn(let_in(door, self.daemon.socket())).abort_handle();
            *self.door.lock().unwrap() = Some(open);
            Ok(())
        }

        async fn registrations(&self) -> Result<usize, Failure> {
            // Of one that hung up the daemon learns when the door has told it.
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(self.daemon.watches().map_err(Failure::new)?.len())
        }
    }

    virevent_testkit::conformance_tests!(
        #[ignore = "needs xenstored"]
        RealRig::new().await
    );
}
