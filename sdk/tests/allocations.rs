//! A test of the allocations of an event in the steady state.

mod common;

use futures::StreamExt;
use tokio::sync::watch;
use virevent::driver::{Batch, Driver};
use virevent::{
    Change, DomainEvent, EventSourceExt, Lifecycle, ResumeCause, StartCause, SuspendCause, Uuid,
};

use self::common::{Hypervisor, Peer};

const DOMAINS: u128 = 50;
const READS: usize = 200;

/// A hypervisor that sends, in each read that the test requests, an event for each domain.
#[derive(Clone, Debug)]
struct Source(watch::Receiver<Change>);

impl Peer for Source {
    const URI: &'static str = "allocations:";

    async fn read(&mut self, out: &mut Batch) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let change = *self.0.borrow_and_update();
        let at = out.received();
        for n in 0..DOMAINS {
            let domain = out.domain(Uuid::from_u128(n), "domain", Some(1));
            out.event(Lifecycle::new(domain, change, at));
        }
    }
}

#[test]
fn in_the_steady_state_an_event_allocates_nothing() {
    // One thread, which the counter measures: it counts the allocations of the thread that calls
    // it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ask, asked) = watch::channel(Change::Started(StartCause::Booted));
    let source = Driver::builder(Hypervisor(Source(asked))).build();
    let mut events = runtime.block_on(source.subscribe()).unwrap();
    let mut pass = |change| {
        runtime.block_on(async {
            ask.send_replace(change);
            for _ in 0..DOMAINS {
                let event = events.next().await.unwrap();
                assert!(!matches!(event, DomainEvent::Gap(_)), "{event}");
            }
        });
    };
    // `Synced` comes before them, so that one event stays buffered after each pass.
    pass(Change::Started(StartCause::Booted));
    // The first passes grow the buffers to the size that they keep.
    for _ in 0..10 {
        pass(Change::Suspended(SuspendCause::Paused));
        pass(Change::Resumed(ResumeCause::Unpaused));
    }
    let allocations = allocation_counter::measure(|| {
        for _ in 0..READS / 2 {
            pass(Change::Suspended(SuspendCause::Paused));
            pass(Change::Resumed(ResumeCause::Unpaused));
        }
    });
    assert_eq!(allocations.count_total, 0, "in {} events", READS as u128 * DOMAINS);
}
