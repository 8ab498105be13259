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

/// What this process has.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    tasks: usize,
    threads: usize,
    children: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            threads: std::fs::read_dir("/proc/self/task").unwrap().count(),
            // A zombie counts.
            children: children("").len(),
        }
    }
}

async fn connect_and_shut_down(way: &Way) {
    let source = way.libvirt().connect_timeout(PATIENCE).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    source.shutdown().await;
}

/// The bytes that so many connections leave allocated, as this thread counts them.
fn bytes_left(runtime: &Runtime, way: &Way, connections: usize) -> i64 {
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..connections {
                connect_and_shut_down(way).await;
            }
        });
    });
    measured.bytes_current
}

fn assert_leaves_nothing(runtime: &Runtime, way: Way, connections: usize) {
    let began = Instant::now();
    bytes_left(runtime, &way, 20);
    let before = runtime.block_on(async { Held::now() });
    let rss_before = rss_kib(std::process::id()).unwrap();
    let first = bytes_left(runtime, &way, connections / 2);
    let second = bytes_left(runtime, &way, connections / 2);
    let rss = rss_kib(std::process::id()).unwrap();
    runtime.block_on(async {
        until("end", || { let n = Held::now(); if n != before { eprintln!("{n:?} {before:?}"); } n.threads <= before.threads && n.descriptors == before.descriptors && n.tasks == before.tasks && n.children == before.children }).await;
    });
    eprintln!("{}: {connections} in {:?}: {before:?}, bytes {first} {second}, rss {rss_before} {rss}", way.name, began.elapsed());
}

#[test]
#[ignore = "needs libvirtd and sshd"]
fn hundreds_of_connections_over_each_way_leave_nothing() {
    let connections = std::env::var("VIREVENT_CONNECTIONS").map_or(100, |n| n.parse().unwrap());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    macro_rules! check {
        ($way:expr) => {
            let way = runtime.block_on($way);
            assert_leaves_nothing(&runtime, way, connections);
        };
    }
    check!(Way::unix());
    check!(Way::tcp());
    check!(Way::ext());
    check!(Way::ssh("native"));
    check!(Way::ssh("netcat"));
    #[cfg(feature = "tls")]
    {
        check!(Way::tls(true));
        check!(Way::tls(false));
    }
    #[cfg(feature = "sasl")]
    {
        check!(Way::sasl("scram", "scram-sha-256"));
        check!(Way::sasl("plain", "plain"));
    }
    #[cfg(all(feature = "sasl", feature = "tls"))]
    {
        check!(Way::sasl_over_tls("scram, tls", "scram-sha-256"));
        check!(Way::sasl_over_tls("plain, tls", "plain"));
    }
}
