//! QMP lines to items of a stream, through the real driver over a unix socket.
//!
//! Beside it, in the same process, in turns and over the same bytes:
//!
//! - *read*: a loop that only reads;
//! - *serde*: a loop that finds the lines and parses each with a borrowed serde struct, and the data of
//!   typed events with another: the least that a client in Rust would do.
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
use virevent::{DomainEvent, EventSource, Kind, Kinds, Options};
use virevent_qemu::Qmp;

/// Events in a block that the server repeats.
const BLOCK: usize = 10_000;
const BLOCKS: usize = 50;
const EVENTS: usize = BLOCK * BLOCKS;
const RUNS: usize = 7;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let forms = [
        ("as QEMU writes them", block(&CHANGES, true), false),
        ("in another form", block(&CHANGES, false), false),
        ("with a type", block(&TYPED, true), true),
    ];
    println!("| over {EVENTS} lines | CPU, ns/event | times *serde* |");
    println!("|---|---:|---:|");
    for (form, block, is_typed) in &forms {
        let client = async |path| virevent(path, *is_typed).await;
        let plain = async |path| parse(path, *is_typed).await;
        let mut runs: Vec<[f64; 3]> = (0..RUNS)
            .map(|run| {
                let path = |what: &str| dir.path().join(format!("{what}{run}{}", form.len()));
                // The three in turns: the clock of a busy machine changes from one run to the next.
                [
                    measure(&path("a"), block, false, read_only),
                    measure(&path("b"), block, false, plain),
                    measure(&path("c"), block, true, client),
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

/// The data of the events of [`TYPED`].
#[allow(dead_code)]
#[derive(Deserialize)]
struct Balloon {
    actual: u64,
}

#[allow(dead_code)]
#[derive(Deserialize)]
struct BlockJob<'a> {
    device: &'a str,
    len: u64,
    offset: u64,
    speed: u64,
    r#type: &'a str,
}

#[allow(dead_code)]
#[derive(Deserialize)]
struct Tray<'a> {
    device: &'a str,
    id: &'a str,
    #[serde(rename = "tray-open")]
    tray_open: bool,
}

fn parse_data(line: &Line<'_>) {
    let data = line.data.unwrap().get();
    match line.event {
        "BALLOON_CHANGE" => {
            std::hint::black_box(serde_json::from_str::<Balloon>(data).unwrap());
        }
        "BLOCK_JOB_READY" => {
            std::hint::black_box(serde_json::from_str::<BlockJob<'_>>(data).unwrap());
        }
        _ => {
            std::hint::black_box(serde_json::from_str::<Tray<'_>>(data).unwrap());
        }
    }
}

async fn parse(path: PathBuf, is_typed: bool) -> Duration {
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
            if is_typed {
                parse_data(&line);
            }
            std::hint::black_box(line);
            start += length + 1;
            events += 1;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

async fn virevent(path: PathBuf, is_typed: bool) -> Duration {
    let source = Qmp::new(&format!("qmp:{}", path.display())).unwrap().source();
    let kinds = match is_typed {
        true => Kinds::from([Kind::BalloonChange, Kind::BlockJob, Kind::TrayChange]),
        false => Kinds::common(),
    };
    let mut events = source.subscribe_with(Options::default().kinds(kinds)).await.unwrap();
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

/// A cycle of states, so that each event is a change and none is dropped as a repetition; with data
/// and without.
const CHANGES: [&str; 4] = [
    r#""RESET", "data": {"guest": true, "reason": "guest-reset"}"#,
    r#""SUSPEND""#,
    r#""WAKEUP""#,
    r#""RESUME""#,
];

const TYPED: [&str; 4] = [
    r#""BALLOON_CHANGE", "data": {"actual": 15728640}"#,
    r#""BLOCK_JOB_READY", "data": {"device": "m1", "len": 1048576, "offset": 1048576, "speed": 0, "type": "mirror"}"#,
    r#""BALLOON_CHANGE", "data": {"actual": 13631488}"#,
    r#""DEVICE_TRAY_MOVED", "data": {"device": "cd", "tray-open": true, "id": "cd0"}"#,
];

/// These events in turns: as QEMU writes them, or with the members of each in another order.
fn block(events: &[&str; 4], is_usual_form: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..BLOCK {
        let event = events[n % 4];
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
