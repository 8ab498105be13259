//! Requests to guests, and the causes of their ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_is_reported_and_gives_the_stop_its_cause() {
    let harness = Harness::default();
    let mut events = harness.synced().await;
    for (domid, word) in ["poweroff", "reboot", "halt", "suspend", "crash"].iter().enumerate() {
        let domid = domid as u16 + 1;
        harness.act(|store| store.start(domid, 9, "web"));
        assert_eq!(events.lines().await, [format!("web[{domid}] started")]);
        harness.act(|store| store.request(domid, word));
        let event = format!("web[{domid}] event control/shutdown {{\"request\":\"{word}\"}}");
        assert_eq!(events.lines().await, [format!("web[{domid}] shutting_down (host)"), event]);
        harness.act(|store| store.request(domid, ""));
        assert!(events.lines().await.is_empty(), "an acknowledgement is no event");
        harness.act(|store| store.destroy(domid));
        assert_eq!(events.lines().await, [format!("web[{domid}] stopped (shutdown)")]);
    }
    harness.act(|store| store.start(9, 9, "web"));
    harness.act(|store| store.request(9, "dance"));
    let event = "web[9] event control/shutdown {\"request\":\"dance\"}";
    assert_eq!(events.lines().await, ["web[9] started", event]);
    harness.act(|store| store.destroy(9));
    assert_eq!(events.lines().await, ["web[9] stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_request_is_read_before_a_sweep_ends() {
    let harness = Harness::default();
    for domid in 1..=400 {
        harness.act(|store| store.start(domid, domid.into(), "web"));
    }
    let mut events = harness.synced().await;
    harness.act(|store| {
        store.asked.clear();
        // The guest acknowledges it before the sweep has reached the last domain.
        store.script = [(100, 399, "poweroff"), (300, 399, "")].into();
        store.shut_down(1);
    });
    assert_eq!(events.lines().await.first().unwrap(), "web[399] shutting_down (host)");
}

#[tokio::test(start_paused = true)]
async fn a_domain_without_a_directory_may_have_shut_down() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    let mut events = harness.synced().await;
    harness.act(|store| store.request(3, "poweroff"));
    harness.act(|store| store.introduce(7));
    assert_eq!(events.within(Duration::from_secs(20)).await.len(), 2);
    harness.act(|store| store.shut_down(7));
    harness.act(|store| store.release(7));
    assert!(events.within(Duration::from_secs(20)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_shutdown_request_is_finished_once() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    let mut events = harness.synced().await;
    for word in ["suspend", "poweroff"] {
        harness.act(|store| store.request(3, word));
        assert_eq!(events.lines().await.len(), 2);
        harness.act(|store| store.request(3, ""));
        harness.act(|store| store.shut_down(3));
        assert_eq!(events.lines().await, ["web[3] shutting_down (finished)"]);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_reported_only_if_asked_for() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    let source = harness.source();
    let mut events = EventLines(source.subscribe_with(Options::default()).await.unwrap());
    events.lines().await;
    harness.act(|store| store.request(3, "halt"));
    assert_eq!(events.lines().await, ["web[3] shutting_down (host)"]);
    for kind in ["reboot", "other:control/shutdow", "other:99"] {
        let options = Options::default().kind(kind.parse().unwrap());
        let error = source.subscribe_with(options).await.unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }
    let options = Options::default().kind("other:control/shutdown".parse().unwrap());
    let mut events = EventLines(source.subscribe_with(options).await.unwrap());
    events.lines().await;
    harness.act(|store| store.request(3, "poweroff"));
    let event = "web[3] event control/shutdown {\"request\":\"poweroff\"}";
    assert_eq!(events.lines().await, [event]);
}

#[tokio::test(start_paused = true)]
async fn finished_is_reported_where_the_domain_is_certain() {
    for has_depth in [false, true] {
        let harness = Harness::default();
        harness.act(|store| store.has_depth = has_depth);
        harness.act(|store| store.start(3, 3, "web"));
        harness.act(|store| store.start(4, 4, "db"));
        let mut events = harness.synced().await;
        harness.act(|store| store.shut_down(3));
        let named: &[&str] = if has_depth { &["web[3] shutting_down (finished)"] } else { &[] };
        assert_eq!(events.lines().await, named);
        harness.act(|store| store.remove("/local/domain/3"));
        assert_eq!(events.lines().await, ["web[3] stopped"]);
        // The release of one domain is not attributed to the other.
        harness.act(|store| store.release(3));
        assert!(events.lines().await.is_empty());
        harness.act(|store| store.request(4, "halt"));
        assert_eq!(events.lines().await.len(), 2);
        harness.act(|store| store.shut_down(4));
        assert_eq!(events.lines().await, ["db[4] shutting_down (finished)"]);
        harness.act(|store| store.shut_down(4));
        assert!(events.lines().await.is_empty(), "once is enough");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stray_release_of_a_domain_not_asked_to_end_is_ignored() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    let source = harness.source();
    let mut events = EventLines(source.subscribe_with(Options::default()).await.unwrap());
    events.lines().await;
    for _ in 0..3 {
        harness.act(MemoryStore::stray_release);
        assert!(events.within(Duration::from_secs(6)).await.is_empty());
    }
    let mut later = EventLines(source.subscribe_with(Options::default()).await.unwrap());
    assert_eq!(later.lines().await[0], "web[3] existing (running)");
    // A word that is no request to end changes nothing.
    harness.act(|store| store.request(3, "dance"));
    harness.act(MemoryStore::stray_release);
    assert!(events.within(Duration::from_secs(6)).await.is_empty());
}
