//! Streams and stores that resume from a snapshot, on the fake hypervisor and paused time.

#![allow(clippy::unwrap_used)]

mod fleets;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::stream::StreamExt;
use tokio::time::timeout;
use virevent::{
    Change, DomainEvent, DomainStore, End, Error, EventSource, EventSourceExt, EventStream, Fleet,
    Lifecycle, Options, Origin, Snapshot, State, StopCause,
};
use virevent_testkit::assert::check_store;
use virevent_testkit::{Builder, FakeHypervisor};

/// What a store of all domains knows.
async fn snapshot(source: &impl EventSource) -> Snapshot {
    let store = source.store().await.unwrap();
    let known = store.wait_for(Snapshot::is_certain).await.unwrap();
    store.close().await;
    known
}

fn resume(known: &Snapshot) -> Options {
    Options::default().resume(known.clone())
}

/// What is delivered within a second, as lines.
async fn lines(events: &mut EventStream) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), events.next()).await {
        if let Some(event) = event.lifecycle() {
            assert!(
                event.origin == Origin::Inferred || matches!(event.change, Change::Existing(_))
            );
        }
        lines.push(event.to_string());
    }
    lines
}

/// What a stream begins with that resumes.
async fn resumed(source: &impl EventSource, known: &Snapshot) -> Vec<String> {
    lines(&mut source.subscribe_with(resume(known)).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_the_service_was_down_is_delivered() {
    let fake = FakeHypervisor::new();
    for name in ["db", "web"] {
        fake.define(name).unwrap();
        fake.start(name).unwrap();
    }
    let known = snapshot(&fake).await;
    let run = fake.domain("web").unwrap();
    fake.crash("web").unwrap();

    let mut events = fake.subscribe_with(resume(&known)).await.unwrap();
    let first = events.next().await.unwrap();
    let Lifecycle { domain, change, origin, .. } = first.lifecycle().unwrap().clone();
    assert_eq!(domain, run, "with the id of the run that ended");
    assert_eq!(change, Change::Stopped(StopCause::Crashed));
    assert_eq!(origin, Origin::Inferred);
    assert_eq!(lines(&mut events).await, ["synced with fake: (2 domains)"]);
}

#[tokio::test(start_paused = true)]
async fn each_difference_is_delivered_and_nothing_else() {
    let fake = FakeHypervisor::new();
    for name in ["idle", "other", "paused", "restarted", "same"] {
        fake.define(name).unwrap();
        fake.start(name).unwrap();
    }
    fake.create("transient").unwrap();
    fake.stop("idle").unwrap();
    let known = snapshot(&fake).await;
    assert_eq!(resumed(&fake, &known).await, ["synced with fake: (6 domains)"]);

    fake.undefine("idle").unwrap();
    fake.suspend("paused").unwrap();
    fake.stop("restarted").unwrap();
    fake.start("restarted").unwrap();
    fake.stop("transient").unwrap();
    fake.create("new").unwrap();
    assert_eq!(
        resumed(&fake, &known).await,
        [
            "idle undefined [inferred]",
            "transient[6] stopped [inferred]",
            "new[8] started (booted) [inferred]",
            "paused[3] suspended (paused) [inferred]",
            "restarted[4] stopped [inferred]",
            "restarted[7] started (booted) [inferred]",
            "synced with fake: (5 domains)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_source_that_was_known_has_new_domains() {
    let fake = FakeHypervisor::new();
    let known = snapshot(&fake).await;
    fake.create("web").unwrap();
    assert_eq!(
        resumed(&fake, &known).await,
        ["web[1] started (booted) [inferred]", "synced with fake: (1 domain)"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_filter_applies_to_both_names_of_a_renamed_domain() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.define("db").unwrap();
    let known = snapshot(&fake).await;
    fake.rename("web", "www").unwrap();
    fake.start("db").unwrap();
    for (name, change) in [("web", "web undefined (renamed)"), ("www", "www defined (renamed)")] {
        let options = resume(&known).domain(name);
        let mut events = fake.subscribe_with(options).await.unwrap();
        let synced = "synced with fake: (2 domains)";
        assert_eq!(lines(&mut events).await, [format!("{change} [inferred]"), synced.into()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_resumes_in_an_outage_begins_after_it() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let known = snapshot(&fake).await;
    let mut other = fake.subscribe().await.unwrap();
    lines(&mut other).await;
    fake.go_down();
    lines(&mut other).await;
    let mut events = fake.subscribe_with(resume(&known)).await.unwrap();
    let [gap] = &lines(&mut events).await[..] else { panic!("one event") };
    assert!(gap.starts_with("disconnected from fake:"), "{gap}");
    fake.crash("web").unwrap();
    fake.restore();
    let stopped = "web[1] stopped (crashed) [inferred]".to_owned();
    let synced = "synced with fake: (1 domain)".to_owned();
    let mut later = lines(&mut events).await;
    while later.is_empty() {
        later = lines(&mut events).await;
    }
    assert_eq!(later, [stopped, synced]);
}

#[tokio::test(start_paused = true)]
async fn more_differences_than_the_capacity_are_no_lag() {
    let fake = FakeHypervisor::new();
    let known = snapshot(&fake).await;
    for n in 0..40 {
        fake.define(&format!("vm{n}")).unwrap();
        fake.start(&format!("vm{n}")).unwrap();
    }
    let mut events = fake.subscribe_with(resume(&known).capacity(4)).await.unwrap();
    assert_eq!(lines(&mut events).await.len(), 81);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_another_source_or_host_is_an_error() {
    let on = |host: &str, uri: &str| {
        let fake = FakeHypervisor::builder().host(host).uri(uri).build();
        fake.create("web").unwrap();
        fake
    };
    let known = snapshot(&on("berlin", "fake:a")).await;
    let message = async |source: &dyn EventSource| {
        let error = source.subscribe_with(resume(&known)).await.unwrap_err();
        assert!(matches!(error, Error::UnfitSnapshot { .. }) && error.is_refusal());
        error.to_string()
    };
    assert_eq!(
        message(&on("berlin", "fake:b")).await,
        "the snapshot does not fit fake:b: it knows fake:a; take one of this host, or begin without one"
    );
    assert_eq!(
        message(&on("paris", "fake:a")).await,
        "the snapshot does not fit fake:a: it is of the host berlin, and this is paris; \
         take one of this host, or begin without one"
    );
    let fleet = Fleet::new("fleet:all");
    fleet.add(Arc::new(on("berlin", "fake:b"))).unwrap();
    assert!(message(&fleet).await.starts_with("the snapshot does not fit fleet:all: it knows"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_began_in_an_outage_ends_if_it_does_not_fit() {
    let berlin = FakeHypervisor::builder().host("berlin").build();
    berlin.create("web").unwrap();
    let known = snapshot(&berlin).await;
    let paris = FakeHypervisor::builder().host("paris").build();
    paris.go_down();
    let mut events = paris.subscribe_with(resume(&known).wait(true)).await.unwrap();
    let _gap = events.next().await.unwrap();
    paris.restore();
    assert!(events.next().await.is_none());
    let Some(End::Failed(error)) = events.end() else { panic!("{:?}", events.end()) };
    assert!(error.to_string().contains("host berlin, and this is paris"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_source_before_its_first_sync_is_not_known() {
    let fake = FakeHypervisor::new();
    fake.create("db").unwrap();
    fake.create("web").unwrap();
    let mut events = fake.subscribe().await.unwrap();
    let store = DomainStore::new();
    store.apply(&events.next().await.unwrap());
    assert_eq!(store.snapshot().len(), 1);
    let known = store.snapshot();
    let error = fake.subscribe_with(resume(&known)).await.unwrap_err();
    assert!(error.to_string().contains("it knows no source"), "{error}");
    assert!(DomainStore::resumed(known).snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_first_read_shows_what_exists() {
    let fake = FakeHypervisor::new();
    fake.create("gone").unwrap();
    let known = snapshot(&fake).await;
    fake.stop("gone").unwrap();
    let options = resume(&known).capacity(1).slack(1);
    let store = DomainStore::resumed(known);
    let mut events = fake.subscribe_with(options).await.unwrap();
    for n in 0..20 {
        fake.create(&format!("vm{n}")).unwrap();
    }
    while !store.snapshot().is_certain() || store.snapshot().len() < 20 {
        store.apply(&events.next().await.unwrap());
    }
    check_store(&store, &fake.domains()).unwrap();
}

/// Does something to a domain; what is impossible changes nothing.
fn act(fake: &FakeHypervisor, random: &mut Rng) {
    let name = format!("vm{}", random.u8(0..6));
    let _ = match random.u8(0..12) {
        0 => fake.define(&name),
        1 => fake.create(&name),
        2 | 3 => fake.start(&name),
        4 => fake.suspend(&name),
        5 => fake.resume(&name),
        6 => fake.crash(&name),
        7 => fake.stop(&name),
        8 => fake.undefine(&name),
        9 => fake.rename(&name, &format!("vm{}", random.u8(0..6))),
        10 => fake.pm_suspend(&name),
        _ => fake.wake_up(&name),
    };
}

#[tokio::test(start_paused = true)]
async fn a_resumed_store_equals_the_list_after_any_history() {
    for seed in 0..400 {
        let mut random = Rng::with_seed(seed);
        let fake = Builder::default().build();
        (0..random.u8(0..20)).for_each(|_| act(&fake, &mut random));
        let known = snapshot(&fake).await;
        let runs = |now: &Snapshot| now.active().map(|one| one.domain.clone()).collect::<Vec<_>>();
        (0..random.u8(0..20)).for_each(|_| act(&fake, &mut random));

        let store = DomainStore::resumed(known.clone());
        assert!(store.snapshot().iter().all(|one| !one.certain), "seed {seed}");
        let mut events = fake.subscribe_with(resume(&known)).await.unwrap();
        let mut ended = Vec::new();
        let mut began = Vec::new();
        while !store.snapshot().is_certain() {
            for transition in store.apply(&events.next().await.unwrap()) {
                if transition.ended_run().is_some() {
                    ended.push(transition.before.as_ref().unwrap().domain.clone());
                }
                if transition.began_run() {
                    began.push(transition.domain().clone());
                }
            }
        }
        check_store(&store, &fake.domains()).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        // Each run that the snapshot has and the list has not ended, once; and so for those that began.
        let now = store.snapshot();
        let is_in = |runs: &[virevent::Domain], run: &virevent::Domain| {
            runs.iter().any(|one| one.is_same(run) && one.id() == run.id())
        };
        let gone: Vec<_> = runs(&known).into_iter().filter(|r| !is_in(&runs(&now), r)).collect();
        let new: Vec<_> = runs(&now).into_iter().filter(|r| !is_in(&runs(&known), r)).collect();
        assert_eq!(ended.len(), gone.len(), "seed {seed}");
        assert!(gone.iter().all(|run| is_in(&ended, run)), "seed {seed}");
        assert_eq!(began.len(), new.len(), "seed {seed}");
        assert!(new.iter().all(|run| is_in(&began, run)), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_with_options_resumes_in_the_background() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let known = snapshot(&fake).await;
    fake.suspend("web").unwrap();
    let store = fake.store_with(resume(&known)).await.unwrap();
    let now = store.wait_for(Snapshot::is_certain).await.unwrap();
    assert!(matches!(now.get("web").unwrap().state, State::Paused(_)));
}

#[tokio::test(start_paused = true)]
async fn a_store_has_what_exists_whatever_its_options() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let store = fake.store_with(Options::default().existing(false)).await.unwrap();
    let known = store.wait_for(Snapshot::is_certain).await.unwrap();
    let lines = resumed(&fake, &known).await;
    assert_eq!(lines, ["synced with fake: (1 domain)"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_resumed_from_nothing_is_not_certain() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let mut known = snapshot(&fake).await;
    known.retain(|_| false);
    assert!(!DomainStore::resumed(known).snapshot().is_certain());
}
