//! A real xenstored, and a toolstack that makes it busy.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::StreamExt;
use virevent::{DomainEvent, EventSource, EventStream, Kind, Options};
use virevent_testkit::servers::Xenstored;
use virevent_testkit::xen::Power;
use virevent_xen::XenStore;

async fn next(events: &mut EventStream) -> String {
    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
    event.expect("an event").expect("a stream that goes on").to_string()
}

async fn synced(daemon: &Xenstored) -> EventStream {
    let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
    let source = XenStore::new(&daemon.uri()).unwrap().source();
    let mut events = source.subscribe_with(options).await.unwrap();
    while !matches!(events.next().await, Some(DomainEvent::Synced(_))) {}
    events
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_domain_is_told_from_its_start_to_its_end() {
    let daemon = Xenstored::start().await.unwrap();
    let mut events = synced(&daemon).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    assert_eq!(next(&mut events).await, "web[1] started");
    xl.rename(web, "www").unwrap();
    assert_eq!(next(&mut events).await, "web[1] undefined (renamed)");
    assert_eq!(next(&mut events).await, "www[1] defined (renamed)");
    xl.request(web, Power::PowerOff).unwrap();
    assert_eq!(next(&mut events).await, "www[1] shutting_down (host)");
    assert_eq!(next(&mut events).await, "www[1] event control/shutdown {\"request\":\"poweroff\"}");
    xl.acknowledge(web).unwrap();
    xl.shut_down(web).unwrap();
    assert_eq!(next(&mut events).await, "www[1] shutting_down (finished)");
    xl.destroy(web).unwrap();
    assert_eq!(next(&mut events).await, "www[1] stopped (shutdown)");
}
