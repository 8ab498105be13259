//! What is expected of a start, as libvirt's QEMU driver reports one.

use virevent::{
    Change, CrashCause, DefineCause, EventSourceExt, Expectation, ResumeCause, UndefineCause,
    WaitError,
};

use super::verification::with_looks;
use super::*;

const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);
const OFF: State = State::Shutoff(ShutoffReason::Shutdown);
const FAILED: State = State::Shutoff(ShutoffReason::Failed);

fn off(state: State) -> Listed {
    Listed::new(web(None), state, Some(true))
}

/// A server with an inactive domain, `web`, and an expectation of it.
async fn expecting() -> (ScriptedServer, virevent::EventStream, Expectation) {
    let (server, source, events) = with_looks(&[off(OFF)]).await;
    let web = source.expect("web").await.unwrap();
    (server, events, web)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_resumed_runs_once_it_is_started() {
    let (server, _events, mut web) = expecting().await;
    server.event(Some(4), RESUMED);
    let error = web.running(secs(1)).await.unwrap_err();
    assert!(matches!(error, WaitError::Deadline { .. }), "{error:?}");
    server.event(Some(4), STARTED);
    // The start needs no time to prove that it is none in pause: the run was resumed.
    let began = tokio::time::Instant::now();
    assert_eq!(web.running(secs(1)).await.unwrap().0.id(), Some(4));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_silently_after_resumed_is_no_run() {
    let (server, _events, mut web) = expecting().await;
    server.event(Some(4), RESUMED);
    let looks = async {
        server.look(Some(off(FAILED))).await;
        server.look(Some(off(FAILED))).await;
    };
    let (outcome, ()) = tokio::join!(web.running(secs(30)), looks);
    let error = outcome.unwrap_err();
    assert!(matches!(error, WaitError::Stopped { cause: StopCause::Failed, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_observed_start_counts_in_an_outage_without_a_list() {
    let (server, mut events, mut web) = expecting().await;
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    server.list_requested().await;
    // The list is late: held events are delivered after its deadline, inside the gap.
    server.event(Some(4), RESUMED);
    server.event(Some(4), STARTED);
    assert_eq!(web.running(secs(30)).await.unwrap().0.id(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_definition_in_an_outage_says_nothing_of_the_run() {
    let transient = Listed::new(web(Some(3)), RUNNING, Some(false));
    let (server, source, mut events) = with_looks(&[transient]).await;
    let mut web = source.expect("web").await.unwrap();
    server.disconnect();
    delivered(&mut events, &["disconnected from *"]).await;
    server.list_requested().await;
    for run in [3, 4] {
        server.event(Some(run), Change::Defined(DefineCause::Added));
        let error = web.running(secs(30)).await.unwrap_err();
        assert!(matches!(error, WaitError::Deadline { outage: Some(_), .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_start_under_way_says_so() {
    let (server, _events, mut web) = expecting().await;
    server.event(Some(4), RESUMED);
    assert_eq!(
        web.running(secs(1)).await.unwrap_err().to_string(),
        "web is not running at the deadline of 1s: \
         it is running (unpaused), its start not complete"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rename_of_a_running_domain_ends_stopped_by_name() {
    let (server, source, _events) = with_looks(&[running(3)]).await;
    let mut web = source.expect("web").await.unwrap();
    server.event(Some(3), Change::Undefined(UndefineCause::Renamed));
    // A subscriber that selects the former name does not get its end.
    let error = web.stopped(Duration::MAX).await.unwrap_err();
    assert!(matches!(error, WaitError::Renamed { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_running_domain_renamed_into_the_name_runs() {
    let old = Domain::new("scripted:", "h", Uuid::from_u128(1), "Domain-3", Some(3));
    let listed = Listed::new(old.clone(), RUNNING, Some(false));
    let (server, source, _events) = with_looks(&[listed]).await;
    let mut named = source.subscribe_with(Options::default().domain("web")).await.unwrap();
    until_synced(&mut named).await.unwrap();
    let mut web = source.expect("web").await.unwrap();
    server.send(move |batch| {
        let at = SystemTime::UNIX_EPOCH;
        batch.event(Lifecycle::new(old, Change::Undefined(UndefineCause::Renamed), at));
        batch.event(Lifecycle::new(super::web(Some(3)), Change::Defined(DefineCause::Renamed), at));
    });
    delivered(&mut named, &["web[3] defined (renamed)", "web[3] existing (running *"]).await;
    assert_eq!(web.running(secs(5)).await.unwrap().0.id(), Some(3));
    server.event(Some(3), STOPPED);
    assert_eq!(web.stopped(secs(5)).await.unwrap().0.id(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_start_at_the_deadline_is_known_to_be_none_in_pause() {
    for (next, runs) in [(None, true), (Some(SUSPENDED), false)] {
        let (server, _events, mut web) = expecting().await;
        server.event(Some(4), STARTED);
        let later = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            next.into_iter().for_each(|next| server.event(Some(4), next));
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (outcome, ()) = tokio::join!(web.running(Duration::ZERO), later);
        assert_eq!(outcome.is_ok(), runs, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_under_another_id_is_the_same_run() {
    let (server, source, _events) = with_looks(&[running(3)]).await;
    let mut web = source.expect("web").await.unwrap();
    server.send(|batch| batch.event(Reboot::new(super::web(Some(9)), SystemTime::UNIX_EPOCH)));
    server.event(Some(9), SUSPENDED);
    let error = web.stopped(secs(5)).await.unwrap_err();
    assert!(matches!(error, WaitError::Deadline { .. }), "{error:?}");
    server.event(Some(9), STOPPED);
    assert_eq!(web.stopped(secs(5)).await.unwrap().0.id(), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_crash_kernel_is_no_crash_for_running() {
    let (server, _events, mut web) = expecting().await;
    server.event(Some(4), RESUMED);
    server.event(Some(4), STARTED);
    server.event(Some(4), Change::Crashed(CrashCause::Crashloaded));
    assert!(!matches!(web.running(secs(1)).await, Err(WaitError::Crashed { .. })));
}
