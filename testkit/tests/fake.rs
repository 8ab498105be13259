//! The fake hypervisor's operations and faults, as subscribers see them.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use virevent::{
    Change, DomainEvent, DomainStore, End, Error, EventData, EventName, EventSource, EventStream,
    Fault, FaultKind, GapKind, Kind, Kinds, Notice, Options, RawEvent, Scope, StartCause, Status,
    StopCause, SuspendCause, Synced,
};
use virevent_testkit::assert::{
    check_store, expect_sequence, next_within, nothing_within, until_synced,
};
use virevent_testkit::{Asked, FakeHypervisor, notices};

const SECOND: Duration = Duration::from_secs(1);

async fn synced(fake: &FakeHypervisor, options: Options) -> EventStream {
    let mut events = fake.subscribe_with(options).await.unwrap();
    until_synced(&mut events).await.unwrap();
    events
}

#[tokio::test(start_paused = true)]
async fn a_stop_has_the_id_of_the_run_that_ended() {
    let fake = FakeHypervisor::new();
    let mut events = synced(&fake, Options::default()).await;
    fake.define("web").unwrap();
    fake.start_as("web", StartCause::Restored).unwrap();
    fake.stop_as("web", StopCause::Saved).unwrap();
    fake.start("web").unwrap();
    fake.crash("web").unwrap();
    let expected = [
        "web defined (added)",
        "web[1] started (restored)",
        "web[1] stopped (saved)",
        "web[2] started (booted)",
        "web[2] crashed (panicked)",
        "web[2] stopped (crashed)",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_journal_has_the_drivers_requests_in_order() {
    let fake = FakeHypervisor::builder().idle_timeout(30 * SECOND).build();
    let events = synced(&fake, Options::default()).await;
    assert_eq!(fake.journal(), [Asked::Connect, Asked::Register(Kinds::common()), Asked::List]);
    assert_eq!(fake.registered(), Kinds::common());
    fake.clear_journal();

    let start = Instant::now();
    events.close().await;
    assert!(fake.registered().is_empty());
    fake.asked(|asked| *asked == Asked::Disconnect).await;
    assert!(start.elapsed() >= 30 * SECOND);
    assert!(!fake.is_connected());
    let asked: Vec<_> = fake.journal().into_iter().filter(|asked| *asked != Asked::Ping).collect();
    assert_eq!(asked, [Asked::Deregister, Asked::Disconnect]);
}

#[tokio::test(start_paused = true)]
async fn single_step_holds_each_event_until_its_step() {
    let fake = FakeHypervisor::new();
    let mut events = synced(&fake, Options::default()).await;
    fake.single_step();
    fake.create("web").unwrap();
    fake.suspend("web").unwrap();
    fake.stop("web").unwrap();
    nothing_within(&mut events, SECOND).await.unwrap();

    assert!(fake.step());
    expect_sequence(&mut events, &["web[1] started (booted)"]).await.unwrap();
    nothing_within(&mut events, SECOND).await.unwrap();
    fake.release();
    expect_sequence(&mut events, &["web[1] suspended (paused)", "web[1] stopped (destroyed)"])
        .await
        .unwrap();
    fake.create("db").unwrap();
    expect_sequence(&mut events, &["db[2] started (booted)"]).await.unwrap();
    assert!(!fake.step());
}

#[tokio::test(start_paused = true)]
async fn the_driver_reconnects_after_lose_connection() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let mut events = synced(&fake, Options::default()).await;
    fake.lose_connection();
    fake.stop("web").unwrap();
    let expected = [
        "disconnected from fake: (the fake hypervisor closed the connection)",
        "web[1] stopped [inferred]",
        "synced with fake: (0 domains)",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
    assert_eq!(fake.health().status(), Status::Synced);
    assert_eq!((fake.counters().gaps, fake.counters().reconnects), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_fails_subscribe_with_that_error() {
    let fake = FakeHypervisor::new();
    fake.refuse(Error::authentication("give a password"));
    let error = fake.subscribe_with(Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Authentication { .. }), "{error}");
    fake.accept();
    synced(&fake, Options::default()).await;
}

#[tokio::test(start_paused = true)]
async fn repeated_refusals_end_the_streams() {
    let fake = FakeHypervisor::new();
    let mut events = synced(&fake, Options::default()).await;
    fake.refuse(Error::authentication("give a password"));
    fake.lose_connection();
    expect_sequence(&mut events, &["disconnected from *"]).await.unwrap();
    assert_eq!(events.next().await, None);
    assert!(matches!(events.end(), Some(End::Failed(Error::Authentication { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_connection_attempt_fails_after_the_timeout() {
    let fake = FakeHypervisor::builder().connect_timeout(3 * SECOND).build();
    fake.hang_connects();
    let start = Instant::now();
    let error = fake.subscribe_with(Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(start.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn accept_completes_a_hanging_connection_attempt() {
    let fake = FakeHypervisor::new();
    fake.hang_connects();
    let mut subscription = Box::pin(fake.subscribe_with(Options::default()));
    assert!((&mut subscription).now_or_never().is_none());
    fake.asked(|asked| *asked == Asked::Connect).await;
    fake.accept();
    subscription.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_during_a_hanging_list_are_merged_into_it() {
    let fake = FakeHypervisor::new();
    fake.create("old").unwrap();
    fake.hang_lists();
    let mut subscription = Box::pin(fake.subscribe_with(Options::default()));
    // Polled once, so that the driver starts.
    assert!((&mut subscription).now_or_never().is_none());
    fake.asked(|asked| *asked == Asked::List).await;
    fake.create("web").unwrap();
    fake.suspend("web").unwrap();
    fake.stop("old").unwrap();
    fake.release_lists();
    let mut events = subscription.await.unwrap();
    let expected = ["web[2] existing (paused (user))", "synced with fake: (1 domain)"];
    expect_sequence(&mut events, &expected).await.unwrap();
    nothing_within(&mut events, SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_list_without_an_answer_fails_after_the_timeout() {
    let fake = FakeHypervisor::builder().call_timeout(4 * SECOND).build();
    fake.hang_lists();
    let start = Instant::now();
    let error = fake.subscribe_with(Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { call: "the list of domains", .. }), "{error}");
    assert_eq!(start.elapsed(), 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn close_waits_at_most_five_seconds_for_a_registration() {
    let fake = FakeHypervisor::new();
    let events = synced(&fake, Options::default()).await;
    fake.hang_registrations();
    let start = Instant::now();
    events.close().await;
    assert_eq!(start.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn keepalive_detects_a_silent_peer() {
    let fake = FakeHypervisor::builder().keepalive(Some(SECOND), 3).build();
    let mut events = synced(&fake, Options::default()).await;
    // Replies to pings keep an idle connection.
    nothing_within(&mut events, 60 * SECOND).await.unwrap();
    fake.go_silent();
    let start = Instant::now();
    let expected = ["disconnected from fake: (no answer to a keepalive*", "synced *"];
    expect_sequence(&mut events, &expected[..1]).await.unwrap();
    assert!(start.elapsed() <= 5 * SECOND, "{:?}", start.elapsed());
    expect_sequence(&mut events, &expected[1..]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lacking_kind_is_an_error_only_if_asked_for_by_name() {
    let fake = FakeHypervisor::builder().lacking(Kind::Reboot).build();
    let mut events = synced(&fake, Options::default()).await;
    assert_eq!(fake.capabilities().lacking, [Kind::Reboot].into_iter().collect());
    fake.create("web").unwrap();
    fake.reboot("web").unwrap();
    expect_sequence(&mut events, &["web[1] started (booted)"]).await.unwrap();
    nothing_within(&mut events, SECOND).await.unwrap();

    let options = Options::default().kind(Kind::Reboot);
    let error = fake.subscribe_with(options).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { kind: Kind::Reboot, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn emit_delivers_any_event_to_subscribers_of_its_kind() {
    let fake = FakeHypervisor::new();
    let mut lifecycle = synced(&fake, Options::default()).await;
    let named = Kind::Named(EventName::Number(99));
    let mut other = synced(&fake, Options::default().kind(named)).await;
    let web = fake.create("web").unwrap();
    let data = EventData::Bytes(Box::from([0; 4]));
    let at = std::time::SystemTime::UNIX_EPOCH;
    fake.emit(RawEvent::new("fake:", Some(web), EventName::Number(99), data, at));
    fake.lifecycle("web", Change::Unknown { event: 42, detail: 1 }).unwrap();
    expect_sequence(&mut other, &["web[1] event 99 (4 bytes)"]).await.unwrap();
    nothing_within(&mut other, SECOND).await.unwrap();
    expect_sequence(&mut lifecycle, &["web[1] started (booted)", "web[1] unknown(42, 1)"])
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_emitted_notice_reaches_those_who_asked_for_its_kind() {
    let fake = FakeHypervisor::new();
    let mut common = synced(&fake, Options::default()).await;
    let mut all = synced(&fake, Options::default().kinds(Kinds::all())).await;
    let mut io_errors = synced(&fake, Options::default().kind(Kind::IoError)).await;
    let web = fake.create("web").unwrap();
    for body in notices() {
        fake.emit(Notice::new(web.clone(), body, std::time::SystemTime::UNIX_EPOCH));
    }
    fake.stop("web").unwrap();
    let whole = ["web[1] started (booted)", "web[1] stopped (destroyed)"];
    expect_sequence(&mut common, &whole).await.unwrap();
    let lines: Vec<String> = notices().iter().map(|b| format!("web[1] {} {b}", b.kind())).collect();
    let lines = lines.iter().map(|line| line.trim_end());
    let lines: Vec<&str> = [whole[0]].into_iter().chain(lines).chain([whole[1]]).collect();
    expect_sequence(&mut all, &lines).await.unwrap();
    let io_error = "web[1] io-error virtio-disk0: paused, no space left (*)";
    expect_sequence(&mut io_errors, &[io_error]).await.unwrap();
    nothing_within(&mut io_errors, SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_part_is_a_gap_and_then_synced() {
    let fake = FakeHypervisor::new();
    let web = fake.create("web").unwrap();
    fake.create("db").unwrap();
    let mut events = synced(&fake, Options::default()).await;
    let scope = Scope::Domain(web);
    fake.disconnected(scope.clone(), Fault::new(FaultKind::Closed, "socket closed"));
    fake.suspend("web").unwrap();
    fake.stop("db").unwrap();
    let expected =
        ["disconnected from domain web on fake: (socket closed)", "db[2] stopped (destroyed)"];
    expect_sequence(&mut events, &expected).await.unwrap();
    nothing_within(&mut events, SECOND).await.unwrap();

    fake.restored(scope);
    let expected =
        ["web[1] suspended (paused) [inferred]", "synced with domain web on fake: (1 domain)"];
    expect_sequence(&mut events, &expected).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_level_triggered_hypervisor_has_the_same_events_of_runs() {
    let fake = FakeHypervisor::builder().level_triggered().build();
    fake.create("db").unwrap();
    let mut events = fake.subscribe_with(Options::default()).await.unwrap();
    expect_sequence(&mut events, &["db[1] existing (running (booted))", "synced *"]).await.unwrap();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    fake.suspend("web").unwrap();
    fake.resume("web").unwrap();
    fake.shut_down("web").unwrap();
    fake.stop("db").unwrap();
    let expected = [
        "web[2] started (booted)",
        "web[2] suspended (paused)",
        "web[2] resumed (unpaused)",
        "web[2] shutting_down",
        "web[2] stopped (shutdown)",
        "db[1] stopped (destroyed)",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_fakes_can_serve_one_host() {
    let one = FakeHypervisor::new();
    let other = FakeHypervisor::builder().on(one.host()).uri("fake:other").build();
    let mut events = synced(&other, Options::default()).await;
    one.create("web").unwrap();
    let event = next_within(&mut events, SECOND).await.unwrap();
    assert_eq!(event.change(), Some(Change::Started(StartCause::Booted)));
    let domain = event.domain().unwrap();
    let web = one.domain("web").unwrap();
    assert_eq!((domain.uuid(), domain.host()), (web.uuid(), web.host()));
    assert_eq!((domain.source(), web.source()), ("fake:other", "fake:"));
    assert!(!domain.is_same(&web), "the source is part of the identity");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_event_is_delivered() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let mut events = synced(&fake, Options::default()).await;
    fake.suspend("web").unwrap();
    fake.lifecycle("web", Change::Suspended(SuspendCause::Paused)).unwrap();
    expect_sequence(&mut events, &["web[1] suspended (paused)"; 2]).await.unwrap();
    let store = DomainStore::new();
    let mut fresh = fake.subscribe_with(Options::default()).await.unwrap();
    store.extend(&until_synced(&mut fresh).await.unwrap());
    check_store(&store, &fake.domains()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_small_slack_resets_with_few_domains() {
    let fake = FakeHypervisor::new();
    for n in 0..40 {
        fake.define(&format!("vm{n}")).unwrap();
    }
    let options = Options::default().capacity(4).slack(8);
    let mut stream = fake.subscribe_with(options).await.unwrap();
    let store = DomainStore::new();
    store.extend(&until_synced(&mut stream).await.unwrap());
    // Nothing is read meanwhile, and compaction must keep each domain's start and end.
    for n in 0..40 {
        fake.start(&format!("vm{n}")).unwrap();
        fake.stop(&format!("vm{n}")).unwrap();
    }
    fake.undefine("vm7").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = until_synced(&mut stream).await.unwrap();
    let reset = GapKind::lagged(81, true);
    assert!(matches!(&events[0], DomainEvent::Gap(gap) if gap.kind == reset), "{}", events[0]);
    assert_eq!(events.len(), 1 + 39);
    store.extend(&events);
    store.apply(&Synced::new(Scope::source_wide(fake.uri()), 39).into());
    check_store(&store, &fake.domains()).unwrap();
}
