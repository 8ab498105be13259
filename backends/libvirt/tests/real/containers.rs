//! Containers of libvirt's LXC driver.
//!
//! On a busy machine libvirtd 9.0 sometimes misses the end of a container's controller. Its own
//! list is wrong then: `virsh list` shows the container as running until it is destroyed. A test of
//! such an end then tries again with another run.

use std::time::Instant;

use virevent_testkit::servers::{Config, Container, Libvirtd, Order, Tap, Virsh};

use super::*;

const LXC: &str = "lxc:///";

/// After how many runs whose end the daemon missed a test fails.
const RUNS: u32 = 5;

async fn daemon_with(name: &str) -> (Libvirtd, Virsh) {
    let daemon = Libvirtd::start_with(Config::default().lxc(true)).await.unwrap();
    let virsh = daemon.virsh(LXC);
    virsh.define(&daemon.furnish_container(&Container::idle(name))).await.unwrap();
    (daemon, virsh)
}

async fn start(virsh: &Virsh, name: &str) -> String {
    virsh.run(&["start", name]).await.unwrap();
    id(virsh, name).await
}

/// The id of the current run, as virsh shows it; `-` without one.
async fn id(virsh: &Virsh, name: &str) -> String {
    virsh.run(&["domid", name]).await.unwrap().trim().to_owned()
}

/// Starts `web` and ends its run, or makes it continue under another id. Returns the ids before and
/// after, as virsh shows them.
async fn run_that_ends(virsh: &Virsh, end: impl Fn()) -> (String, String) {
    for _ in 0..RUNS {
        let first = start(virsh, "web").await;
        end();
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(5) {
            let now = id(virsh, "web").await;
            if now != first {
                return (first, now);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        virsh.run(&["destroy", "web"]).await.unwrap();
    }
    panic!("libvirtd missed the ends of {RUNS} runs");
}

#[tokio::test]
#[ignore = "needs root and libvirtd with its LXC driver"]
async fn events_of_a_container_are_delivered_in_order() {
    let (daemon, virsh) = daemon_with("web").await;
    let (mut events, existing) = synced_stream(&daemon.uri(LXC), Options::default()).await;
    assert_eq!(existing, ["web existing (shutoff)"]);
    let id = start(&virsh, "web").await;
    virsh.batch("suspend web\nresume web\ndestroy web\nundefine web\n").await.unwrap();
    let mut lines = lines_until(&mut events, |line| line.contains("undefined")).await;
    // libvirtd sometimes reports the end twice, in either order: as destroyed, and as the failure
    // of the controller that it has just killed. It is one end, and the first cause is delivered.
    for line in &mut lines {
        *line = line.replace("stopped (failed)", "stopped (destroyed)");
    }
    let expected = [
        format!("web[{id}] started (booted)"),
        format!("web[{id}] suspended (paused)"),
        format!("web[{id}] resumed (unpaused)"),
        format!("web[{id}] stopped (destroyed)"),
        "web undefined (removed)".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
#[ignore = "needs root and libvirtd with its LXC driver"]
async fn the_end_of_a_containers_init_is_a_shutdown() {
    let (daemon, virsh) = daemon_with("web").await;
    let (mut events, _) = synced_stream(&daemon.uri(LXC), Options::default()).await;
    let exit = || daemon.order("web", Order::Exit).unwrap();
    let (id, _) = run_that_ends(&virsh, exit).await;
    let stopped = format!("web[{id}] stopped");
    let lines = lines_until(&mut events, |line| line.starts_with(&stopped)).await;
    assert_eq!(lines.last(), Some(&format!("{stopped} (shutdown)")));
}

#[tokio::test]
#[ignore = "needs root and libvirtd with its LXC driver"]
async fn the_end_of_a_containers_controller_is_a_failure() {
    let (daemon, virsh) = daemon_with("web").await;
    let (mut events, _) = synced_stream(&daemon.uri(LXC), Options::default()).await;
    let kill = || assert!(daemon.kill_guest("web"));
    let (id, _) = run_that_ends(&virsh, kill).await;
    let stopped = format!("web[{id}] stopped");
    let lines = lines_until(&mut events, |line| line.starts_with(&stopped)).await;
    assert_eq!(lines.last(), Some(&format!("{stopped} (failed)")));
}

#[tokio::test]
#[ignore = "needs root and libvirtd with its LXC driver"]
async fn containers_are_listed_with_their_states() {
    let (daemon, virsh) = daemon_with("off").await;
    for name in ["web", "db"] {
        virsh.create(&daemon.furnish_container(&Container::idle(name))).await.unwrap();
    }
    virsh.run(&["suspend", "db"]).await.unwrap();
    let (_events, mut existing) = synced_stream(&daemon.uri(LXC), Options::default()).await;
    existing.sort();
    let expected = [
        format!("db[{}] existing (paused (user))", id(&virsh, "db").await),
        "off existing (shutoff)".to_owned(),
        format!("web[{}] existing (running (booted))", id(&virsh, "web").await),
    ];
    assert_eq!(existing, expected);
}

/// The id of a run is the pid of libvirt's controller process, and a reboot starts another one.
#[tokio::test]
#[ignore = "needs root and libvirtd with its LXC driver"]
async fn a_container_that_reboots_gets_the_id_in_the_event() {
    let (daemon, virsh) = daemon_with("web").await;
    let tap = Tap::before(&daemon).unwrap();
    let (mut events, _) = synced_stream(&tap.uri(LXC), Options::default()).await;
    let reboot = || daemon.order("web", Order::Reboot).unwrap();
    let (first, second) = run_that_ends(&virsh, reboot).await;
    assert_ne!(second, "-");
    let lines = lines_until(&mut events, |line| line.contains("rebooted")).await;
    let expected = [format!("web[{first}] started (booted)"), format!("web[{second}] rebooted")];
    assert_eq!(lines[lines.len() - 2..], expected);

    // It is the same run: a list with the new id changes nothing.
    tap.go_down();
    tap.come_back().unwrap();
    let lines = until_synced(&mut events).await.unwrap();
    assert!(lines.iter().all(is_gap), "{lines:#?}");

    virsh.batch("suspend web\nresume web\ndestroy web\n").await.unwrap();
    let lines = lines_until(&mut events, |line| line.contains("stopped")).await;
    assert_eq!(lines[0], format!("web[{second}] suspended (paused)"));
    assert_eq!(lines[1], format!("web[{second}] resumed (unpaused)"));
    assert!(lines[2].starts_with(&format!("web[{second}] stopped (")), "{lines:#?}");
}
