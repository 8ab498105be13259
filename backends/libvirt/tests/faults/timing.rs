//! Silence, pings and outages.

use std::time::Instant;

use virevent::driver::Settings;

use super::*;

#[tokio::test]
async fn a_half_open_connection_is_detected_and_replaced() {
    let daemon = FakeLibvirtd::start().unwrap();
    let source = hasty_client(&daemon);
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.change(|faults| faults.silent = true);
    let since = Instant::now();
    assert_eq!(next_gap(&mut events).await, FaultKind::Timeout);
    // Four intervals of 50 ms.
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    daemon.change(|faults| faults.silent = false);
    assert_recovers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn a_daemon_that_accepts_and_stays_silent_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.silent = true);
    let short = Settings::default().connect_timeout(Duration::from_millis(200));
    let source = client(&daemon).settings(short).source();
    let (error, line) = subscribe_error(&source).await;
    assert!(matches!(error, Error::Timeout { .. }), "{line}");
    assert!(
        line.contains("although the connection was made") && line.contains("max_clients"),
        "{line}"
    );
    daemon.change(|faults| faults.silent = false);
    assert_new_stream_is_true(&source, daemon.host()).await;
}

#[tokio::test]
async fn a_quiet_daemon_that_answers_pings_stays_connected() {
    let daemon = FakeLibvirtd::start().unwrap();
    let often = Duration::from_millis(20);
    let source = client(&daemon).keepalive(often, 5).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    tokio::time::sleep(often * 20).await;
    assert_delivers(&mut events, daemon.host()).await;
    assert_eq!(daemon.accepted(), 1);
}

#[tokio::test]
async fn the_daemons_own_pings_are_answered() {
    let (daemon, mut events) = synced_stream().await;
    for _ in 0..10 {
        daemon.ping();
    }
    daemon.until(|daemon| daemon.pongs() == 10).await;
    assert_delivers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn each_of_ten_outages_is_a_gap_with_its_own_changes() {
    let (daemon, mut events) = synced_stream().await;
    let store = DomainStore::new();
    for round in 0..10 {
        daemon.go_down();
        assert_eq!(next_gap(&mut events).await, FaultKind::Closed);
        let name = format!("vm{round}");
        daemon.host().create(&name).unwrap();
        daemon.come_back().unwrap();
        let events_of_outage = until_synced(&mut events).await.unwrap();
        let lines: Vec<_> = events_of_outage.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [format!("{name}[{}] started (booted) [inferred]", round + 2)]);
        store.extend(&events_of_outage);
    }
    assert_eq!(store.snapshot().active().count(), 10);
}
