//! Migrations from one QEMU to another.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use virevent::{Kind, Options};
use virevent_testkit::servers::{Guest, Qemu, QemuConfig};

use super::{PATIENCE, delivered_until, watch};

/// Two QEMUs between which a guest can migrate.
struct Hosts {
    here: Qemu,
    there: Qemu,
    way: String,
    _home: TempDir,
}

impl Hosts {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let way = format!("unix:{}", home.path().join("way").display());
        let config = QemuConfig::default().name("web").guest(Guest::idle("web"));
        let here = config.clone().start().await.unwrap();
        let there = config.running().args(&["-incoming", &way]).start().await.unwrap();
        Self { here, there, way, _home: home }
    }

    async fn migrate(&mut self) {
        let to = format!(r#"{{"uri": "{}"}}"#, self.way);
        self.here.run_with("migrate", &to).await.unwrap();
    }

    async fn until_completed(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.here.run("query-migrate").await.unwrap().contains("completed") {
            assert!(Instant::now() < deadline, "the migration is not completed");
        }
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_paused_guest_that_leaves_without_an_event_has_migrated() {
    for wait in [0, 50, 200] {
        let mut hosts = Hosts::start().await;
        let (mut leaving, _) = watch(&hosts.here.uri(), Options::default()).await;
        hosts.here.run("cont").await.unwrap();
        hosts.here.run("stop").await.unwrap();
        assert_eq!(delivered_until(&mut leaving, "suspended").await.len(), 2);
        // The guest is paused for a while before the migration, and the bandwidth is limited, so
        // that the migration takes as long as that of a guest of common size.
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let slow = r#"{"max-bandwidth": 2000000}"#;
        hosts.here.run_with("migrate-set-parameters", slow).await.unwrap();
        hosts.migrate().await;
        hosts.until_completed().await;
        hosts.here.run("quit").await.unwrap();
        let delivered = delivered_until(&mut leaving, "stopped").await;
        assert_eq!(delivered, ["web shutting_down (host)", "web stopped (migrated)"], "{wait} ms");
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_migration_is_delivered_on_source_and_target() {
    let mut hosts = Hosts::start().await;
    let wanted = Options::default().kinds([Kind::Lifecycle, Kind::MigrationIteration]);
    let (mut leaving, _) = watch(&hosts.here.uri(), wanted).await;
    let (mut coming, existing) = watch(&hosts.there.uri(), Options::default()).await;
    assert_eq!(existing, ["web existing (paused (migration))"]);
    hosts.here.run("cont").await.unwrap();
    // As libvirt does: only with this capability QEMU sends MIGRATION events.
    let events = r#"{"capabilities": [{"capability": "events", "state": true}]}"#;
    hosts.here.run_with("migrate-set-capabilities", events).await.unwrap();
    hosts.migrate().await;
    assert_eq!(delivered_until(&mut coming, "resumed").await, ["web resumed (migrated)"]);
    let delivered = delivered_until(&mut leaving, "suspended").await;
    // The second pass is after the STOP, and so before or after the cause of the pause is known.
    assert_eq!(delivered[..2], ["web resumed (unpaused)", "web migration-iteration 1"]);
    assert_eq!(delivered.last().unwrap(), "web suspended (migrated)");
    hosts.until_completed().await;
    hosts.here.run("quit").await.unwrap();
    let mut delivered = delivered_until(&mut leaving, "stopped").await;
    delivered.retain(|event| event != "web migration-iteration 2");
    assert_eq!(delivered, ["web shutting_down (host)", "web stopped (migrated)"]);
    hosts.there.run("quit").await.unwrap();
    assert_eq!(
        delivered_until(&mut coming, "stopped").await.last().unwrap(),
        "web stopped (destroyed)"
    );
}
