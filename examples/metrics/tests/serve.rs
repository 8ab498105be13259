//! The exporter of fake hypervisors, over HTTP, on tokio's paused time.

#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::serve;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use virevent::{Error, Fleet, Notice, NoticeBody};
use virevent_testkit::{Asked, FakeHypervisor};

use self::common::Scrape;

const RUNNING: &str = "domains,state=\"running\"";
const SHUTOFF: &str = "domains,state=\"shutoff\"";
const UNCERTAIN: &str = "domains_uncertain";
const OBSERVED: &str = "events_total,kind=\"lifecycle\",origin=\"observed\"";
const INFERRED: &str = "events_total,kind=\"lifecycle\",origin=\"inferred\"";

struct Exporter {
    address: SocketAddr,
    fleet: Fleet,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl Exporter {
    async fn of(fakes: &[&FakeHypervisor]) -> Self {
        let fleet = Fleet::new("fleet:test");
        for fake in fakes {
            fleet.add(Arc::new((*fake).clone())).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let task = tokio::spawn(serve(fleet.clone(), listener, shutdown));
        Self { address, fleet, stop, task }
    }

    /// Scrapes until the series of the source have these values. Time stands still while a scrape is
    /// under way.
    async fn until(&self, source: &str, values: &[(&str, f64)]) -> Scrape {
        let address = self.address;
        for _ in 0..10_000 {
            let scrape = spawn_blocking(move || Scrape::of(address)).await.unwrap();
            if scrape.says(source, values) {
                return scrape;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{source} never has {values:?}");
    }
}

fn fake(uri: &str) -> FakeHypervisor {
    FakeHypervisor::builder().uri(uri).build()
}

#[tokio::test(start_paused = true)]
async fn events_and_states_are_scraped() {
    let fake = fake("fake:");
    fake.define("off").unwrap();
    let exporter = Exporter::of(&[&fake]).await;
    exporter.until("fake:", &[("up", 1.0), (RUNNING, 0.0), (SHUTOFF, 1.0)]).await;
    fake.create("web").unwrap();
    exporter.until("fake:", &[(RUNNING, 1.0), (OBSERVED, 1.0), ("missed_total", 0.0)]).await;
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_event_is_counted() {
    let fake = fake("fake:");
    let web = fake.create("web").unwrap();
    let exporter = Exporter::of(&[&fake]).await;
    exporter.until("fake:", &[("up", 1.0)]).await;
    let body = NoticeBody::RtcChange { offset: 3600 };
    fake.emit(Notice::new(web, body, SystemTime::now()));
    let rtc_change = "events_total,kind=\"rtc-change\",origin=\"observed\"";
    exporter.until("fake:", &[(rtc_change, 1.0)]).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_shows_and_its_domains_stay_as_they_were() {
    let fake = fake("fake:");
    fake.create("web").unwrap();
    let exporter = Exporter::of(&[&fake]).await;
    exporter.until("fake:", &[("up", 1.0), (RUNNING, 1.0)]).await;
    fake.go_down();
    let outage = [("up", 0.0), ("gaps_total", 1.0), (RUNNING, 1.0), (UNCERTAIN, 1.0)];
    exporter.until("fake:", &outage).await;
    fake.stop("web").unwrap();
    fake.restore();
    let after = [("up", 1.0), ("reconnects_total", 1.0), (RUNNING, 0.0), (INFERRED, 1.0)];
    exporter.until("fake:", &after).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_at_the_start_harms_no_other() {
    let [down, refusing, up] = ["fake:down", "fake:refusing", "fake:up"].map(fake);
    down.go_down();
    refusing.refuse(Error::authentication("log in"));
    let exporter = Exporter::of(&[&down, &refusing, &up]).await;
    let scrape = exporter.until("fake:up", &[("up", 1.0), (RUNNING, 0.0)]).await;
    for source in ["fake:down", "fake:refusing"] {
        assert_eq!(scrape.value(source, "up"), Some(0.0));
        assert_eq!(scrape.value(source, RUNNING), None, "it is not known to have none");
    }
    down.restore();
    refusing.accept();
    exporter.until("fake:down", &[("up", 1.0), (RUNNING, 0.0)]).await;
    exporter.until("fake:refusing", &[("up", 1.0), (RUNNING, 0.0)]).await;
}

#[tokio::test(start_paused = true)]
async fn series_come_and_go_with_the_members_of_the_fleet() {
    let [a, b] = ["fake:a", "fake:b"].map(fake);
    let exporter = Exporter::of(&[&a]).await;
    exporter.until("fake:a", &[("up", 1.0)]).await;
    exporter.fleet.add(Arc::new(b)).unwrap();
    exporter.until("fake:b", &[("up", 1.0)]).await;
    exporter.fleet.remove("fake:a").unwrap();
    let scrape = exporter.until("fake:b", &[("up", 1.0)]).await;
    assert!(scrape.has("fake:b") && !scrape.has("fake:a"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_until_nothing_is_registered() {
    let fake = fake("fake:");
    let exporter = Exporter::of(&[&fake]).await;
    exporter.until("fake:", &[("up", 1.0)]).await;
    fake.hang_registrations();
    exporter.stop.send(()).unwrap();
    fake.asked(|asked| *asked == Asked::Deregister).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!exporter.task.is_finished());
    fake.release_registrations();
    exporter.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn half_a_request_does_not_delay_a_shutdown() {
    let exporter = Exporter::of(&[&fake("fake:")]).await;
    let mut client = TcpStream::connect(exporter.address).unwrap();
    client.write_all(b"GET /metr").unwrap();
    exporter.until("fake:", &[("up", 1.0)]).await;
    exporter.stop.send(()).unwrap();
    let since = Instant::now();
    exporter.task.await.unwrap().unwrap();
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    drop(client);
}
