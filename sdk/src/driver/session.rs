//! The traits of a backend: how to connect, and one connection's I/O.

use std::fmt::Debug;
use std::future::Future;

use super::Batch;
use crate::{Domain, Error, Kind, Kinds};

/// Connects to a hypervisor.
pub trait Connect: Debug + Send + Sync + 'static {
    /// One connection.
    type Session: Session;

    /// The source's URI, without secrets.
    fn uri(&self) -> &str;

    /// The kinds that the source can report, as far as that is known before the server is asked.
    fn kinds(&self) -> Kinds {
        Kinds::common()
    }

    /// Connects, and does all that must come before the first registration. The driver drops the
    /// future when it takes too long.
    ///
    /// # Errors
    /// The connection failed. [`Error::is_refusal`] says whether the driver must not retry.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, Error>> + Send;
}

/// One connection to a hypervisor.
///
/// Requests are queued, and one future does all the I/O, so that a call that stalls never delays
/// events. The driver keeps the deadlines; the session keeps partial frames, in and out.
pub trait Session: Send + 'static {
    /// The host at the other end, as it calls itself.
    fn host(&self) -> &str;

    /// Queues the calls that register for these events and deregister from all others. Answered by
    /// [`Batch::interest_done`] once the server has confirmed all of them. The driver has at most
    /// one such request under way.
    fn set_interest(&mut self, interest: &Interest, tag: u64);

    /// Queues the call that lists all domains, active and inactive. Answered by [`Batch::listed`].
    /// The driver lists after the registration is confirmed, and again to verify what it believes:
    /// the answer must come from the hypervisor, not from the session's memory, and be at least as
    /// new as what the session reported before it. At most one is under way.
    fn request_list(&mut self, tag: u64);

    /// Queues the call that gets the state of this one domain. Answered by [`Batch::looked`], or
    /// [`Batch::look_failed`]. False where the protocol has no such call: the driver then requests
    /// a list. At most one of this and [`request_list`](Self::request_list) is under way.
    fn request_state(&mut self, domain: &Domain, tag: u64) -> bool {
        let _ = (domain, tag);
        false
    }

    /// Whether replies and events arrive in the order in which they arose, so that neither
    /// overtakes the other. The driver then believes one verifying list; otherwise two in a row
    /// that agree.
    fn is_ordered(&self) -> bool {
        false
    }

    /// Queues a probe that the server answers at once, whatever it is busy with. False where the
    /// protocol has none: the driver then assumes that a silent server lives.
    fn ping(&mut self) -> bool {
        false
    }

    /// Writes what is queued, reads, and decodes what one read brought into `out`. Returns after
    /// each read that brought bytes, even when `out` is still empty: so the driver knows that the
    /// server lives.
    ///
    /// # Errors
    /// The connection is lost, or broke its protocol. The session is dropped. What is in `out` by
    /// then is delivered first: the end of a process may be reported with the error that it is.
    ///
    /// # Cancel safety
    /// Must be cancel safe: the driver drops the future and calls again.
    fn advance(&mut self, out: &mut Batch) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The union of what the subscribers want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub(crate) kinds: Kinds,
}

impl Interest {
    /// The kinds. Empty without a subscriber; otherwise lifecycle is among them.
    #[must_use]
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Whether there is no subscriber.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Whether this kind is wanted.
    #[must_use]
    pub fn contains(&self, kind: &Kind) -> bool {
        self.kinds.contains(kind)
    }
}

impl FromIterator<Kind> for Interest {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Self { kinds: kinds.into_iter().collect() }
    }
}
