//! The receiving half of a fleet's stream: the members' streams as one, with the fleet's markers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::SelectAll;
use tokio::time::Instant;

use super::subscription::{Arrival, FleetStream};
use super::{Shared, whole};
use crate::driver::Backoff;
use crate::event::ScopeKey;
use crate::stream::{MemberEvents, MemberItem};
use crate::{DomainEvent, End, Fault, Gap, GapKind, Scope, Synced};

/// After this long a member's stream counts as recovered, and its backoff starts over.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

pub(crate) struct FleetEvents {
    /// A stream keeps its fleet alive.
    fleet: Arc<Shared>,
    stream: Arc<FleetStream>,
    arrivals: VecDeque<Arrival>,
    streams: SelectAll<MemberEvents>,
    /// By their URIs. Looked up with each event, so not in their order, which costs ten comparisons.
    members: HashMap<Arc<str>, Member, foldhash::fast::RandomState>,
    /// What comes before the next event of a member.
    ready: VecDeque<DomainEvent>,
    start: Start,
    end: Option<End>,
}

/// The beginning of the stream, until each first member is synced or unreachable.
enum Start {
    /// What is unreachable: the fleet's `Synced` leaves out these sources.
    Syncing(BTreeMap<ScopeKey, Scope>),
    Synced,
}

/// A member, as this stream knows it.
struct Member {
    /// The number of its stream: an earlier one may still end.
    number: u64,
    /// Since when it has that stream.
    since: Instant,
    /// For how long to wait before another, if it ends by itself.
    backoff: Backoff,
    /// It is synced, or the stream says that it is unreachable.
    is_settled: bool,
    /// The stream says that it is unreachable, for it has no stream of it.
    is_lost: bool,
    /// The reader knows domains of an earlier stream, of which the next one does not say what is
    /// gone.
    has_history: bool,
    domains: u64,
    /// The sources that report the domains of a member that is a fleet.
    sources: BTreeSet<Arc<str>>,
}

impl FleetEvents {
    pub(super) fn new(
        fleet: Arc<Shared>,
        stream: Arc<FleetStream>,
        members: impl Iterator<Item = Arc<str>>,
    ) -> Self {
        let mut events = Self {
            fleet,
            stream,
            arrivals: VecDeque::new(),
            streams: SelectAll::new(),
            members: HashMap::default(),
            ready: VecDeque::new(),
            start: Start::Syncing(BTreeMap::new()),
            end: None,
        };
        members.for_each(|uri| events.add(uri));
        events.settle();
        events
    }

