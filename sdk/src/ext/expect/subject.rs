//! What is known of the domain that something is expected of.
//!
//! A run counts as running when its start is complete:
//!
//! ```text
//!              resumed (unpaused)                      started
//!  no run ──────────────────────────▶ unannounced ──────────────────▶ running
//!    │          started                             SETTLE passes       │ suspended
//!    └──────────────────────────────▶ may be paused ────────────────▶ ──┤ resumed
//!                                          └──── suspended ──▶ paused ──┘
//! ```
//!
//! libvirt's QEMU driver sends resumed and then started, and after a start that its hook refuses it
//! sends resumed alone; for a start in pause it sends started and suspended. Its other drivers send
//! started alone. (All seen with 9.0.)

use std::time::Duration;

use tokio::time::Instant;

use super::WaitError;
use crate::{
    Change, CrashCause, Domain, DomainEvent, DomainStore, End, Gap, GapKind, Lifecycle, Origin,
    ResumeCause, Scope, Selector, State, StopCause, Synced, Transition, UndefineCause,
};

/// The time after a start in which it may prove to be a start in pause. libvirt sends both events
/// at once, but one read may bring only the first.
const SETTLE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Subject {
    selector: Selector,
    /// Folds the events, so that a reset and an outage are as in any table.
    store: DomainStore,
    /// The domains that the selector matches: more than one, where several hosts have it.
    known: Vec<Known>,
    /// The last run that ended with its domain, until there is another.
    ended: Option<(Domain, StopCause)>,
    /// The outages that are on, of any scope that may have the domain.
    outages: Vec<Gap>,
}

#[derive(Debug)]
struct Known {
    domain: Domain,
    state: State,
    change: Change,
    /// No outage since: this is how the domain is.
    is_current: bool,
    phase: Phase,
}

/// How far the start of the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Another event than its start showed the run: its start may still fail.
    Unannounced,
    /// Until this time the start may prove to be a start in pause.
    Settling(Instant),
    /// The start is complete, or there is no run.
    Complete,
}

/// What an event means for the domain, beside its state.
#[derive(Debug)]
pub(super) struct News {
    /// The domain, with the id of the run that the event is about.
    domain: Domain,
    ended: Option<StopCause>,
    crashed: Option<CrashCause>,
    gone: Option<Gone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    NotExisting,
    Renamed,
    Removed,
}

impl Subject {
    pub(super) fn new(selector: Selector, scope: &Scope) -> Self {
        let store = DomainStore::new();
        store.begin(scope);
        Self { selector, store, known: Vec::new(), ended: None, outages: Vec::new() }
    }

    /// A domain and its state, if that is known for certain and `wanted`.
    pub(super) fn reached(&self, mut wanted: impl FnMut(State) -> bool) -> Option<(Domain, State)> {
        let is_complete = |one: &&Known| one.is_current && one.phase == Phase::Complete;
        let found = self.known.iter().filter(is_complete).find(|one| wanted(one.state))?;
        Some((found.domain.clone(), found.state))
    }

    /// The domain and why it is inactive, if it certainly is.
    pub(super) fn inactive(&self) -> Option<(Domain, StopCause)> {
        let ends = self.known.iter().map(|one| one.stop_cause().filter(|_| one.is_current));
        let Some(cause) = ends.reduce(|first, other| first.and_then(|end| other.map(|_| end)))
        else {
            return self.ended.clone();
        };
        Some((self.known.first()?.domain.clone(), cause?))
    }

    /// When a start counts that may still be a start in pause.
    pub(super) fn settles(&self) -> Option<Instant> {
        let settles = self.known.iter().filter_map(|one| match one.phase {
            Phase::Settling(at) => Some(at),
            Phase::Unannounced | Phase::Complete => None,
        });
        settles.min()
    }

