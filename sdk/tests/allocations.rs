//! What an event costs once everything has its size.

use futures::StreamExt;
use tokio::sync::watch;
use virevent::driver::{Batch, Connect, Driver, Interest, Session};
use virevent::{
    Change, DomainEvent, Error, EventSourceExt, Lifecycle, ResumeCause, StartCause, SuspendCause,
    Uuid,
};

const DOMAINS: u128 = 50;
const READS: usize = 200;

/// A hypervisor whose every read, when asked for one, brings an event for each domain.
#[derive(Debug)]
struct Source(watch::Receiver<Change>);

struct Reads {
    asked: watch::Receiver<Change>,
    interest: Option<u64>,
    list: Option<u64>,
}

impl Connect for Source {
    type Session = Reads;

    fn uri(&self) -> &str {
        "allocations:"
    }

    async fn connect(&self) -> Result<Reads, Error> {
        Ok(Reads { asked: self.0.clone(), interest: None, list: None })
    }
}

impl Session for Reads {
    fn host(&self) -> &str {
        "host"
    }

    fn set_interest(&mut self, _: &Interest, tag: u64) {
        self.interest = Some(tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.list = Some(tag);
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        if let Some(tag) = self.interest.take() {
            out.interest_done(tag, &[]);
        } else if let Some(tag) = self.list.take() {
            out.listed(tag, Vec::new());
        } else {
            if self.asked.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let change = *self.asked.borrow_and_update();
            let at = out.received();
            for n in 0..DOMAINS {
                let domain = out.domain(Uuid::from_u128(n), "domain", Some(1));
                out.event(Lifecycle::new(domain, change, at));
            }
        }
        Ok(())
    }
}

#[test]
fn in_the_steady_state_an_event_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ask, asked) = watch::channel(Change::Started(StartCause::Booted));
    let source = Driver::builder(Source(asked)).build();
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
    pass(Change::Started(StartCause::Booted)); // and Synced before it, so one event stays behind
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
