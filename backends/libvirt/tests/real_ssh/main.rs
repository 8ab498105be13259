//! Tests over a real ssh to a real sshd on the loopback address, with a real libvirtd behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod errors;
mod ext;
mod outages;
mod processes;

use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{DomainEvent, EventSource, EventStream, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::servers::{Libvirtd, Sshd};

/// libvirt's test driver, whose domains are simulated.
const TEST: &str = "test:///default";

/// Far longer than any step of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn servers() -> (Libvirtd, Sshd) {
    let daemon = Libvirtd::start().await.unwrap();
    let sshd = Sshd::beside(&daemon).await.unwrap();
    (daemon, sshd)
}

fn libvirt(uri: &str) -> Libvirt {
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
    Libvirt::new(uri).unwrap().reconnect(quick).connect_timeout(PATIENCE)
}

fn client(uri: &str) -> Driver {
    libvirt(uri).source()
}

/// The events up to the first one for which `last` is true, as lines.
async fn lines_until(events: &mut EventStream, last: impl Fn(&DomainEvent) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match next_within(events, PATIENCE).await {
            Ok(event) => {
                lines.push(event.to_string());
                if last(&event) {
                    return lines;
                }
            }
            Err(failure) => panic!("{failure}, after {lines:#?}"),
        }
    }
}

async fn next_line(events: &mut EventStream) -> String {
    lines_until(events, |_| true).await.remove(0)
}

/// Checks that a client of this URI sees what another client does.
async fn assert_delivers(daemon: &Libvirtd, libvirt: Libvirt) {
    let virsh = daemon.virsh(TEST);
    let _kept = virsh.session().await.unwrap();
    let source = libvirt.source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    let line = existing[0].to_string();
    assert!(line.starts_with("test[1] ") && line.contains("running"), "{line}");
    virsh.batch("suspend test\nresume test\n").await.unwrap();
    assert_eq!(next_line(&mut events).await, "test[1] suspended (paused)");
    assert_eq!(next_line(&mut events).await, "test[1] resumed (unpaused)");
    source.shutdown().await;
}

#[tokio::test]
#[ignore = "needs sshd"]
async fn events_arrive_through_each_proxy() {
    let (daemon, sshd) = servers().await;
    let uri = sshd.uri(TEST);
    let socket = daemon.socket();
    // The usual way; the helper alone; netcat, with the usual socket and with one of its own.
    for parameter in
        ["", "&proxy=native", "&proxy=netcat", &format!("&socket={}", socket.display())]
    {
        assert_delivers(&daemon, libvirt(&format!("{uri}{parameter}"))).await;
        assert_delivers(&daemon, libvirt(&format!("{uri}{parameter}")).read_write()).await;
    }
}
