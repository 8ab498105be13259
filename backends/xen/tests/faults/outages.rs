//! A daemon that is silent, slow, or down for a while.

use super::*;

#[tokio::test]
async fn after_an_outage_another_server_is_no_empty_store() {
    let wrong =
        [(Operation::WATCH, "not answered by OK"), (Operation::DIRECTORY, "no names of children")];
    for (operation, reason) in wrong {
        let faulty = FaultyStore::new();
        faulty.fake.toolstack().introduce("web").unwrap();
        let mut events = faulty.synced().await;
        faulty.fake.go_down();
        events.gap("Closed").await;
        faulty
            .fake
            .change(|faults| faults.bodies = [(operation, b"/local/domain\0".into())].into());
        faulty.fake.come_back().unwrap();
        events.nothing().await;
        let line = faulty.refusal_to_list().await;
        assert!(line.contains(reason), "{line}");
        faulty.fake.change(|faults| *faults = Faults::default());
        assert!(events.next().await.starts_with("synced"));
        events.nothing().await;
    }
}

#[tokio::test]
async fn a_silent_daemon_is_unreachable() {
    let faulty = FaultyStore::new();
    faulty.fake.toolstack().introduce("web").unwrap();
    let store = XenStore::new(&faulty.fake.uri()).unwrap();
    let source = store.keepalive(Duration::from_millis(50), 2).source();
    let mut events = EventLines(source.subscribe_with(Options::default()).await.unwrap());
    until_synced(&mut events.0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    events.nothing().await;
    faulty.fake.change(|faults| faults.silent = true);
    events.gap("a keepalive").await;
    faulty.fake.change(|faults| faults.silent = false);
    assert!(events.next().await.starts_with("synced"));
}

#[tokio::test]
async fn a_restarted_daemon_is_watched_again() {
    let faulty = FaultyStore::new();
    let xl = faulty.fake.toolstack();
    for name in ["web", "db", "mail"] {
        xl.introduce(name).unwrap();
    }
    let mut events = faulty.synced().await;
    xl.request(3, Power::Reboot).unwrap();
    events.expect(&["mail[3] shutting_down (host)"]).await;
    events.expect(&["mail[3] event control/shutdown {\"request\":\"reboot\"}"]).await;
    xl.acknowledge(3).unwrap();
    faulty.fake.go_down();
    events.gap("Closed").await;
    xl.destroy(1).unwrap();
    xl.reuse(2, "other").unwrap();
    faulty.fake.come_back().unwrap();
    events.expect(&["db[2] stopped [inferred]", "web[1] stopped [inferred]"]).await;
    events.expect(&["other[2] started [inferred]"]).await;
    assert!(events.next().await.starts_with("synced"));
    events.nothing().await;
    xl.destroy(3).unwrap();
    events.expect(&["mail[3] stopped (shutdown)"]).await;
    faulty.fake.go_down();
    events.gap("Closed").await;
    faulty.fake.lose_store();
    faulty.fake.come_back().unwrap();
    events.expect(&["other[2] stopped [inferred]"]).await;
}

#[tokio::test]
async fn a_domain_without_a_name_is_the_same_after_an_outage() {
    let faulty = FaultyStore::new();
    let xl = faulty.fake.toolstack();
    xl.introduce("web").unwrap();
    xl.introduce(Blueprint::named("db").without_vm()).unwrap();
    let mut events = faulty.synced().await;
    assert_eq!(events.next().await, "db[2] started");
    xl.remove("/local/domain/1/name").unwrap();
    events.nothing().await;
    faulty.fake.cut();
    events.gap("Closed").await;
    assert_eq!(events.next().await, format!("synced with {} (2 domains)", faulty.fake.uri()));
    events.nothing().await;
    // A domain that has got the number in the outage is another.
    faulty.fake.go_down();
    events.gap("Closed").await;
    xl.reuse(1, "mail").unwrap();
    faulty.fake.come_back().unwrap();
    events.expect(&["web[1] stopped [inferred]", "mail[1] started [inferred]"]).await;
}

#[tokio::test]
async fn a_slow_server_that_answers_is_not_overdue() {
    // 64 requests of 20 ms each take longer than the half second that one may take.
    let faulty = FaultyStore::new();
    for n in 0..80 {
        faulty.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut events = faulty.synced().await;
    let slow = Duration::from_millis(20);
    faulty.fake.change(|faults| faults.delays = [(Operation::IS_DOMAIN_INTRODUCED, slow)].into());
    faulty.fake.toolstack().destroy(1).unwrap();
    events.expect(&["vm0[1] stopped"]).await;
    events.nothing().await;
}

#[tokio::test]
async fn a_first_look_may_take_longer_than_a_request() {
    let faulty = FaultyStore::with(|faults| {
        faults.delays.insert(Operation::READ, Duration::from_millis(20));
    });
    for n in 0..20 {
        faulty.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut events = EventLines(faulty.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut events.0).await.unwrap().len(), 20);
}
