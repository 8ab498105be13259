//! Guests that migrate, crash and are reset, and a host that changes its name.

use virevent_testkit::servers::{Config, Deed, Guest, Libvirtd, Virsh};

use super::table::Table;
use super::*;

struct Host {
    daemon: Libvirtd,
    virsh: Virsh,
    events: EventStream,
    table: Table,
}

impl Host {
    async fn new(name: &str) -> Self {
        let daemon = Libvirtd::start_with(Config::default().host(name)).await.unwrap();
        let virsh = daemon.virsh(daemon.qemu());
        let source = client(&daemon.uri(daemon.qemu()));
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        let mut table = Table::default();
        until_synced(&mut events).await.unwrap().iter().for_each(|event| table.apply(event));
        Self { daemon, virsh, events, table }
    }

    async fn create(&self, guest: &Guest) {
        self.virsh.create(&self.daemon.furnish(guest).unwrap()).await.unwrap();
    }

    async fn migrate(&self, name: &str, to: &Self, flags: &[&str]) {
        let uri = to.daemon.uri(to.daemon.qemu());
        let command = ["migrate", name, &uri, "tcp://127.0.0.1", "--live", "--unsafe"];
        self.virsh.run(&[&command, flags].concat()).await.unwrap();
    }

    async fn until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != last) {
            let event = next_within(&mut self.events, PATIENCE).await.unwrap();
            self.table.apply(&event);
            lines.push(event.to_string());
        }
        lines
    }

    async fn until_equal(&mut self) {
        self.table.until_equal(&mut self.events, &self.virsh).await;
    }
}

#[tokio::test]
#[ignore = "needs root and libvirtd"]
async fn a_guest_that_migrates_in_is_paused_until_it_is_resumed() {
    let mut here = Host::new("here").await;
    let mut there = Host::new("there").await;
    here.create(&Guest::idle("web")).await;
    here.until("web[1] started (booted)").await;
    here.migrate("web", &there, &[]).await;
    let lines = there.until("web[1] resumed (migrated)").await;
    assert_eq!(lines, ["web[1] started (migrated)", "web[1] resumed (migrated)"]);
    let lines = here.until("web[1] stopped (migrated)").await;
    assert_eq!(lines, ["web[1] suspended (migrated)", "web[1] stopped (migrated)"]);
    here.until_equal().await;
    there.until_equal().await;
}

/// libvirt sends stopped (migrated), and no event for the definition.
#[tokio::test]
#[ignore = "needs root and libvirtd"]
async fn a_definition_that_leaves_with_its_guest_is_gone() {
    let mut here = Host::new("here").await;
    let mut there = Host::new("there").await;
    here.virsh.define(&here.daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    here.virsh.run(&["start", "web"]).await.unwrap();
    here.migrate("web", &there, &["--persistent", "--undefinesource"]).await;
    here.until_equal().await;
    there.until_equal().await;
    assert_eq!(there.virsh.list().await.unwrap(), [("web".into(), "running".into())]);
    assert!(here.virsh.list().await.unwrap().is_empty());
}

/// libvirt sends rebooted, and no event that says that the guest is paused.
#[tokio::test]
#[ignore = "needs root and libvirtd"]
async fn a_crashed_guest_that_is_reset_is_paused() {
    let mut here = Host::new("here").await;
    let guest = here.daemon.furnish(&Guest::after(0, "web", Deed::Panic)).unwrap();
    let kept = guest.replace("</features>", "</features>\n  <on_crash>preserve</on_crash>");
    here.virsh.create(&kept).await.unwrap();
    here.until("web[1] crashed (panicked)").await;
    here.until_equal().await;
    here.virsh.run(&["reset", "web"]).await.unwrap();
    let state = here.virsh.run(&["domstate", "--reason", "web"]).await.unwrap();
    assert_eq!(state.trim(), "paused (crashed)");
    here.until_equal().await;
    assert_eq!(here.virsh.list().await.unwrap(), [("web".into(), "paused".into())]);
}

#[tokio::test]
#[ignore = "needs root and libvirtd"]
async fn a_renamed_host_keeps_the_name_that_subscribers_know() {
    let mut here = Host::new("here").await;
    here.create(&Guest::idle("web")).await;
    here.until("web[1] started (booted)").await;
    here.daemon.rename_host("elsewhere");
    here.daemon.terminate().await;
    here.daemon.start_again().await.unwrap();
    let lines = until_synced(&mut here.events).await.unwrap();
    assert!(lines.iter().all(is_gap), "{lines:#?}");
    here.virsh.run(&["suspend", "web"]).await.unwrap();
    let event = next_within(&mut here.events, PATIENCE).await.unwrap();
    assert_eq!(event.to_string(), "web[1] suspended (paused)");
    assert_eq!(event.domain().map(virevent::Domain::host), Some("here"));
}
