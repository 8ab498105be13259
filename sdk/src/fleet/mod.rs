//! Many sources as one.
//!
//! ```text
//!   member ──▶ its own driver ──▶ mailbox ─┐
//!   member ──▶ its own driver ──▶ mailbox ─┼─▶ FleetEvents ──▶ EventStream of the fleet
//!   member ──▶ (subscribes, with backoff) ─┘
//! ```
//!
//! A fleet has no driver: each of its streams is the merge of one subscription to each member, so
//! an event passes no second queue, and a slow or broken member concerns itself alone. What is
//! added while a stream lives is subscribed to by a task of its own, as is a member whose stream
//! has ended.

mod events;
mod health;
mod subscription;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub(crate) use self::events::FleetEvents;
use self::health::MemberChange;
use self::subscription::FleetStream;
pub(crate) use self::subscription::FleetSubscription;
use crate::driver::check_source;
use crate::{
    Capabilities, Counters, Error, EventSource, EventStream, Health, Kinds, Options, Scope, Status,
};

/// An [`EventSource`] of many sources, its members, which come and go at run time. Cheap to clone;
/// all clones are the same fleet.
///
/// A stream of a fleet begins with the existing domains of its members; each member's
/// [`Synced`](crate::DomainEvent::Synced) and [`Gap`](crate::DomainEvent::Gap) name it in their
/// scope. When every member is synced or unreachable, the fleet's own `Synced` follows, whose scope
/// [includes](Scope::includes) those that are synced. A member that joins later has its own
/// `Synced`, without another of the fleet; one that is removed is a
/// [`GapKind::Removed`](crate::GapKind::Removed).
///
/// Add each source once, be it directly or as a member of a member, and no fleet to itself.
///
/// No member harms another: subscribing to a fleet succeeds at once, and a member that refuses is a
/// gap, and is tried again, from one second to a minute apart. Give the same
/// [`Gate`](crate::driver::Gate) to the settings of all members, so that not all of them connect at
/// once when a network comes back.
///
/// ```
/// # async fn example(
/// #     open: impl Fn(&str) -> Result<std::sync::Arc<dyn virevent::EventSource>, virevent::Error>,
/// # ) -> Result<(), virevent::Error> {
/// use virevent::{EventSourceExt, Fleet};
///
/// let fleet = Fleet::new("fleet:berlin");
/// fleet.add(open("qemu+ssh://host1/system")?)?;
/// fleet.add(open("qemu+ssh://host2/system")?)?;
/// let mut events = fleet.subscribe().await?;
/// fleet.add(open("qemu+ssh://host3/system")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    uri: Arc<str>,
    state: Mutex<FleetState>,
    status: watch::Sender<Status>,
}

#[derive(Default)]
struct FleetState {
    members: BTreeMap<Arc<str>, Arc<dyn EventSource>>,
    streams: Vec<Weak<FleetStream>>,
    /// What removed members had counted.
    removed: Counters,
    /// To the task that keeps the status, once there was a subscription.
    health: Option<mpsc::UnboundedSender<MemberChange>>,
    seed: Option<u64>,
    is_shut_down: bool,
}

impl Fleet {
    /// A fleet without members. `uri` names it in its own markers: `fleet:NAME`, mostly.
    #[must_use]
    pub fn new(uri: &str) -> Self {
        let (status, _) = watch::channel(Status::Idle);
        Self { shared: Arc::new(Shared { uri: uri.into(), state: Mutex::default(), status }) }
    }

    /// Makes the waits between attempts at a member that refuses the same in every run of a test.
    /// Counts for streams that are subscribed to later.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.shared.lock().seed = Some(seed);
        self
    }

    /// Adds a member. Streams that live get its domains.
    ///
    /// # Errors
    /// The fleet has a member with the same URI, or that URI itself; or it was shut down.
    pub fn add(&self, source: Arc<dyn EventSource>) -> Result<(), Error> {
        let uri = Arc::<str>::from(source.uri());
        // A member's methods are called under no lock: it may be a fleet.
        let health = source.health();
        let mut state = self.shared.lock();
        if state.is_shut_down {
            return Err(Error::Shutdown);
        }
        if state.members.contains_key(&uri) || uri == self.shared.uri {
            let expected = "each source once, under a URI of its own";
            return Err(Error::invalid_option("member of the fleet", &*uri, expected));
        }
        state.update_health(MemberChange::Added(Arc::clone(&uri), health));
        let streams = state.live_streams();
        for stream in &streams {
            stream.join(&source);
        }
        state.members.insert(uri, source);
        drop(state);
        streams.iter().for_each(|stream| stream.wake());
        Ok(())
    }

    /// Removes the member with this URI, and returns it. Streams get a
    /// [`GapKind::Removed`](crate::GapKind::Removed); the source itself goes on, for its other
    /// subscribers.
    #[expect(clippy::must_use_candidate, reason = "the source may be of no more use")]
    pub fn remove(&self, uri: &str) -> Option<Arc<dyn EventSource>> {
        let mut state = self.shared.lock();
        let source = state.members.remove(uri)?;
        let uri = Arc::<str>::from(uri);
        state.update_health(MemberChange::Removed(Arc::clone(&uri)));
        let streams = state.live_streams();
        let left: Vec<_> = streams.iter().map(|stream| stream.leave(&uri)).collect();
        drop(state);
        drop(left);
        let counters = source.counters();
        let mut state = self.shared.lock();
        state.removed = state.removed.plus(counters);
        drop(state);
        streams.iter().for_each(|stream| stream.wake());
        Some(source)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, FleetState> {
        // Nothing that runs under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn members(&self) -> Vec<Arc<dyn EventSource>> {
        self.lock().members.values().cloned().collect()
    }

    /// Subscribes a stream again to a member whose subscription with this number has ended.
    fn join_again(&self, stream: &Arc<FleetStream>, uri: &str, ended: u64, pause: Duration) {
        let state = self.lock();
        let Some(source) = state.members.get(uri) else { return };
        let ended = stream.join_again(source, ended, pause);
        drop(state);
        drop(ended);
    }
}

