//! The program against a real xenstored.

use virevent::DomainEvent;
use virevent_testkit::servers::{Store, Xenstored};
use virevent_testkit::toolstack::Power;

use super::run::{Run, start};
use super::words;

fn watch(daemon: &Xenstored, args: &[&str]) -> Run {
    let mut run = start(&[args, &["--json", &daemon.uri()]].concat());
    run.until_synced();
    run
}

impl Run {
    /// The next printed event.
    fn event(&mut self) -> DomainEvent {
        serde_json::from_str(&self.line()).unwrap()
    }
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn each_step_of_200_domains_is_printed_once() {
    let daemon = Xenstored::start().await.unwrap();
    let mut run = watch(&daemon, &["--only", "lifecycle,other"]);
    let xl = daemon.toolstack();
    let mut lines = Vec::new();
    // The last domain is not stopped: so at each shutdown the source has to find out which it is.
    let domains: Vec<_> =
        (0..201).map(|n| (n, xl.introduce(&*format!("vm{n}")).unwrap())).collect();
    while lines.len() < 201 {
        lines.push(run.event());
    }
    for (n, domid) in &domains[..200] {
        let power = Power::ALL[n % 5];
        xl.request(*domid, power).unwrap();
        lines.extend([run.event(), run.event()]);
        assert!(lines.last().unwrap().to_string().contains(power.as_str()));
        xl.acknowledge(*domid).unwrap();
        xl.shut_down(*domid).unwrap();
        xl.destroy(*domid).unwrap();
        lines.push(run.event());
    }
    xl.rename(domains[200].1, "last").unwrap();
    lines.extend([run.event(), run.event()]);

    let mut expected: Vec<_> = (0..201).map(|n| format!("vm{n} started")).collect();
    for (n, domid) in &domains[..200] {
        expected.push(format!("vm{n} shutting_down"));
        let request = Power::ALL[n % 5].as_str();
        expected
            .push(format!("vm{n}[{domid}] event control/shutdown {{\"request\":\"{request}\"}}"));
        expected.push(format!("vm{n} stopped"));
    }
    expected.extend(["vm200 undefined".into(), "last defined".into()]);
    let mut printed = words(&lines);
    // The order of domains that start together is not defined.
    printed[..201].sort();
    expected[..201].sort();
    assert_eq!(printed, expected);
    let stops = lines.iter().filter_map(DomainEvent::change);
    assert_eq!(stops.filter(|change| change.to_string() == "stopped (shutdown)").count(), 200);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn the_stream_survives_kills_of_the_store_daemon() {
    let mut daemon = Xenstored::start().await.unwrap();
    daemon.toolstack().introduce("web").unwrap();
    let mut run = watch(&daemon, &["--count", "1"]);
    daemon.kill9().await.unwrap();
    assert!(run.line().contains(r#""gap":"disconnected""#));
    daemon.start_again(Store::Kept).await.unwrap();
    assert_eq!(words(&[run.event()]), ["synced"]);
    daemon.kill9().await.unwrap();
    daemon.start_again(Store::Lost).await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(words(&outcome.events()), ["gap", "web stopped"]);
}
