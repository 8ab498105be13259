//! What an event costs, from the socket to the stream, once everything has its size.
#![allow(clippy::unwrap_used)]

#[path = "../benches/daemon/mod.rs"]
mod daemon;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Barrier};

use futures::StreamExt;
use virevent::{DomainEvent, EventSourceExt};
use virevent_libvirt::Libvirt;

const WARM_UP: usize = 5;
const BURSTS: usize = 10;
/// Fewer than a mailbox holds.
const BURST: usize = 500;

#[test]
fn in_the_steady_state_an_event_of_libvirt_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (next, asked) = (Arc::new(Barrier::new(2)), WARM_UP + 3 * BURSTS);
    let turn = Arc::clone(&next);
    let daemon = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        daemon::answer_until_listed(&socket);
        let burst = daemon::events(BURST);
        for _ in 0..asked {
            turn.wait();
            socket.write_all(&burst).unwrap();
        }
    });
    // Allocations are counted by thread: all that is ours runs on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let uri = format!("test+unix:///default?socket={}", path.display());
    let source = Libvirt::new(&uri).unwrap().source();
    let mut events = runtime.block_on(source.subscribe()).unwrap();
    runtime
        .block_on(async { while !matches!(events.next().await, Some(DomainEvent::Synced(_))) {} });
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
    // tokio allocates something each time that a runtime is entered; the events do not.
    assert!(some == more && more < 10, "{some} in {BURSTS} bursts, {more} in twice as many");
    daemon.join().unwrap();
}