impl FleetState {
    /// The streams that are not dropped.
    fn live_streams(&mut self) -> Vec<Arc<FleetStream>> {
        self.streams.retain(|stream| stream.strong_count() > 0);
        self.streams.iter().filter_map(Weak::upgrade).collect()
    }

    fn update_health(&self, change: MemberChange) {
        if let Some(health) = &self.health {
            // The task ends with the fleet's runtime only.
            let _ = health.send(change);
        }
    }
}

#[async_trait]
impl EventSource for Fleet {
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
        options.check()?;
        if let Some(known) = &options.resume {
            check_source(known, self)?;
        }
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let healths = self.members().iter().map(|one| (one.uri().into(), one.health())).collect();
        let mut state = self.shared.lock();
        if state.is_shut_down {
            return Err(Error::Shutdown);
        }
        // The task that keeps the status ends with the runtime that it runs on.
        if state.health.as_ref().is_none_or(mpsc::UnboundedSender::is_closed) {
            state.health = Some(health::spawn(&runtime, &self.shared, healths));
        }
        let stream = FleetStream::new(runtime, options, state.seed);
        let members = state.members.keys().cloned();
        let events = FleetEvents::new(Arc::clone(&self.shared), Arc::clone(&stream), members);
        let _ = state.live_streams();
        state.streams.push(Arc::downgrade(&stream));
        for source in state.members.values() {
            stream.join(source);
        }
        Ok(EventStream::of_fleet(events, FleetSubscription::new(stream)))
    }

    fn uri(&self) -> &str {
        &self.shared.uri
    }

    /// The kinds that any member can report, and those that any turned out to lack.
    fn capabilities(&self) -> Capabilities {
        let mut kinds = Kinds::default();
        let mut lacking = Kinds::default();
        for member in self.members() {
            let its = member.capabilities();
            kinds.merge(its.kinds);
            lacking.merge(its.lacking);
        }
        Capabilities { kinds, lacking }
    }

    /// `Synced` while all members are that are reachable; `Disconnected` while none is.
    fn health(&self) -> Health {
        Health::of_fleet(self.shared.status.subscribe(), Arc::clone(&self.shared))
    }

    /// The sums over all members, former ones included.
    fn counters(&self) -> Counters {
        let (members, removed) = {
            let state = self.shared.lock();
            (state.members.values().cloned().collect::<Vec<_>>(), state.removed)
        };
        members.iter().map(|member| member.counters()).fold(removed, Counters::plus)
    }

    /// The members, in the order of their URIs. Each has its own health and counters.
    fn members(&self) -> Vec<Arc<dyn EventSource>> {
        self.shared.members()
    }

    /// Ends every stream of the fleet, and shuts down its members.
    async fn shutdown(&self) {
        let (streams, members) = {
            let mut state = self.shared.lock();
            state.is_shut_down = true;
            state.health = None;
            (state.live_streams(), state.members.values().cloned().collect::<Vec<_>>())
        };
        for stream in streams {
            stream.end();
            stream.wake();
        }
        self.shared.status.send_replace(Status::Shutdown);
        join_all(members.iter().map(|member| member.shutdown())).await;
    }
}

impl Counters {
    fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            missed: self.missed + other.missed,
            gaps: self.gaps + other.gaps,
            reconnects: self.reconnects + other.reconnects,
            corrected: self.corrected + other.corrected,
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.shared.lock().members.len();
        f.debug_struct("Fleet")
            .field("uri", &self.shared.uri)
            .field("members", &members)
            .finish_non_exhaustive()
    }
}

/// All of a member: of its domains, and of itself if it is a fleet.
fn whole(uri: &Arc<str>) -> Scope {
    Scope::Source(Arc::clone(uri))
}
