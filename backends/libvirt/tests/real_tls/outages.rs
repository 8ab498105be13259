//! Connections that end: the daemon dies, the path stalls, the client disconnects.

use std::fs;

use virevent::driver::Settings;
use virevent::{DomainEvent, Origin};
use virevent_testkit::assert::next_within;
use virevent_testkit::servers::NetworkPath;

use super::*;

/// Reads from a gap to `Synced`: the gap's text, and the lifecycle events between, as lines.
async fn outage(events: &mut EventStream) -> (String, Vec<String>) {
    let delivered = until_synced(events).await.unwrap();
    let gap = match delivered.first() {
        Some(DomainEvent::Gap(gap)) => gap.to_string(),
        other => panic!("{other:?} instead of a gap"),
    };
    let changes = delivered.iter().filter_map(|event| {
        let lifecycle = event.lifecycle()?;
        assert_eq!(lifecycle.origin, Origin::Inferred, "{event}");
        Some(event.to_string())
    });
    (gap, changes.collect())
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn five_kills_of_the_daemon_lose_no_change_over_tls() {
    let mut secured = Secured::start().await;
    let virsh = secured.daemon.virsh(TEST);
    let source = client(&secured.uri(&secured.client("fred")));
    let (mut events, _) = synced_stream(&source).await;
    for round in 0..5 {
        // The test driver loses its domains with the daemon.
        virsh.run(&["suspend", "test"]).await.unwrap();
        let event = next_within(&mut events, PATIENCE).await.unwrap();
        assert_eq!(event.to_string(), "test[1] suspended (paused)", "round {round}");
        match round % 2 {
            0 => secured.daemon.kill9().await,
            _ => secured.daemon.terminate().await,
        }
        secured.daemon.start_again().await.unwrap();
        let (gap, changes) = outage(&mut events).await;
        assert!(gap.contains("localhost:"), "round {round}: {gap}");
        assert_eq!(changes, ["test[1] resumed [inferred]"], "round {round}");
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_path_that_stalls_is_a_gap_and_then_synced() {
    let secured = Secured::start().await;
    let virsh = secured.daemon.virsh(TEST);
    let _keeper = virsh.session().await.unwrap();
    let path = NetworkPath::to(secured.daemon.tls_port().unwrap()).await.unwrap();
    let uri = uri(path.port(), &secured.client("fred"));
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
    let settings = Settings::default().reconnect(quick).connect_timeout(Duration::from_secs(1));
    let source = Libvirt::new(&uri)
        .unwrap()
        .keepalive(Duration::from_millis(200), 2)
        .settings(settings)
        .source();
    let (mut events, _) = synced_stream(&source).await;
    path.stall();
    virsh.run(&["suspend", "test"]).await.unwrap();
    let gap = next_within(&mut events, PATIENCE).await.unwrap();
    assert!(matches!(gap, DomainEvent::Gap(_)), "{gap}");
    path.come_back();
    let delivered = until_synced(&mut events).await.unwrap();
    let changes: Vec<_> = delivered.iter().filter(|event| event.lifecycle().is_some()).collect();
    assert_eq!(changes.len(), 1, "{delivered:?}");
    assert_eq!(changes[0].to_string(), "test[1] suspended (paused) [inferred]");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_new_certificate_is_used_without_a_restart() {
    let mut secured = Secured::start().await;
    let directory = secured.client("fred");
    let source = client(&secured.uri(&directory));
    let (mut events, _) = synced_stream(&source).await;
    // The whole PKI is renewed: with the old files the daemon could not be reached again.
    let renewed = Pki::new().unwrap();
    let leaf = Leaf::server(&["localhost"]);
    let server = renewed.server_directory("server", &leaf).unwrap();
    let old = directory.with_file_name("server");
    for file in ["cacert.pem", "servercert.pem", "serverkey.pem"] {
        fs::copy(server.join(file), old.join(file)).unwrap();
    }
    secured.daemon.kill9().await;
    secured.daemon.start_again().await.unwrap();
    let gap = next_within(&mut events, PATIENCE).await.unwrap();
    assert!(matches!(gap, DomainEvent::Gap(_)), "{gap}");
    renewed.issue(&Leaf::client("fred")).unwrap().write(&directory, "client").unwrap();
    fs::copy(server.join("cacert.pem"), directory.join("cacert.pem")).unwrap();
    until_synced(&mut events).await.unwrap();
}
