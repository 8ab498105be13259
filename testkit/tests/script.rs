//! Scripts, run on a fake hypervisor and played by a source.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use virevent::{DomainEvent, End, Error, EventSource, Gap, GapKind, Options, Origin};
use virevent_testkit::assert::{expect_sequence, next_within, until_synced};
use virevent_testkit::{FakeHypervisor, Script, scripted};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_script_runs_its_steps_exactly_at_their_times() {
    let fake = FakeHypervisor::new();
    let mut events = fake.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let script = Script::new()
        .at(SECOND)
        .create("web")
        .after(Duration::from_millis(1500))
        .suspend("web")
        .at(4 * SECOND)
        .stop("web");
    let start = Instant::now();
    let run = tokio::spawn(async move { script.run(&fake).await });
    let mut times = Vec::new();
    for _ in 0..3 {
        next_within(&mut events, 60 * SECOND).await.unwrap();
        times.push(start.elapsed().as_millis());
    }
    run.await.unwrap().unwrap();
    assert_eq!(times, [1000, 2500, 4000]);
}

#[tokio::test(start_paused = true)]
async fn steps_at_zero_exist_and_the_scripts_end_ends_the_stream() {
    let source = scripted(Script::new().create("db").after(SECOND).stop("db").after(SECOND));
    let start = Instant::now();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let expected = [
        "db[1] existing (running (booted))",
        "synced with fake: (1 domain)",
        "db[1] stopped (destroyed)",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
    assert_eq!(events.next().await, None);
    assert!(matches!(events.end(), Some(End::Shutdown)));
    assert_eq!(start.elapsed(), 2 * SECOND);
    assert_eq!(source.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn a_script_with_ends_false_plays_once_and_keeps_the_stream() {
    let source = scripted(Script::new().after(SECOND).create("web").ends(false));
    let mut one = source.subscribe_with(Options::default()).await.unwrap();
    let mut two = source.subscribe_with(Options::default()).await.unwrap();
    for events in [&mut one, &mut two] {
        expect_sequence(events, &["synced *", "web[1] started (booted)"]).await.unwrap();
        virevent_testkit::assert::nothing_within(events, 60 * SECOND).await.unwrap();
        assert!(events.end().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_script_with_a_mistake_fails_subscribe_and_names_it() {
    let source = scripted(Script::new().after(SECOND).start("web"));
    let error = source.subscribe_with(Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidUri { .. }));
    assert!(error.to_string().contains("step 1, at 1s: cannot start \"web\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_demo_has_every_change_and_ends_within_ten_seconds() {
    let source = scripted(Script::demo());
    let start = Instant::now();
    let events: Vec<DomainEvent> =
        source.subscribe_with(Options::default()).await.unwrap().collect().await;
    assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
    assert!(start.elapsed() > 2 * SECOND, "{:?}", start.elapsed());
    let shows = |what: &str| {
        let shown = events.iter().any(|event| event.to_string().contains(what));
        assert!(shown, "{what} is missing in {events:#?}");
    };
    for change in [
        "existing",
        "started",
        "suspended",
        "resumed",
        "rebooted",
        "shutting_down",
        "stopped (shutdown)",
        "crashed",
        "stopped (destroyed)",
    ] {
        shows(change);
    }
    let gap = |event: &DomainEvent| {
        matches!(event, DomainEvent::Gap(Gap { kind: GapKind::Disconnected { .. }, .. }))
    };
    let inferred = |event: &DomainEvent| {
        event.lifecycle().is_some_and(|event| event.origin == Origin::Inferred)
    };
    let synced = |event: &DomainEvent| matches!(event, DomainEvent::Synced(_));
    let at = |what: &dyn Fn(&DomainEvent) -> bool| events.iter().rposition(what).unwrap();
    assert!(at(&gap) < at(&inferred) && at(&inferred) < at(&synced));
}