    pub(crate) fn source(&self) -> Arc<str> {
        Arc::clone(&self.fleet.uri)
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.end.clone().or_else(|| self.stream.is_cancelled().then_some(End::Cancelled))
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.end.is_some() && self.ready.is_empty() && self.streams.is_empty()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<DomainEvent>> {
        // Before the look, so that nothing comes between the two.
        self.stream.reader().register(cx.waker());
        loop {
            if self.stream.is_cancelled() {
                self.cancelled();
                return Poll::Ready(None);
            }
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.arrivals.is_empty() {
                self.arrivals = self.stream.take_arrivals();
            }
            if let Some(arrival) = self.arrivals.pop_front() {
                self.arrived(arrival);
                continue;
            }
            match self.streams.poll_next_unpin(cx) {
                Poll::Ready(Some(item)) => self.received(item),
                Poll::Ready(None) if self.end.is_some() => return Poll::Ready(None),
                // An arrival wakes the reader, if there is no stream now.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Nothing more is delivered.
    fn cancelled(&mut self) {
        self.ready = VecDeque::new();
        self.streams = SelectAll::new();
        self.arrivals = VecDeque::new();
        self.end.get_or_insert(End::Cancelled);
    }

    fn add(&mut self, uri: Arc<str>) {
        let backoff = self.stream.backoff(&uri);
        self.members.entry(uri).or_insert_with(|| Member::new(backoff));
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Added(uri) => self.add(uri),
            Arrival::Joined(uri, number, events) => {
                let Some(member) = self.members.get_mut(&uri) else { return };
                if std::mem::replace(&mut member.has_history, true) {
                    // What went while it had no stream is in no event.
                    let reset = GapKind::lagged(0, true);
                    self.ready.push_back(Gap::new(member.scope(&uri), reset).into());
                }
                member.number = number;
                member.since = Instant::now();
                member.is_lost = false;
                self.streams.push(MemberEvents::new(number, events));
            }
            Arrival::Failed(uri, fault) => self.lost(&uri, fault),
            Arrival::Unfit(uri) => {
                // Not a reset: what the snapshot knows under this URI may still run, on another host.
                if self.members.contains_key(&uri) {
                    self.ready.push_back(Gap::new(whole(&uri), GapKind::Removed).into());
                }
            }
            Arrival::Removed(uri) => {
                let Some(member) = self.members.remove(&uri) else { return };
                let scope = member.scope(&uri);
                if let Start::Syncing(lost) = &mut self.start {
                    lost.retain(|_, part| !scope.includes(part));
                }
                self.ready.push_back(Gap::new(scope, GapKind::Removed).into());
                self.settle();
            }
            Arrival::Shutdown => self.end = Some(End::Shutdown),
        }
    }

    fn received(&mut self, item: MemberItem) {
        let MemberItem { source: uri, number, event } = item;
        let Some(member) = self.members.get_mut(&uri) else { return };
        if member.number != number {
            return;
        }
        let event = match event {
            Ok(event) => event,
            Err(end) => return self.ended(&uri, &end),
        };
        member.learn(&uri, &event);
        match &event {
            DomainEvent::Synced(Synced { scope, domains }) => {
                if let Start::Syncing(lost) = &mut self.start {
                    lost.retain(|_, part| !scope.includes(part));
                }
                if scope.is_source() && scope.source() == &*uri {
                    member.is_settled = true;
                    member.domains = *domains;
                }
            }
            DomainEvent::Gap(Gap { scope, kind: GapKind::Disconnected { .. } }) => {
                if let Start::Syncing(lost) = &mut self.start {
                    lost.insert(scope.key(), scope.clone());
                }
                member.is_settled |= scope.is_source() && scope.source() == &*uri;
            }
            _ => return self.ready.push_back(event),
        }
        self.ready.push_back(event);
        self.settle();
    }

    /// A member's stream has ended by itself.
    fn ended(&mut self, uri: &Arc<str>, end: &End) {
        // The fleet's own end, or that of a member that was removed.
        if self.end.is_some() || matches!(end, End::Cancelled) {
            return;
        }
        let fault = match end {
            End::Failed(error) => error.to_fault(),
            _ => crate::Error::Shutdown.to_fault(),
        };
        self.lost(uri, fault);
        let Some(member) = self.members.get_mut(uri) else { return };
        if member.since.elapsed() >= RECOVERED_AFTER {
            member.backoff.reset();
        }
        let pause = member.backoff.next();
        self.fleet.join_again(&self.stream, uri, member.number, pause);
    }

    /// There is no stream of a member.
    fn lost(&mut self, uri: &Arc<str>, fault: Fault) {
        let Some(member) = self.members.get_mut(uri) else { return };
        // Once, and not for each attempt.
        if std::mem::replace(&mut member.is_lost, true) {
            return;
        }
        member.is_settled = true;
        let gap = Gap::new(member.scope(uri), GapKind::disconnected(fault));
        if let Start::Syncing(lost) = &mut self.start {
            lost.insert(gap.scope.key(), gap.scope.clone());
        }
        self.ready.push_back(gap.into());
        self.settle();
    }

    /// Delivers the fleet's `Synced`, once, when each member is synced or unreachable.
    fn settle(&mut self) {
        let Start::Syncing(lost) = &mut self.start else { return };
        if !self.members.values().all(|member| member.is_settled) {
            return;
        }
        let lost = std::mem::take(lost);
        self.start = Start::Synced;
        let sources = self
            .members
            .iter()
            .flat_map(|(uri, member)| std::iter::once(uri).chain(&member.sources).map(Arc::clone));
        let is_reachable = |source: &Arc<str>| {
            let source = whole(source);
            !lost.values().any(|part| part.includes(&source) || source.includes(part))
        };
        let sources = sources.filter(is_reachable);
        let scope = Scope::fleet(Arc::clone(&self.fleet.uri), sources);
        let domains = self.members.values().map(|member| member.domains).sum();
        self.ready.push_back(Synced::new(scope, domains).into());
    }
}

impl Member {
    fn new(backoff: Backoff) -> Self {
        Self {
            number: 0,
            since: Instant::now(),
            backoff,
            is_settled: false,
            is_lost: false,
            has_history: false,
            domains: 0,
            sources: BTreeSet::new(),
        }
    }

    /// Keeps the sources of a member that is a fleet.
    fn learn(&mut self, uri: &Arc<str>, event: &DomainEvent) {
        let source = event.source();
        if source == &**uri {
            return;
        }
        match event {
            DomainEvent::Gap(Gap { scope, kind: GapKind::Removed }) => {
                self.sources.retain(|source| !scope.includes(&whole(source)));
            }
            _ if !self.sources.contains(source) => {
                self.sources.insert(source.into());
            }
            _ => {}
        }
    }

    /// All of the member.
    fn scope(&self, uri: &Arc<str>) -> Scope {
        match self.sources.is_empty() {
            true => whole(uri),
            false => Scope::fleet(Arc::clone(uri), self.sources.iter().cloned()),
        }
    }
}

impl Drop for FleetEvents {
    fn drop(&mut self) {
        self.stream.cancel();
    }
}
