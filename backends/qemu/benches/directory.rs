//! What a directory of many QEMUs costs its client: time, memory, CPU and latency.
//!
//! The QEMUs are the testkit's fakes, all in a second process that this one starts, so that what is
//! measured here is the client alone. Each fake is a real socket, and obeys the orders on the
//! second process's standard input.
//! Run it with `cargo bench -p virevent-qemu --bench directory`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use rustix::process::{Resource, Rlimit};
use virevent::{Change, EventSource, EventStream, Options};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::until_synced;
use virevent_testkit::fakes::qemu::FakeQemu;

/// Events a second over all sockets, and for how long.
const RATE: usize = 10_000;
const SECONDS: usize = 5;

/// How many starts and stops are measured.
const LIVES: usize = 50;

/// The time between two orders: after a scan the next one waits for some milliseconds.
const APART: Duration = Duration::from_millis(50);

const IDLE: Duration = Duration::from_secs(10);

fn main() {
    let limit = Rlimit { current: Some(8192), maximum: Some(8192) };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let args: Vec<_> = std::env::args().collect();
    match args.iter().position(|arg| arg == "serve") {
        Some(at) => {
            let directory = Path::new(&args[at + 1]);
            let count = args[at + 2].parse().unwrap();
            runtime.block_on(serve(directory, count));
        }
        None => runtime.block_on(measure()),
    }
}

async fn measure() {
    println!("| QEMUs | first sync | memory | CPU idle | CPU at {RATE} events/s | start | stop |");
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for count in [1, 100, 500] {
        let home = tempfile::Builder::new().prefix("vd").tempdir().unwrap();
        let mut server = Server::new(home.path(), count);
        // Before the first figure: the memory of a source without a QEMU does not count.
        drop(watch(&home.path().join("none")).await);
        let before = memory();
        let began = Instant::now();
        let (source, mut events) = watch(home.path()).await;
        let synced = began.elapsed();
        let memory = memory() - before;
        let idle = cpu_of(async { tokio::time::sleep(IDLE).await }).await / IDLE.as_secs_f64();
        let busy = cpu_of(server.flood(&mut events)).await / (RATE * SECONDS) as f64;
        assert_eq!(source.counters().missed, 0);
        let (start, stop) = server.lives(&mut events).await;
        println!(
            "| {count} | {:.0} ms | {memory} KiB | {:.2} % | {:.1} us/event | {} | {} |",
            synced.as_secs_f64() * 1e3,
            idle * 100.0,
            busy * 1e6,
            shown(start),
            shown(stop),
        );
    }
    let home = tempfile::Builder::new().prefix("vd").tempdir().unwrap();
    // Stale sockets are tried again at intervals for ever: that must cost next to nothing.
    for number in 0..500 {
        let path = home.path().join(format!("{number}.sock"));
        drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    }
    let _watched = watch(home.path()).await;
    // The retries have reached their longest interval by then.
    tokio::time::sleep(IDLE).await;
    let idle = cpu_of(async { tokio::time::sleep(IDLE).await }).await / IDLE.as_secs_f64();
    println!("\n500 sockets that were left behind: {:.2} % CPU", idle * 100.0);
}

async fn watch(directory: &Path) -> (virevent::driver::Driver, EventStream) {
    let source = QmpDir::new(&format!("qmp-dir:{}", directory.display())).unwrap().source();
    // Room for a second of events: a lag would change what is measured.
    let options = Options::default().capacity(RATE);
    let mut events = source.subscribe_with(options).await.unwrap();
    until_synced(&mut events).await.unwrap();
    (source, events)
}

/// The median, and the longest.
fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |time: &Duration| time.as_secs_f64() * 1e3;
    format!("{:.1} ms, at most {:.1}", ms(&times[times.len() / 2]), ms(&times[times.len() - 1]))
}

/// The seconds of CPU that this process takes for `deed`.
async fn cpu_of(deed: impl Future<Output = ()>) -> f64 {
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let before = cpu();
    deed.await;
    (cpu() - before).as_secs_f64()
}

/// The resident memory of this process in KiB.
fn memory() -> u64 {
    virevent_testkit::servers::rss_kib(std::process::id()).unwrap()
}

fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

/// The second process, with the fakes.
struct Server {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn new(directory: &Path, count: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", directory.to_str().unwrap(), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, orders, answers };
        server.order("begin");
        server
    }

    /// Sends an order; returns when the process began with it.
    fn order(&mut self, order: &str) -> Duration {
        writeln!(self.orders, "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        Duration::from_nanos(answer.trim().parse().unwrap())
    }

    async fn flood(&mut self, events: &mut EventStream) {
        self.order("flood");
        for _ in 0..RATE * SECONDS {
            let event = events.next().await.unwrap();
            assert!(!event.is_marker(), "{event}");
        }
    }

    /// How long it takes until a start is delivered, and a stop.
    async fn lives(&mut self, events: &mut EventStream) -> (Vec<Duration>, Vec<Duration>) {
        let mut starts = Vec::new();
        let mut stops = Vec::new();
        for _ in 0..LIVES {
            tokio::time::sleep(APART).await;
            let began = self.order("start");
            until(events, |change| matches!(change, Change::Started(_))).await;
            starts.push(now() - began);
            tokio::time::sleep(APART).await;
            let began = self.order("stop");
            until(events, |change| matches!(change, Change::Stopped(_))).await;
            stops.push(now() - began);
        }
        (starts, stops)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn until(events: &mut EventStream, what: impl Fn(Change) -> bool) {
    while !events.next().await.unwrap().lifecycle().is_some_and(|event| what(event.change)) {}
}

/// The part of the second process.
async fn serve(directory: &Path, count: usize) {
    use tokio::io::AsyncBufReadExt;

    let at = |number: usize| -> PathBuf { directory.join(format!("{number}.sock")) };
    let qemus: Vec<_> =
        (0..count).map(|n| FakeQemu::at(&at(n), &format!("vm{n}")).unwrap()).collect();
    let one = FakeQemu::absent_at(&at(count));
    let mut orders = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await.unwrap() {
        println!("{}", now().as_nanos());
        match order.as_str() {
            "flood" => {
                let mut ticks = tokio::time::interval(Duration::from_millis(10));
                for tick in 0..SECONDS * 100 {
                    ticks.tick().await;
                    for n in 0..RATE / 100 {
                        qemus[(tick * RATE / 100 + n) % count].emit("RESUME", "");
                    }
                }
            }
            "start" => one.boot("one").unwrap(),
            "stop" => one.end(None),
            _ => {}
        }
    }
}
