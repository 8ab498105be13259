//! A service that was down: its next stream begins with what changed meanwhile.

use virevent::{DomainStore, EventSourceExt, Origin, Snapshot};
use virevent_testkit::servers::{Guest, Libvirtd};

use super::table::Table;
use super::*;

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn changes_while_down_are_inferred_with_their_causes() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    let uri = daemon.uri(daemon.qemu());
    for name in ["crashes", "ends", "gone", "paused", "restarts", "same"] {
        virsh.define(&daemon.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
        virsh.run(&["start", name]).await.unwrap();
    }
    let store = client(&uri).store().await.unwrap();
    let known = store.wait_for(Snapshot::is_certain).await.unwrap();
    store.close().await;
    // As a service does over its restart.
    let kept = serde_json::to_string(&known).unwrap();
    drop((store, known));

    assert!(daemon.kill_guest("crashes"));
    virsh.until_state("crashes", "shut off").await.unwrap();
    virsh.batch("destroy ends\nsuspend paused\ndestroy restarts\n").await.unwrap();
    virsh.run(&["start", "restarts"]).await.unwrap();
    virsh.batch("destroy gone\nundefine gone\n").await.unwrap();
    virsh.define(&daemon.furnish(&Guest::idle("new")).unwrap()).await.unwrap();

    let known: Snapshot = serde_json::from_str(&kept).unwrap();
    let mut table = Table::from(DomainStore::resumed(known.clone()));
    let mut events = client(&uri).subscribe_with(Options::default().resume(known)).await.unwrap();
    let beginning = until_synced(&mut events).await.unwrap();
    for event in &beginning {
        table.apply(event);
        assert!(event.lifecycle().is_none_or(|event| event.origin == Origin::Inferred), "{event}");
    }
    let lines: Vec<_> = beginning.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "gone[3] stopped [inferred]",
            "gone undefined [inferred]",
            "crashes[1] stopped (crashed) [inferred]",
            "ends[2] stopped (destroyed) [inferred]",
            "new defined [inferred]",
            "paused[4] suspended (paused) [inferred]",
            "restarts[5] stopped [inferred]",
            "restarts[7] started (booted) [inferred]",
        ]
    );
    table.assert_equal(&virsh).await;
    // What happens next is delivered as always.
    virsh.run(&["resume", "paused"]).await.unwrap();
    let next = lines_until(&mut events, |_| true).await;
    assert_eq!(next, ["paused[4] resumed (unpaused)"]);
}
