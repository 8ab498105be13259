//! The allocations of an event, from the socket to the stream, once all buffers have their size.
#![allow(clippy::unwrap_used)]

#[path = "../benches/daemon/mod.rs"]
mod daemon;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Barrier};

use futures::StreamExt;
use virevent::{EventSource, Kind, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::until_synced;

const WARM_UP: usize = 5;
const BURSTS: usize = 10;
/// Events in a burst: fewer than a mailbox holds.
const BURST: usize = 500;

#[test]
fn in_the_steady_state_an_event_of_libvirt_allocates_nothing() {
    assert_eq!(allocations(daemon::events(BURST), Kind::Lifecycle), 0);
}

#[test]
fn a_block_job_or_balloon_event_allocates_its_body_and_no_more() {
    let block_jobs = daemon::notices(339, BURST, |body| {
        body.string("vda");
        body.i32(2);
        body.i32(3);
    });
    assert_eq!(allocations(block_jobs, Kind::BlockJob), BURST as u64);
    let balloon = daemon::notices(331, BURST, |body| body.u64(524_288));
    assert_eq!(allocations(balloon, Kind::BalloonChange), BURST as u64);
}

/// How many allocations a burst causes, from the socket to the stream.
fn allocations(burst: Vec<u8>, kind: Kind) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Each burst is written when the client is ready for it.
    let client_ready = Arc::new(Barrier::new(2));
    let daemon_ready = Arc::clone(&client_ready);
    let daemon = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        daemon::answer_until_listed(&socket);
        for _ in 0..WARM_UP + 3 * BURSTS {
            daemon_ready.wait();
            socket.write_all(&burst).unwrap();
        }
    });
    // Allocations are counted for one thread: this one, on which the whole client runs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let uri = format!("test+unix:///default?socket={}", path.display());
    let source = Libvirt::new(&uri).unwrap().source();
    let options = Options::default().kind(kind);
    let mut events = runtime.block_on(source.subscribe_with(options)).unwrap();
    runtime.block_on(until_synced(&mut events)).unwrap();
    let mut receive = |bursts| {
        runtime.block_on(async {
            for _ in 0..bursts {
                client_ready.wait();
                for _ in 0..BURST {
                    let event = events.next().await.unwrap();
                    assert!(!event.is_marker(), "{event}");
                }
            }
        });
    };
    receive(WARM_UP);
    let some = allocation_counter::measure(|| receive(BURSTS)).count_total;
    let more = allocation_counter::measure(|| receive(2 * BURSTS)).count_total;
    daemon.join().unwrap();
    // tokio allocates a little each time that a runtime is entered, which is in both.
    let bursts = more - some;
    assert_eq!(bursts % BURSTS as u64, 0, "{some} in {BURSTS} bursts, {more} in twice as many");
    let per_burst = bursts / BURSTS as u64;
    assert!(some - per_burst * (BURSTS as u64) < 10, "{some} in {BURSTS} bursts");
    per_burst
}
