//! XenStore frames to items of a stream, through the real driver over a unix socket.
//!
//! Two loads:
//!
//! - *flood*: watch events of nodes that have not changed, as a busy store sends them. The client takes in
//!   each, reads the nodes again, and has nothing to report until the last.
//! - *items*: 64 domains at a time are asked to shut down. Each watch event leads to a read, and each reply
//!   to an item.
//!
//! Beside it, in the same process, in turns and over the same bytes from the server:
//!
//! - *read*: a loop that only reads;
//! - *decode*: a loop that finds the frames and the strings in them, and does nothing else.
//!
//! The figure is the CPU time of the client's one thread per watch event. The server is another
//! thread. Run it with `cargo bench -p virevent-xen --bench frames`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod store;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::AsyncReadExt;
use virevent::{DomainEvent, EventSource, Options};
use virevent_xen::XenStore;

use self::store::{BenchStore, DOMAINS};

const EVENTS: usize = 512_000;
/// The events that the server writes at once in the flood: as many as one read takes.
const BLOCK: usize = 1_280;
const RUNS: usize = 7;

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Flood,
    Items,
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    println!("| over {EVENTS} watch events | CPU, ns/event | times *decode* |");
    println!("|---|---:|---:|");
    for (load, name) in [(Load::Flood, "flood"), (Load::Items, "items")] {
        let mut runs: Vec<[f64; 3]> = (0..RUNS)
            .map(|run| {
                let path = |what: &str| dir.path().join(format!("{name}{what}{run}"));
                [
                    measure(&path("a"), load, false, read_only),
                    measure(&path("b"), load, false, decode),
                    measure(&path("c"), load, true, |path| virevent(path, load)),
                ]
            })
            .collect();
        // The run with the median ratio: the machine is noisy.
        runs.sort_by(|a, b| (a[2] / a[1]).total_cmp(&(b[2] / b[1])));
        let [read, plain, ours] = runs[RUNS / 2];
        for (what, cost) in [("read", read), ("decode", plain), ("virevent", ours)] {
            println!("| {name}: {what} | {cost:.0} | {:.2} |", cost / plain);
        }
    }
}

/// Runs a client against a server of its own.
fn measure<F: Future<Output = Duration>>(
    path: &Path,
    load: Load,
    serves: bool,
    client: impl FnOnce(PathBuf) -> F,
) -> f64 {
    let listener = UnixListener::bind(path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut store = BenchStore::new(listener.accept().unwrap().0);
            if serves { serve(&mut store, load) } else { recite(&mut store, load) }
        });
        let cpu = runtime.block_on(client(path.into()));
        drop(runtime);
        cpu.as_nanos() as f64 / EVENTS as f64
    })
}

/// The CPU time of this thread so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn read_only(path: PathBuf) -> Duration {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let before = cpu();
    while socket.read(&mut buffer).await.unwrap() > 0 {}
    cpu() - before
}

async fn decode(path: PathBuf) -> Duration {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    let mut events = 0;
    let before = cpu();
    loop {
        let read = socket.read(&mut buffer[filled..]).await.unwrap();
        if read == 0 {
            assert_eq!(events, EVENTS);
            return cpu() - before;
        }
        filled += read;
        let mut start = 0;
        while let Some(header) = buffer[start..filled].first_chunk::<16>() {
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
            let length = word(12) as usize;
            let Some(payload) = buffer[start..filled].get(16..16 + length) else { break };
            if word(0) == 15 {
                let path = payload.iter().position(|byte| *byte == 0).unwrap();
                let token = payload[path + 1..].iter().position(|byte| *byte == 0).unwrap();
                std::hint::black_box((&payload[..path], &payload[path + 1..path + 1 + token]));
                events += 1;
            } else {
                std::hint::black_box((word(4), payload));
            }
            start += 16 + length;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

async fn virevent(path: PathBuf, load: Load) -> Duration {
    let source = XenStore::new(&format!("xenstore:{}", path.display())).unwrap().source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
    let before = cpu();
    let items = if load == Load::Flood { 1 } else { EVENTS };
    for _ in 0..items {
        let event = events.next().await.unwrap();
        assert!(!event.is_marker(), "{event}");
        std::hint::black_box(event);
    }
    let spent = cpu() - before;
    assert_eq!(source.counters().missed, 0);
    spent
}

/// Answers, and sends the load once the client's first look is over.
fn serve(store: &mut BenchStore, load: Load) {
    store.until_first_look();
    std::thread::sleep(Duration::from_millis(50));
    match load {
        Load::Flood => (0..EVENTS / BLOCK).for_each(|_| store.flood(BLOCK)),
        Load::Items => (0..EVENTS / DOMAINS).for_each(|_| store.request()),
    }
    store.request();
    // The client disconnects when it has everything.
    while store.answer() {}
}

/// Sends the same bytes to a client that sends no requests.
fn recite(store: &mut BenchStore, load: Load) {
    let step = if load == Load::Flood { BLOCK } else { DOMAINS };
    for _ in 0..EVENTS / step {
        store.recite(step);
    }
}
