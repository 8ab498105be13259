//! The cost of an event from libvirt's frames to the items of a stream, through the driver, over a
//! unix socket.
//!
//! It is compared with two other clients, in the same process, in turns, over the same bytes:
//!
//! - *read*: a loop that only reads;
//! - *two tasks*: a tokio task that decodes the frames into owned values and passes them through a
//!   bounded channel to a second task. A client without recovery, filters and fan-out does at least
//!   that.
//!
//! The figure is the CPU time of the client's thread for each event; the server has a thread of its
//! own. Run it with `cargo bench -p virevent-libvirt --bench throughput`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod daemon;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use virevent::{DomainEvent, EventSource, EventSourceExt, Uuid};
use virevent_libvirt::Libvirt;
use virevent_libvirt::wire::{Frames, Lifecycle, xdr};

/// Events in a block that the server repeats.
const BLOCK: usize = 10_000;
const BLOCKS: usize = 100;
const EVENTS: usize = BLOCK * BLOCKS;
const RUNS: usize = 7;

fn main() {
    let block = daemon::events(BLOCK);
    let dir = tempfile::tempdir().unwrap();
    let mut runs: Vec<[f64; 3]> = (0..RUNS)
        .map(|run| {
            let path = |what: &str| dir.path().join(format!("{what}{run}"));
            [
                measure(&path("a"), &block, false, read_only),
                measure(&path("b"), &block, false, two_tasks),
                measure(&path("c"), &block, true, virevent),
            ]
        })
        .collect();
    // Other load on the machine changes single runs, so the one with the median ratio counts.
    runs.sort_by(|a, b| (a[2] / a[1]).total_cmp(&(b[2] / b[1])));
    let [read, plain, ours] = runs[RUNS / 2];
    println!("| over {EVENTS} lifecycle events | CPU, ns/event | times *two tasks* |");
    println!("|---|---:|---:|");
    for (what, cost) in [("read", read), ("two tasks", plain), ("virevent", ours)] {
        println!("| {what} | {cost:.0} | {:.2} |", cost / plain);
    }
}

/// The cost of an event for a client of a server that sends the block `BLOCKS` times.
fn measure<F: Future<Output = Duration>>(
    path: &Path,
    block: &[u8],
    handshake: bool,
    client: impl FnOnce(std::path::PathBuf) -> F,
) -> f64 {
    let listener = UnixListener::bind(path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener.accept().unwrap().0, block, handshake));
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

async fn read_only(path: std::path::PathBuf) -> Duration {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let before = cpu();
    while socket.read(&mut buffer).await.unwrap() > 0 {}
    cpu() - before
}

/// What the second task gets: owned, as an event for a user is.
#[allow(dead_code)]
struct Owned {
    name: String,
    uuid: Uuid,
    id: i32,
    event: i32,
    detail: i32,
}

async fn two_tasks(path: std::path::PathBuf) -> Duration {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(1024);
    let before = cpu();
    tokio::spawn(async move {
        let mut frames = Frames::new();
        loop {
            let bytes = socket.read(frames.spare()).await.unwrap();
            if bytes == 0 {
                return;
            }
            frames.filled(bytes);
            while let Some(frame) = frames.next_frame().unwrap() {
                let mut body = xdr::Reader::new(frame.body);
                let _callback = body.i32().unwrap();
                let event = Lifecycle::read(&mut body).unwrap();
                let owned = Owned {
                    name: std::str::from_utf8(event.domain.name).unwrap().into(),
                    uuid: event.domain.uuid,
                    id: event.domain.id,
                    event: event.event,
                    detail: event.detail,
                };
                sender.send(owned).await.unwrap();
            }
        }
    });
    for _ in 0..EVENTS {
        std::hint::black_box(receiver.recv().await.unwrap());
    }
    cpu() - before
}

async fn virevent(path: std::path::PathBuf) -> Duration {
    let uri = format!("test+unix:///default?socket={}", path.display());
    let source = Libvirt::new(&uri).unwrap().source();
    let mut events = source.subscribe().await.unwrap();
    while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
    let before = cpu();
    for _ in 0..EVENTS {
        let event = events.next().await.unwrap();
        assert!(!event.is_marker(), "{event}");
        std::hint::black_box(event);
    }
    let spent = cpu() - before;
    assert_eq!(source.counters().missed, 0);
    spent
}

fn serve(mut socket: &UnixStream, block: &[u8], handshake: bool) {
    if handshake {
        daemon::answer_until_listed(socket);
    }
    for _ in 0..BLOCKS {
        if socket.write_all(block).is_err() {
            return;
        }
    }
    if handshake {
        // The client closes the connection when it has all events.
        let _ = socket.read_to_end(&mut Vec::new());
    }
}
