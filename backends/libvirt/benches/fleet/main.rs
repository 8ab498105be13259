//! What a fleet of many libvirtds costs the process that watches it: memory, CPU, and the time to
//! recover.
//!
//! The daemons are the testkit's fakes, all in this process, each with a socket of its own. The
//! process that is measured is a second one, which this one starts for each measurement:
//!
//! - *hosts*: daemons without domains, for the memory of a host;
//! - *domains*: the same with domains;
//! - *all*: with a table of the domains (`DomainStore`) as well; then CPU while nothing happens, and
//!   while events come; then a restart of all daemons at once.
//!
//! Run it with `cargo bench -p virevent-libvirt --bench fleet`. `VIREVENT_HOSTS` and
//! `VIREVENT_DOMAINS` set how many daemons there are, and how many domains each has.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod daemons;
mod watcher;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use rustix::time::{ClockId, clock_gettime};
use virevent::DomainStore;

use self::daemons::Daemons;
use self::watcher::Watcher;

/// How many daemons may be connected to and listed at once.
const LIMIT: usize = 32;

/// Events a second over all daemons, and for how long.
const RATE: usize = 10_000;
const SECONDS: usize = 20;

/// For so long after the sync no verification is due.
const IDLE: Duration = Duration::from_secs(30);

/// In this time after it there is one of each daemon.
const VERIFYING: Duration = Duration::from_secs(40);

/// The default interval of verification.
const VERIFY: f64 = 60.0;

const OUTAGE: Duration = Duration::from_secs(2);

fn main() {
    let limit = Rlimit { current: Some(8192), maximum: Some(8192) };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    let args: Vec<_> = std::env::args().collect();
    match args.iter().position(|arg| arg == "watch") {
        Some(at) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let figures = Figures::default();
            runtime.unwrap().block_on(figures.measure(Path::new(&args[at + 1]), &args[at + 2]));
        }
        None => compare(number("VIREVENT_HOSTS", 1000), number("VIREVENT_DOMAINS", 100)),
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

/// Measures, and prints the figures beside the aims.
fn compare(hosts: usize, domains: usize) {
    let bare = run("hosts", hosts, 0);
    let filled = run("domains", hosts, domains);
    let all = run("all", hosts, domains);
    let of_host = (bare["memory"] - bare["base"]) / hosts as f64;
    let each = (hosts * domains) as f64;
    let of_domain = (filled["memory"] - bare["memory"]) * 1024.0 / each;
    let of_stored = (all["memory"] - filled["memory"]) * 1024.0 / each;
    let idle = all["idle"] * 100.0;
    let verifying = idle + all["list"] * hosts as f64 / VERIFY * 100.0;
    println!("| {hosts} hosts with {domains} domains each | aim | measured |");
    println!("|---|---:|---:|");
    let row = |what: &str, aim: &str, figure: String| println!("| {what} | {aim} | {figure} |");
    row("first sync", "", format!("{:.1} s", all["first"]));
    row("memory", "< 150 MB", format!("{:.0} MB", filled["memory"] * 1024.0 / 1e6));
    row("memory, with a store", "< 150 MB", format!("{:.0} MB", all["memory"] * 1024.0 / 1e6));
    row("a host, beside its domains", "< 60 KB", format!("{:.1} KB", of_host * 1.024));
    row("a domain", "", format!("{of_domain:.0} bytes"));
    row("a domain in the store", "", format!("{of_stored:.0} bytes"));
    row("CPU idle, with keepalive", "< 1 %", format!("{idle:.2} %"));
    row("the same, with verification", "", format!("{verifying:.2} %"));
    row("a verification of one host", "", format!("{:.0} us", all["list"] * 1e6));
    row(
        &format!("CPU at {RATE} events/s, with a store"),
        "< 3 us/event",
        format!("{:.2} us/event", all["event"] * 1e6),
    );
    row("memory after it", "", format!("{:.0} MB", all["later"] * 1024.0 / 1e6));
    row(
        &format!("all restarted: synced after {} s down", OUTAGE.as_secs()),
        "<= 10 s",
        format!("{:.1} s", all["recovery"]),
    );
    row("CPU of that", "", format!("{:.2} s", all["recovering"]));
    row("connecting and listing at once", &format!("<= {LIMIT}"), all["most"].to_string());
    row("reported as stopped, missed", "0", format!("{}, {}", all["stopped"], all["missed"]));
}

/// Runs one measurement in a second process.
fn run(what: &str, hosts: usize, domains: usize) -> HashMap<String, f64> {
    let daemons = Daemons::start(hosts, domains);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["watch", daemons.home().to_str().unwrap(), what])
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{what} failed");
    daemons.join();
    let lines = String::from_utf8(output.stdout).unwrap();
    let figure = |line: &str| {
        let (name, value) = line.split_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.lines().map(figure).collect()
}

/// The part of the second process: prints a figure a line.
#[derive(Default)]
struct Figures;

impl Figures {
    fn say(&self, name: &str, value: f64) {
        println!("{name} {value}");
    }

    async fn measure(&self, home: &Path, what: &str) {
        self.say("base", memory());
        let begun = Instant::now();
        let store = (what == "all").then(DomainStore::new);
        let mut watcher = Watcher::start(home, LIMIT, store).await;
        self.say("first", begun.elapsed().as_secs_f64());
        self.say("memory", memory());
        if what != "all" {
            return;
        }
        self.idle(&mut watcher).await;
        self.events(&mut watcher).await;
        self.restart(&mut watcher).await;
    }

    async fn idle(&self, watcher: &mut Watcher) {
        let lists = watcher.orders.ask("lists").await;
        let idle = wait(watcher, IDLE).await;
        assert_eq!(watcher.orders.ask("lists").await, lists, "a verification came early");
        let verifying =
            wait(watcher, VERIFYING).await - idle * VERIFYING.as_secs_f64() / IDLE.as_secs_f64();
        let lists = watcher.orders.ask("lists").await - lists;
        self.say("idle", idle / IDLE.as_secs_f64());
        self.say("list", verifying / lists as f64);
        eprintln!("{lists} lists");
    }

    async fn events(&self, watcher: &mut Watcher) {
        let count = RATE * SECONDS;
        let spent = cpu_of(watcher.read_events(count, RATE)).await;
        self.say("event", spent / count as f64);
        self.say("later", memory());
    }

    async fn restart(&self, watcher: &mut Watcher) {
        let before = cpu();
        self.say("recovery", watcher.outlast_restart(OUTAGE).await.as_secs_f64());
        self.say("recovering", (cpu() - before).as_secs_f64());
        self.say("most", watcher.orders.ask("syncs").await as f64);
        self.say("stopped", watcher.reader.seen.stopped as f64);
        self.say("missed", watcher.counters().missed as f64);
        watcher.check().await;
    }
}

/// The seconds of CPU while nothing happens for so long.
async fn wait(watcher: &mut Watcher, time: Duration) -> f64 {
    let nothing = watcher.reader.until(|_| false);
    cpu_of(async { drop(tokio::time::timeout(time, nothing).await) }).await
}

/// The seconds of CPU that this process takes for `deed`.
async fn cpu_of(deed: impl Future<Output = ()>) -> f64 {
    let before = cpu();
    deed.await;
    (cpu() - before).as_secs_f64()
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The resident memory of this process in KiB.
fn memory() -> f64 {
    virevent_testkit::servers::rss_kib(std::process::id()).unwrap() as f64
}
