//! What is expected of a start, as libvirt's QEMU driver reports one.

use virevent::{Change, EventSourceExt, Expectation, ResumeCause, WaitError};

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
