//! Guarantees of `expect` and `domains`.

use virevent::{End, EventSource, EventSourceExt, Fleet, State, StopCause, WaitError};
use virevent_testkit::FakeHypervisor;

use crate::{ms, secs, synced};

/// A fake with an inactive domain, `web`, and an expectation of it.
async fn expecting() -> (FakeHypervisor, virevent::Expectation) {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    let web = fake.expect("web").await.unwrap();
    (fake, web)
}

#[tokio::test(start_paused = true)]
async fn running_ends_at_once_if_the_domain_runs_already() {
    let (fake, _events) = synced().await;
    let mut web = fake.expect("web").await.unwrap();
    let (domain, state) = web.running(secs(0)).await.unwrap();
    assert_eq!(format!("{domain} {state}"), "web[1] running (booted)");
}

#[tokio::test(start_paused = true)]
async fn what_happens_before_the_wait_is_awaited_in_order() {
    let (fake, mut web) = expecting().await;
    fake.start("web").unwrap();
    let (run, _) = web.running(secs(30)).await.unwrap();
    fake.crash("web").unwrap();
    fake.start("web").unwrap();
    let (ended, cause) = web.stopped(secs(30)).await.unwrap();
    assert_eq!(ended, run);
    assert_eq!(cause, StopCause::Crashed);
    assert_eq!(web.running(secs(30)).await.unwrap().0.id(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn running_fails_as_soon_as_the_run_ends() {
    let (fake, mut web) = expecting().await;
    let began = tokio::time::Instant::now();
    fake.start("web").unwrap();
    fake.stop_as("web", StopCause::Failed).unwrap();
    let error = web.running(secs(30)).await.unwrap_err();
    assert!(matches!(&error, WaitError::Stopped { cause: StopCause::Failed, .. }), "{error:?}");
    assert_eq!(error.to_string(), "web[1] is not running: stopped (failed)");
    assert!(began.elapsed() < secs(1));
}

#[tokio::test(start_paused = true)]
async fn running_fails_as_soon_as_the_guest_crashes() {
    let (fake, mut web) = expecting().await;
    fake.start("web").unwrap();
    fake.crash("web").unwrap();
    let error = web.running(secs(30)).await.unwrap_err();
    assert!(matches!(error, WaitError::Crashed { .. }), "{error:?}");
    assert_eq!(error.to_string(), "web[1] is not running: crashed (panicked)");
    let (_, cause) = web.stopped(secs(30)).await.unwrap();
    assert_eq!(cause, StopCause::Crashed);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_an_event_ends_at_the_deadline() {
    let (_fake, mut web) = expecting().await;
    let error = web.running(secs(30)).await.unwrap_err();
    let WaitError::Deadline { after, state, outage, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*after, secs(30));
    assert!(state.unwrap().is_shutoff() && outage.is_none(), "{error:?}");
    assert_eq!(error.to_string(), "web is not running at the deadline of 30s: it is shutoff");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_does_not_exist_yet_is_awaited() {
    let fake = FakeHypervisor::new();
    let mut web = fake.expect("web").await.unwrap();
    let error = web.running(secs(5)).await.unwrap_err().to_string();
    assert_eq!(error, "web is not running at the deadline of 5s: it does not exist");
    let other = fake.clone();
    tokio::spawn(async move {
        tokio::time::sleep(secs(5)).await;
        other.define("web").unwrap();
        tokio::time::sleep(secs(5)).await;
        other.start("web").unwrap();
    });
    assert!(web.running(secs(60)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_start_in_pause_runs_once_it_is_resumed() {
    let (fake, mut web) = expecting().await;
    fake.start("web").unwrap();
    fake.suspend("web").unwrap();
    let error = web.running(secs(5)).await.unwrap_err().to_string();
    assert_eq!(error, "web is not running at the deadline of 5s: it is paused (user)");
    fake.resume("web").unwrap();
    assert!(web.running(secs(5)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_pause_in_the_read_after_the_start_is_a_start_in_pause() {
    let (fake, mut web) = expecting().await;
    fake.start("web").unwrap();
    let wait = tokio::spawn(async move { web.running(secs(60)).await });
    tokio::time::sleep(ms(20)).await;
    fake.suspend("web").unwrap();
    tokio::time::sleep(secs(1)).await;
    assert!(!wait.is_finished());
    fake.resume("web").unwrap();
    assert!(wait.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_incoming_migration_runs_once_it_is_resumed() {
    let (fake, mut web) = expecting().await;
    fake.start_as("web", virevent::StartCause::Migrated).unwrap();
    let error = web.running(secs(5)).await.unwrap_err().to_string();
    assert_eq!(error, "web is not running at the deadline of 5s: it is paused (migration)");
    fake.resume("web").unwrap();
    assert!(web.running(secs(5)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_start_in_an_outage_counts_after_the_reconnect() {
    let (fake, mut web) = expecting().await;
    fake.go_down();
    fake.start("web").unwrap();
    let error = web.running(secs(5)).await.unwrap_err();
    assert!(matches!(&error, WaitError::Deadline { outage: Some(_), .. }), "{error:?}");
    let line = error.to_string();
    let begin = "web is not known to be running at the deadline of 5s: disconnected from fake: (";
    assert!(line.starts_with(begin) && line.ends_with("; it was shutoff before"), "{line}");
    fake.restore();
    assert_eq!(web.running(secs(60)).await.unwrap().0.id(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_was_known_before_an_outage_ends_no_wait_in_it() {
    let (fake, mut events) = synced().await;
    let mut web = fake.expect("web").await.unwrap();
    fake.go_down();
    crate::delivered(&mut events, &["disconnected from *"]).await;
    let error = web.running(secs(5)).await.unwrap_err();
    assert!(matches!(error, WaitError::Deadline { outage: Some(_), .. }), "{error:?}");
    fake.stop("web").unwrap();
    fake.restore();
    let error = web.running(secs(60)).await.unwrap_err();
    assert!(matches!(error, WaitError::Stopped { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn stopped_returns_the_cause_of_an_end_in_an_outage() {
    let (fake, _events) = synced().await;
    let mut web = fake.expect("web").await.unwrap();
    fake.go_down();
    fake.stop("web").unwrap();
    fake.restore();
    let (domain, cause) = web.stopped(secs(60)).await.unwrap();
    assert_eq!(domain.id(), Some(1));
    assert_eq!(cause, StopCause::Destroyed);
}

#[tokio::test(start_paused = true)]
async fn stopped_ends_at_once_if_the_domain_is_inactive() {
    let (fake, mut web) = expecting().await;
    assert_eq!(web.stopped(secs(0)).await.unwrap().0.id(), None);
    fake.start("web").unwrap();
    web.running(secs(1)).await.unwrap();
    let error = web.stopped(secs(7)).await.unwrap_err().to_string();
    assert_eq!(error, "web is not stopped at the deadline of 7s: it is running (booted)");
}

#[tokio::test(start_paused = true)]
async fn stopped_returns_the_end_of_a_transient_domain() {
    let fake = FakeHypervisor::new();
    let mut brief = fake.expect("brief").await.unwrap();
    fake.create("brief").unwrap();
    let (run, _) = brief.running(secs(1)).await.unwrap();
    fake.shut_down("brief").unwrap();
    let (ended, cause) = brief.stopped(secs(1)).await.unwrap();
    assert_eq!(ended, run);
    assert_eq!(cause, StopCause::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_undefined_is_gone() {
    let (fake, mut web) = expecting().await;
    fake.undefine("web").unwrap();
    let error = web.running(secs(30)).await.unwrap_err();
    assert!(matches!(error, WaitError::Gone { .. }), "{error:?}");
    assert_eq!(error.to_string(), "web is not running: it was undefined");
    // Another domain of that name.
    fake.create("web").unwrap();
    assert!(web.running(secs(30)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_renamed_domain_is_gone_by_name_and_awaited_by_uuid() {
    let (fake, mut web) = expecting().await;
    let uuid = fake.domain("web").unwrap().uuid();
    let mut same = fake.expect(uuid).await.unwrap();
    fake.rename("web", "db").unwrap();
    let error = web.running(secs(30)).await.unwrap_err();
    assert!(matches!(error, WaitError::Renamed { .. }), "{error:?}");
    assert_eq!(error.to_string(), "web is not running: it was renamed");
    fake.start("db").unwrap();
    assert_eq!(same.running(secs(30)).await.unwrap().0.name(), "db");
    // That domain is called otherwise now: the one that is called so does not exist.
    let error = web.running(secs(5)).await.unwrap_err().to_string();
    assert!(error.ends_with("it does not exist"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_the_source_ends_a_wait() {
    let (fake, mut web) = expecting().await;
    let wait = tokio::spawn(async move { web.running(std::time::Duration::MAX).await });
    tokio::time::sleep(secs(1)).await;
    fake.shutdown().await;
    let error = wait.await.unwrap().unwrap_err();
    assert!(matches!(error, WaitError::Ended { end: End::Shutdown, .. }), "{error:?}");
    assert_eq!(error.to_string(), "web is not known to be running: the source was shut down");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_ends_the_source_is_the_error_of_a_wait() {
    let (fake, mut web) = expecting().await;
    fake.refuse(virevent::Error::authentication("log in"));
    fake.lose_connection();
    let error = web.running(secs(600)).await.unwrap_err();
    assert!(matches!(error, WaitError::Failed { .. }), "{error:?}");
    let line = "web is not known to be running: the source failed for good: \
                the server requires authentication: log in";
    assert_eq!(error.to_line(), line);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_loses_nothing() {
    let (fake, mut web) = expecting().await;
    fake.start("web").unwrap();
    for _ in 0..20 {
        let _ = tokio::time::timeout(ms(1), web.running(secs(30))).await;
    }
    fake.suspend("web").unwrap();
    let _ = tokio::time::timeout(ms(1), web.stopped(secs(30))).await;
    let (domain, state) = web.until(State::is_paused, secs(0)).await.unwrap();
    assert_eq!(format!("{domain} {state}"), "web[1] paused (user)");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_another_member_delays_no_wait() {
    let fleet = Fleet::new("fleet:");
    let here = FakeHypervisor::builder().uri("fake:here").build();
    let there = FakeHypervisor::builder().uri("fake:there").build();
    for fake in [&here, &there] {
        fleet.add(std::sync::Arc::new(fake.clone())).unwrap();
    }
    here.create("web").unwrap();
    let mut web = fleet.expect("web").await.unwrap();
    assert!(web.running(secs(5)).await.is_ok());
    there.go_down();
    tokio::time::sleep(secs(1)).await;
    here.suspend("web").unwrap();
    assert!(web.until(State::is_paused, secs(5)).await.is_ok());
    fleet.remove("fake:here");
    let error = web.running(secs(5)).await.unwrap_err().to_string();
    assert_eq!(error, "web[1] is not known to be running: fake:here was removed from its fleet");
}

#[tokio::test(start_paused = true)]
async fn domains_lists_every_domain_and_its_state() {
    let fake = FakeHypervisor::new();
    fake.define("db").unwrap();
    fake.create("web").unwrap();
    let domains = EventSourceExt::domains(&fake).await.unwrap();
    let lines: Vec<_> = domains.iter().map(|(domain, state)| format!("{domain} {state}")).collect();
    assert_eq!(lines, ["db shutoff", "web[1] running (booted)"]);
}
