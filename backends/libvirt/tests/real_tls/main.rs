//! TLS to real libvirtds, each private to its test: `cargo test --features tls -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod errors;
mod outages;
mod streams;

use std::path::{Path, PathBuf};
use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, EventSourceExt, EventStream, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::until_synced;
use virevent_testkit::servers::{Config, Libvirtd, Virsh};
use virevent_testkit::tls::{Leaf, Pki};

/// libvirt's test driver, whose domains are simulated.
const TEST: &str = "test:///default";

/// Far longer than any step of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with a certificate for `localhost` and 127.0.0.1, and its CA.
struct Secured {
    daemon: Libvirtd,
    pki: Pki,
}

impl Secured {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With further lines of `libvirtd.conf`.
    async fn start_with(lines: &str) -> Self {
        let pki = Pki::new().unwrap();
        let leaf = Leaf::server(&["localhost", "127.0.0.1"]);
        let directory = pki.server_directory("server", &leaf).unwrap();
        let config = Config::default().tls(&directory).extra(lines);
        Self { daemon: Libvirtd::start_with(config).await.unwrap(), pki }
    }

    /// The directory of a client whose certificate the daemon's CA has issued.
    fn client(&self, name: &str) -> PathBuf {
        let certificate = self.pki.issue(&Leaf::client(name)).unwrap();
        self.pki.client_directory(name, Some(&certificate)).unwrap()
    }

    fn uri(&self, pkipath: &Path) -> String {
        uri(self.daemon.tls_port().unwrap(), pkipath)
    }
}

fn uri(port: u16, pkipath: &Path) -> String {
    format!("test+tls://localhost:{port}/default?pkipath={}", pkipath.display())
}

fn client(uri: &str) -> Driver {
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
    Libvirt::new(uri).unwrap().reconnect(quick).source()
}

/// A synced stream, and what it delivered up to `Synced`, as lines.
async fn synced_stream(source: &Driver) -> (EventStream, Vec<String>) {
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    (events, existing.iter().map(ToString::to_string).collect())
}

/// The error of a first subscription.
async fn error(uri: &str) -> Error {
    match client(uri).subscribe().await {
        Err(error) => error,
        Ok(_) => panic!("{uri} can be subscribed to"),
    }
}
