//! Inference: the changes that lead from what was known of a domain to how it is now.

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use super::batch::Level;
use super::entry::Entry;
use super::hosts::Key;
use super::roster::Roster;
use crate::{
    Change, CrashCause, CrashedReason, DefineCause, Domain, DomainEvent, Lifecycle, Origin,
    PmSuspendCause, ResumeCause, ShutdownCause, StartCause, State, StopCause, UndefineCause,
};

/// Collects events of one origin and time.
#[derive(Debug)]
pub(super) struct Inference {
    pub(super) events: Vec<DomainEvent>,
    origin: Origin,
    at: SystemTime,
}

impl Inference {
    pub(super) fn new(origin: Origin, at: SystemTime) -> Self {
        Self { events: Vec::new(), origin, at }
    }

    fn add(&mut self, domain: &Domain, change: Change, persistent: Option<bool>) {
        let event = Lifecycle::new(domain.clone(), change, self.at);
        self.events.push(Lifecycle { origin: self.origin, persistent, ..event }.into());
    }

    /// A run began without an event.
    pub(super) fn began(&mut self, run: &Domain, persistent: Option<bool>) {
        self.add(run, Change::Started(StartCause::Unspecified), persistent);
    }

    /// A run ended without an event.
    pub(super) fn ended(&mut self, old: &Entry, cause: StopCause) {
        // A stop without a start before it would be an impossible history.
        if old.unannounced {
            self.began(&old.domain, old.persistent);
        }
        self.add(&old.domain, Change::Stopped(cause), old.persistent);
    }

    /// A domain exists no more.
    pub(super) fn gone(&mut self, old: &Entry, cause: StopCause) {
        if old.domain.is_active() {
            self.ended(old, cause);
        }
        // Unknown counts as persistent: an `undefined` too many harms no table, a missing one
        // leaves a domain in it for ever.
        if old.persistent != Some(false) {
            let inactive = old.domain.with_id(None);
            self.add(&inactive, Change::Undefined(UndefineCause::Unspecified), Some(false));
        }
    }

    /// Infers the changes from `old`, which is `None` for an unknown domain, to `new`.
    pub(super) fn differ(&mut self, old: Option<&Entry>, new: &Entry) {
        match old {
            Some(old) => self.changed(old, new),
            None => self.appeared(new),
        }
    }

    fn appeared(&mut self, new: &Entry) {
        // libvirt's own order: a domain is defined before it starts.
        if new.persistent == Some(true) || !new.domain.is_active() {
            let inactive = new.domain.with_id(None);
            self.add(&inactive, Change::Defined(DefineCause::Unspecified), Some(true));
        }
        if new.domain.is_active() {
            self.started(new);
        }
    }

    fn changed(&mut self, old: &Entry, new: &Entry) {
        let same_run = old.domain.id() == new.domain.id();
        if old.domain.is_active() && !same_run {
            self.ended(old, stop_cause(new));
            // The domain of that name is another one, defined or created since.
            if old.persistent == Some(false) {
                return self.appeared(new);
            }
        }
        if same_run && old.unannounced {
            self.started(&Entry { persistent: old.persistent, ..new.clone() });
        }
        // The definition changed during the run that goes on, or between two runs.
        let run = if same_run { new.domain.clone() } else { new.domain.with_id(None) };
        let mut persistent = old.persistent;
        if old.domain.name() != new.domain.name() {
            // What exists without running has a definition.
            persistent = if run.is_active() { persistent.or(new.persistent) } else { Some(true) };
            let before = old.domain.with_id(run.id());
            self.add(&before, Change::Undefined(UndefineCause::Renamed), persistent);
            self.add(&run, Change::Defined(DefineCause::Renamed), persistent);
        }
        match (persistent, new.persistent) {
            (Some(false) | None, Some(true)) => {
                self.add(&run, Change::Defined(DefineCause::Unspecified), Some(true));
            }
            // Gone and back in between, where it is not in the same run: nothing is transient and
            // inactive.
            (Some(true), Some(false)) => {
                self.add(&run, Change::Undefined(UndefineCause::Unspecified), Some(false));
            }
            _ => {}
        }
        match same_run {
            _ if !new.domain.is_active() => {}
            true if old.unannounced => {}
            true => self.run_state(old.state, new),
            false => self.started(new),
        }
    }

