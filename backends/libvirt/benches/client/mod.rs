//! A subscriber of the real driver, and the server that sends it a block of events again and again.

#![allow(dead_code, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::time::Duration;

use futures::StreamExt;
use virevent::{DomainEvent, EventSource, Kind, Options};
use virevent_libvirt::Libvirt;

use super::daemon;

/// Events in a block that the server repeats.
pub(crate) const BLOCK: usize = 10_000;
pub(crate) const BLOCKS: usize = 50;
pub(crate) const EVENTS: usize = BLOCK * BLOCKS;

/// Serves one client, with so many bytes a write.
pub(crate) fn serve(mut socket: impl Read + Write, block: &[u8], size: usize) {
    daemon::answer_until_listed(&mut socket);
    for _ in 0..BLOCKS {
        for bytes in block.chunks(size) {
            socket.write_all(bytes).unwrap();
        }
    }
    socket.flush().unwrap();
    // The client closes the connection when it has all events.
    let _ = socket.read_to_end(&mut Vec::new());
}

/// The CPU time of this thread for each event of this source, in ns.
pub(crate) fn cost(uri: &str, kind: Kind) -> f64 {
    cost_and(uri, kind, || {})
}

/// The same; `at_the_end` is called when all events have arrived, while the connection is there.
pub(crate) fn cost_and(uri: &str, kind: Kind, at_the_end: impl FnOnce()) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let spent = runtime.block_on(async {
        let source = Libvirt::new(uri).unwrap().source();
        let mut events = source.subscribe_with(Options::default().kind(kind)).await.unwrap();
        while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
        let before = cpu();
        for _ in 0..EVENTS {
            let event = events.next().await.unwrap();
            assert!(!event.is_marker(), "{event}");
            std::hint::black_box(event);
        }
        let spent = cpu() - before;
        assert_eq!(source.counters().missed, 0);
        at_the_end();
        source.shutdown().await;
        spent
    });
    drop(runtime);
    spent.as_nanos() as f64 / EVENTS as f64
}

/// The CPU time of this thread so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
