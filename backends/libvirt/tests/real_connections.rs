//! Connects and shuts down over every way, and counts what that leaves behind: nothing. The only
//! test in its process, whose descriptors, tasks, threads, children and memory it counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "real_ssh/processes.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod processes;
#[path = "ways/mod.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod ways;

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use virevent::{EventSource, Options};
use virevent_testkit::assert::until_synced;
use virevent_testkit::servers::rss_kib;

use self::processes::{children, until};
use self::ways::Way;

const PATIENCE: Duration = Duration::from_secs(60);

/// Connections, unless `VIREVENT_CONNECTIONS` has a number for every way.
const CONNECTIONS: usize = 500;
/// The same of a way on which each connection takes a tenth of a second or more.
const SLOW_CONNECTIONS: usize = 25;
const WARM_UP: usize = 20;

/// How much the resident memory may grow: less than half a KiB a connection of 500.
const RSS_NOISE_KIB: u64 = 200;

/// What this process has.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    /// The network path has a task for each connection that is open.
    tasks: usize,
    threads: usize,
    /// A zombie counts.
    children: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            descriptors: entries("/proc/self/fd"),
            tasks: Handle::current().metrics().num_alive_tasks(),
            threads: entries("/proc/self/task"),
            children: children("").len(),
        }
    }
}

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// The connections that the daemon and sshd have, or what stands for them.
fn served(way: &Way) -> usize {
    let sshd = way.sshd.as_ref().and_then(|sshd| sshd.pid()).map_or(0, |pid| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        std::fs::read_to_string(path).unwrap().split_whitespace().count()
    });
    sshd + entries(&format!("/proc/{}/fd", way.daemon.pid().unwrap()))
}

/// Connects so often, and returns the allocations of this thread that are left, in bytes.
fn connect_and_shut_down(runtime: &Runtime, way: &Way, connections: usize) -> i64 {
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..connections {
                let source = way.libvirt().connect_timeout(PATIENCE).source();
                let mut events = source.subscribe_with(Options::default()).await.unwrap();
                until_synced(&mut events).await.unwrap();
                source.shutdown().await;
            }
        });
    });
    measured.bytes_current
}

fn assert_leaves_nothing(runtime: &Runtime, way: &Way, connections: usize) {
    let before = runtime.block_on(async { Held::now() });
    let settled = || {
        let is_settled = async { until("end of all", || Held::now() == before).await };
        runtime.block_on(is_settled);
    };
    connect_and_shut_down(runtime, way, WARM_UP);
    settled();
    let served_before = served(way);
    let rss_before = rss_kib(std::process::id()).unwrap();
    let began = Instant::now();
    let bytes = connect_and_shut_down(runtime, way, connections);
    let elapsed = began.elapsed();
    settled();
    runtime.block_on(until("end in the servers", || served(way) <= served_before));
    let grown = rss_kib(std::process::id()).unwrap().saturating_sub(rss_before);
    assert!(grown < RSS_NOISE_KIB, "{}: {grown} KiB more", way.name);
    // The others look up a name or read files in another thread, which frees what this one
    // allocates.
    if matches!(way.name, "unix" | "plain") {
        assert_eq!(bytes, 0, "{}", way.name);
    }
    let name = way.name;
    eprintln!(
        "{name}: {connections} in {elapsed:.1?}, {grown} KiB more; before and after {before:?}"
    );
    // libvirtd sees an end with close_notify; an end without would be an error in its log.
    let logs_no_certificate = way.name == "tls, no client certificate";
    let log = way.daemon.log();
    assert!(logs_no_certificate || !log.contains("TLS"), "{log}");
}

#[test]
#[ignore = "needs libvirtd and sshd"]
fn hundreds_of_connections_over_each_way_leave_nothing() {
    let chosen = std::env::var("VIREVENT_CONNECTIONS").ok().map(|number| number.parse().unwrap());
    let many = chosen.unwrap_or(CONNECTIONS);
    let some = chosen.unwrap_or(SLOW_CONNECTIONS);
    // tokio's own threads end at once when they have nothing to do.
    let runtime = Builder::new_current_thread()
        .thread_keep_alive(Duration::from_millis(1))
        .enable_all()
        .build()
        .unwrap();
    let check = |connections, way: Way| assert_leaves_nothing(&runtime, &way, connections);
    check(many, runtime.block_on(Way::unix()));
    check(many, runtime.block_on(Way::tcp()));
    check(many, runtime.block_on(Way::ext()));
    #[cfg(feature = "tls")]
    {
        check(many, runtime.block_on(Way::tls(true)));
        check(many, runtime.block_on(Way::tls(false)));
    }
    #[cfg(feature = "sasl")]
    {
        check(many, runtime.block_on(Way::sasl("plain", "plain")));
        check(some, runtime.block_on(Way::sasl("scram", "scram-sha-256")));
    }
    #[cfg(all(feature = "sasl", feature = "tls"))]
    {
        check(many, runtime.block_on(Way::sasl_over_tls("plain, tls", "plain")));
        check(some, runtime.block_on(Way::sasl_over_tls("scram, tls", "scram-sha-256")));
    }
    check(some, runtime.block_on(Way::ssh("native")));
    check(some, runtime.block_on(Way::ssh("netcat")));
}
