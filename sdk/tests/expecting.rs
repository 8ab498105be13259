//! Tests of `Expectation::until`, and of an expectation that is not read for long.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use virevent::driver::{Batch, Driver, Listed};
use virevent::{
    Change, Domain, Error, EventSource, EventSourceExt, Fleet, Lifecycle, RunningReason, Selector,
    StartCause, State, StopCause, SuspendCause, UndefineCause, Uuid, WaitError,
};
use virevent_testkit::FakeHypervisor;

use self::common::{Hypervisor, Peer};

const MINUTE: Duration = Duration::from_secs(60);

type Wait = JoinHandle<Result<(Domain, State), WaitError>>;

/// Starts a wait for `domain` to be paused.
async fn waiting<S: EventSource>(source: &S, domain: impl Into<Selector> + Send) -> Wait {
    let mut expectation = source.expect(domain).await.unwrap();
    let wait = tokio::spawn(async move { expectation.until(State::is_paused, MINUTE).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    wait
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_transient_domain_ends_a_wait() {
    let fake = FakeHypervisor::new();
    fake.create("brief").unwrap();
    let wait = waiting(&fake, "brief").await;
    fake.stop("brief").unwrap();
    let error = wait.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "brief[1] is not in the awaited state: stopped (destroyed)");
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_persistent_domain_ends_no_wait() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let wait = waiting(&fake, "web").await;
    fake.stop("web").unwrap();
    fake.start("web").unwrap();
    fake.suspend("web").unwrap();
    assert_eq!(wait.await.unwrap().unwrap().0.id(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_rename_ends_no_wait_by_uuid() {
    let fake = FakeHypervisor::new();
    let uuid = fake.define("web").unwrap().uuid();
    let wait = waiting(&fake, uuid).await;
    fake.rename("web", "db").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.start("db").unwrap();
    fake.suspend("db").unwrap();
    assert_eq!(wait.await.unwrap().unwrap().0.name(), "db");
}

#[tokio::test(start_paused = true)]
async fn an_undefinition_ends_a_wait_only_while_inactive() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let wait = waiting(&fake, "web").await;
    fake.undefine("web").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.suspend("web").unwrap();
    assert!(wait.await.unwrap().is_ok());

    fake.define("db").unwrap();
    let wait = waiting(&fake, "db").await;
    fake.undefine("db").unwrap();
    assert!(matches!(wait.await.unwrap(), Err(WaitError::Gone { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_recreated_is_waited_for() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let wait = waiting(&fake, "web").await;
    // libvirt stops and starts a domain that it re-creates under the same uuid: the wait is for the
    // next run.
    fake.stop_as("web", StopCause::Recreated).unwrap();
    fake.create("web").unwrap();
    fake.suspend("web").unwrap();
    assert_eq!(wait.await.unwrap().unwrap().0.id(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_unread_expectation_has_the_end_of_the_last_run() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let mut web = fake.expect("web").await.unwrap();
    for _ in 0..2_000 {
        fake.stop("web").unwrap();
        fake.start("web").unwrap();
    }
    fake.crash("web").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Each wait goes on to the end of a run that the mailbox kept; the last one is the crash.
    let mut ends = 1;
    while web.stopped(MINUTE).await.unwrap().1 != StopCause::Crashed {
        ends += 1;
    }
    assert!(ends < 1024, "{ends}");
    assert_eq!(web.stopped(MINUTE).await.unwrap().1, StopCause::Crashed);
}

/// A hypervisor with one running domain, `web`, that does not report whether it is persistent.
#[derive(Clone, Debug, Default)]
struct WithoutPersistence(Arc<Mutex<Vec<Change>>>);

impl WithoutPersistence {
    fn source(&self) -> Driver {
        Driver::builder(Hypervisor(self.clone())).build()
    }

    /// Sends these changes in one batch.
    async fn send(&self, changes: &[Change]) {
        self.0.lock().unwrap().extend(changes);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Peer for WithoutPersistence {
    const URI: &'static str = "no-persistence:";

    fn list(&self, out: &mut Batch) -> Vec<Listed> {
        let web = out.domain(Uuid::from_u128(1), "web", Some(1));
        vec![Listed::new(web, State::Running(RunningReason::Booted), None)]
    }

    async fn read(&mut self, out: &mut Batch) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let at = out.received();
        for change in self.0.lock().unwrap().drain(..) {
            let id = (!matches!(change, Change::Undefined(_))).then_some(1);
            let web = out.domain(Uuid::from_u128(1), "web", id);
            out.event(Lifecycle::new(web, change, at));
        }
    }
}

const STOPPED: Change = Change::Stopped(StopCause::Shutdown);

#[tokio::test(start_paused = true)]
async fn a_stop_without_persistence_ends_no_wait_for_a_domain() {
    let hypervisor = WithoutPersistence::default();
    let wait = waiting(&hypervisor.source(), "web").await;
    hypervisor.send(&[STOPPED]).await;
    assert!(!wait.is_finished());
    let paused = Change::Suspended(SuspendCause::Paused);
    hypervisor.send(&[Change::Started(StartCause::Booted), paused]).await;
    assert!(wait.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_persistence_and_its_removal_end_a_wait() {
    let hypervisor = WithoutPersistence::default();
    let wait = waiting(&hypervisor.source(), "web").await;
    hypervisor.send(&[STOPPED, Change::Undefined(UndefineCause::Removed)]).await;
    assert!(matches!(wait.await.unwrap(), Err(WaitError::Gone { .. })));
}

/// A fleet of two hosts.
fn two_hosts() -> (Fleet, FakeHypervisor, FakeHypervisor) {
    let fleet = Fleet::new("fleet:all");
    let [a, b] = ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
    fleet.add(Arc::new(a.clone())).unwrap();
    fleet.add(Arc::new(b.clone())).unwrap();
    (fleet, a, b)
}

#[tokio::test(start_paused = true)]
async fn an_inactive_leftover_does_not_hide_the_domain_that_runs() {
    let (fleet, a, b) = two_hosts();
    a.define("web").unwrap();
    b.create("web").unwrap();
    let mut web = fleet.expect("web").await.unwrap();
    assert_eq!(web.running(MINUTE).await.unwrap().0.source(), "fake:b");
    b.stop("web").unwrap();
    assert_eq!(web.stopped(MINUTE).await.unwrap().0.source(), "fake:b");
}

#[tokio::test(start_paused = true)]
async fn a_domain_of_another_host_replaces_one_that_is_gone() {
    let (fleet, a, b) = two_hosts();
    a.create("web").unwrap();
    let mut web = fleet.expect("web").await.unwrap();
    web.running(MINUTE).await.unwrap();
    b.create("web").unwrap();
    b.suspend("web").unwrap();
    a.stop("web").unwrap();
    web.stopped(MINUTE).await.unwrap();
    b.resume("web").unwrap();
    assert_eq!(web.running(MINUTE).await.unwrap().0.source(), "fake:b");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_names_the_outage_of_the_domains_own_host() {
    let (fleet, a, b) = two_hosts();
    b.create("web").unwrap();
    let mut web = fleet.expect("web").await.unwrap();
    web.running(MINUTE).await.unwrap();
    for fake in [&a, &b] {
        fake.go_down();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let error = web.until(State::is_paused, MINUTE).await.unwrap_err().to_string();
    assert!(error.contains("disconnected from fake:b"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_synced_is_no_host_without_the_domain() {
    let (fleet, a, _b) = two_hosts();
    a.create("web").unwrap();
    a.hang_lists();
    let mut web = fleet.expect("web").await.unwrap();
    let error = web.running(Duration::from_secs(5)).await.unwrap_err().to_string();
    let expected = "web is not known to be running at the deadline of 5s: ";
    assert!(error.starts_with(expected) && error.ends_with("is not synced yet"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_rejoins_shows_the_end_of_the_former_run() {
    let (fleet, a, _b) = two_hosts();
    a.define("web").unwrap();
    a.start("web").unwrap();
    let mut web = fleet.expect("web").await.unwrap();
    let (first, _) = web.running(MINUTE).await.unwrap();
    a.refuse(Error::authentication("log in"));
    a.lose_connection();
    tokio::time::sleep(2 * MINUTE).await;
    a.stop("web").unwrap();
    a.start("web").unwrap();
    a.accept();
    assert_eq!(web.stopped(10 * MINUTE).await.unwrap().0, first);
    assert_eq!(web.running(MINUTE).await.unwrap().0.id(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_another_wait_returned_is_stopped() {
    let fake = FakeHypervisor::new();
    fake.create("brief").unwrap();
    let mut brief = fake.expect("brief").await.unwrap();
    brief.running(MINUTE).await.unwrap();
    fake.stop_as("brief", StopCause::Crashed).unwrap();
    let error = brief.until(State::is_paused, MINUTE).await.unwrap_err();
    assert!(matches!(error, WaitError::Stopped { .. }), "{error:?}");
    let (run, cause) = brief.stopped(Duration::MAX).await.unwrap();
    assert_eq!(run.id(), Some(1));
    assert_eq!(cause, StopCause::Crashed);
}

#[tokio::test(start_paused = true)]
async fn a_rename_in_an_outage_ends_stopped_by_name() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    let mut web = fake.expect("web").await.unwrap();
    fake.go_down();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.rename("web", "db").unwrap();
    let restore = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        fake.restore();
    };
    let (outcome, ()) = tokio::join!(web.stopped(Duration::MAX), restore);
    assert!(matches!(outcome, Err(WaitError::Renamed { .. })), "{outcome:?}");
}
