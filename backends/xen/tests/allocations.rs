//! Allocations of an event, from the socket to the stream, once all buffers have their size.
#![allow(clippy::unwrap_used)]

#[path = "../benches/store/mod.rs"]
mod store;

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Barrier};

use futures::StreamExt;
use virevent::{DomainEvent, EventSourceExt};
use virevent_xen::XenStore;

use self::store::{BenchStore, DOMAINS};

const WARM_UP: usize = 5;
const BURSTS: usize = 10;
const FLOOD: usize = 1_000;

#[test]
fn neither_watch_events_nor_items_allocate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let next = Arc::new(Barrier::new(2));
    let bursts = WARM_UP + 2 * BURSTS;
    let turn = Arc::clone(&next);
    let server = std::thread::spawn(move || {
        let mut store = BenchStore::new(listener.accept().unwrap().0);
        store.until_first_look();
        for _ in 0..bursts {
            turn.wait();
            store.flood(FLOOD);
            store.request();
        }
        while store.answer() {}
    });
    // Allocations are counted by thread: the whole client runs on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let source = XenStore::new(&format!("xenstore:{}", path.display())).unwrap().source();
    let mut events = runtime.block_on(source.subscribe()).unwrap();
    while !matches!(runtime.block_on(events.next()), Some(DomainEvent::Synced(_))) {}
    let mut pass = |bursts| {
        runtime.block_on(async {
            for _ in 0..bursts {
                next.wait();
                for _ in 0..DOMAINS {
                    let event = events.next().await.unwrap();
                    assert!(!event.is_marker(), "{event}");
                }
            }
        });
    };
    pass(WARM_UP);
    let allocations = allocation_counter::measure(|| pass(2 * BURSTS)).count_total;
    // tokio allocates each time that a runtime is entered, and so does the list that is read a few times after
    // an introduction. The events do not.
    let items = 2 * BURSTS * DOMAINS;
    assert!(allocations < 100, "{allocations} for {items} items of {} events", 2 * BURSTS * FLOOD);
    drop((events, source, runtime));
    server.join().unwrap();
}
