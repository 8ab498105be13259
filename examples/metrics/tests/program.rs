//! The built program: its arguments, its demo, and a real libvirtd.

#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
mod common;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use virevent_testkit::servers::{Guest, Libvirtd};

use self::common::{Scrape, get};

const RUNNING: &str = "domains,state=\"running\"";
const SHUTOFF: &str = "domains,state=\"shutoff\"";
const UNCERTAIN: &str = "domains_uncertain";
const OBSERVED: &str = "events_total,kind=\"lifecycle\",origin=\"observed\"";
const INFERRED: &str = "events_total,kind=\"lifecycle\",origin=\"inferred\"";

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metrics"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A program that listens at a port that was free; it is killed at the end of the test.
struct Running {
    child: Child,
    address: SocketAddr,
    log: Receiver<String>,
}

impl Running {
    fn start(uris: &[&str]) -> Self {
        let arguments = [&["--listen", "127.0.0.1:0"], uris].concat();
        let mut child = program(&arguments).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = channel();
        // Also those that no test waits for: they must not fill the pipe.
        spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut running = Self { child, address: SocketAddr::from(([0; 4], 0)), log };
        let line = running.logged("listening at http://");
        let address = line.split_once("http://").unwrap().1.strip_suffix("/metrics").unwrap();
        running.address = address.parse().unwrap();
        running
    }

    /// Waits for a line of its log with this text.
    fn logged(&self, text: &str) -> String {
        let mut log = std::iter::from_fn(|| self.log.recv_timeout(Duration::from_secs(20)).ok());
        log.find(|line| line.contains(text)).unwrap_or_else(|| panic!("it does not log {text}"))
    }

    /// Scrapes until the series of the source have these values.
    fn until(&self, source: &str, values: &[(&str, f64)]) -> Scrape {
        let since = Instant::now();
        loop {
            let scrape = Scrape::of(self.address);
            if scrape.says(source, values) {
                return scrape;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{values:?}: {}", scrape.0);
            sleep(Duration::from_millis(20));
        }
    }

    /// Its exit status after the signal.
    fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit status, and the one line of the message.
fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = program(arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("metrics: ") && stderr.lines().count() == 1, "{stderr}");
    (output.status.code(), stderr)
}

#[test]
fn wrong_arguments_exit_with_2_and_say_what_to_give() {
    let table: [(&[&str], &str); 6] = [
        (&["foo:"], "use one of qemu:"),
        (&["test:///default", "test:///default"], "each source once"),
        (&["--listen", "9749"], "give an address and a port, as 127.0.0.1:9749"),
        (&["--listen"], "--listen"),
        (&["--port", "9749"], "--port"),
        (&["-v"], "usage: metrics"),
    ];
    for (arguments, expected) in table {
        let (status, stderr) = failure(arguments);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_port_in_use_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, stderr) = failure(&["--listen", &address]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains(&address) && stderr.contains("give another address"), "{stderr}");
}

#[test]
fn ctrl_c_and_sigterm_end_the_program() {
    for signal in [Signal::INT, Signal::TERM] {
        let running = Running::start(&[]);
        running.until("fake:", &[("up", 1.0)]);
        assert_eq!(running.end(signal), Some(0));
    }
}

#[test]
fn without_a_uri_the_demo_is_scraped_and_stays() {
    let running = Running::start(&[]);
    running.until("fake:", &[(OBSERVED, 10.0), (INFERRED, 2.0), ("gaps_total", 1.0)]);
    running.until("fake:", &[("up", 1.0), (SHUTOFF, 3.0)]);
    assert!(get(running.address, "/").1.contains("/metrics"));
    assert!(get(running.address, "/else").0.starts_with("HTTP/1.1 404"));
}

#[test]
fn an_unreachable_source_shows_and_the_log_says_why() {
    let uri = "test:///default?socket=/nonexistent/sock";
    let running = Running::start(&[uri]);
    assert_eq!(Scrape::of(running.address).value(uri, "up"), Some(0.0));
    assert!(running.logged("cannot reach /nonexistent/sock").contains("WARN"));
    assert_eq!(running.end(Signal::TERM), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libvirtd"]
async fn a_killed_libvirtd_shows_and_no_domain_as_stopped() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    for name in ["web", "off"] {
        virsh.define(&daemon.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
    }
    virsh.run(&["start", "web"]).await.unwrap();
    let uri = daemon.uri(daemon.qemu());
    let running = Running::start(&[&uri]);
    let domains = [(RUNNING, 1.0), (SHUTOFF, 1.0)];
    let known = [&domains[..], &[("up", 1.0), (UNCERTAIN, 0.0)]].concat();
    let outage = [&domains[..], &[("up", 0.0), (UNCERTAIN, 2.0), ("gaps_total", 1.0)]].concat();
    let verified = |scrape: &Scrape| scrape.value(&uri, "verified_timestamp_seconds").unwrap();

    running.until(&uri, &known);
    daemon.kill9().await;
    let during = running.until(&uri, &outage);
    daemon.start_again().await.unwrap();
    let after = running.until(&uri, &[&known[..], &[("reconnects_total", 1.0)]].concat());
    assert!(verified(&after) > verified(&during));
    assert_eq!(after.value(&uri, OBSERVED), None, "no domain was told as stopped");
    assert_eq!(after.value(&uri, INFERRED), None, "no domain was told as stopped");

    virsh.run(&["destroy", "web"]).await.unwrap();
    let stopped = running.until(&uri, &[(RUNNING, 0.0), (SHUTOFF, 2.0)]);
    // The daemon may say that the guest shuts down, too.
    assert!(stopped.value(&uri, OBSERVED) >= Some(1.0));
    assert_eq!(running.end(Signal::TERM), Some(0));
}
