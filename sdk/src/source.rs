//! The source of events: a hypervisor, a directory of them, a fleet.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::Stream;
use futures::stream::FusedStream;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::fleet::Shared as Fleet;
use crate::{Error, EventStream, Fault, Kinds, Options, Scope, Statistics};

/// A source of domain events: a hypervisor, a directory of them, a fleet.
///
/// Object-safe: services hold an `Arc<dyn EventSource>`. Backends do not implement it by hand but
/// write a [`Session`](crate::driver::Session) and get it from the
/// [`Driver`](crate::driver::Driver).
#[async_trait]
pub trait EventSource: Debug + Send + Sync + 'static {
    /// Subscribes. The first subscription connects, on the tokio runtime that it is made in, which
    /// must have its I/O and time drivers enabled.
    ///
    /// During an outage it succeeds at once, and the stream opens with
    /// [`Disconnected`](crate::GapKind::Disconnected).
    ///
    /// # Errors
    /// The source is unreachable, or refuses; the hypervisor cannot report a kind that was asked
    /// for by name; an option is out of range; the source was shut down; the registration or the
    /// list of domains has no answer within the call timeout, 10 s by default (with
    /// [`wait`](Options::wait) the stream opens with `Disconnected` instead).
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing registered.
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error>;

    /// The source's URI, without secrets.
    fn uri(&self) -> &str;

    /// What the source can report.
    fn capabilities(&self) -> Capabilities;

    /// The state of the source, now and from now on.
    fn health(&self) -> Health;

    /// What has passed through the source so far.
    fn counters(&self) -> Counters;

    /// The sources that this one is made of: of a [`Fleet`](crate::Fleet) its members. Default: none.
    fn members(&self) -> Vec<Arc<dyn EventSource>> {
        Vec::new()
    }

    /// What it has counted beyond its [`counters`](Self::counters). Default: nothing.
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// Ends every stream (after what they have buffered), deregisters, and disconnects.
    ///
    /// # Cancel safety
    /// The shutdown goes on whether or not this future is driven further.
    async fn shutdown(&self);
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: EventSource + ?Sized> EventSource for $pointer<T> {
            async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
                (**self).subscribe_with(options).await
            }

            fn uri(&self) -> &str {
                (**self).uri()
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn health(&self) -> Health {
                (**self).health()
            }

            fn counters(&self) -> Counters {
                (**self).counters()
            }

            fn members(&self) -> Vec<Arc<dyn EventSource>> {
                (**self).members()
            }

            fn statistics(&self) -> Statistics {
                (**self).statistics()
            }

            async fn shutdown(&self) {
                (**self).shutdown().await;
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);

/// What a source can report.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Capabilities {
    /// The kinds that the source can report.
    pub kinds: Kinds,
    /// The kinds that the server turned out to lack, as far as they were asked for.
    pub lacking: Kinds,
}

/// What has passed through a source since it was opened.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Counters {
    /// Events received, inferred ones included; existing domains and markers not.
    pub events: u64,
    /// Events that were dropped for slow subscribers, summed over all of them.
    pub missed: u64,
    /// How many times the source, or a part of it, became unreachable.
    pub gaps: u64,
    /// How many times it was reachable again.
    pub reconnects: u64,
    /// Domains that a verification corrected: the hypervisor had changed them without an event.
    pub corrected: u64,
}

/// The state of a source.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// There is no subscriber.
    #[default]
    Idle,
    /// The driver connects for the first time.
    Connecting,
    /// The driver is connected, and awaits the list of domains.
    Syncing,
    /// All domains are known.
    Synced,
    /// The source is unreachable and the driver reconnects, or the list of domains is late.
    Disconnected(Fault),
    /// It was shut down.
    Shutdown,
    /// The task that drove it has ended: with its runtime, or by a panic of the backend.
    Ended,
}

impl Status {
    /// The name in the JSON form.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::Disconnected(_) => "disconnected",
            Self::Shutdown => "shutdown",
            Self::Ended => "ended",
        }
    }
}

/// A short text for people, with the fault of an outage.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::Disconnected(fault) => return write!(f, "disconnected ({fault})"),
            Self::Shutdown => "shut down",
            Self::Ended => "ended",
        })
    }
}

/// The state of a source, now and from now on.
#[derive(Clone)]
pub struct Health {
    status: watch::Receiver<Status>,
    details: DetailsOf,
}

/// Where the details are.
#[derive(Clone)]
enum DetailsOf {
    Source(Arc<Mutex<Details>>),
    /// With the members.
    Fleet(Arc<Fleet>),
}

