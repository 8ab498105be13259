//! TLS on a fake libvirtd behind a TLS server: what is trusted, what is a refusal, and the line
//! that says so. The same on real daemons is in `real_tls`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod byte;
mod files;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, EventSourceExt, EventStream, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::until_synced;
use virevent_testkit::fakes::libvirtd::FakeLibvirtd;
use virevent_testkit::tls::{Clients, Leaf, Pki, TlsFront};

/// A daemon behind a TLS server, and a client's directory with the CA's certificate only.
struct Secured {
    front: TlsFront,
    client: PathBuf,
    pki: Pki,
    daemon: FakeLibvirtd,
}

impl Secured {
    /// With a certificate for `localhost`.
    async fn start() -> Self {
        Self::start_with(&Leaf::server(&["localhost"]), Clients::Any).await
    }

    async fn start_with(leaf: &Leaf, clients: Clients) -> Self {
        let pki = Pki::new().unwrap();
        let directory = pki.server_directory("server", leaf).unwrap();
        let daemon = FakeLibvirtd::start().unwrap();
        daemon.host().create("web").unwrap();
        let front = TlsFront::before(&daemon.socket(), &directory, clients).await.unwrap();
        let client = pki.directory("client").unwrap();
        Self { front, client, pki, daemon }
    }

    fn uri(&self) -> String {
        uri(self.front.port(), &self.client)
    }
}

fn uri(port: u16, pkipath: &Path) -> String {
    format!("test+tls://localhost:{port}/default?pkipath={}", pkipath.display())
}

fn client(uri: &str) -> Driver {
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
    Libvirt::new(uri).unwrap().reconnect(quick).source()
}

async fn synced_stream(uri: &str) -> EventStream {
    let mut events = client(uri).subscribe_with(Options::default()).await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    assert_eq!(existing[0].to_string(), "web[1] existing (running (booted))");
    events
}

/// The error of a first subscription.
async fn error(uri: &str) -> Error {
    match client(uri).subscribe().await {
        Err(error) => error,
        Ok(_) => panic!("{uri} can be subscribed to"),
    }
}

/// Asserts what the line says, and that a retry cannot help.
fn assert_refusal(error: &Error, parts: &[&str]) {
    let line = error.to_line();
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    assert!(error.is_refusal() && !line.contains('\n'), "{line}");
}

/// Asserts what the line says, and that a retry can help.
fn assert_no_refusal(error: &Error, parts: &[&str]) {
    let line = error.to_line();
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    assert!(!error.is_refusal() && !line.contains('\n'), "{line}");
}
