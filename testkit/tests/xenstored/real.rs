//! The launcher of a real xenstored, and its events of the toolstack's operations.

use virevent_testkit::assert::eventually;
use virevent_testkit::servers::{Store, StoreTap, Xenstored, rss_kib};
use virevent_testkit::toolstack::{Blueprint, Known, Power, RunState};

use crate::raw::{DIRECTORY, DIRECTORY_PART, Frame, IS_DOMAIN_INTRODUCED, Raw, WATCH};

fn summary(known: &[Known]) -> Vec<(u32, bool, &str)> {
    known
        .iter()
        .map(|known| (known.domid, known.introduced, known.name.as_deref().unwrap_or("-")))
        .collect()
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn the_daemon_lists_a_domain_from_introduction_to_destruction() {
    let daemon = Xenstored::start().await.unwrap();
    let xl = daemon.toolstack();
    let domid = xl.introduce("web").unwrap();
    xl.rename(domid, "www").unwrap();
    let known = xl.domains().unwrap();
    assert_eq!(summary(&known), [(1, true, "www")]);
    assert!(known[0].uuid.is_some());
    xl.request(domid, Power::PowerOff).unwrap();
    xl.acknowledge(domid).unwrap();
    xl.shut_down(domid).unwrap();
    assert_eq!(summary(&xl.domains().unwrap()), [(1, true, "www")]);
    xl.destroy(domid).unwrap();
    assert_eq!(xl.domains().unwrap(), []);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn start_again_keeps_or_loses_the_store() {
    let mut daemon = Xenstored::start().await.unwrap();
    daemon.toolstack().introduce("web").unwrap();
    daemon.toolstack().prepare(Blueprint::named("db").without_name()).unwrap();
    daemon.toolstack().write("/local/domain/1/data/raw", [0xff, 0x00, 0xfe]).unwrap();
    let before = daemon.toolstack().domains().unwrap();
    assert_eq!(summary(&before), [(1, true, "web"), (2, false, "-")]);
    daemon.kill9().await.unwrap();
    daemon.start_again(Store::Kept).await.unwrap();
    assert_eq!(daemon.toolstack().domains().unwrap(), before);
    let raw = daemon.toolstack().read("/local/domain/1/data/raw").unwrap();
    assert_eq!(raw.unwrap(), [0xff, 0x00, 0xfe]);
    daemon.kill9().await.unwrap();
    daemon.start_again(Store::Lost).await.unwrap();
    assert_eq!(daemon.toolstack().domains().unwrap(), []);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn start_again_does_not_introduce_a_domain_that_is_gone() {
    let mut daemon = Xenstored::start().await.unwrap();
    let web = daemon.toolstack().introduce("web").unwrap();
    let db = daemon.toolstack().introduce("db").unwrap();
    daemon.kill9().await.unwrap();
    daemon.toolstack().set_run_state(web, None).unwrap();
    assert!(daemon.toolstack().rename(db, "other").is_err());
    daemon.start_again(Store::Kept).await.unwrap();
    let known = daemon.toolstack().domains().unwrap();
    assert_eq!(summary(&known), [(web, false, "web"), (db, true, "db")]);
    assert_eq!(daemon.toolstack().read("/local/domain/1/data").unwrap(), None, "the guest's node");
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn watches_lists_the_watches_of_all_connections() {
    let daemon = Xenstored::start().await.unwrap();
    let mut client = Raw::connect(&daemon.socket()).await;
    client.call(&Frame::new(WATCH, b"@releaseDomain\0a token\0")).await;
    client.call(&Frame::new(WATCH, b"/local/domain\0\0")).await;
    let mut watches = daemon.watches().unwrap();
    watches.sort_by(|one, other| one.path.cmp(&other.path));
    let listed: Vec<_> = watches.iter().map(|watch| (&*watch.path, &*watch.token)).collect();
    assert_eq!(listed, [("/local/domain", ""), ("@releaseDomain", "a token")]);
    assert_eq!(daemon.connections().unwrap(), 1);
    drop(client);
    assert_eq!((daemon.watches().unwrap(), daemon.connections().unwrap()), (vec![], 0));
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn operations_of_the_toolstack_have_their_events() {
    let daemon = Xenstored::start().await.unwrap();
    let xl = daemon.toolstack();
    let mut client = Raw::connect(&daemon.socket()).await;
    client.call(&Frame::new(WATCH, b"@introduceDomain\0I\0")).await;
    client.call(&Frame::new(WATCH, b"@releaseDomain\0R\0")).await;
    client.events().await;
    let web = xl.introduce("web").unwrap();
    let db = xl.introduce("db").unwrap();
    assert_eq!(client.events().await, ["@introduceDomain", "@introduceDomain"]);
    xl.announce(web).unwrap();
    xl.reuse(web, "other").unwrap();
    assert_eq!(client.events().await, [""; 0], "a second introduction has no event");
    xl.set_run_state(web, Some(RunState::Shutdown)).unwrap();
    xl.crash(db).unwrap();
    assert_eq!(client.events().await, ["@releaseDomain"], "one event for two changes");
    xl.resume(web).unwrap();
    assert_eq!(client.events().await, [""; 0]);
    xl.shut_down(web).unwrap();
    xl.destroy(web).unwrap();
    xl.vanish(db).unwrap();
    assert_eq!(client.events().await, ["@releaseDomain"; 3]);
    assert_eq!(summary(&xl.domains().unwrap()), [(db, false, "db")], "dom0 owns its path");
    let again = xl.introduce("web").unwrap();
    let known = xl.domains().unwrap();
    let rebooted = xl.reboot(again).unwrap();
    assert!(rebooted > again);
    assert_eq!(xl.domains().unwrap().last().unwrap().uuid, known.last().unwrap().uuid);
    xl.release(rebooted).unwrap();
    assert_eq!(
        client.events().await,
        [
            "@introduceDomain",
            "@releaseDomain",
            "@releaseDomain",
            "@introduceDomain",
            "@releaseDomain"
        ]
    );
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn complete_writes_what_the_blueprint_left_out() {
    let daemon = Xenstored::start().await.unwrap();
    let xl = daemon.toolstack();
    let domid = xl.introduce(Blueprint::named("web").without_name().without_vm()).unwrap();
    let known = xl.domains().unwrap();
    assert_eq!((known[0].introduced, &known[0].name, known[0].uuid), (true, &None, None));
    xl.complete(domid).unwrap();
    assert!(xl.domains().unwrap()[0].uuid.is_some());
    assert_eq!(summary(&xl.domains().unwrap()), [(domid, true, "web")]);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_daemon_ends_when_it_is_dropped() {
    let daemon = Xenstored::start().await.unwrap();
    let pid = daemon.pid().unwrap();
    let socket = daemon.socket();
    assert!(rss_kib(pid).is_some());
    drop(daemon);
    assert!(rss_kib(pid).is_none());
    assert!(!socket.exists());
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_list_of_700_domains_comes_in_parts() {
    let daemon = Xenstored::start().await.unwrap();
    let xl = daemon.toolstack();
    for domid in 10_000..10_700 {
        xl.write(&format!("/local/domain/{domid}/name"), "web").unwrap();
    }
    let mut client = Raw::connect(&daemon.socket()).await;
    let whole = client.call(&Frame::new(DIRECTORY, b"/local/domain\0")).await;
    assert_eq!(whole.payload, b"E2BIG\0");
    let part = client.call(&Frame::new(DIRECTORY_PART, b"/local/domain\x000\0")).await;
    assert!(!part.payload.ends_with(b"\0\0"), "there is more");
    assert_eq!(xl.list("/local/domain").unwrap().len(), 700);
    assert_eq!(xl.domains().unwrap().len(), 700);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_tap_counts_requests_and_goes_down_without_the_daemon() {
    let daemon = Xenstored::start().await.unwrap();
    let tap = StoreTap::before(&daemon).unwrap();
    let mut client = Raw::connect(&tap.socket()).await;
    client.call(&Frame::new(WATCH, b"@introduceDomain\0I\0")).await;
    daemon.toolstack().introduce("web").unwrap();
    assert_eq!(client.events().await, ["@introduceDomain"; 2]);
    let seen = tap.seen();
    assert_eq!((seen.open, seen.connections, seen.events), (1, 1, 2));
    assert_eq!(seen.requests, [(WATCH, 1), (IS_DOMAIN_INTRODUCED, 1)].into());
    tap.go_down();
    assert!(client.receive().await.is_none());
    daemon.toolstack().introduce("db").unwrap();
    eventually("no watches are left", || daemon.watches().unwrap().is_empty()).await.unwrap();
    tap.come_back().unwrap();
    Raw::connect(&tap.socket()).await.events().await;
    assert_eq!(tap.seen().connections, 2);
}
