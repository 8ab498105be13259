//! A daemon that is silent, slow, or gone for a while.

use super::*;

#[tokio::test]
async fn after_an_outage_another_server_is_no_empty_store() {
    let wrong = [(Operation::WATCH, "not OK"), (Operation::DIRECTORY, "no names of children")];
    for (operation, reason) in wrong {
        let rig = Rig::new();
        rig.fake.toolstack().introduce("web").unwrap();
        let mut told = rig.synced().await;
        rig.fake.go_down();
        told.gap("Closed").await;
        rig.fake.change(|faults| faults.bodies = [(operation, b"/local/domain\0".into())].into());
        rig.fake.come_back().unwrap();
        told.nothing().await;
        let line = rig.refusal_to_list().await;
        assert!(line.contains(reason), "{line}");
        rig.fake.change(|faults| *faults = Faults::default());
        assert!(told.next().await.starts_with("synced"));
        told.nothing().await;
    }
}

#[tokio::test]
async fn a_silent_daemon_is_unreachable() {
    let rig = Rig::new();
    rig.fake.toolstack().introduce("web").unwrap();
    let store = XenStore::new(&rig.fake.uri()).unwrap();
    let source = store.keepalive(Duration::from_millis(50), 2).source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    until_synced(&mut told.0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    told.nothing().await;
    rig.fake.change(|faults| faults.silent = true);
    told.gap("a keepalive").await;
    rig.fake.change(|faults| faults.silent = false);
    assert!(told.next().await.starts_with("synced"));
}

#[tokio::test]
async fn a_restarted_daemon_is_watched_again() {
    let rig = Rig::new();
    let xl = rig.fake.toolstack();
    for name in ["web", "db", "mail"] {
        xl.introduce(name).unwrap();
    }
    let mut told = rig.synced().await;
    xl.request(3, Power::Reboot).unwrap();
    told.expect(&["mail[3] shutting_down (host)"]).await;
    told.expect(&["mail[3] event control/shutdown {\"request\":\"reboot\"}"]).await;
    xl.acknowledge(3).unwrap();
    rig.fake.go_down();
    told.gap("Closed").await;
    xl.destroy(1).unwrap();
    xl.reuse(2, "other").unwrap();
    rig.fake.come_back().unwrap();
    told.expect(&["db[2] stopped [inferred]", "web[1] stopped [inferred]"]).await;
    told.expect(&["other[2] started [inferred]"]).await;
    assert!(told.next().await.starts_with("synced"));
    told.nothing().await;
    xl.destroy(3).unwrap();
    told.expect(&["mail[3] stopped (shutdown)"]).await;
    rig.fake.go_down();
    told.gap("Closed").await;
    rig.fake.lose_store();
    rig.fake.come_back().unwrap();
    told.expect(&["other[2] stopped [inferred]"]).await;
}

#[tokio::test]
async fn a_domain_without_a_name_is_the_same_after_an_outage() {
    let rig = Rig::new();
    let xl = rig.fake.toolstack();
    xl.introduce("web").unwrap();
    xl.introduce(Blueprint::named("db").without_vm()).unwrap();
    let mut told = rig.synced().await;
    assert_eq!(told.next().await, "db[2] started");
    xl.remove("/local/domain/1/name").unwrap();
    told.nothing().await;
    rig.fake.cut();
    told.gap("Closed").await;
    assert_eq!(told.next().await, format!("synced with {} (2 domains)", rig.fake.uri()));
    told.nothing().await;
    // Another that has the number by then is another.
    rig.fake.go_down();
    told.gap("Closed").await;
    xl.reuse(1, "mail").unwrap();
    rig.fake.come_back().unwrap();
    told.expect(&["web[1] stopped [inferred]", "mail[1] started [inferred]"]).await;
}

#[tokio::test]
async fn a_slow_server_that_answers_is_not_overdue() {
    // 64 questions of 20 ms each take longer than the half second that each may take.
    let rig = Rig::new();
    for n in 0..80 {
        rig.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut told = rig.synced().await;
    let slow = Duration::from_millis(20);
    rig.fake.change(|faults| faults.delays = [(Operation::IS_DOMAIN_INTRODUCED, slow)].into());
    rig.fake.toolstack().destroy(1).unwrap();
    told.expect(&["vm0[1] stopped"]).await;
    told.nothing().await;
}

#[tokio::test]
async fn a_first_look_may_take_longer_than_a_request() {
    let rig = Rig::with(|faults| {
        faults.delays.insert(Operation::READ, Duration::from_millis(20));
    });
    for n in 0..20 {
        rig.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut told = Told(rig.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut told.0).await.unwrap().len(), 20);
}
