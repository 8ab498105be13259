//! Typed events over a real socket: what the daemon sends, arrives with every field.

use std::time::SystemTime;

use virevent::{Kind, Kinds, Notice, NoticeBody};
use virevent_libvirt::wire::procs::feature;
use virevent_testkit::notices;

use super::*;

/// The notices that the daemon sent, as the stream delivers them.
async fn exchanged(daemon: &FakeLibvirtd, bodies: &[NoticeBody]) -> Vec<NoticeBody> {
    let web = daemon.host().create("web").unwrap();
    let source = client(daemon).source();
    let options = Options::default().kinds(Kinds::all());
    let mut events = source.subscribe_with(options).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let mut received = Vec::new();
    for body in bodies {
        daemon.host().emit(Notice::new(web.clone(), body.clone(), SystemTime::now()));
        match next_within(&mut events, PATIENCE).await.unwrap() {
            DomainEvent::Notice(notice) => {
                assert_eq!(notice.domain.to_string(), "web[1]");
                received.push((*notice.body).clone());
            }
            event => panic!("{event}"),
        }
    }
    // Nothing comes twice: the next event is the next change.
    assert_delivers(&mut events, daemon.host()).await;
    received
}

#[tokio::test]
async fn every_typed_event_arrives_with_every_field() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.last_event = 29);
    assert_eq!(exchanged(&daemon, &notices()).await, notices());
    let ids: Vec<i32> = (0..30).filter(|id| ![4, 8].contains(id)).collect();
    assert_eq!(daemon.registered(), ids, "each id once, and of a pair the newer");
}

#[tokio::test]
async fn a_legacy_daemon_sends_what_it_has_with_every_field() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| {
        faults.features.remove(&feature::EVENT_CALLBACK);
    });
    let mut expected = notices();
    expected.retain(|body| Kind::TYPED.iter().position(|kind| *kind == body.kind()) <= Some(13));
    expected.iter_mut().for_each(|body| match body {
        // Legacy messages have no reason.
        NoticeBody::PmWakeup { reason } | NoticeBody::PmSuspend { reason, .. } => *reason = 0,
        _ => {}
    });
    assert_eq!(expected.last().map(NoticeBody::kind), Some(Kind::DeviceRemoved));
    assert_eq!(exchanged(&daemon, &expected).await, expected);
}

#[tokio::test]
async fn kinds_that_the_daemon_lacks_are_in_its_capabilities() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.last_event = 6);
    let source = client(&daemon).source();
    assert_eq!(source.capabilities().kinds, Kinds::all());
    let all = Options::default().kinds(Kinds::all());
    let mut events = source.subscribe_with(all).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let has: Vec<_> = source.capabilities().kinds.iter().map(Kind::to_string).collect();
    let expected =
        ["lifecycle", "reboot", "rtc-change", "watchdog", "io-error", "graphics", "other"];
    assert_eq!(has, expected);
    let options = Options::default().kind(Kind::BlockJob);
    let error = source.subscribe_with(options).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { kind: Kind::BlockJob, .. }), "{error}");
}

#[tokio::test]
async fn without_a_filter_no_typed_event_is_registered() {
    let (daemon, events) = synced_stream().await;
    assert_eq!(daemon.registered(), [0, 1, 7], "7 is for the session itself");
    drop(events);
}

#[tokio::test]
async fn an_older_form_stands_in_for_a_form_that_is_refused() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.last_event = 15);
    let web = daemon.host().create("web").unwrap();
    let source = client(&daemon).source();
    let kind = Options::default().kind(Kind::BlockJob);
    let mut events = source.subscribe_with(kind).await.unwrap();
    until_synced(&mut events).await.unwrap();
    assert_eq!(daemon.registered(), [0, 1, 7, 8]);
    let body = notices().into_iter().find(|body| body.kind() == Kind::BlockJob).unwrap();
    daemon.host().emit(Notice::new(web, body, SystemTime::now()));
    let event = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(event.to_string(), "web[1] block-job vda: copy ready");
    events.close().await;
    assert!(daemon.registered().is_empty());
}
