//! The service against a fake hypervisor, on tokio's paused time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crash_hook::{Cause, serve};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use virevent::{EventSource, EventSourceExt, StopCause, merge};
use virevent_testkit::FakeHypervisor;

struct Service {
    hooks: mpsc::UnboundedReceiver<(String, Cause)>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), virevent::Error>>,
}

impl Service {
    async fn of(fakes: &[&FakeHypervisor]) -> Self {
        let (sender, hooks) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let mut events = merge([]);
        for fake in fakes {
            events.push(fake.subscribe().await.unwrap());
        }
        let hook = move |domain: virevent::Domain, cause| {
            let sender = sender.clone();
            async move { sender.send((domain.name().to_owned(), cause)).unwrap() }
        };
        let shutdown = async { drop(stopped.await) };
        Self { hooks, stop, task: tokio::spawn(serve(events, hook, shutdown)) }
    }

    /// The hooks that ran in the last minute.
    async fn ran(&mut self) -> Vec<(String, Cause)> {
        sleep(Duration::from_secs(60)).await;
        std::iter::from_fn(|| self.hooks.try_recv().ok()).collect()
    }
}

fn crashed(name: &str) -> (String, Cause) {
    (name.into(), Cause::Crashed)
}

#[tokio::test(start_paused = true)]
async fn a_crash_and_a_failure_run_the_hook_and_other_ends_do_not() {
    let fake = FakeHypervisor::new();
    let mut service = Service::of(&[&fake]).await;
    for (name, cause) in [
        ("shutdown", StopCause::Shutdown),
        ("destroyed", StopCause::Destroyed),
        ("migrated", StopCause::Migrated),
        ("saved", StopCause::Saved),
        ("crashed", StopCause::Crashed),
        ("failed", StopCause::Failed),
    ] {
        fake.create(name).unwrap();
        fake.stop_as(name, cause).unwrap();
    }
    assert_eq!(service.ran().await, [crashed("crashed"), ("failed".into(), Cause::Failed)]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_an_outage_runs_the_hook_after_it() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    fake.start("web").unwrap();
    let mut service = Service::of(&[&fake]).await;
    fake.go_down();
    fake.stop_as("web", StopCause::Crashed).unwrap();
    assert_eq!(service.ran().await, []);
    fake.restore();
    assert_eq!(service.ran().await, [crashed("web")]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_one_source_leaves_the_others() {
    let [a, b] = ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
    b.create("web").unwrap();
    let mut service = Service::of(&[&a, &b]).await;
    a.shutdown().await;
    b.stop_as("web", StopCause::Crashed).unwrap();
    assert_eq!(service.ran().await, [crashed("web")]);
    service.stop.send(()).unwrap();
    service.task.await.unwrap().unwrap();
}
