//! Connects and shuts down a hundred times, with SASL, at a real libvirtd. The only test in its
//! process: it counts the descriptors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use virevent::{EventSource, Options};
use virevent_libvirt::{Credentials, Libvirt};
use virevent_testkit::assert::until_synced;
use virevent_testkit::servers::{Config, Libvirtd, Sasl};

async fn connect_and_shut_down(uri: &str) {
    let libvirt = Libvirt::new(uri).unwrap();
    let source = libvirt.credentials(Credentials::new("fred", "sekrit")).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    source.shutdown().await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_hundred_connects_and_shutdowns_leave_nothing() {
    for mechanism in ["scram-sha-256", "plain"] {
        let sasl = Sasl::new(mechanism).user("fred", "sekrit");
        let daemon = Libvirtd::start_with(Config::default().sasl(sasl)).await.unwrap();
        let uri = daemon.uri("test:///default");
        connect_and_shut_down(&uri).await;
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let descriptors_before = descriptors();
        let tasks_before = tasks();
        // The daemon stops to answer at 20 clients that are not authenticated.
        for _ in 0..100 {
            connect_and_shut_down(&uri).await;
        }
        assert_eq!(descriptors(), descriptors_before, "{mechanism}");
        assert_eq!(tasks(), tasks_before, "{mechanism}");
    }
}
