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
    ResumeCause, Selector, State, StopCause, Transition, UndefineCause,
};

/// The time after a start in which it may prove to be a start in pause. libvirt sends both events
/// at once, but one read may bring only the first.
const SETTLE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Subject {
    selector: Selector,
    /// Folds the events, so that a reset and an outage are as in any table.
    store: DomainStore,
    /// The first domain that the selector matched, until it is gone.
    now: Option<Known>,
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
    /// The start of the run is complete.
    is_announced: bool,
    /// When a start counts that may still be a start in pause.
    settles: Option<Instant>,
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
    pub(super) fn new(selector: Selector) -> Self {
        Self { selector, store: DomainStore::new(), now: None, outages: Vec::new() }
    }

    /// The domain and its state, if that is known for certain and `wanted`.
    pub(super) fn reached(&self, mut wanted: impl FnMut(State) -> bool) -> Option<(Domain, State)> {
        let now = self.now.as_ref()?;
        let is_settled = now.is_current && now.is_announced && now.settles.is_none();
        (is_settled && wanted(now.state)).then(|| (now.domain.clone(), now.state))
    }

    /// The domain and why it is inactive, if it certainly is.
    pub(super) fn inactive(&self) -> Option<(Domain, StopCause)> {
        let now = self.now.as_ref().filter(|now| now.is_current)?;
        Some((now.domain.clone(), now.stop_cause()?))
    }

    /// When a start counts that may still be a start in pause.
    pub(super) fn settles(&self) -> Option<Instant> {
        self.now.as_ref()?.settles
    }

    /// The start is none in pause.
    pub(super) fn settle(&mut self) {
        if let Some(now) = &mut self.now {
            now.settles = None;
        }
    }

    pub(super) fn late(&self, expected: &'static str, after: Duration) -> WaitError {
        let is_current = self.now.as_ref().is_some_and(|now| now.is_current);
        WaitError::Deadline {
            domain: self.selector.clone(),
            expected,
            after,
            state: self.now.as_ref().map(|now| now.state),
            outage: self.outages.first().filter(|_| !is_current).cloned(),
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
            DomainEvent::Synced(synced) => {
                self.outages.retain(|gap| !synced.scope.includes(&gap.scope));
            }
            DomainEvent::Gap(gap) => {
                self.outages.retain(|known| !gap.scope.includes(&known.scope));
                let may_have = gap.scope.domain().is_none_or(|one| self.selector.matches(one));
                if !matches!(gap.kind, GapKind::Disconnected { .. }) || !may_have {
                    return;
                }
                self.outages.push(gap.clone());
                // Observed in an outage before, so that the store marks nothing by this one.
                if let Some(now) = &mut self.now {
                    now.is_current &= !gap.scope.contains(&now.domain);
                }
            }
            _ => {}
        }
    }

    fn follow(&mut self, transition: &Transition) -> Option<News> {
        let event = transition.event.as_ref().and_then(DomainEvent::lifecycle);
        let before = match self.now.take() {
            Some(other) if !other.domain.is_same(transition.domain()) => {
                self.now = Some(other);
                return None;
            }
            // It begins with an event that names it: not with what the store still has of a domain
            // that was renamed.
            None if !event.is_some_and(|event| self.names(event)) => return None,
            before => before,
        };
        let news = News::of(transition, before.as_ref());
        self.now = transition.after.as_ref().map(|after| Known {
            domain: after.domain.clone(),
            state: after.state,
            change: after.change,
            is_current: after.certain || event.is_some_and(is_observed),
            is_announced: is_announced(event, before.as_ref()),
            settles: settles(event, before.as_ref()),
        });
        Some(news)
    }

    fn names(&self, event: &Lifecycle) -> bool {
        self.selector.matches(&event.domain) && !matches!(event.change, Change::Undefined(_))
    }

    /// Forgets the domain if it was selected by the name that it loses.
    fn lose_name(&mut self, event: &Lifecycle) -> Option<News> {
        let is_rename = matches!(event.change, Change::Undefined(UndefineCause::Renamed));
        let is_by_name = matches!(self.selector, Selector::Name(_));
        let is_known = |now: &mut Known| now.domain.is_same(&event.domain);
        let known = self.now.take_if(|now| is_rename && is_by_name && is_known(now))?;
        let gone = Some(Gone::Renamed);
        Some(News { domain: known.domain, ended: None, crashed: None, gone })
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
        let domain = match (transition.event.as_ref().and_then(DomainEvent::domain), before) {
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
            (Some(gone @ Gone::Removed), _) => Some(Err(gone.error(self.domain, "stopped"))),
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

/// Whether the event is true of now, in an outage too.
fn is_observed(event: &Lifecycle) -> bool {
    event.origin == Origin::Observed && !matches!(event.change, Change::Existing(_))
}

/// Whether the start of the run is complete after the event.
fn is_announced(event: Option<&Lifecycle>, before: Option<&Known>) -> bool {
    let Some(event) = event else { return before.is_none_or(|before| before.is_announced) };
    let is_known_run = before.is_some_and(|before| before.is_run(&event.domain));
    let begins =
        matches!(event.change, Change::Resumed(ResumeCause::Unpaused | ResumeCause::Unspecified));
    is_known_run || !begins
}

/// When the run counts as running, if not at once.
fn settles(event: Option<&Lifecycle>, before: Option<&Known>) -> Option<Instant> {
    let Some(event) = event else { return before?.settles };
    // Of a run that was resumed before its start it is known that it is not paused. What was
    // inferred comes with the changes behind it.
    let was_resumed = event.origin == Origin::Observed
        && before.is_some_and(|before| before.is_run(&event.domain) && !before.is_announced);
    let may_be_paused = event.change.begins_run() && !was_resumed;
    may_be_paused.then(|| Instant::now() + SETTLE)
}