/// What a source reports beside its status.
#[derive(Debug, Default)]
pub(crate) struct Details {
    pub(crate) verified: Option<SystemTime>,
    pub(crate) unreachable: Vec<(Scope, Fault)>,
}

impl Health {
    pub(crate) fn new(status: watch::Receiver<Status>, details: Arc<Mutex<Details>>) -> Self {
        Self { status, details: DetailsOf::Source(details) }
    }

    /// The health of a source without a driver, see [`EventStream::from_events`]: this status, and no
    /// details.
    #[must_use]
    pub fn from_status(status: watch::Receiver<Status>) -> Self {
        Self::new(status, Arc::default())
    }

    pub(crate) fn of_fleet(status: watch::Receiver<Status>, fleet: Arc<Fleet>) -> Self {
        Self { status, details: DetailsOf::Fleet(fleet) }
    }

    /// The status alone.
    pub(crate) fn into_status(self) -> watch::Receiver<Status> {
        self.status
    }

    /// The current status, and each later one that the reader is in time for: of several changes
    /// between two looks the last. The stream ends behind [`Shutdown`](Status::Shutdown) and
    /// [`Ended`](Status::Ended).
    ///
    /// ```
    /// # async fn example(source: &dyn virevent::EventSource) {
    /// use futures::StreamExt;
    ///
    /// let mut statuses = source.health().stream();
    /// while let Some(status) = statuses.next().await {
    ///     println!("{}: {status}", source.uri());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn stream(&self) -> StatusStream {
        StatusStream(Some(WatchStream::new(self.status.clone())))
    }

    /// When everything that is believed of the domains was last compared with what the hypervisor
    /// says: by the list at the start or after an outage, or by a verification. `None` before the
    /// first. Of a fleet: the oldest of its members'.
    #[must_use]
    pub fn verified(&self) -> Option<SystemTime> {
        match &self.details {
            DetailsOf::Source(details) => lock(details).verified,
            DetailsOf::Fleet(fleet) => {
                let verified = |member: &Arc<dyn EventSource>| member.health().verified();
                fleet.members().iter().map(verified).min().flatten()
            }
        }
    }

    /// The parts of the source that are unreachable now, and why: a member of a fleet, a domain
    /// whose monitor does not answer, a directory that does not exist. They change without a change
    /// of the status.
    #[must_use]
    pub fn unreachable(&self) -> Vec<(Scope, Fault)> {
        match &self.details {
            DetailsOf::Source(details) => lock(details).unreachable.clone(),
            DetailsOf::Fleet(fleet) => {
                let mut unreachable = Vec::new();
                for member in fleet.members() {
                    let health = member.health();
                    if let Status::Disconnected(fault) = health.status() {
                        unreachable.push((Scope::source_wide(member.uri()), fault));
                    }
                    unreachable.append(&mut health.unreachable());
                }
                unreachable
            }
        }
    }

    /// The current status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits for another status than the one last seen here, and returns it.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was not returned is returned by the next call.
    pub async fn changed(&mut self) -> Status {
        // After the end of the driver the last status stays.
        if self.status.changed().await.is_err() {
            // An error for a program that awaits the next status in a `select!` would be a busy
            // loop.
            std::future::pending::<()>().await;
        }
        self.status.borrow_and_update().clone()
    }

    /// Waits until the status satisfies `wanted`, and returns it; at once if it does already.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for(&mut self, wanted: impl FnMut(&Status) -> bool) -> Status {
        if let Ok(status) = self.status.wait_for(wanted).await {
            return status.clone();
        }
        std::future::pending().await
    }
}

/// The statuses of a source, see [`Health::stream`].
#[derive(Debug)]
pub struct StatusStream(Option<WatchStream<Status>>);

impl Stream for StatusStream {
    type Item = Status;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        let Some(statuses) = &mut self.0 else { return Poll::Ready(None) };
        let status = ready!(Pin::new(statuses).poll_next(cx));
        // The last status stays, and handles may keep its sender alive.
        if matches!(status, None | Some(Status::Shutdown | Status::Ended)) {
            self.0 = None;
        }
        Poll::Ready(status)
    }
}

impl FusedStream for StatusStream {
    fn is_terminated(&self) -> bool {
        self.0.is_none()
    }
}

fn lock(details: &Mutex<Details>) -> MutexGuard<'_, Details> {
    // Nothing that runs under the lock can leave the details half changed.
    details.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("status", &self.status()).finish_non_exhaustive()
    }
}
