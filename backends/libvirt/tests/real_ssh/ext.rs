//! The transport ext: a program of the user's.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::process::Signal;

use super::processes::{children, only_child, signal, until};
use super::*;

/// A program that connects to the daemon.
fn program(daemon: &Libvirtd, home: &tempfile::TempDir) -> PathBuf {
    let path = home.path().join("to-daemon");
    let text = format!("#!/bin/sh\nexec nc -U {}\n", daemon.socket().display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_program_of_the_users_carries_events_and_outages() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let uri = format!("test+ext:///default?command={}", program(&daemon, &home).display());
    assert_delivers(&daemon, libvirt(&uri)).await;

    let nc = daemon.socket().display().to_string();
    let source = client(&uri);
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    signal(only_child(&nc), Signal::TERM);
    let gap = next_line(&mut events).await;
    assert!(gap.contains("signal 15 (SIGTERM)"), "{gap}");
    until_synced(&mut events).await.unwrap();
    daemon.terminate().await;
    next_line(&mut events).await;
    daemon.start_again().await.unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.virsh(TEST).run(&["suspend", "test"]).await.unwrap();
    assert_eq!(next_line(&mut events).await, "test[1] suspended (paused)");
    source.shutdown().await;
    until("end of netcat", || children(&nc).is_empty()).await;
}
