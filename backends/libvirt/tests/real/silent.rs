//! Runs that end without an event.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use virevent_testkit::servers::{Config, Guest, Hook, Libvirtd, Virsh};

use super::table::Table;
use super::*;

/// A domain in doubt is verified after two seconds; the next verification of all is a minute away.
const PROMPT: Duration = Duration::from_secs(20);

async fn daemon() -> (Libvirtd, Virsh) {
    let daemon = Libvirtd::start_with(Config::default().hook(true)).await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    (daemon, virsh)
}

async fn synced_table(daemon: &Libvirtd) -> (EventStream, Table) {
    let source = client(&daemon.uri(daemon.qemu()));
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let mut table = Table::default();
    until_synced(&mut events).await.unwrap().iter().for_each(|event| table.apply(event));
    (events, table)
}

/// A QEMU that starts, and fails when the test lets it. Until then libvirtd waits for its monitor,
/// without the domain's lock. When libvirtd asks for QEMU's capabilities it runs the real QEMU.
pub(crate) struct SlowEmulator(TempDir);

impl SlowEmulator {
    pub(crate) fn new() -> Self {
        let slow = Self(TempDir::new().unwrap());
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *guest=*) touch {began}; \
             while [ ! -e {end} ]; do sleep 0.02; done; rm {end}; exit 1;; esac\n\
             exec /usr/bin/qemu-system-x86_64 \"$@\"\n",
            began = slow.path("began"),
            end = slow.path("end"),
        );
        std::fs::write(slow.path("qemu"), script).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(slow.path("qemu"), mode).unwrap();
        slow
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    /// The guest with this emulator.
    pub(crate) fn run_by(&self, xml: &str) -> String {
        xml.replace("/usr/bin/qemu-system-x86_64", &self.path("qemu"))
    }

    /// Waits until it has started.
    pub(crate) async fn until_started(&self) {
        while std::fs::remove_file(self.path("began")).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets it fail.
    pub(crate) fn fail(&self) {
        std::fs::write(self.path("end"), "").unwrap();
    }
}

/// libvirt sends resumed, and then nothing.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_start_refused_by_the_started_hook_is_stopped() {
    let (daemon, virsh) = daemon().await;
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    let (mut events, mut table) = synced_table(&daemon).await;
    daemon.set_hook("web", "started", Hook::Refuse).unwrap();
    daemon.set_hook("db", "started", Hook::Refuse).unwrap();
    virsh.run(&["start", "web"]).await.unwrap_err();
    virsh.create(&daemon.furnish(&Guest::idle("db")).unwrap()).await.unwrap_err();
    // On a slow machine the second start may end after the stop of the first was inferred.
    for name in ["web[1]", "db[2]"] {
        table.until_delivered(&mut events, &format!("{name} resumed (unpaused)")).await;
    }
    table.until_equal_within(&mut events, &virsh, PROMPT).await;
    daemon.set_hook("web", "started", Hook::Pass).unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
    table.until_equal_within(&mut events, &virsh, PROMPT).await;
}

/// The list contains paused (starting_up), and no event says that the start failed.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_start_that_fails_after_it_was_listed_is_stopped() {
    let (daemon, virsh) = daemon().await;
    let emulator = SlowEmulator::new();
    let slow = emulator.run_by(&daemon.furnish(&Guest::idle("web")).unwrap());
    virsh.define(&slow).await.unwrap();
    let starting = {
        let virsh = virsh.clone();
        tokio::spawn(async move { virsh.run(&["start", "web"]).await })
    };
    emulator.until_started().await;
    let (mut events, mut table) = synced_table(&daemon).await;
    let state = virsh.run(&["domstate", "--reason", "web"]).await.unwrap();
    assert_eq!(state.trim(), "paused (starting up)");
    emulator.fail();
    starting.await.unwrap().unwrap_err();
    table.until_equal_within(&mut events, &virsh, PROMPT).await;
}

/// A daemon that restarts reconnects to its guests. If the QEMU of one hangs, and then dies, the
/// only event is a control-error.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_qemu_that_dies_during_a_daemon_restart_is_stopped() {
    let (mut daemon, virsh) = daemon().await;
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    virsh.create(&daemon.furnish(&Guest::idle("db")).unwrap()).await.unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
    let (mut events, mut table) = synced_table(&daemon).await;
    assert!(daemon.freeze_guest("web") && daemon.freeze_guest("db"));
    daemon.kill9().await;
    daemon.start_again().await.unwrap();
    for event in until_synced(&mut events).await.unwrap() {
        table.apply(&event);
    }
    assert!(daemon.kill_guest("web") && daemon.kill_guest("db"));
    table.until_equal_within(&mut events, &virsh, PROMPT).await;
}
