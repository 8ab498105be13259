//! The launchers start real servers, and leave no process behind.
#![cfg(feature = "servers")]

use std::time::Duration;

use tokio::net::UnixStream;
use virevent_testkit::servers::{Config, Container, Deed, Guest, Hook, Libvirtd, Tap, rss_kib};

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn two_daemons_run_side_by_side() {
    let one = Libvirtd::start().await.unwrap();
    let two = Libvirtd::start().await.unwrap();
    one.virsh("test:///default").run(&["destroy", "test"]).await.unwrap();
    let running = [("test".to_owned(), "running".to_owned())];
    assert_eq!(two.virsh("test:///default").list().await.unwrap(), running);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_and_its_guests_end_when_it_is_dropped() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    virsh.create(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    let pids = [daemon.pid().unwrap(), daemon.guest_pid("web").unwrap()];
    assert!(pids.iter().all(|pid| rss_kib(*pid).is_some()));
    let socket = daemon.socket();
    drop(daemon);
    assert!(pids.iter().all(|pid| rss_kib(*pid).is_none()));
    assert!(!socket.exists());
}

#[tokio::test]
#[ignore = "needs root and libvirtd with its LXC driver"]
async fn containers_end_when_the_daemon_is_dropped() {
    let daemon = Libvirtd::start_with(Config::default().lxc(true)).await.unwrap();
    let container = daemon.furnish_container(&Container::idle("web"));
    daemon.virsh("lxc:///").create(&container).await.unwrap();
    // A frozen process does not take even SIGKILL.
    daemon.virsh("lxc:///").run(&["suspend", "web"]).await.unwrap();
    let controller = daemon.guest_pid("web").unwrap();
    let children =
        std::fs::read_to_string(format!("/proc/{controller}/task/{controller}/children"));
    let init: u32 = children.unwrap().trim().parse().unwrap();
    drop(daemon);
    assert!([controller, init].iter().all(|pid| rss_kib(*pid).is_none()));
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn guests_survive_kill9_and_are_found_after_start_again() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    virsh.create(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    daemon.kill9().await;
    assert!(daemon.pid().is_none());
    daemon.start_again().await.unwrap();
    assert_eq!(virsh.list().await.unwrap(), [("web".into(), "running".into())]);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_guest_powers_itself_off() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    virsh.define(&daemon.furnish(&Guest::after(0, "web", Deed::PowerOff)).unwrap()).await.unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
    let mut state = String::new();
    while !state.starts_with("shut off") {
        tokio::time::sleep(Duration::from_millis(20)).await;
        state = virsh.run(&["domstate", "web", "--reason"]).await.unwrap();
    }
    assert_eq!(state.trim(), "shut off (shutdown)");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_hook_that_hangs_keeps_a_worker_until_it_refuses() {
    let daemon = Libvirtd::start_with(Config::default().hook(true)).await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    assert_eq!(daemon.busy_workers().await.unwrap(), 0);
    daemon.set_hook("web", "prepare", Hook::Hang).unwrap();
    // The start waits in the hook, and its worker with it.
    let starting = virsh.run(&["start", "web"]);
    let refuse = async {
        while daemon.busy_workers().await.unwrap() != 1 {}
        daemon.set_hook("web", "prepare", Hook::Refuse).unwrap();
    };
    let (started, ()) = tokio::join!(starting, refuse);
    assert!(started.unwrap_err().to_string().contains("Hook script"));
    daemon.set_hook("web", "prepare", Hook::Pass).unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_listens_on_tcp_if_configured() {
    let daemon = Libvirtd::start_with(Config::default().tcp(true)).await.unwrap();
    let uri = daemon.tcp_uri("test:///default").unwrap();
    let address = uri.trim_start_matches("test+tcp://").trim_end_matches("/default");
    tokio::net::TcpStream::connect(address).await.unwrap();
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_failed_start_has_the_daemons_log() {
    let config = Config::default().extra("max_clients = \"many\"\n");
    let error = Libvirtd::start_with(config).await.unwrap_err().to_string();
    assert!(error.contains("max_clients"), "{error}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_tap_counts_connections_and_registrations() {
    let daemon = Libvirtd::start().await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    let client = tokio::process::Command::new("virsh")
        .args(["-c", &tap.uri("test:///default")])
        .args(["event", "--event", "lifecycle", "--timeout", "1"])
        .output();
    client.await.unwrap();
    let seen = tap.seen();
    assert_eq!((seen.connections, seen.open), (1, 0));
    assert_eq!((seen.registrations, seen.deregistrations, seen.registered), (1, 1, 0));
    UnixStream::connect(tap.socket()).await.unwrap();
}
