//! The service against a fake hypervisor, in no time: tokio's clock is paused.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use select_loop::{Running, serve};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use virevent::Error;
use virevent_testkit::{Asked, FakeHypervisor};

struct Service {
    running: watch::Receiver<Running>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

fn start(hypervisor: &FakeHypervisor) -> Service {
    let (sender, running) = watch::channel(Running::of_source("fake:"));
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { drop(stopped.await) };
    let task = tokio::spawn(serve(Arc::new(hypervisor.clone()), sender, shutdown));
    Service { running, stop, task }
}

impl Service {
    /// Waits until it says that these domains run, and is certain of it or not.
    async fn says(&mut self, names: &[&str], certain: bool) {
        let said = |running: &Running| {
            running.uncertain.is_empty() == certain
                && running.domains.values().map(|d| d.name()).eq(names.iter().copied())
        };
        self.running.wait_for(said).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn it_knows_what_runs_from_the_beginning_and_follows() {
    let hypervisor = FakeHypervisor::new();
    hypervisor.create("web").unwrap();
    hypervisor.define("off").unwrap();
    let mut service = start(&hypervisor);
    service.says(&["web"], true).await;
    hypervisor.stop("web").unwrap();
    service.says(&[], true).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_makes_it_uncertain_and_what_happened_meanwhile_is_not_lost() {
    let hypervisor = FakeHypervisor::new();
    hypervisor.create("web").unwrap();
    let mut service = start(&hypervisor);
    service.says(&["web"], true).await;

    hypervisor.go_down();
    service.says(&["web"], false).await;
    hypervisor.stop("web").unwrap();
    hypervisor.create("db").unwrap();
    hypervisor.restore();
    service.says(&["db"], true).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_nothing_registered() {
    let hypervisor = FakeHypervisor::new();
    let mut service = start(&hypervisor);
    service.says(&[], true).await;
    service.stop.send(()).unwrap();
    service.task.await.unwrap().unwrap();
    assert!(hypervisor.journal().contains(&Asked::Deregister));
}

#[tokio::test(start_paused = true)]
async fn a_hypervisor_that_cannot_be_reached_is_an_error() {
    let hypervisor = FakeHypervisor::new();
    hypervisor.go_down();
    let service = start(&hypervisor);
    assert!(service.task.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_hypervisor_that_refuses_for_good_later_is_an_error() {
    let hypervisor = FakeHypervisor::new();
    let mut service = start(&hypervisor);
    service.says(&[], true).await;
    hypervisor.refuse(Error::authentication("log in"));
    hypervisor.lose_connection();
    let error = service.task.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Authentication { .. }), "{error}");
}
