//! Runs that end without a word from libvirt.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use virevent_testkit::servers::{Config, Guest, Hook, Libvirtd, Virsh};

use super::table::Table;
use super::*;

/// A doubt is looked at after two seconds; nothing here waits for the next verification.
const SOON: Duration = Duration::from_secs(20);

async fn daemon() -> (Libvirtd, Virsh) {
    let daemon = Libvirtd::start_with(Config::default().hook(true)).await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    (daemon, virsh)
}

async fn watched(daemon: &Libvirtd) -> (EventStream, Table) {
    let source = client(&daemon.uri(daemon.qemu()));
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let mut table = Table::default();
    until_synced(&mut events).await.unwrap().iter().for_each(|event| table.note(event));
    (events, table)
}

/// A QEMU that begins, and ends with a failure when it is told to. Until then libvirtd waits for its monitor,
/// without the domain's lock. For libvirtd's questions about QEMU itself it is QEMU.
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
    pub(crate) fn of(&self, xml: &str) -> String {
        xml.replace("/usr/bin/qemu-system-x86_64", &self.path("qemu"))
    }

    /// Waits until it has begun.
    pub(crate) async fn begun(&self) {
        while std::fs::remove_file(self.path("began")).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn end(&self) {
        std::fs::write(self.path("end"), "").unwrap();
    }
}

/// libvirt says resumed, and then nothing.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_start_that_the_hook_refuses_at_its_end_is_stopped() {
    let (daemon, virsh) = daemon().await;
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    let (mut events, mut table) = watched(&daemon).await;
    daemon.set_hook("web", "started", Hook::Refuse).unwrap();
    daemon.set_hook("db", "started", Hook::Refuse).unwrap();
    virsh.run(&["start", "web"]).await.unwrap_err();
    virsh.create(&daemon.furnish(&Guest::idle("db")).unwrap()).await.unwrap_err();
    // A daemon may need longer for a start than it takes until the first one is looked at, and inferred
    // to have stopped.
    for name in ["web[1]", "db[2]"] {
        table.until_delivered(&mut events, &format!("{name} resumed (unpaused)")).await;
    }
    table.until_true_within(&mut events, &virsh, SOON).await;
    daemon.set_hook("web", "started", Hook::Pass).unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
    table.until_true_within(&mut events, &virsh, SOON).await;
}

/// The list says paused (starting_up), and nothing says that the start failed.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_start_that_fails_after_it_was_listed_is_stopped() {
    let (daemon, virsh) = daemon().await;
    let emulator = SlowEmulator::new();
    let slow = emulator.of(&daemon.furnish(&Guest::idle("web")).unwrap());
    virsh.define(&slow).await.unwrap();
    let starting = {
        let virsh = virsh.clone();
        tokio::spawn(async move { virsh.run(&["start", "web"]).await })
    };
    emulator.begun().await;
    let (mut events, mut table) = watched(&daemon).await;
    let state = virsh.run(&["domstate", "--reason", "web"]).await.unwrap();
    assert_eq!(state.trim(), "paused (starting up)");
    emulator.end();
    starting.await.unwrap().unwrap_err();
    table.until_true_within(&mut events, &virsh, SOON).await;
}

/// A daemon that starts again reconnects to its guests. For one whose QEMU hangs, and dies
/// then, it sends a control-error alone.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_qemu_that_dies_behind_a_daemon_restart_is_stopped() {
    let (mut daemon, virsh) = daemon().await;
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    virsh.create(&daemon.furnish(&Guest::idle("db")).unwrap()).await.unwrap();
    virsh.run(&["start", "web"]).await.unwrap();
    let (mut events, mut table) = watched(&daemon).await;
    assert!(daemon.freeze_guest("web") && daemon.freeze_guest("db"));
    daemon.kill9().await;
    daemon.start_again().await.unwrap();
    for event in until_synced(&mut events).await.unwrap() {
        table.note(&event);
    }
    assert!(daemon.kill_guest("web") && daemon.kill_guest("db"));
    table.until_true_within(&mut events, &virsh, SOON).await;
}
