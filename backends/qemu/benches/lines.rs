//! QMP lines to items of a stream, through the real driver over a unix socket.
//!
//! Beside it, in the same process, in turns and over the same bytes:
//!
//! - *read*: a loop that only reads;
//! - *serde*: a loop that finds the lines and parses each with a borrowed serde struct: the least that a
//!   client in Rust would do.
//!
//! What is compared is the CPU time of the client's one thread per event; the server is another
//! thread. Run it with `cargo bench -p virevent-qemu --bench lines`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;
use virevent::{DomainEvent, EventSource, EventSourceExt};
use virevent_qemu::Qmp;

/// Events in a block that the server repeats.
const BLOCK: usize = 10_000;
const BLOCKS: usize = 50;
const EVENTS: usize = BLOCK * BLOCKS;
const RUNS: usize = 7;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let forms = [("as QEMU writes them", block(true)), ("in another form", block(false))];
    println!("| over {EVENTS} lines | CPU, ns/event | times *serde* |");
    println!("|---|---:|---:|");
    for (form, block) in &forms {
        let mut runs: Vec<[f64; 3]> = (0..RUNS)
            .map(|run| {
                let path = |what: &str| dir.path().join(format!("{what}{run}{}", form.len()));
                // The three in turns: the clock of a busy machine changes from one run to the next.
                [
                    measure(&path("a"), block, false, read_only),
                    measure(&path("b"), block, false, parse),
                    measure(&path("c"), block, true, virevent),
                ]
            })
            .collect();
        // The median ratio, for other processes disturb single runs.
        runs.sort_by(|a, b| (a[2] / a[1]).total_cmp(&(b[2] / b[1])));
        let [read, plain, ours] = runs[RUNS / 2];
        for (what, cost) in [("read", read), ("serde", plain), ("virevent", ours)] {
            println!("| {what}, {form} | {cost:.0} | {:.2} |", cost / plain);
        }
    }
}

/// Runs a client against a server that sends the block again and again.
fn measure<F: Future<Output = Duration>>(
    path: &Path,
    block: &[u8],
    handshake: bool,
    client: impl FnOnce(PathBuf) -> F,
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

async fn read_only(path: PathBuf) -> Duration {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let before = cpu();
    while socket.read(&mut buffer).await.unwrap() > 0 {}
    cpu() - before
}

#[allow(dead_code)]
#[derive(Deserialize)]
struct Line<'a> {
    timestamp: Timestamp,
    event: &'a str,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[allow(dead_code)]
#[derive(Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

async fn parse(path: PathBuf) -> Duration {
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
        while let Some(length) = memchr::memchr(b'\n', &buffer[start..filled]) {
            let line: Line<'_> = serde_json::from_slice(&buffer[start..start + length]).unwrap();
            std::hint::black_box(line);
            start += length + 1;
            events += 1;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

async fn virevent(path: PathBuf) -> Duration {
    let source = Qmp::new(&format!("qmp:{}", path.display())).unwrap().source();
    let mut events = source.subscribe().await.unwrap();
    while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
    // From the sync on: the handshake is no event.
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

/// Resets and what follows them, with data and without: as QEMU writes them, or with the members of
/// each in another order, which only a JSON parser reads.
fn block(is_usual_form: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..BLOCK {
        // A cycle of states, so that each event is a change and none is dropped as a repetition.
        let event = match n % 4 {
            0 => "\"RESET\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}",
            1 => "\"SUSPEND\"",
            2 => "\"WAKEUP\"",
            _ => "\"RESUME\"",
        };
        let stamp = format!("{{\"seconds\": 1795333210, \"microseconds\": {}}}", n % 1_000_000);
        let line = match is_usual_form {
            true => format!("{{\"timestamp\": {stamp}, \"event\": {event}}}\r\n"),
            false => format!("{{\"event\": {event}, \"timestamp\": {stamp}}}\r\n"),
        };
        bytes.extend(line.as_bytes());
    }
    bytes
}

fn serve(mut socket: &UnixStream, block: &[u8], handshake: bool) {
    if handshake {
        answer_until_asked_all(socket);
    }
    for _ in 0..BLOCKS {
        if socket.write_all(block).is_err() {
            return;
        }
    }
    if handshake {
        // The client closes the connection when it has read all.
        let _ = socket.read_to_end(&mut Vec::new());
    }
}

/// Answers the questions of a client up to that for the run state, and waits a moment for its sync.
fn answer_until_asked_all(mut socket: &UnixStream) {
    socket.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").unwrap();
    let mut lines = BufReader::new(socket).lines();
    loop {
        let line = lines.next().unwrap().unwrap();
        let call: serde_json::Value = serde_json::from_str(&line).unwrap();
        let answer = match call["execute"].as_str().unwrap() {
            "query-status" => serde_json::json!({"status": "running"}),
            // No virtual CPU: the process is this one, and is watched as QEMU's would be.
            "query-cpus-fast" => serde_json::json!([]),
            _ => serde_json::json!({}),
        };
        let answer = serde_json::json!({"return": answer, "id": call["id"]});
        socket.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
        if call["execute"] == "query-status" {
            // The server cannot see when the client is synced, and events before would not be
            // counted.
            std::thread::sleep(Duration::from_millis(50));
            return;
        }
    }
}
