//! A real libvirtd under load: memory here and there, registrations, and a reader that does not read.
//! Figures are printed: `cargo test --test real_load -- --ignored --nocapture`.
//!
//! `VIREVENT_EVENTS=1000000` and `VIREVENT_CYCLES=...` make it longer; with `--release` the first is
//! the million-event test of docs/guarantees.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod rpc;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use virevent::driver::Driver;
use virevent::{Change, DomainEvent, EventSource, Gap, GapKind, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::{Fold, next_within, until_synced};
use virevent_testkit::servers::{Libvirtd, Tap, rss_kib};

use self::rpc::Rpc;

/// Memory of the whole process is measured: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

const TEST: &str = "test:///default";

/// Allocators keep some of what they got; what grows with the load is far more than this.
const SLACK_KIB: u64 = 6 * 1024;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn client(uri: &str) -> Driver {
    Libvirt::new(uri).unwrap().source()
}

/// The memory of this process and of the daemon, in KiB.
fn memory(daemon: &Libvirtd) -> (u64, u64) {
    (rss_kib(std::process::id()).unwrap(), daemon.rss_kib().unwrap())
}

fn assert_flat(what: &str, before: (u64, u64), after: (u64, u64)) {
    eprintln!(
        "{what}: {} to {} KiB here, {} to {} KiB there",
        before.0, after.0, before.1, after.1
    );
    assert!(after.0 < before.0 + SLACK_KIB, "{what}: more memory here");
    assert!(after.1 < before.1 + SLACK_KIB, "{what}: more memory there");
}

async fn until(mut reached: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn subscribe_and_drop_leaves_no_registration_and_no_memory() {
    let _alone = ALONE.lock().await;
    let cycles = number("VIREVENT_CYCLES", 1_000);
    let daemon = Libvirtd::start().await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    let source = client(&tap.uri(TEST));
    let cycle = async |n: u64| {
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        match n % 2 {
            0 => drop(events),
            _ => events.close().await,
        }
    };
    for n in 0..cycles / 5 {
        cycle(n).await;
    }
    let before = memory(&daemon);
    for n in 0..cycles {
        cycle(n).await;
    }
    until(|| tap.seen().registered == 0, "a registration is left").await;
    let seen = tap.seen();
    assert_eq!(seen.connections, 1);
    assert_eq!(seen.registrations, seen.deregistrations);
    assert!(seen.registrations >= cycles, "{seen:?}");
    eprintln!(
        "{cycles} cycles: {} registrations and {} deregistrations confirmed, {} left",
        seen.registrations, seen.deregistrations, seen.registered
    );
    assert_flat(&format!("{cycles} cycles"), before, memory(&daemon));
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn connect_and_shut_down_leaves_no_connection_and_no_memory() {
    let _alone = ALONE.lock().await;
    let cycles = number("VIREVENT_CYCLES", 1_000) / 4;
    let daemon = Libvirtd::start().await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    // Else the test driver would be made anew for each connection.
    let _keeper = Rpc::open(&daemon.socket(), TEST);
    let cycle = async || {
        let source = client(&tap.uri(TEST));
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        drop(events);
        source.shutdown().await;
    };
    for _ in 0..cycles / 2 {
        cycle().await;
    }
    let before = memory(&daemon);
    for _ in 0..cycles {
        cycle().await;
    }
    until(|| tap.seen().open == 0, "a connection is left").await;
    assert_eq!(tap.seen().registered, 0);
    assert_flat(&format!("{cycles} connections"), before, memory(&daemon));
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_reader_that_does_not_read_gets_the_exact_count_and_the_truth() {
    let _alone = ALONE.lock().await;
    let events_wanted = number("VIREVENT_EVENTS", 20_000);
    let daemon = Libvirtd::start().await.unwrap();
    let mut rpc = Rpc::open(&daemon.socket(), TEST);
    let names = ["a", "b", "c", "d"];
    for name in names {
        rpc.define(name);
    }
    let source = client(&daemon.uri(TEST));
    let mut slow = source.subscribe_with(Options::default()).await.unwrap();
    let mut fold = Fold::default();
    fold.extend(&until_synced(&mut slow).await.unwrap());

    // An ending of each, far back; "d" stays off.
    let mut told = 0;
    for name in names {
        rpc.start(name);
        rpc.stop(name);
        told += 2;
    }
    for name in ["a", "b", "c"] {
        rpc.start(name);
        told += 1;
    }
    let since = Instant::now();
    let mut before = (0, 0);
    for part in 0..10 {
        let rounds = (events_wanted / 60).max(1);
        rpc = tokio::task::spawn_blocking(move || {
            for _ in 0..rounds {
                for name in ["a", "b", "c"] {
                    rpc.suspend(name);
                    rpc.resume(name);
                }
            }
            rpc
        })
        .await
        .unwrap();
        told += rounds * 6;
        until(|| source.counters().events == told, "events are missing").await;
        if part == 1 {
            before = memory(&daemon);
        }
    }
    rpc.suspend("b");
    told += 1;
    until(|| source.counters().events == told, "an event is missing").await;
    let rate = told as f64 / since.elapsed().as_secs_f64();
    assert_flat(&format!("{told} unread events at {rate:.0}/s"), before, memory(&daemon));

    let mut missed = None;
    let mut rest = Vec::new();
    while let Ok(event) = next_within(&mut slow, Duration::from_millis(500)).await {
        match event {
            DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed: n, .. }, .. }) => {
                assert!(missed.replace(n).is_none() && rest.is_empty(), "lagged comes first, once");
            }
            event => rest.push(event),
        }
    }
    let missed = missed.expect("lagged");
    eprintln!("lagged: {missed} missed, {} kept, {told} in all", rest.len());
    assert_eq!(missed + rest.len() as u64, told, "the count is exact");
    assert_eq!(source.counters().missed, missed);

    let mut endings: BTreeMap<&str, u32> = BTreeMap::new();
    for event in rest.iter().filter_map(DomainEvent::lifecycle) {
        if let Change::Stopped(_) = event.change {
            *endings.entry(event.domain.name()).or_default() += 1;
        }
    }
    assert_eq!(endings, names.map(|name| (name, 1)).into(), "each domain's last ending");
    fold.extend(&rest);
    let states: Vec<(String, String)> = fold
        .active()
        .values()
        .map(|run| (run.domain.name().into(), run.state.as_str().into()))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect();
    let mut truth = daemon.virsh(TEST).list().await.unwrap();
    truth.retain(|(_, state)| state != "shut off");
    assert_eq!(states, truth);
    assert_eq!(truth.len(), 4, "a, b, c and test");
}

/// What a verification asks, and what that costs the daemon.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_list_of_many_domains_costs_the_daemon_little() {
    let _alone = ALONE.lock().await;
    let domains = number("VIREVENT_DOMAINS", 2_000);
    let daemon = Libvirtd::start().await.unwrap();
    let mut rpc = Rpc::open(&daemon.socket(), TEST);
    for n in 0..domains {
        rpc.define(&format!("vm{n}"));
    }
    let lists = 20;
    let before = cpu(daemon.pid().unwrap());
    let since = Instant::now();
    for _ in 0..lists {
        assert!(rpc.list() > domains as usize);
    }
    let wall = since.elapsed() / lists;
    let cpu = (cpu(daemon.pid().unwrap()) - before) / lists;
    eprintln!("a list of {domains} domains: {cpu:?} of CPU there, answered after {wall:?}");
    assert!(cpu < Duration::from_millis(100), "{cpu:?}");
}

/// CPU time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The fields after the program's name, which is in brackets: utime and stime, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
