//! What is known of one domain id, and what is still to be read.

use tokio::time::Instant;
use virevent::{Domain, RunningReason, ShuttingDownReason, State, Uuid};

use crate::decode::Request;
use crate::observer::verification::EntryCheck;
use crate::request::{DomainNode, StoreRequest, WatchTarget};

/// A set of facts about a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FactSet(u8);

impl FactSet {
    pub(crate) const NONE: Self = Self(0);
    /// Whether it is introduced.
    pub(crate) const INTRODUCED: Self = Self(1);
    /// Whether its directory exists.
    pub(crate) const DIRECTORY: Self = Self(2);
    pub(crate) const VM: Self = Self(4);
    pub(crate) const NAME: Self = Self(8);
    pub(crate) const SHUTDOWN: Self = Self(16);
    /// The values of the watched nodes.
    pub(crate) const NODES: Self = Self(4 | 8 | 16);
    /// Which domain it is, and whether it runs.
    const IDENTITY: Self = Self(1 | 2 | 4 | 8);

    pub(crate) fn of(node: DomainNode) -> Self {
        match node {
            DomainNode::Vm => Self::VM,
            DomainNode::Name => Self::NAME,
            DomainNode::Shutdown => Self::SHUTDOWN,
        }
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn has_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How far a watch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WatchState {
    #[default]
    Off,
    /// The request to set it has no reply.
    Setting,
    On,
    /// The request to drop it has no reply.
    Clearing,
}

/// What is known of one domain id.
#[derive(Debug, Default)]
pub(crate) struct DomainEntry {
    /// Whether the last list had it.
    pub(crate) is_listed: bool,
    /// Where it was in the list that had it first.
    pub(crate) list_position: usize,
    /// Whether it is introduced, as last read.
    pub(crate) introduced: Option<bool>,
    /// Whether its directory is missing, as last read.
    pub(crate) is_removed: bool,
    pub(crate) uuid: Option<Uuid>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) request: Request,

    /// The facts that are to be read.
    pub(crate) due: FactSet,
    /// The facts whose request has no reply.
    pub(crate) pending: FactSet,
    /// The facts that were read since they are watched.
    pub(crate) read: FactSet,
    /// The facts that were read again since the identity last changed, and were as before.
    pub(crate) unchanged: FactSet,
    /// Of [`DomainNode::ALL`].
    pub(crate) watches: [WatchState; 3],
    /// Whether its nodes are to be watched: it is introduced.
    pub(crate) wants_watches: bool,
    /// Whether it is in the queue.
    pub(crate) is_queued: bool,
    /// Whether it is in the urgent queue.
    pub(crate) is_urgent: bool,
    /// Whether it was compared with what was reported, once at least.
    pub(crate) is_examined: bool,
    /// The part of a verification.
    pub(crate) check: EntryCheck,

    pub(crate) state: DomainState,
    /// Whether it is not waited for until it is complete: it is reported with what is known.
    pub(crate) is_overdue: bool,
    /// Whether the server has named it as shut down.
    pub(crate) has_shut_down: bool,
}

/// How a domain is, as of the last comparison.
///
/// ```text
///           introduced, has a directory              name and uuid written, or 5 s passed
///   Absent ─────────────────────────────▶ Incomplete ─────────────────────────────────────▶ Running
///     ▲                                       │   ▲                                          │   │
///     │ not introduced, or no directory       │   │         another uuid under the same id   │   │
///     ├───────────────────────────────────────┘   └──────────────────────────────────────────┘   │
///     │ not introduced, or no directory                                                          │
///     └──────────────────────────────────────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub(crate) enum DomainState {
    /// It does not run.
    #[default]
    Absent,
    /// It runs, and it is not known which domain it is.
    Incomplete { since: Instant },
    /// It runs, and the run is known.
    Running { since: Instant, run: DomainRun },
}

impl DomainState {
    /// Since when it runs.
    pub(crate) fn since(&self) -> Option<Instant> {
        match self {
            Self::Absent => None,
            Self::Incomplete { since } | Self::Running { since, .. } => Some(*since),
        }
    }

    pub(crate) fn run(&self) -> Option<&DomainRun> {
        if let Self::Running { run, .. } = self { Some(run) } else { None }
    }

    pub(crate) fn run_mut(&mut self) -> Option<&mut DomainRun> {
        if let Self::Running { run, .. } = self { Some(run) } else { None }
    }
}

/// A run of a domain.
#[derive(Debug)]
pub(crate) struct DomainRun {
    pub(crate) domain: Domain,
    pub(crate) progress: RunProgress,
    /// The request that was reported last.
    pub(crate) request: Request,
}

