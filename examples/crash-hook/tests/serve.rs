//! The service against a fake hypervisor, on tokio's paused time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crash_hook::{Cause, Memory, serve};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use virevent::{EventSource, StopCause, merge};
use virevent_testkit::FakeHypervisor;

/// The hook of a domain with this name never ends.
const HANGS: &str = "hangs";

struct Service {
    hooks: mpsc::UnboundedReceiver<(String, Cause)>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), virevent::Error>>,
}

impl Service {
    async fn of(fakes: &[&FakeHypervisor]) -> Self {
        Self::with(Memory::default(), fakes).await
    }

    async fn with(memory: Memory, fakes: &[&FakeHypervisor]) -> Self {
        let (sender, hooks) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let mut events = merge([]);
        for fake in fakes {
            let options = memory.options(fake.uri());
            events.push(fake.subscribe_with(options).await.unwrap());
        }
        let hook = move |domain: virevent::Domain, cause| {
            let sender = sender.clone();
            async move {
                sender.send((domain.name().to_owned(), cause)).unwrap();
                if domain.name() == HANGS {
                    std::future::pending::<()>().await;
                }
            }
        };
        let shutdown = async { drop(stopped.await) };
        Self { hooks, stop, task: tokio::spawn(serve(events, memory, hook, shutdown)) }
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

#[tokio::test(start_paused = true)]
async fn a_crash_while_the_service_is_down_runs_the_hook_at_its_start() {
    let home = TempDir::new().unwrap();
    let memory = || Memory::open(home.path().join("state"), &["fake:"]).unwrap();
    let fake = FakeHypervisor::new();
    for name in ["web", "db"] {
        fake.define(name).unwrap();
        fake.start(name).unwrap();
    }
    let mut service = Service::with(memory(), &[&fake]).await;
    assert_eq!(service.ran().await, []);
    // Not ended in order: what is known was written meanwhile.
    service.task.abort();
    fake.stop_as("web", StopCause::Crashed).unwrap();
    fake.stop_as("db", StopCause::Shutdown).unwrap();

    let mut service = Service::with(memory(), &[&fake]).await;
    assert_eq!(service.ran().await, [crashed("web")]);
    service.stop.send(()).unwrap();
    service.task.await.unwrap().unwrap();
    let mut service = Service::with(memory(), &[&fake]).await;
    assert_eq!(service.ran().await, [], "once");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_was_cut_off_runs_again_at_the_next_start() {
    let home = TempDir::new().unwrap();
    let memory = || Memory::open(home.path().join("state"), &["fake:"]).unwrap();
    let fake = FakeHypervisor::new();
    fake.create(HANGS).unwrap();
    fake.create("web").unwrap();
    let mut service = Service::with(memory(), &[&fake]).await;
    assert_eq!(service.ran().await, []);
    // Of a domain that is gone the hypervisor does not know how it ended.
    for name in [HANGS, "web"] {
        fake.stop_as(name, StopCause::Crashed).unwrap();
    }
    assert_eq!(service.ran().await, [crashed(HANGS), crashed("web")]);
    service.stop.send(()).unwrap();
    service.task.await.unwrap().unwrap();
    let mut service = Service::with(memory(), &[&fake]).await;
    assert_eq!(service.ran().await, [crashed(HANGS)], "the other one has ended");
    service.task.abort();
    let mut service = Service::with(memory(), &[&fake]).await;
    assert_eq!(service.ran().await, [crashed(HANGS)], "and after a kill");
}

#[test]
fn a_file_that_is_no_state_is_an_error() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("state");
    for (text, expected) in
        [("", "EOF"), (r#"{"known":{"version":9,"domains":[]}}"#, "a newer virevent")]
    {
        std::fs::write(&file, text).unwrap();
        let error = Memory::open(file.clone(), &["fake:"]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
