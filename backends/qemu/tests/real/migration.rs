//! A guest that goes from one QEMU to another.

use tokio::time::Instant;
use virevent::Options;
use virevent_testkit::servers::{Guest, QemuConfig};

use super::{PATIENCE, told_until, watch};

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_guest_that_moves_has_migrated_on_either_side() {
    let way = tempfile::tempdir().unwrap();
    let way = format!("unix:{}", way.path().join("way").display());
    let config = QemuConfig::default().name("web").guest(Guest::idle("web"));
    let mut here = config.clone().start().await.unwrap();
    let mut there = config.running().args(&["-incoming", &way]).start().await.unwrap();
    let (mut leaving, _) = watch(&here.uri(), Options::default()).await;
    let (mut coming, existing) = watch(&there.uri(), Options::default()).await;
    assert_eq!(existing, ["web existing (paused (migration))"]);
    here.run("cont").await.unwrap();
    // As libvirt does: only with it QEMU says when the guest has left.
    let events = r#"{"capabilities": [{"capability": "events", "state": true}]}"#;
    here.run_with("migrate-set-capabilities", events).await.unwrap();
    here.run_with("migrate", &format!(r#"{{"uri": "{way}"}}"#)).await.unwrap();
    assert_eq!(told_until(&mut coming, "resumed").await, ["web resumed (migrated)"]);
    let told = told_until(&mut leaving, "suspended").await;
    assert_eq!(told, ["web resumed (unpaused)", "web suspended (migrated)"]);
    let deadline = Instant::now() + PATIENCE;
    while !here.run("query-migrate").await.unwrap().contains("completed") {
        assert!(Instant::now() < deadline, "the migration is not completed");
    }
    here.run("quit").await.unwrap();
    let told = told_until(&mut leaving, "stopped").await;
    assert_eq!(told, ["web shutting_down (host)", "web stopped (migrated)"]);
    there.run("quit").await.unwrap();
    assert_eq!(told_until(&mut coming, "stopped").await.last().unwrap(), "web stopped (destroyed)");
}
