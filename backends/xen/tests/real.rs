//! A real xenstored, and a toolstack that does what libxl does.
#![allow(clippy::unwrap_used, clippy::panic)]

mod event_log;

use std::time::Duration;

use virevent::{EventSource, EventSourceExt, Options, Origin, Snapshot, Uuid};
use virevent_testkit::assert::{eventually, until_synced};
use virevent_testkit::servers::{Store, Xenstored};
use virevent_testkit::toolstack::{Blueprint, Power, RunState};
use virevent_xen::XenStore;

use self::event_log::{EventLog, client, requested, started, stopped};

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_domain_is_reported_from_start_to_end() {
    let daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    log.expect(&["web[1] started"]).await;
    xl.rename(web, "www").unwrap();
    log.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    xl.request(web, Power::PowerOff).unwrap();
    log.expect(&["www[1] shutting_down (host)"]).await;
    log.expect(&["www[1] event control/shutdown {\"request\":\"poweroff\"}"]).await;
    xl.acknowledge(web).unwrap();
    xl.shut_down(web).unwrap();
    log.expect(&["www[1] shutting_down (finished)"]).await;
    xl.destroy(web).unwrap();
    log.expect(&["www[1] stopped (shutdown)"]).await;
    log.nothing().await;
    log.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_reboot_is_a_stop_and_a_start_under_another_id() {
    let daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    log.expect(&["web[1] started"]).await;
    xl.request(web, Power::Reboot).unwrap();
    log.until(1, requested).await;
    xl.acknowledge(web).unwrap();
    xl.shut_down(web).unwrap();
    log.expect(&["web[1] shutting_down (finished)"]).await;
    let uuid = xl.domains().unwrap()[0].uuid.unwrap();
    xl.destroy(web).unwrap();
    xl.introduce(Blueprint::named("web").uuid(uuid)).unwrap();
    log.expect(&["web[1] stopped (shutdown)", "web[2] started"]).await;
    log.nothing().await;
    log.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_reused_id_is_a_stop_and_a_start() {
    let daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    log.expect(&["web[1] started"]).await;
    xl.reuse(web, "db").unwrap();
    log.expect(&["web[1] stopped", "db[1] started"]).await;
    log.nothing().await;
    log.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn an_id_reused_long_after_any_introduction_is_found() {
    let daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    log.expect(&["web[1] started"]).await;
    // No list follows the introduction any more: only the watches announce the change.
    tokio::time::sleep(Duration::from_secs(6)).await;
    xl.forget(web).unwrap();
    log.expect(&["web[1] stopped"]).await;
    xl.reuse(web, "db").unwrap();
    log.expect(&["db[1] started"]).await;
    log.nothing().await;
    log.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn an_incomplete_domain_starts_once_it_is_complete() {
    let daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce(Blueprint::named("web").without_name().without_vm()).unwrap();
    log.nothing().await;
    xl.complete(web).unwrap();
    log.expect(&["web[1] started"]).await;
    // A domain that is introduced before it has a directory.
    xl.forget(web).unwrap();
    log.expect(&["web[1] stopped"]).await;
    xl.set_run_state(7, Some(RunState::Running)).unwrap();
    xl.announce(7).unwrap();
    xl.remove("/local/domain/7").unwrap();
    log.nothing().await;
    xl.prepare(Blueprint::named("late").domid(7)).unwrap();
    log.expect(&["late[7] started"]).await;
    log.nothing().await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn an_incomplete_domain_starts_after_5_s() {
    let daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    daemon.toolstack().introduce(Blueprint::named("web").without_name().without_vm()).unwrap();
    let begun = std::time::Instant::now();
    log.expect(&["Domain-1[1] started"]).await;
    let waited = begun.elapsed();
    assert!((4_500..7_000).contains(&waited.as_millis()), "{waited:?}");
    daemon.toolstack().complete(1).unwrap();
    log.expect(&["Domain-1[1] stopped", "web[1] started"]).await;
    log.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn finished_is_reported_of_an_only_domain_asked_to_end() {
    let daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    let db = xl.introduce("db").unwrap();
    log.until(2, started).await;
    xl.crash(web).unwrap();
    log.nothing().await;
    // The release of one domain is not attributed to the other.
    xl.destroy(web).unwrap();
    log.expect(&["web[1] stopped"]).await;
    log.nothing().await;
    // A domain that was not asked to end: the event may mean nothing.
    xl.crash(db).unwrap();
    log.nothing().await;
    xl.destroy(db).unwrap();
    log.expect(&["db[2] stopped"]).await;
    let mail = xl.introduce("mail").unwrap();
    log.expect(&["mail[3] started"]).await;
    xl.request(mail, Power::Halt).unwrap();
    log.until(1, requested).await;
    xl.shut_down(mail).unwrap();
    log.expect(&["mail[3] shutting_down (finished)"]).await;
    xl.destroy(mail).unwrap();
    log.expect(&["mail[3] stopped (shutdown)"]).await;
    log.nothing().await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn domain_0_is_reported_if_asked_for() {
    let daemon = Xenstored::start().await.unwrap();
    let source = XenStore::new(&format!("{}?dom0=1", daemon.uri())).unwrap().source();
    let log = EventLog::of(&source).await;
    let dom0 = log.store.get(Uuid::nil()).unwrap();
    assert_eq!(dom0.domain.to_string(), "Domain-0[0]");
    let store = XenStore::new(&daemon.uri()).unwrap();
    assert_eq!(
        EventLog::of(&store.clone().dom0(true).source()).await.store.snapshot().active().count(),
        1
    );
    assert!(EventLog::of(&store.source()).await.store.snapshot().is_empty());
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_killed_daemon_that_keeps_its_store_changes_nothing() {
    let mut daemon = Xenstored::start().await.unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    let web = daemon.toolstack().introduce("web").unwrap();
    daemon.toolstack().introduce("db").unwrap();
    log.until(2, started).await;
    daemon.toolstack().request(web, Power::PowerOff).unwrap();
    log.until(1, requested).await;
    daemon.toolstack().acknowledge(web).unwrap();
    daemon.kill9().await.unwrap();
    assert!(log.next().await.starts_with("disconnected from "));
    daemon.start_again(Store::Kept).await.unwrap();
    assert!(log.next().await.starts_with("synced with "));
    log.nothing().await;
    log.check(&daemon);
    // It was asked before, of which the store has no trace any more.
    daemon.toolstack().destroy(web).unwrap();
    log.expect(&["web[1] stopped (shutdown)"]).await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_daemon_that_lost_its_store_has_no_domains() {
    let mut daemon = Xenstored::start().await.unwrap();
    daemon.toolstack().introduce("web").unwrap();
    let mut log = EventLog::of(&client(&daemon)).await;
    daemon.kill9().await.unwrap();
    assert!(log.next().await.starts_with("disconnected from "));
    log.nothing().await;
    daemon.start_again(Store::Lost).await.unwrap();
    log.expect(&["web[1] stopped [inferred]"]).await;
    assert!(log.next().await.starts_with("synced with "));
    daemon.toolstack().introduce("db").unwrap();
    log.expect(&["db[2] started"]).await;
    log.check(&daemon);
    let lifecycle = log.events.last().unwrap().lifecycle().unwrap();
    assert_eq!(lifecycle.origin, Origin::Observed);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn without_subscribers_the_daemon_holds_no_watches() {
    let daemon = Xenstored::start().await.unwrap();
    let source = client(&daemon);
    let mut log = EventLog::of(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 2);
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    xl.introduce("db").unwrap();
    log.until(2, started).await;
    let other = EventLog::of(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 8, "{:?}", daemon.watches());
    xl.destroy(web).unwrap();
    log.until(1, stopped).await;
    eventually("the watches of the stopped domain are dropped", || {
        daemon.watches().unwrap().len() == 5
    })
    .await
    .unwrap();
    drop(other);
    log.nothing().await;
    assert_eq!(daemon.watches().unwrap().len(), 5);
    log.stream.close().await;
    assert_eq!(daemon.watches().unwrap(), []);

    let mut log = EventLog::of(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 5);
    log.nothing().await;
    drop(log);
    eventually("nothing is watched", || daemon.watches().unwrap().is_empty()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn all_of_50_clients_connect_to_a_busy_daemon() {
    let daemon = Xenstored::start().await.unwrap();
    daemon.freeze();
    let all = (0..50).map(|_| {
        let source = client(&daemon);
        async move { source.subscribe_with(Options::default()).await.map(drop) }
    });
    let thaw = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        daemon.thaw();
    };
    let (outcomes, ()) = tokio::join!(futures::future::join_all(all), thaw);
    for outcome in outcomes {
        outcome.unwrap();
    }
}

/// The daemon lists domains in the order in which their directories were made.
#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_new_source_reports_the_later_domain_of_one_uuid() {
    let daemon = Xenstored::start().await.unwrap();
    let xl = daemon.toolstack();
    let uuid = Uuid::from_u128(7);
    let first = xl.introduce(Blueprint::named("web").uuid(uuid).domid(20)).unwrap();
    let mut older_log = EventLog::of(&client(&daemon)).await;
    let second = xl.introduce(Blueprint::named("copy").uuid(uuid).domid(9)).unwrap();
    older_log.until(1, |event| event.to_string() == "copy[9] started").await;
    let mut newer_log = EventLog::of(&client(&daemon)).await;
    xl.destroy(second).unwrap();
    for log in [&mut older_log, &mut newer_log] {
        log.expect(&["copy[9] stopped", "web[20] started"]).await;
    }
    xl.destroy(first).unwrap();
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn changes_while_the_service_was_down_are_inferred() {
    let daemon = Xenstored::start().await.unwrap();
    let xl = daemon.toolstack();
    for name in ["ends", "reboots", "same"] {
        xl.introduce(name).unwrap();
    }
    let store = client(&daemon).store().await.unwrap();
    let known = store.wait_for(Snapshot::is_certain).await.unwrap();
    store.close().await;
    drop(store);

    let reboots = known.get("reboots").unwrap().domain.clone();
    xl.destroy(known.get("ends").unwrap().domain.id().unwrap()).unwrap();
    xl.destroy(reboots.id().unwrap()).unwrap();
    xl.introduce(Blueprint::named("reboots").uuid(reboots.uuid())).unwrap();
    xl.introduce("new").unwrap();

    let options = Options::default().resume(known);
    let mut events = client(&daemon).subscribe_with(options).await.unwrap();
    let beginning = until_synced(&mut events).await.unwrap();
    assert_eq!(
        beginning.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "ends[1] stopped [inferred]",
            "new[5] started [inferred]",
            "reboots[2] stopped [inferred]",
            "reboots[4] started [inferred]",
        ]
    );
}
