//! Convenience methods on sources and on streams.

mod expect;
mod lifecycles;
mod merge;
mod of_domain;
mod source;

use futures::Stream;

pub use self::expect::{Expectation, WaitError};
pub use self::lifecycles::Lifecycles;
pub use self::merge::{Merged, MergedItem, merge};
pub use self::of_domain::OfDomain;
pub use self::source::EventSourceExt;
use crate::{Change, DomainEvent, Selector};

/// Combinators for any stream of domain events.
///
/// ```
/// # async fn example(source: &dyn virevent::EventSource) -> Result<(), virevent::Error> {
/// use futures::StreamExt;
/// use virevent::{DomainEvents, EventSourceExt};
///
/// let mut started = source.subscribe().await?.started();
/// while let Some(event) = started.next().await {
///     println!("{} started", event.domain);
/// }
/// # Ok(())
/// # }
/// ```
pub trait DomainEvents: Stream<Item = DomainEvent> + Sized {
    /// The lifecycle events alone.
    fn lifecycle(self) -> Lifecycles<Self> {
        Lifecycles::new(self, |_| true)
    }

    /// The beginnings of runs. Those that an outage hid are inferred after it, so this is right
    /// even though the markers are left out. Domains that ran already are not among them, nor are
    /// guests that wake up: their run goes on.
    fn started(self) -> Lifecycles<Self> {
        Lifecycles::new(self, Change::begins_run)
    }

    /// The ends of runs. Those that an outage hid are inferred after it.
    fn stopped(self) -> Lifecycles<Self> {
        Lifecycles::new(self, |change| matches!(change, Change::Stopped(_)))
    }

    /// The events of one domain, and the markers, which concern every domain.
    ///
    /// [`Options::domain`](crate::Options::domain) does the same earlier, before the mailbox.
    fn of_domain(self, domain: impl Into<Selector>) -> OfDomain<Self> {
        OfDomain::new(self, domain.into())
    }
}

impl<S: Stream<Item = DomainEvent>> DomainEvents for S {}
