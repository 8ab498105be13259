//! Connecting and disconnecting over TLS, in a process without other tests: it counts descriptors.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use virevent::{EventSource, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::until_synced;
use virevent_testkit::servers::{Config, Libvirtd, NetworkPath};
use virevent_testkit::tls::{Leaf, Pki};

const PATIENCE: Duration = Duration::from_secs(60);

/// Descriptors and tasks of this process.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    tasks: usize,
}

impl Held {
    fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { descriptors, tasks: Handle::current().metrics().num_alive_tasks() }
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_hundred_connections_leave_no_descriptor_and_no_task() {
    let pki = Pki::new().unwrap();
    let server = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
    let daemon = Libvirtd::start_with(Config::default().tls(&server)).await.unwrap();
    let certificate = pki.issue(&Leaf::client("fred")).unwrap();
    let pkipath = pki.client_directory("client", Some(&certificate)).unwrap();
    // The path has a task a connection, which ends when both sides have closed it.
    let path = NetworkPath::to(daemon.tls_port().unwrap()).await.unwrap();
    let uri = format!("test+tls://localhost:{}/default?pkipath={}", path.port(), pkipath.display());
    let before = Held::now();
    for _ in 0..100 {
        let source = Libvirt::new(&uri).unwrap().source();
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        source.shutdown().await;
    }
    let nothing_left = async {
        while Held::now() != before {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let outcome = timeout(PATIENCE, nothing_left).await;
    assert!(outcome.is_ok(), "{:?} after, {before:?} before", Held::now());
    // libvirtd sees an end with close_notify; an end without would be an error in its log.
    assert!(!daemon.log().contains("TLS"), "{}", daemon.log());
}
