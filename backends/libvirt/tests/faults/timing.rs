//! Silence, pings and outages.

use std::time::Instant;

use virevent::driver::Settings;

use super::*;

#[tokio::test]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let daemon = FakeLibvirtd::start().unwrap();
    let source = hasty_client(&daemon);
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.change(|faults| faults.silent = true);
    let since = Instant::now();
    assert_eq!(gap(&mut events).await, FaultKind::Timeout);
    // Four intervals of 50 ms.
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    daemon.change(|faults| faults.silent = false);
    recovers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn a_daemon_that_accepts_and_says_nothing_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.silent = true);
    let short = Settings::default().connect_timeout(Duration::from_millis(200));
    let source = client(&daemon).settings(short).source();
    let (error, line) = refusal(&source).await;
    assert!(matches!(error, Error::Timeout { .. }), "{line}");
    assert!(line.contains("connection that was made") && line.contains("max_clients"), "{line}");
    daemon.change(|faults| faults.silent = false);
    tells_the_truth(&source, daemon.host()).await;
}

#[tokio::test]
async fn a_quiet_daemon_that_answers_pings_is_left_alone() {
    let daemon = FakeLibvirtd::start().unwrap();
    let often = Duration::from_millis(20);
    let source = client(&daemon).keepalive(often, 5).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    tokio::time::sleep(often * 20).await;
    goes_on(&mut events, daemon.host()).await;
    assert_eq!(daemon.accepted(), 1);
}

#[tokio::test]
async fn the_daemons_own_pings_are_answered() {
    let (daemon, mut events) = watched().await;
    for _ in 0..10 {
        daemon.ping();
    }
    daemon.until(|daemon| daemon.pongs() == 10).await;
    goes_on(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn ten_outages_in_a_row_are_ten_gaps_each_with_its_difference() {
    let (daemon, mut events) = watched().await;
    let mut fold = Fold::default();
    for round in 0..10 {
        daemon.go_down();
        assert_eq!(gap(&mut events).await, FaultKind::Closed);
        let name = format!("vm{round}");
        daemon.host().create(&name).unwrap();
        daemon.come_back().unwrap();
        let told = until_synced(&mut events).await.unwrap();
        let lines: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [format!("{name}[{}] started (booted) [inferred]", round + 2)]);
        fold.extend(&told);
    }
    assert_eq!(fold.active().len(), 10);
}
