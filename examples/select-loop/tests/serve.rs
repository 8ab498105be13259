//! The service against a fake hypervisor, on tokio's paused time.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use select_loop::serve;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use virevent::{DomainStore, Error, Snapshot};
use virevent_testkit::{Asked, FakeHypervisor};

struct Service {
    store: DomainStore,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

fn start(hypervisor: &FakeHypervisor) -> Service {
    let store = DomainStore::new();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { drop(stopped.await) };
    let task = tokio::spawn(serve(Arc::new(hypervisor.clone()), store.clone(), shutdown));
    Service { store, stop, task }
}

impl Service {
    /// Waits until the table has exactly these domains, and is certain or not.
    async fn has(&self, names: &[&str], certain: bool) {
        let is_so = |now: &Snapshot| {
            now.is_certain() == certain
                && now.active().map(|stored| stored.domain.name()).eq(names.iter().copied())
        };
        self.store.wait_for(is_so).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_table_has_existing_domains_and_follows_changes() {
    let hypervisor = FakeHypervisor::new();
    hypervisor.create("web").unwrap();
    hypervisor.define("off").unwrap();
    let service = start(&hypervisor);
    service.has(&["web"], true).await;
    hypervisor.stop("web").unwrap();
    service.has(&[], true).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_uncertain_and_its_changes_are_not_lost() {
    let hypervisor = FakeHypervisor::new();
    hypervisor.create("web").unwrap();
    let service = start(&hypervisor);
    service.has(&["web"], true).await;

    hypervisor.go_down();
    service.has(&["web"], false).await;
    hypervisor.stop("web").unwrap();
    hypervisor.create("db").unwrap();
    hypervisor.restore();
    service.has(&["db"], true).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_nothing_registered() {
    let hypervisor = FakeHypervisor::new();
    let service = start(&hypervisor);
    service.has(&[], true).await;
    service.stop.send(()).unwrap();
    service.task.await.unwrap().unwrap();
    assert!(hypervisor.journal().contains(&Asked::Deregister));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_hypervisor_is_an_error() {
    let hypervisor = FakeHypervisor::new();
    hypervisor.go_down();
    let service = start(&hypervisor);
    assert!(service.task.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_later_is_an_error() {
    let hypervisor = FakeHypervisor::new();
    let service = start(&hypervisor);
    service.has(&[], true).await;
    hypervisor.refuse(Error::authentication("log in"));
    hypervisor.lose_connection();
    let error = service.task.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Authentication { .. }), "{error}");
}
