//! What subscriptions over ssh that are dropped midway leave behind: nothing. Alone in its process,
//! whose descriptors, threads and children it counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../real_ssh/processes.rs"]
#[allow(dead_code)]
mod processes;

use std::time::Duration;

use virevent::driver::Driver;
use virevent::{EventSource, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::until_synced;
use virevent_testkit::servers::{Libvirtd, Sshd};

use self::processes::{children, until};

const PATIENCE: Duration = Duration::from_secs(60);

fn client(sshd: &Sshd) -> Driver {
    Libvirt::new(&sshd.uri("test:///default")).unwrap().connect_timeout(PATIENCE).source()
}

async fn subscribe_and_shut_down(sshd: &Sshd) {
    let source = client(sshd);
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    source.shutdown().await;
}

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// The connections that sshd serves.
fn connections(sshd: &Sshd) -> usize {
    let pid = sshd.pid().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().count()
}

#[tokio::test]
#[ignore = "needs sshd"]
async fn a_subscription_dropped_midway_leaves_nothing_behind() {
    let daemon = Libvirtd::start().await.unwrap();
    let sshd = Sshd::beside(&daemon).await.unwrap();
    // The daemon and sshd. A zombie counts.
    let own = children("").len();
    let ended = async || {
        until("end of every ssh", || children("").len() == own).await;
        until("end of every connection", || connections(&sshd) == 0).await;
    };
    subscribe_and_shut_down(&sshd).await;
    ended().await;
    let descriptors = entries("/proc/self/fd");
    let threads = entries("/proc/self/task");
    for milliseconds in (0..300).step_by(10) {
        let source = client(&sshd);
        let subscribe = source.subscribe_with(Options::default());
        // Either outcome will do.
        let _ = tokio::time::timeout(Duration::from_millis(milliseconds), subscribe).await;
        source.shutdown().await;
    }
    ended().await;
    assert_eq!(entries("/proc/self/fd"), descriptors);
    until("end of every thread", || entries("/proc/self/task") <= threads).await;
}
