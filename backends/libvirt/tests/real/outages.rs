//! A daemon that is killed with -9 and restarted, ten times, while domains change.

use std::collections::BTreeSet;

use virevent::Origin;
use virevent_testkit::servers::{Guest, Libvirtd, Tap};

use super::table::Table;
use super::*;

/// Applies what a stream delivers of an outage, and checks its order: the gap, then the changes,
/// all inferred, then `Synced`. Returns the names of the domains that have events.
async fn apply_outage(events: &mut EventStream, table: &mut Table) -> BTreeSet<String> {
    let delivered = until_synced(events).await.unwrap();
    // There are two gaps if the driver connected to a daemon that then went down again.
    let last_gap = delivered.iter().rposition(is_gap).expect("a gap");
    assert!(delivered[..=last_gap].iter().all(is_gap), "{delivered:#?}");
    let mut names = BTreeSet::new();
    for event in &delivered {
        table.apply(event);
        if let Some(event) = event.lifecycle() {
            assert_eq!(event.origin, Origin::Inferred, "{delivered:#?}");
            names.insert(event.domain.name().to_owned());
        }
    }
    names
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn ten_kills_of_the_daemon_lose_no_change_of_qemu_guests() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    let qemu = daemon.qemu();
    let virsh = daemon.virsh(qemu);
    for name in ["steady", "still", "off", "web", "db"] {
        virsh.define(&daemon.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
    }
    virsh.batch("start steady\nstart still\nsuspend still\nstart web\n").await.unwrap();
    let mut events = client(&tap.uri(qemu)).subscribe_with(Options::default()).await.unwrap();
    let mut table = Table::default();
    until_synced(&mut events).await.unwrap().iter().for_each(|event| table.apply(event));
    table.assert_equal(&virsh).await;

    let new = daemon.furnish(&Guest::idle("new")).unwrap();
    for round in 0..10 {
        daemon.kill9().await;
        tap.go_down();
        // One guest dies while the daemon is down. Other clients make their changes before ours
        // reconnects.
        if round == 3 {
            assert!(daemon.kill_guest("web"));
        }
        daemon.start_again().await.unwrap();
        let (commands, changed): (&str, &[&str]) = match round {
            0 => ("start db\nsuspend web\n", &["db", "web"]),
            1 => ("resume web\ndestroy db\n", &["db", "web"]),
            2 => ("destroy web\nstart web\n", &["web"]),
            3 => ("", &["web"]),
            4 => ("", &["new"]),
            5 => ("start new\nstart db\n", &["db", "new"]),
            6 => ("destroy new\nundefine new\n", &["new"]),
            7 => ("", &[]),
            8 => ("start web\nsuspend web\nresume web\n", &["web"]),
            // The state is as before, so a list shows no change.
            _ => ("suspend db\nresume db\n", &[]),
        };
        if round == 4 {
            virsh.define(&new).await.unwrap();
        }
        virsh.batch(commands).await.unwrap();
        // The daemon needs a moment to find that a guest died meanwhile.
        while round == 3 && virsh.list().await.unwrap().contains(&("web".into(), "running".into()))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tap.come_back().unwrap();
        let names = apply_outage(&mut events, &mut table).await;
        assert_eq!(names, changed.iter().map(|name| (*name).into()).collect(), "round {round}");
        table.assert_equal(&virsh).await;
    }
    // The stream is still alive.
    virsh.run(&["suspend", "steady"]).await.unwrap();
    lines_until(&mut events, |line| line == "steady[1] suspended (paused)").await;
}

/// The test driver loses all its domains when its daemon dies.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn ten_kills_of_a_daemon_without_state_lose_no_change() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(TEST);
    let mut events = client(&daemon.uri(TEST)).subscribe_with(Options::default()).await.unwrap();
    let mut table = Table::default();
    until_synced(&mut events).await.unwrap().iter().for_each(|event| table.apply(event));
    for round in 0..10 {
        let name = format!("vm{round}");
        virsh.define(&test_domain(&name)).await.unwrap();
        virsh.run(&["start", &name]).await.unwrap();
        let started = format!("{name}[2] started (booted)");
        lines_until(&mut events, |line| line == started).await;
        daemon.kill9().await;
        daemon.start_again().await.unwrap();
        let names = apply_outage(&mut events, &mut table).await;
        assert_eq!(names, BTreeSet::from([name]), "round {round}");
        table.assert_equal(&virsh).await;
    }
}
