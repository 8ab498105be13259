//! An event allocates nothing, from the socket to the stream, once all buffers have their size; one
//! with a type of its own allocates its body.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Barrier};

use futures::StreamExt;
use virevent::{DomainEvent, EventSource, Kind, Kinds, Options};
use virevent_qemu::Qmp;

const WARM_UP: usize = 5;
const BURSTS: usize = 10;
/// The events of a burst: fewer than a mailbox holds, so that none is dropped.
const BURST: usize = 500;

/// Fewer allocations than one a burst. A queue may grow late: how much of a burst is in one read, and
/// so how long a queue becomes, is up to the kernel.
const GROWN: u64 = BURSTS as u64;

/// Events after which QEMU is not asked for its run state.
const CHANGES: [&str; 3] = [
    "\"RESET\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}",
    "\"SUSPEND\"",
    "\"WAKEUP\"",
];

/// Events with a type of their own.
const TYPED: [&str; 3] = [
    "\"BALLOON_CHANGE\", \"data\": {\"actual\": 15728640}",
    "\"BLOCK_JOB_READY\", \"data\": {\"device\": \"m1\", \"len\": 1048576, \"offset\": 1048576, \
     \"speed\": 0, \"type\": \"mirror\"}",
    "\"BLOCK_IO_ERROR\", \"data\": {\"device\": \"\", \"nospace\": true, \"node-name\": \"top\", \
     \"reason\": \"No space left on device\", \"operation\": \"read\", \"action\": \"report\"}",
];

/// The events in turns, as QEMU writes them.
fn burst(events: [&str; 3]) -> Vec<u8> {
    let event = |n: usize| events[n % 3];
    let stamp = "{\"seconds\": 1795333210, \"microseconds\": 380905}";
    let line = |n| format!("{{\"timestamp\": {stamp}, \"event\": {}}}\r\n", event(n));
    (0..BURST).map(line).collect::<String>().into_bytes()
}

/// Answers the questions of a client up to that for the run state.
fn answer(mut socket: &UnixStream) {
    socket.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").unwrap();
    for line in BufReader::new(socket).lines() {
        let call: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = match call["execute"].as_str().unwrap() {
            "query-status" => serde_json::json!({"status": "running"}),
            "query-cpus-fast" => serde_json::json!([]),
            _ => serde_json::json!({}),
        };
        let answer = serde_json::json!({"return": answer, "id": call["id"]});
        socket.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
        if call["execute"] == "query-status" {
            return;
        }
    }
}

#[test]
fn an_event_allocates_nothing_in_the_steady_state() {
    let [some, more] = allocated(CHANGES, &[Kind::Lifecycle, Kind::Reboot]);
    // tokio allocates when a runtime is entered, so the number must not grow with the events.
    let grown = more.abs_diff(some);
    assert!(grown < GROWN && more < GROWN, "{some} in {BURSTS} bursts, {more} in twice as many");
}

#[test]
fn an_event_with_a_type_allocates_its_body_alone() {
    let kinds = [Kind::BalloonChange, Kind::BlockJob, Kind::IoError];
    let [some, more] = allocated(TYPED, &kinds);
    let bodies = (BURSTS * BURST) as u64;
    // In either pass.
    let others = (more - some).abs_diff(bodies);
    assert!(others < GROWN, "{some}, then {more} in twice as many");
}

/// The allocations of so many bursts of these events, and of twice as many.
fn allocated(events: [&'static str; 3], kinds: &[Kind]) -> [u64; 2] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let next = Arc::new(Barrier::new(2));
    let asked = WARM_UP + 3 * BURSTS;
    let turn = Arc::clone(&next);
    let qemu = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        answer(&socket);
        let burst = burst(events);
        for _ in 0..asked {
            turn.wait();
            socket.write_all(&burst).unwrap();
        }
        turn.wait();
    });
    // Allocations are counted by thread, and the client runs on this one alone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let source = Qmp::at(&path).unwrap().source();
    let wanted = Options::default().kinds(kinds.iter().cloned().collect::<Kinds>());
    let mut events = runtime.block_on(source.subscribe_with(wanted)).unwrap();
    runtime.block_on(async {
        while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
    });
    let mut pass = |bursts| {
        runtime.block_on(async {
            for _ in 0..bursts {
                next.wait();
                for _ in 0..BURST {
                    let event = events.next().await.unwrap();
                    assert!(!event.is_marker(), "{event}");
                }
            }
        });
    };
    pass(WARM_UP);
    let some = allocation_counter::measure(|| pass(BURSTS)).count_total;
    let more = allocation_counter::measure(|| pass(2 * BURSTS)).count_total;
    next.wait();
    qemu.join().unwrap();
    [some, more]
}
