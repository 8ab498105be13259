//! The cost of verifying many domains against a real xenstored, here and in the daemon.
//!
//! The source verifies as often as it may. What is counted is the CPU time of the client's one thread and that
//! of the daemon's process, per verification, and as a share of a core if 10,000 domains are verified every
//! minute.
//!
//! ```text
//! cargo bench -p virevent-xen --bench verification -- [DOMAINS [SECONDS]]
//! ```
//!
//! Needs a xenstored, as the ignored tests do.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep};
use virevent::driver::Settings;
use virevent::{DomainEvent, EventSource, Options};
use virevent_testkit::servers::Xenstored;
use virevent_testkit::toolstack::Blueprint;
use virevent_xen::XenStore;

/// The shortest interval that the driver accepts.
const INTERVAL: Duration = Duration::from_millis(100);

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let domains = numbers.first().copied().unwrap_or(1_000);
    let time = Duration::from_secs(numbers.get(1).copied().unwrap_or(10));
    // One thread, so that its CPU time is all of the client's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure(domains, time));
}

async fn measure(domains: u64, time: Duration) {
    let daemon = Xenstored::start().await.unwrap();
    for n in 0..domains {
        let _ = daemon.toolstack().introduce(Blueprint::named(&format!("vm{n}"))).unwrap();
    }
    let settings = Settings::default().verify(Some(INTERVAL));
    let source = XenStore::new(&daemon.uri()).unwrap().settings(settings).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
    // The lists that follow an introduction, as setting a watch seems to be, are over after 5 s.
    sleep(Duration::from_secs(6)).await;

    let health = source.health();
    let mut last = health.verified();
    let mut verifications = 0_u32;
    let begun = Instant::now();
    let cpu_before = cpu();
    let daemon_before = daemon_cpu(&daemon);
    while begun.elapsed() < time {
        sleep(Duration::from_millis(20)).await;
        let verified = health.verified();
        if verified != last {
            last = verified;
            verifications += 1;
        }
    }
    let client = (cpu() - cpu_before).as_secs_f64() / f64::from(verifications);
    let server = (daemon_cpu(&daemon) - daemon_before) / f64::from(verifications);
    assert_eq!(source.counters().corrected, 0);

    println!(
        "| {domains} domains, {verifications} verifications | CPU, ms each | us a domain | of a core, 10,000 a minute |"
    );
    println!("|---|---:|---:|---:|");
    for (name, seconds) in [("virevent", client), ("xenstored", server)] {
        let a_domain = seconds / domains as f64;
        let share = a_domain * 10_000.0 / 60.0 * 100.0;
        println!("| {name} | {:.1} | {:.1} | {share:.2} % |", seconds * 1e3, a_domain * 1e6);
    }
}

/// The CPU time of this thread so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time of the daemon so far, in seconds.
fn daemon_cpu(daemon: &Xenstored) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid().unwrap())).unwrap();
    // The name, in brackets, may have spaces in it. utime and stime are the 12th and 13th word after it.
    let words = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks: f64 = words.skip(11).take(2).map(|word| word.parse::<f64>().unwrap()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}