/// How far a run is on the way to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunProgress {
    /// The host has asked the guest to end.
    pub(crate) is_asked: bool,
    /// The guest has shut down, and the domain still exists.
    pub(crate) is_finished: bool,
}

impl RunProgress {
    pub(crate) fn state(self) -> State {
        match (self.is_asked, self.is_finished) {
            (true, _) => State::ShuttingDown(ShuttingDownReason::User),
            (false, true) => State::ShuttingDown(ShuttingDownReason::Unspecified),
            (false, false) => State::Running(RunningReason::Unspecified),
        }
    }
}

impl DomainEntry {
    /// Whether any of these facts is due or pending.
    pub(crate) fn awaits(&self, facts: FactSet) -> bool {
        self.due.with(self.pending).has_any(facts)
    }

    /// Notes that a fact was read, and whether it was as before.
    #[inline]
    pub(crate) fn note_read(&mut self, fact: FactSet, is_same: bool) {
        if fact.has_any(FactSet::IDENTITY) && !is_same {
            self.unchanged = FactSet::NONE;
        } else {
            self.unchanged = self.unchanged.with(fact);
        }
    }

    /// Whether these facts are as of one moment: none is due or pending, or each that is was read again since
    /// the last of them changed. Without the latter, events that never stop would keep it from being settled.
    #[inline]
    pub(crate) fn is_settled(&self, facts: FactSet) -> bool {
        self.due.with(self.pending).both(facts).without(self.unchanged).is_empty()
    }

    pub(crate) fn is_identity_settled(&self) -> bool {
        self.is_settled(FactSet::IDENTITY)
    }

    /// The facts that a verification reads. The list says whether the directory of a domain exists that had
    /// one.
    pub(crate) fn facts_to_verify(&self, domid: u16) -> FactSet {
        let directory = if self.is_removed { FactSet::DIRECTORY } else { FactSet::NONE };
        match self.introduced {
            // Domain 0 always exists.
            // IS_DOMAIN_INTRODUCED is always true of it.
            _ if domid == 0 => FactSet::NODES,
            Some(true) => FactSet::INTRODUCED.with(FactSet::NODES).with(directory),
            _ => FactSet::INTRODUCED.with(directory),
        }
    }

    /// Whether no request is due or pending for it, and no watch is set.
    pub(crate) fn is_idle(&self) -> bool {
        self.due.is_empty() && self.pending.is_empty() && self.watches == [WatchState::Off; 3]
    }

    /// The next request for the domain. It counts as sent.
    #[inline]
    pub(crate) fn next_request(&mut self, domid: u16) -> Option<StoreRequest> {
        // Watches come first: a value that is read before its watch is set could change unseen.
        for (node, watch) in DomainNode::ALL.into_iter().zip(&mut self.watches) {
            match (*watch, self.wants_watches) {
                (WatchState::Off, true) => {
                    *watch = WatchState::Setting;
                    return Some(StoreRequest::Watch(WatchTarget::Domain(domid, node), None));
                }
                (WatchState::On, false) => {
                    *watch = WatchState::Clearing;
                    return Some(StoreRequest::Unwatch(WatchTarget::Domain(domid, node)));
                }
                _ => {}
            }
        }
        let requests = [
            // First, for the guest may remove this value at any time.
            (FactSet::SHUTDOWN, StoreRequest::Read(domid, DomainNode::Shutdown)),
            (FactSet::INTRODUCED, StoreRequest::IsIntroduced(domid)),
            (FactSet::DIRECTORY, StoreRequest::ReadDirectory(domid)),
            (FactSet::VM, StoreRequest::Read(domid, DomainNode::Vm)),
            (FactSet::NAME, StoreRequest::Read(domid, DomainNode::Name)),
        ];
        // A fact whose request was sent before the last event is read once more after the reply.
        let open = self.due.without(self.pending);
        let (fact, request) = requests.into_iter().find(|(fact, _)| open.has_any(*fact))?;
        self.due = self.due.without(fact);
        self.pending = self.pending.with(fact);
        Some(request)
    }

    /// The request that drops one of its watches, if one is set. It counts as sent.
    pub(crate) fn next_unwatch(&mut self, domid: u16) -> Option<StoreRequest> {
        let node = DomainNode::ALL.into_iter().find(|node| *self.watch(*node) == WatchState::On)?;
        *self.watch(node) = WatchState::Clearing;
        Some(StoreRequest::Unwatch(WatchTarget::Domain(domid, node)))
    }

    pub(crate) fn watch(&mut self, node: DomainNode) -> &mut WatchState {
        let [vm, name, shutdown] = &mut self.watches;
        match node {
            DomainNode::Vm => vm,
            DomainNode::Name => name,
            DomainNode::Shutdown => shutdown,
        }
    }
}
