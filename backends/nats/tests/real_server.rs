//! Relay and source on a real nats-server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use virevent::driver::Settings;
use virevent::{Change, DomainEvent, EventSource, GapKind};
use virevent_nats::{Nats, Relay};
use virevent_testkit::servers::NatsServer;

use self::harness::{HEARTBEAT, PATIENCE, Reader, fake, folded, happened, populate, relay, truth};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn a_store_of_the_fleet_equals_the_hypervisor() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let _relay = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    fake.start("db").unwrap();
    fake.stop("web").unwrap();
    fake.resume("paused").unwrap();
    fake.stop("mail").unwrap();
    fake.undefine("mail").unwrap();
    fake.create("new").unwrap();
    fake.reboot("db").unwrap();
    let events = reader
        .until("rebooted", |reader| matches!(reader.seen.last(), Some(DomainEvent::Reboot(_))))
        .await;
    assert_eq!(
        happened(&events),
        [
            "db[4] started (booted)",
            "web[1] stopped (destroyed)",
            "paused[2] resumed (unpaused)",
            "mail[3] stopped (destroyed)",
            "mail undefined (removed)",
            "new[5] started (booted)",
            "db[4] rebooted",
        ]
    );
    reader.until_equal(&fake).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn a_late_reader_gets_what_exists_and_synced() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let _relay = relay("web1", &fake, &server);
    let mut early = Reader::new(&server).await;
    early.until_equal(&fake).await;
    fake.create("brief").unwrap();
    fake.stop("brief").unwrap();
    fake.stop("mail").unwrap();
    early.until_equal(&fake).await;
    let mut late = Reader::new(&server).await;
    let events = late.until_equal(&fake).await;
    assert_eq!(happened(&events), [""; 0], "what came before is not told again");
    let existing =
        events.iter().filter(|event| matches!(event.change(), Some(Change::Existing(_))));
    assert_eq!(existing.count(), truth(&fake).len());
    assert!(matches!(events.last(), Some(DomainEvent::Synced(_))));
    fake.start("db").unwrap();
    let events = late.until_equal(&fake).await;
    assert_eq!(happened(&events), ["db[5] started (booted)"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn a_killed_broker_is_a_gap_without_loss_or_duplicate() {
    let mut server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let _relay = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    server.kill9().await;
    fake.start("db").unwrap();
    fake.suspend("db").unwrap();
    fake.stop("web").unwrap();
    let events = reader
        .until("a gap", |reader| matches!(reader.seen.last(), Some(DomainEvent::Gap(_))))
        .await;
    assert_eq!(happened(&events), [""; 0]);
    server.restart().await.unwrap();
    fake.resume("db").unwrap();
    let events = reader.until_equal(&fake).await;
    let mut more = happened(&events);
    fake.create("last").unwrap();
    more.append(&mut happened(&reader.until_equal(&fake).await));
    assert_eq!(
        more,
        [
            "db[4] started (booted)",
            "db[4] suspended (paused)",
            "web[1] stopped (destroyed)",
            "db[4] resumed (unpaused)",
            "last[5] started (booted)",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn the_host_of_a_lost_relay_is_a_gap_never_stopped() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let running = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    running.kill().await;
    let events = reader.until_host_is_lost().await;
    assert_eq!(happened(&events), [""; 0], "a lost relay says nothing of domains");
    let gap = events.last();
    assert!(
        matches!(gap, Some(DomainEvent::Gap(gap)) if matches!(gap.kind, GapKind::Disconnected { .. })),
        "{gap:?}"
    );
    assert_eq!(folded(&reader.store.snapshot()), truth(&fake));
    // A reader that comes now sees the same.
    let mut late = Reader::new(&server).await;
    late.until_host_is_lost().await;
    assert_eq!(folded(&late.store.snapshot()), truth(&fake));

    fake.stop("web").unwrap();
    fake.start("db").unwrap();
    let running = relay("web1", &fake, &server);
    let events = reader.until_equal(&fake).await;
    let expected = ["web[1] stopped [inferred]", "db[4] started (booted) [inferred]"];
    let mut changed = happened(&events);
    changed.sort();
    let mut expected = expected.map(String::from);
    expected.sort();
    assert_eq!(changed, expected);
    late.until_equal(&fake).await;
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn a_relay_that_begins_again_at_once_is_a_gap() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let running = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    running.kill().await;
    fake.create("brief").unwrap();
    fake.stop("brief").unwrap();
    fake.stop("mail").unwrap();
    let _running = relay("web1", &fake, &server);
    let mut events = reader.until_host_is_lost().await;
    events.append(&mut reader.until_equal(&fake).await);
    assert_eq!(happened(&events), ["mail[3] stopped (destroyed) [inferred]"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn events_that_a_full_spool_drops_are_a_gap() {
    let mut server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let relay = Relay::new("web1", Arc::clone(&fake)).unwrap().heartbeat(HEARTBEAT).spool(16);
    let uri = server.uri();
    let _task = tokio::spawn(async move { relay.run(&uri).await });
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    server.kill9().await;
    reader.until("lost", |reader| !reader.store.snapshot().is_certain()).await;
    for _ in 0..100 {
        fake.suspend("web").unwrap();
        fake.resume("web").unwrap();
    }
    fake.stop("web").unwrap();
    server.restart().await.unwrap();
    // The relay may have fallen silent before: that gap of the host is still open then.
    reader.until_host_is_lost().await;
    reader.until_equal(&fake).await;
}

/// Kills the broker in the middle of bursts, at moments that the seed chooses.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn every_event_comes_once_and_in_order_across_kills() {
    let mut server = NatsServer::start().await.unwrap();
    let fake = fake();
    fake.create("web").unwrap();
    let _relay = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    let before = reader.seen.len();
    let mut random = fastrand::Rng::with_seed(7);
    let mut expected = Vec::new();
    for _ in 0..4 {
        for _ in 0..100 {
            fake.suspend("web").unwrap();
            fake.resume("web").unwrap();
            expected.push("web[1] suspended (paused)");
            expected.push("web[1] resumed (unpaused)");
        }
        // Some of the burst have arrived, some are under way.
        let some = before + random.usize(1..150);
        let count = |reader: &Reader| {
            reader.seen.iter().skip(before).filter(|event| event.is_happening()).count()
        };
        let arrived = count(&reader) + some - before;
        reader.until("some", |reader| count(reader) >= arrived.min(expected.len())).await;
        server.kill9().await;
        server.restart().await.unwrap();
    }
    let want = expected.len();
    reader
        .until("all", |reader| {
            reader.seen.iter().skip(before).filter(|event| event.is_happening()).count() >= want
        })
        .await;
    reader.until_equal(&fake).await;
    assert_eq!(happened(&reader.seen[before..]), expected);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn domains_that_are_gone_leave_nothing_in_the_bucket() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let running = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    for number in 0..20 {
        let name = format!("brief{number}");
        fake.create(&name).unwrap();
        fake.stop(&name).unwrap();
    }
    reader.until_equal(&fake).await;
    running.kill().await;
    fake.stop("web").unwrap();
    // Its first act is to remove what the one before left.
    let _running = relay("web1", &fake, &server);
    reader.until_host_is_lost().await;
    reader.until_equal(&fake).await;
    let context = async_nats::jetstream::new(async_nats::connect(server.uri()).await.unwrap());
    let bucket = context.get_stream("KV_virevent_state").await.unwrap();
    // The last removal follows its event, which the reader may have seen first.
    let removed = async {
        let expected = truth(&fake).len() as u64 + 1;
        while bucket.get_info().await.unwrap().state.messages != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, removed).await.expect("one entry a domain, and the relay's");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn verifications_of_an_unchanged_fleet_deliver_nothing() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let _relay = relay("web1", &fake, &server);
    let settings = Settings::default().verify(Some(Duration::from_millis(100)));
    let source = Nats::new(&server.uri()).unwrap().settings(settings).source();
    let mut reader = Reader::of(&source).await;
    reader.until_equal(&fake).await;
    let first = source.health().verified();
    let gaps = source.counters().gaps;
    for _ in 0..300 {
        fake.suspend("web").unwrap();
        fake.resume("web").unwrap();
        let count = reader.seen.len() + 2;
        let events = reader.until("both", |reader| reader.seen.len() >= count).await;
        assert_eq!(happened(&events), ["web[1] suspended (paused)", "web[1] resumed (unpaused)"]);
    }
    let verified = async {
        while source.health().verified() == first {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, verified).await.expect("it was verified");
    assert_eq!(source.counters().corrected, 0);
    assert_eq!(
        source.counters().gaps,
        gaps,
        "{:?}",
        reader.seen.iter().filter(|event| event.is_marker()).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn an_outage_of_the_hypervisor_is_relayed() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let _relay = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    fake.go_down();
    let events = reader.until_host_is_lost().await;
    assert_eq!(happened(&events), [""; 0]);
    let mut late = Reader::new(&server).await;
    late.until_host_is_lost().await;
    fake.stop("web").unwrap();
    fake.restore();
    let events = reader.until_equal(&fake).await;
    assert_eq!(happened(&events), ["web[1] stopped [inferred]"]);
    late.until_equal(&fake).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn a_second_relay_of_a_name_ends_the_first() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    let first = relay("web1", &fake, &server);
    let mut reader = Reader::new(&server).await;
    reader.until_equal(&fake).await;
    let _second = relay("web1", &fake, &server);
    let error = timeout(PATIENCE, first.task).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("taken over"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn a_message_on_the_subject_of_another_host_is_refused() {
    let server = NatsServer::start().await.unwrap();
    let fake = fake();
    populate(&fake);
    let _relay = relay("web1", &fake, &server);
    let nats = Nats::new(&server.uri()).unwrap();
    let refused = nats.refused();
    let mut reader = Reader::of(&nats.source()).await;
    reader.until_equal(&fake).await;
    let client = async_nats::connect(server.uri()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let body = r#"{"specversion":"1.0","id":"evil/9/1","data":{"kind":"synced","source":"s:","host":"web.1","domains":0}}"#;
    for (subject, body) in [
        ("virevent.evil.other._.synced", body),
        ("virevent.web1.web=2E1._.synced", body),
        ("virevent.evil.other._.synced", "{"),
        ("virevent.what", body),
    ] {
        context.publish(subject, body.into()).await.unwrap().await.unwrap();
    }
    fake.stop("web").unwrap();
    let events = reader.until_equal(&fake).await;
    assert_eq!(happened(&events), ["web[1] stopped (destroyed)"]);
    assert_eq!(refused.count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn a_stream_that_differs_is_refused_and_left_alone() {
    let server = NatsServer::start().await.unwrap();
    let client = async_nats::connect(server.uri()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let config = async_nats::jetstream::stream::Config {
        name: "virevent".into(),
        subjects: vec!["virevent.>".into()],
        max_messages_per_subject: 1,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let relay = Relay::new("web1", fake()).unwrap();
    let error = timeout(PATIENCE, relay.run(&server.uri())).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("nothing was altered"), "{error}");
    let info = context.get_stream("virevent").await.unwrap().get_info().await.unwrap();
    assert_eq!(info.config.max_messages_per_subject, 1);
}
