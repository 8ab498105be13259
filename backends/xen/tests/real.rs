//! A real xenstored, and a toolstack that keeps it busy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod told;

use std::time::Duration;

use virevent::{EventSource, Options, Origin, Uuid};
use virevent_testkit::assert::eventually;
use virevent_testkit::servers::{Store, Xenstored};
use virevent_testkit::xen::{Blueprint, Power, RunState};
use virevent_xen::XenStore;

use self::told::{Told, asked, client, started, stopped};

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_domain_is_told_from_its_start_to_its_end() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.rename(web, "www").unwrap();
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    xl.request(web, Power::PowerOff).unwrap();
    told.expect(&["www[1] shutting_down (host)"]).await;
    told.expect(&["www[1] event control/shutdown {\"request\":\"poweroff\"}"]).await;
    xl.acknowledge(web).unwrap();
    xl.shut_down(web).unwrap();
    told.expect(&["www[1] shutting_down (finished)"]).await;
    xl.destroy(web).unwrap();
    told.expect(&["www[1] stopped (shutdown)"]).await;
    told.nothing().await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_reboot_is_a_stop_and_a_start_under_another_id() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.request(web, Power::Reboot).unwrap();
    told.until(1, asked).await;
    xl.acknowledge(web).unwrap();
    xl.shut_down(web).unwrap();
    told.expect(&["web[1] shutting_down (finished)"]).await;
    let uuid = xl.domains().unwrap()[0].uuid.unwrap();
    xl.destroy(web).unwrap();
    xl.introduce(Blueprint::named("web").uuid(uuid)).unwrap();
    told.expect(&["web[1] stopped (shutdown)", "web[2] started"]).await;
    told.nothing().await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn an_id_that_another_domain_has_got_is_a_stop_and_a_start_and_no_rename() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.reuse(web, "db").unwrap();
    told.expect(&["web[1] stopped", "db[1] started"]).await;
    told.nothing().await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn an_id_that_is_reused_long_after_any_introduction_is_found_too() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    // Nobody lists any more: what is found is found by the watches.
    tokio::time::sleep(Duration::from_secs(6)).await;
    xl.forget(web).unwrap();
    told.expect(&["web[1] stopped"]).await;
    xl.reuse(web, "db").unwrap();
    told.expect(&["db[1] started"]).await;
    told.nothing().await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_partly_written_domain_is_told_once_it_is_whole() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce(Blueprint::named("web").without_name().without_vm()).unwrap();
    told.nothing().await;
    xl.complete(web).unwrap();
    told.expect(&["web[1] started"]).await;
    // And one that is introduced before there is anything of it.
    xl.forget(web).unwrap();
    told.expect(&["web[1] stopped"]).await;
    xl.set_run_state(7, Some(RunState::Running)).unwrap();
    xl.announce(7).unwrap();
    xl.remove("/local/domain/7").unwrap();
    told.nothing().await;
    xl.prepare(Blueprint::named("late").domid(7)).unwrap();
    told.expect(&["late[7] started"]).await;
    told.nothing().await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_domain_that_nobody_completes_is_told_after_5_s_with_what_is_known() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    daemon.toolstack().introduce(Blueprint::named("web").without_name().without_vm()).unwrap();
    let begun = std::time::Instant::now();
    told.expect(&["Domain-1[1] started"]).await;
    let waited = begun.elapsed();
    assert!((4_500..7_000).contains(&waited.as_millis()), "{waited:?}");
    daemon.toolstack().complete(1).unwrap();
    told.expect(&["Domain-1[1] stopped", "web[1] started"]).await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn what_shut_down_is_told_where_there_is_only_one_and_it_was_asked_to() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let (web, db) = (xl.introduce("web").unwrap(), xl.introduce("db").unwrap());
    told.until(2, started).await;
    xl.crash(web).unwrap();
    told.nothing().await;
    // The event of the one's end is not taken for the other's.
    xl.destroy(web).unwrap();
    told.expect(&["web[1] stopped"]).await;
    told.nothing().await;
    // Nor can one that nobody asked be told from an event that means nothing.
    xl.crash(db).unwrap();
    told.nothing().await;
    xl.destroy(db).unwrap();
    told.expect(&["db[2] stopped"]).await;
    let mail = xl.introduce("mail").unwrap();
    told.expect(&["mail[3] started"]).await;
    xl.request(mail, Power::Halt).unwrap();
    told.until(1, asked).await;
    xl.shut_down(mail).unwrap();
    told.expect(&["mail[3] shutting_down (finished)"]).await;
    xl.destroy(mail).unwrap();
    told.expect(&["mail[3] stopped (shutdown)"]).await;
    told.nothing().await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn domain_0_is_told_where_it_is_asked_for() {
    let daemon = Xenstored::start().await.unwrap();
    let source = XenStore::new(&format!("{}?dom0=1", daemon.uri())).unwrap().source();
    let told = Told::by(&source).await;
    let dom0 = told.fold.active().values().find(|known| known.domain.uuid().is_nil()).unwrap();
    assert_eq!(dom0.domain.to_string(), "Domain-0[0]");
    let store = XenStore::new(&daemon.uri()).unwrap();
    assert_eq!(Told::by(&store.clone().dom0(true).source()).await.fold.active().len(), 1);
    assert!(Told::by(&store.source()).await.fold.active().is_empty());
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_daemon_that_was_killed_and_kept_its_store_has_changed_nothing() {
    let mut daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let web = daemon.toolstack().introduce("web").unwrap();
    daemon.toolstack().introduce("db").unwrap();
    told.until(2, started).await;
    daemon.toolstack().request(web, Power::PowerOff).unwrap();
    told.until(1, asked).await;
    daemon.toolstack().acknowledge(web).unwrap();
    daemon.kill9().await.unwrap();
    assert!(told.next().await.starts_with("disconnected from "));
    daemon.start_again(Store::Kept).await.unwrap();
    assert!(told.next().await.starts_with("synced with "));
    told.nothing().await;
    told.check(&daemon);
    // It was asked before, which the store does not tell any more.
    daemon.toolstack().destroy(web).unwrap();
    told.expect(&["web[1] stopped (shutdown)"]).await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_daemon_that_lost_its_store_has_no_domains() {
    let mut daemon = Xenstored::start().await.unwrap();
    daemon.toolstack().introduce("web").unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    daemon.kill9().await.unwrap();
    assert!(told.next().await.starts_with("disconnected from "));
    told.nothing().await;
    daemon.start_again(Store::Lost).await.unwrap();
    told.expect(&["web[1] stopped [inferred]"]).await;
    assert!(told.next().await.starts_with("synced with "));
    daemon.toolstack().introduce("db").unwrap();
    told.expect(&["db[2] started"]).await;
    told.check(&daemon);
    let lifecycle = told.all.last().unwrap().lifecycle().unwrap();
    assert_eq!(lifecycle.origin, Origin::Observed);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn the_daemon_holds_none_of_our_watches_once_nobody_listens() {
    let daemon = Xenstored::start().await.unwrap();
    let source = client(&daemon);
    let mut told = Told::by(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 2);
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    xl.introduce("db").unwrap();
    told.until(2, started).await;
    let other = Told::by(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 8, "{:?}", daemon.watches());
    xl.destroy(web).unwrap();
    told.until(1, stopped).await;
    eventually("those of one that ended are gone", || daemon.watches().unwrap().len() == 5)
        .await
        .unwrap();
    drop(other);
    told.nothing().await;
    assert_eq!(daemon.watches().unwrap().len(), 5);
    told.events.close().await;
    assert_eq!(daemon.watches().unwrap(), []);

    let mut told = Told::by(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 5);
    told.nothing().await;
    drop(told);
    eventually("nothing is watched", || daemon.watches().unwrap().is_empty()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn of_50_who_come_at_once_to_a_busy_daemon_all_are_let_in() {
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

/// The daemon lists domains in the order in which their places were made.
#[tokio::test]
#[ignore = "needs xenstored"]
async fn of_two_domains_with_one_uuid_a_new_source_reports_the_later() {
    let daemon = Xenstored::start().await.unwrap();
    let xl = daemon.toolstack();
    let uuid = Uuid::from_u128(7);
    let first = xl.introduce(Blueprint::named("web").uuid(uuid).domid(20)).unwrap();
    let mut witness = Told::by(&client(&daemon)).await;
    let second = xl.introduce(Blueprint::named("copy").uuid(uuid).domid(9)).unwrap();
    witness.until(1, |event| event.to_string() == "copy[9] started").await;
    let mut newcomer = Told::by(&client(&daemon)).await;
    xl.destroy(second).unwrap();
    for told in [&mut witness, &mut newcomer] {
        told.expect(&["copy[9] stopped", "web[20] started"]).await;
    }
    xl.destroy(first).unwrap();
}
