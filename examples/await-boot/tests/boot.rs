//! Starts on a fake hypervisor, on tokio's paused time.

#![allow(clippy::unwrap_used)]

use std::future::{pending, ready};
use std::time::Duration;

use await_boot::{Failure, boot};
use tokio::time::{Instant, sleep};
use virevent::{Error, StopCause};
use virevent_testkit::FakeHypervisor;

const LIMIT: Duration = Duration::from_secs(30);

/// A hypervisor with the inactive domain "web".
fn fake() -> FakeHypervisor {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake
}

/// The exit status and the line.
fn told(failure: &Failure) -> (i32, String) {
    (failure.status(), failure.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_the_command_starts_is_returned() {
    let fake = fake();
    let start = async {
        fake.start("web").unwrap();
        Ok(())
    };
    let (domain, state) = boot(&fake, "web", LIMIT, start).await.unwrap();
    assert_eq!(domain, fake.domain("web").unwrap());
    assert!(state.is_running());
}

#[tokio::test(start_paused = true)]
async fn a_start_long_after_the_command_is_awaited() {
    let fake = fake();
    let late = fake.clone();
    tokio::spawn(async move {
        sleep(LIMIT / 2).await;
        late.start("web").unwrap();
    });
    let (domain, _) = boot(&fake, "web", LIMIT, ready(Ok(()))).await.unwrap();
    assert!(domain.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_runs_already_needs_no_command() {
    let fake = fake();
    fake.start("web").unwrap();
    let start = async { unreachable!("the command is run") };
    boot(&fake, "web", LIMIT, start).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_ends_the_wait_at_once() {
    let since = Instant::now();
    let failure = boot(&fake(), "web", LIMIT, ready(Err("exit status: 1".into()))).await;
    assert_eq!(told(&failure.unwrap_err()), (3, "the command failed: exit status: 1".into()));
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_in_its_start_is_told_with_its_cause() {
    let fake = fake();
    let start = async {
        fake.start("web").unwrap();
        fake.stop_as("web", StopCause::Failed).unwrap();
        pending().await
    };
    let since = Instant::now();
    let failure = boot(&fake, "web", LIMIT, start).await.unwrap_err();
    assert_eq!(told(&failure), (4, "web[1] is not running: stopped (failed)".into()));
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_while_the_command_runs_is_told() {
    let fake = fake();
    fake.undefine("web").unwrap();
    // As one that waits for the guest's ssh. Of a transient domain nothing is left.
    let start = async {
        fake.create("web").unwrap();
        sleep(LIMIT / 2).await;
        fake.stop_as("web", StopCause::Crashed).unwrap();
        pending().await
    };
    let failure = boot(&fake, "web", LIMIT, start).await.unwrap_err();
    let line = "web[1] has stopped (crashed), while the command still ran";
    assert_eq!(told(&failure), (4, line.into()));
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_does_not_start_fails_at_the_deadline() {
    let since = Instant::now();
    let failure = boot(&fake(), "web", LIMIT, ready(Ok(()))).await.unwrap_err();
    let line = "web is not running at the deadline of 30s: it is shutoff";
    assert_eq!(told(&failure), (5, line.into()));
    assert!(since.elapsed() < LIMIT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_fails_at_the_deadline() {
    let fake = fake();
    let failure = boot(&fake, "web", LIMIT, pending()).await.unwrap_err();
    assert_eq!(told(&failure), (5, "the command has not ended after 30s".into()));
    let start = async {
        fake.start("web").unwrap();
        pending().await
    };
    let failure = boot(&fake, "web", LIMIT, start).await.unwrap_err();
    assert_eq!(told(&failure), (5, "the command has not ended after 30s".into()));
}

#[tokio::test(start_paused = true)]
async fn a_start_in_a_short_outage_is_returned_after_it() {
    let fake = fake();
    let start = async {
        fake.go_down();
        fake.start("web").unwrap();
        sleep(LIMIT / 4).await;
        fake.restore();
        Ok(())
    };
    boot(&fake, "web", LIMIT, start).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_at_the_deadline_leaves_the_outcome_open() {
    let fake = fake();
    let start = async {
        fake.go_down();
        fake.start("web").unwrap();
        Ok(())
    };
    let failure = boot(&fake, "web", LIMIT, start).await.unwrap_err();
    assert_eq!(failure.status(), 1);
    let line = failure.to_string();
    assert!(line.starts_with("web is not known to be running at the deadline of 30s: "), "{line}");
    assert!(line.contains("it was shutoff before"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_hypervisor_that_refuses_or_is_down_runs_no_command() {
    let fake = fake();
    fake.refuse(Error::authentication("log in"));
    let start = || async { unreachable!("the command is run") };
    let failure = boot(&fake, "web", LIMIT, start()).await.unwrap_err();
    assert_eq!(told(&failure), (1, "the server requires authentication: log in".into()));
    fake.accept();
    fake.go_down();
    let failure = boot(&fake, "web", LIMIT, start()).await.unwrap_err();
    assert!(matches!(failure, Failure::Source(_)), "{failure}");
}
