//! Authentication again, after the daemon was away.

use virevent::DomainEvent;
use virevent_libvirt::Credentials;

use super::*;

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_reconnect_authenticates_again() {
    let mut daemon = daemon("scram-sha-256").await;
    let credentials = Credentials::new("fred", "sekrit");
    let source = client(&daemon.uri(TEST)).credentials(credentials).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    for _ in 0..5 {
        daemon.kill9().await;
        daemon.start_again().await.unwrap();
        let told = until_synced(&mut events).await.unwrap();
        assert!(matches!(told[0], DomainEvent::Gap(_)), "{told:?}");
    }
    source.shutdown().await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_password_that_was_changed_is_read_again_from_the_auth_file() {
    let mut daemon = daemon("scram-sha-256").await;
    let (_directory, path) = auth_file("fred", "sekrit");
    let source = client(&uri_with(&daemon, &path)).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.set_password("fred", "changed").await.unwrap();
    daemon.kill9().await;
    daemon.start_again().await.unwrap();
    let gap = next_within(&mut events, PATIENCE).await.unwrap();
    assert!(matches!(gap, DomainEvent::Gap(_)), "{gap}");
    // Refused until the file follows.
    let (_other, changed) = auth_file("fred", "changed");
    std::fs::copy(changed, &path).unwrap();
    until_synced(&mut events).await.unwrap();
    source.shutdown().await;
}
