//! What a fleet of many libvirtds costs the process that watches it: memory, CPU, and the time to
//! recover.
//!
//! The daemons are the testkit's fakes, all in this process, each with a socket of its own. The
//! process that is measured is a second one, which this one starts for each measurement:
//!
//! - *plain*: a client that only reads, to compare with;
//! - *hosts*: daemons without domains, for the memory of a host;
//! - *domains*: the same with domains, then CPU while events come;
//! - *all*: with a table of the domains (`DomainStore`) as well; then CPU while nothing happens, and
//!   while events come; then a restart of all daemons at once.
//!
//! Run it with `cargo bench -p virevent-libvirt --bench fleet`. `VIREVENT_HOSTS` and
//! `VIREVENT_DOMAINS` set how many daemons there are, and how many domains each has;
//! `VIREVENT_IDLE=0` leaves out the 70 s in which nothing happens.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod daemons;
mod plain;
mod watcher;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use rustix::time::{ClockId, clock_gettime};
use virevent::DomainStore;

use self::daemons::Daemons;
use self::plain::Plain;
use self::watcher::Watcher;

/// How many daemons may be connected to and listed at once.
const LIMIT: usize = 32;

/// Events a second over all daemons, and how many, in 20 s.
const RATE: usize = 10_000;
const EVENTS: usize = 20 * RATE;

/// The figures of events, and how many each daemon sends at once.
const BURSTS: [(&str, usize); 2] = [("event", 1), ("burst", 10)];

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
            runtime.unwrap().block_on(measure(Path::new(&args[at + 1]), &args[at + 2]));
        }
        None => compare(number("VIREVENT_HOSTS", 1000), number("VIREVENT_DOMAINS", 100)),
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

/// Measures, and prints the figures beside the aims.
fn compare(hosts: usize, domains: usize) {
    let plain = run("plain", hosts, domains);
    let bare = run("hosts", hosts, 0);
    let filled = run("domains", hosts, domains);
    let all = run("all", hosts, domains);
    let megabytes = |figures: &HashMap<String, f64>| figures["memory"] / 1e6;
    let each = (hosts * domains) as f64;
    let of_host = (bare["memory"] - bare["base"]) / hosts as f64 / 1e3;
    let of_domain = (filled["memory"] - bare["memory"]) / each;
    let of_stored = (all["memory"] - filled["memory"]) / each;
    println!("| {hosts} daemons with {domains} domains each | aim | measured |");
    println!("|---|---:|---:|");
    let row = |what: &str, aim: &str, figure: String| println!("| {what} | {aim} | {figure} |");
    row("first sync", "", format!("{:.1} s", all["first"]));
    row("memory in all", "< 150 MB", format!("{:.0} MB", megabytes(&filled)));
    row("the same, with a store", "", format!("{:.0} MB", megabytes(&all)));
    row("of which a host, beside its domains", "< 60 KB", format!("{of_host:.1} KB"));
    row("of which a domain", "", format!("{of_domain:.0} bytes"));
    row("of which a domain in the store", "", format!("{of_stored:.0} bytes"));
    if let (Some(idle), Some(list)) = (all.get("idle"), all.get("list")) {
        let verifying = idle + list * hosts as f64 / VERIFY;
        row("CPU idle, with keepalive", "< 1 %", format!("{:.2} %", idle * 1e2));
        row("the same, with verification", "", format!("{:.2} %", verifying * 1e2));
        row("of which a verification of a host", "", format!("{:.0} us", list * 1e6));
    }
    for (name, burst) in BURSTS {
        let at = format!("CPU at {RATE} events/s, {burst} of a daemon at once");
        let micros =
            |figures: &HashMap<String, f64>| format!("{:.1} us/event", figures[name] * 1e6);
        row(&at, "< 3 us/event", micros(&filled));
        row("the same, with a store", "", micros(&all));
        row("the same, of a client that only reads", "", micros(&plain));
    }
    row("events missed", "0", (filled["missed"] + all["missed"]).to_string());
    row("all restarted: synced after their return", "<= 10 s", format!("{:.1} s", all["recovery"]));
    row("CPU of that", "", format!("{:.2} s", all["recovering"]));
    row("connecting and listing at once", &format!("<= {LIMIT}"), all["most"].to_string());
    row("domains reported as stopped", "0", all["stopped"].to_string());
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

/// The part of the second process.
async fn measure(home: &Path, what: &str) {
    say("base", memory());
    if what == "plain" {
        let mut plain = Plain::start(home).await;
        for (name, burst) in BURSTS {
            let spent = cpu_of(plain.read_events(&order(burst), EVENTS)).await;
            say(name, spent / EVENTS as f64);
        }
        return;
    }
    let begun = Instant::now();
    let store = (what == "all").then(DomainStore::new);
    let mut watcher = Watcher::start(home, LIMIT, store).await;
    say("first", begun.elapsed().as_secs_f64());
    say("memory", memory());
    if what == "hosts" {
        return;
    }
    if what == "all" && number("VIREVENT_IDLE", 1) == 1 {
        idle(&mut watcher).await;
    }
    for (name, burst) in BURSTS {
        let spent = cpu_of(watcher.read_events(&order(burst), EVENTS)).await;
        say(name, spent / EVENTS as f64);
    }
    say("missed", watcher.counters().missed as f64);
    if what != "all" {
        return;
    }
    let before = cpu();
    say("recovery", watcher.outlast_restart(OUTAGE).await.as_secs_f64());
    say("recovering", (cpu() - before).as_secs_f64());
    say("most", watcher.orders.ask("syncs").await as f64);
    say("stopped", watcher.reader.seen.stopped as f64);
    watcher.check().await;
}

/// A figure for the first process.
fn say(name: &str, value: f64) {
    println!("{name} {value}");
}

fn order(burst: usize) -> String {
    format!("events {EVENTS} {RATE} {burst}")
}

async fn idle(watcher: &mut Watcher) {
    let lists = watcher.orders.ask("lists").await;
    let idle = wait(watcher, IDLE).await / IDLE.as_secs_f64();
    assert_eq!(watcher.orders.ask("lists").await, lists, "a verification came early");
    let both = wait(watcher, VERIFYING).await;
    let verifications = watcher.orders.ask("lists").await - lists;
    say("idle", idle);
    say("list", (both - idle * VERIFYING.as_secs_f64()) / verifications as f64);
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

/// The resident memory of this process, in bytes.
fn memory() -> f64 {
    virevent_testkit::servers::rss_kib(std::process::id()).unwrap() as f64 * 1024.0
}