    fn started(&mut self, new: &Entry) {
        let cause = match new.state {
            State::Running(reason) => reason.into(),
            _ => StartCause::Unspecified,
        };
        let change = Change::Started(cause);
        self.add(&new.domain, change, new.persistent);
        // As libvirt does: a start in pause is started, then suspended; a guest that migrates in is
        // started, then resumed.
        if !State::after(change).is_some_and(|state| state.is_same(new.state)) {
            self.entered(new);
        }
    }

    fn run_state(&mut self, before: State, new: &Entry) {
        if before.is_same(new.state) {
            return;
        }
        match before {
            // libvirt's term for the end of a sleep.
            State::PmSuspended if new.state.is_running() => {
                self.add(&new.domain, Change::Started(StartCause::Wakeup), new.persistent);
            }
            // Xen reports no state for a domain that waits for a processor: that is not a pause
            // which ends.
            State::NoState | State::Unknown { .. } if new.state.is_running() => {}
            _ => self.entered(new),
        }
    }

    fn entered(&mut self, new: &Entry) {
        if let Some(change) = change_into(new.state) {
            self.add(&new.domain, change, new.persistent);
        }
    }

    /// Applies a level to the roster, and infers the changes that lead there.
    pub(super) fn level(&mut self, roster: &mut Roster, domain: Domain, level: Level) {
        match level {
            Level::Is(state) => self.is(roster, domain, state),
            Level::Gone(cause) => self.is_gone(roster, &domain, cause),
        }
    }

    fn is(&mut self, roster: &mut Roster, domain: Domain, state: State) {
        let key = roster.key(&domain);
        let old = roster.get(key);
        let persistent = match old {
            Some(old) => old.persistent,
            // A domain that exists without running has a definition.
            None => Some(!domain.is_active()),
        };
        let new = Entry::seen(domain, state, persistent);
        if persistent == Some(false) && !new.domain.is_active() {
            if let Some(old) = old {
                self.gone(old, stop_cause(&new));
            }
            roster.remove(key);
        } else {
            self.differ(old, &new);
            roster.insert(key, new);
        }
    }

    fn is_gone(&mut self, roster: &mut Roster, domain: &Domain, cause: StopCause) {
        let key = roster.key(domain);
        let Some(old) = roster.get(key) else { return };
        // The end of an earlier run says nothing about the current one.
        let is_past =
            matches!((old.domain.id(), domain.id()), (Some(runs), Some(ended)) if runs != ended);
        if is_past {
            return;
        }
        self.gone(old, cause);
        roster.remove(key);
    }

    /// Applies a list's entry to the roster, and infers the changes that lead there. `None`: the
    /// domain exists no more.
    pub(super) fn correct(&mut self, roster: &mut Roster, key: Key, found: Option<Entry>) {
        let old = roster.get(key);
        let run = old.and_then(|old| old.domain.id());
        let over = run.filter(|_| run != found.as_ref().and_then(|found| found.domain.id()));
        match found {
            Some(found) => {
                self.differ(old, &found);
                roster.insert(key, found);
            }
            None => {
                if let Some(old) = old {
                    let cause = StopCause::Unspecified;
                    self.gone(old, cause);
                }
                roster.remove(key);
            }
        }
        // No event ended this run, so one may still come: by this mark it is recognized as late.
        roster.end_run(key, over);
    }
}

/// The change that leads into a state within a run.
fn change_into(state: State) -> Option<Change> {
    Some(match state {
        State::Running(reason) => Change::Resumed(reason.into()),
        State::Blocked => Change::Resumed(ResumeCause::Unspecified),
        State::Paused(reason) => Change::Suspended(reason.into()),
        State::ShuttingDown(_) => Change::ShuttingDown(ShutdownCause::Unspecified),
        State::Crashed(CrashedReason::Panicked) => Change::Crashed(CrashCause::Panicked),
        State::Crashed(_) => Change::Crashed(CrashCause::Unspecified),
        State::PmSuspended => Change::PmSuspended(PmSuspendCause::Unspecified),
        State::NoState | State::Shutoff(_) | State::Unknown { .. } => return None,
    })
}

/// Why the last run ended, where the inactive domain still knows.
fn stop_cause(now: &Entry) -> StopCause {
    match now.state {
        State::Shutoff(reason) => reason.into(),
        _ => StopCause::Unspecified,
    }
}