    /// The starts whose time has passed are none in pause.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        for one in &mut self.known {
            if matches!(one.phase, Phase::Settling(at) if at <= now) {
                one.phase = Phase::Complete;
            }
        }
    }

    pub(super) fn late(&self, expected: &'static str, after: Duration) -> WaitError {
        // Where several hosts have it, the one that runs.
        let now = self.known.iter().find(|one| one.domain.is_active()).or(self.known.first());
        let outage = match now {
            Some(now) if now.is_current => None,
            Some(now) => self.outages.iter().find(|gap| gap.scope.contains(&now.domain)),
            None => self.outages.first(),
        };
        let snapshot = self.store.snapshot();
        let unsynced = snapshot.uncertain().next().filter(|_| now.is_none() && outage.is_none());
        WaitError::Deadline {
            domain: self.selector.clone(),
            expected,
            after,
            state: now.map(|now| now.state),
            is_starting: now.is_some_and(|now| now.phase == Phase::Unannounced),
            outage: outage.cloned().map(Box::new),
            unsynced: unsynced.cloned(),
        }
    }

    pub(super) fn ended(&self, expected: &'static str, end: End) -> WaitError {
        let domain = self.selector.clone();
        match end {
            End::Failed(error) => WaitError::Failed { domain, expected, error },
            end => WaitError::Ended { domain, expected, end },
        }
    }

    pub(super) fn apply(&mut self, event: &DomainEvent) -> Option<News> {
        self.note_outage(event);
        let mut news = None;
        for transition in self.store.apply(event) {
            news = self.follow(&transition).or(news);
        }
        // To the store the domain is the same, and no transition may say that it lost its name.
        event.lifecycle().and_then(|event| self.lose_name(event)).or(news)
    }

    /// Keeps the outages that concern the domain. Their number is that of the source's parts.
    fn note_outage(&mut self, event: &DomainEvent) {
        match event {
            DomainEvent::Synced(Synced { scope, .. })
            | DomainEvent::Gap(Gap { scope, kind: GapKind::Removed }) => {
                self.outages.retain(|gap| !scope.includes(&gap.scope));
            }
            DomainEvent::Gap(gap) if matches!(gap.kind, GapKind::Disconnected { .. }) => {
                self.outages.retain(|known| !gap.scope.includes(&known.scope));
                if gap.scope.domain().is_some_and(|one| !self.selector.matches(one)) {
                    return;
                }
                self.outages.push(gap.clone());
                // Observed in an outage before, so that the store marks nothing by this one.
                for one in &mut self.known {
                    one.is_current &= !gap.scope.contains(&one.domain);
                }
            }
            _ => {}
        }
    }

    fn follow(&mut self, transition: &Transition) -> Option<News> {
        let event = transition.event.as_ref().and_then(DomainEvent::lifecycle);
        let place = self.known.iter().position(|one| one.domain.is_same(transition.domain()));
        // It begins with an event that names it: not with what the store still has of a domain that
        // was renamed.
        if place.is_none() && !event.is_some_and(|event| self.names(event)) {
            return None;
        }
        let before = place.map(|place| self.known.remove(place));
        let news = News::of(transition, before.as_ref());
        if let Some(after) = &transition.after {
            let known = Known {
                domain: after.domain.clone(),
                state: after.state,
                change: after.change,
                is_current: after.certain || is_current(transition, before.as_ref()),
                phase: phase(event, before.as_ref()),
            };
            if known.domain.is_active() {
                self.ended = None;
            }
            // In its place: what a message names does not change with each event.
            self.known.insert(place.unwrap_or(self.known.len()), known);
        } else if let Some(cause) = news.ended.filter(|_| news.gone != Some(Gone::Removed)) {
            self.ended = Some((news.domain.clone(), cause));
        }
        Some(news)
    }

    fn names(&self, event: &Lifecycle) -> bool {
        self.selector.matches(&event.domain) && !matches!(event.change, Change::Undefined(_))
    }

    /// Forgets the domain if it was selected by the name that it loses.
    fn lose_name(&mut self, event: &Lifecycle) -> Option<News> {
        let is_rename = matches!(event.change, Change::Undefined(UndefineCause::Renamed));
        if !is_rename || !matches!(self.selector, Selector::Name(_)) {
            return None;
        }
        let place = self.known.iter().position(|one| one.domain.is_same(&event.domain))?;
        let domain = self.known.remove(place).domain;
        Some(News { domain, ended: None, crashed: None, gone: Some(Gone::Renamed) })
    }
}

impl Known {
    fn is_run(&self, domain: &Domain) -> bool {
        self.domain.is_active() && self.domain.id() == domain.id()
    }

    fn stop_cause(&self) -> Option<StopCause> {
        match (self.state, self.change) {
            (State::Shutoff(_), Change::Stopped(cause)) => Some(cause),
            (State::Shutoff(reason), _) => Some(reason.into()),
            _ => None,
        }
    }
}

impl News {
    fn of(transition: &Transition, before: Option<&Known>) -> Self {
        let change = transition.change();
        let ended = match change {
            Some(Change::Stopped(cause)) => Some(cause),
            // A list after a reset shows another run, or no domain.
            Some(Change::Existing(_)) | None => transition.ended_run(),
            // The id may change within a run (LXC); the end of a run is always delivered.
            Some(_) => None,
        };
        let crashed = match change {
            Some(Change::Crashed(cause)) if cause != CrashCause::Crashloaded => Some(cause),
            _ => None,
        };
        let gone = match (&transition.after, transition.is_forgotten) {
            (Some(_), _) => None,
            (None, true) => Some(Gone::Removed),
            (None, false) => Some(Gone::NotExisting),
        };
        // A list after a reset has the id of the next run.
        let is_listed = matches!(change, Some(Change::Existing(_)));
        let named = transition.event.as_ref().and_then(DomainEvent::domain);
        let domain = match (named.filter(|_| !is_listed), before) {
            (Some(domain), _) => domain.clone(),
            (None, Some(before)) => before.domain.clone(),
            (None, None) => transition.domain().clone(),
        };
        // An inactive domain that is gone did not run.
        let ended = ended.or_else(|| gone.and_then(|_| before?.stop_cause()));
        Self { domain, ended, crashed, gone }
    }

    /// Why `running` fails by it.
    pub(super) fn failure_of_running(self, expected: &'static str) -> Option<WaitError> {
        let Self { domain, ended, crashed, gone } = self;
        match (ended, crashed) {
            (_, Some(cause)) => Some(WaitError::Crashed { domain, expected, cause }),
            // The next run is about to begin.
            (Some(StopCause::Recreated), _) => None,
            (Some(cause), _) if domain.is_active() || gone.is_none() => {
                Some(WaitError::Stopped { domain, expected, cause })
            }
            _ => gone.map(|gone| gone.error(domain, expected)),
        }
    }

    /// Why a wait for a state fails by it.
    pub(super) fn failure_of_existing(self, expected: &'static str) -> Option<WaitError> {
        self.gone?;
        self.failure_of_running(expected)
    }

    /// The end of a run; or that it will not be known.
    pub(super) fn end_of_run(self) -> Option<Result<(Domain, StopCause), WaitError>> {
        match (self.gone, self.ended) {
            // What happens to it from now on is not delivered.
            (Some(gone @ (Gone::Removed | Gone::Renamed)), _) => {
                Some(Err(gone.error(self.domain, "stopped")))
            }
            (_, ended) => ended.map(|cause| Ok((self.domain, cause))),
        }
    }
}

impl Gone {
    fn error(self, domain: Domain, expected: &'static str) -> WaitError {
        match self {
            Self::NotExisting => WaitError::Gone { domain, expected },
            Self::Renamed => WaitError::Renamed { domain, expected },
            Self::Removed => WaitError::Removed { domain, expected },
        }
    }
}

/// Whether what is known is how the domain is, though its scope is in an outage: since an event was
/// observed there that says the state.
fn is_current(transition: &Transition, before: Option<&Known>) -> bool {
    match &transition.event {
        Some(DomainEvent::Lifecycle(event)) if State::after(event.change).is_some() => {
            event.origin == Origin::Observed && !matches!(event.change, Change::Existing(_))
        }
        Some(event) => before.is_some_and(|one| {
            let is_reboot = matches!(event, DomainEvent::Reboot(_));
            one.is_current && (is_reboot || event.domain().is_some_and(|domain| one.is_run(domain)))
        }),
        None => false,
    }
}

/// How far the start of the run is, after the event.
fn phase(event: Option<&Lifecycle>, before: Option<&Known>) -> Phase {
    let kept = before.map_or(Phase::Complete, |before| before.phase);
    let Some(event) = event else { return kept };
    let is_known_run = before.is_some_and(|before| before.is_run(&event.domain));
    match event.change {
        Change::Resumed(ResumeCause::Unpaused | ResumeCause::Unspecified) if !is_known_run => {
            Phase::Unannounced
        }
        // The run was resumed before its start was reported, so it is not in pause.
        change if change.begins_run() && is_known_run && kept == Phase::Unannounced => {
            Phase::Complete
        }
        change if change.begins_run() => Phase::Settling(Instant::now() + SETTLE),
        // A definition says nothing of the run.
        change if State::after(change).is_none() && is_known_run => kept,
        Change::Resumed(_) if kept == Phase::Unannounced => kept,
        _ => Phase::Complete,
    }
}
