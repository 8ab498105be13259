//! Infers the changes that lead from what was known of a domain to how it is now.

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

    /// A domain is as `new` says; before, it was as `old` says, or unknown.
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
        if old.domain.name() != new.domain.name() {
            let before = old.domain.with_id(run.id());
            self.add(&before, Change::Undefined(UndefineCause::Renamed), old.persistent);
            self.add(&run, Change::Defined(DefineCause::Renamed), old.persistent);
        }
        match (old.persistent, new.persistent) {
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

    /// Makes the roster what a level says, with the changes that lead there.
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

    /// Makes the roster what a list says of a domain, with the changes that lead there. `None`: the
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
#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{PausedReason, RunningReason, ShutoffReason};

    const RUNNING: State = State::Running(RunningReason::Booted);
    const PAUSED: State = State::Paused(PausedReason::User);
    const OFF: State = State::Shutoff(ShutoffReason::Destroyed);

    fn entry(id: Option<u32>, state: State, persistent: Option<bool>) -> Entry {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), "web", id);
        Entry::seen(domain, state, persistent)
    }

    fn delivered(old: Option<Entry>, new: Option<Entry>) -> Vec<String> {
        let mut inference = Inference::new(Origin::Observed, SystemTime::UNIX_EPOCH);
        match (old, new) {
            (old, Some(new)) => inference.differ(old.as_ref(), &new),
            (Some(old), None) => inference.gone(&old, StopCause::Unspecified),
            (None, None) => {}
        }
        inference.events.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_run_that_was_seen_begins_before_it_ends() {
        let seen = Entry { unannounced: true, ..entry(Some(3), RUNNING, Some(false)) };
        assert_eq!(delivered(Some(seen.clone()), None), ["web[3] started", "web[3] stopped"]);
        let running = entry(Some(3), RUNNING, Some(false));
        assert_eq!(delivered(Some(seen), Some(running)), ["web[3] started (booted)"]);
    }

    #[test]
    fn a_run_that_was_seen_begins_before_it_is_defined() {
        let seen = Entry { unannounced: true, ..entry(Some(3), RUNNING, Some(false)) };
        let defined = entry(Some(3), RUNNING, Some(true));
        assert_eq!(
            delivered(Some(seen), Some(defined)),
            ["web[3] started (booted)", "web[3] defined"]
        );
    }

    #[test]
    fn a_guest_that_migrated_in_is_resumed_too() {
        let migrated = entry(Some(3), State::Running(RunningReason::Migrated), Some(false));
        let expected = ["web[3] started (migrated)", "web[3] resumed (migrated)"];
        assert_eq!(delivered(None, Some(migrated)), expected);
    }

    #[test]
    fn an_unchanged_domain_infers_nothing() {
        let running = entry(Some(3), RUNNING, Some(true));
        assert!(delivered(Some(running.clone()), Some(running)).is_empty());
        let off = entry(None, OFF, None);
        assert!(delivered(Some(off.clone()), Some(off)).is_empty());
    }

    #[test]
    fn a_missing_domain_stopped_and_was_undefined_if_persistent() {
        let persistent = entry(Some(3), RUNNING, Some(true));
        assert_eq!(delivered(Some(persistent), None), ["web[3] stopped", "web undefined"]);
        let transient = entry(Some(3), RUNNING, Some(false));
        assert_eq!(delivered(Some(transient), None), ["web[3] stopped"]);
        let inactive = entry(None, OFF, Some(true));
        assert_eq!(delivered(Some(inactive), None), ["web undefined"]);
    }

    #[test]
    fn a_new_domain_was_defined_and_started() {
        let persistent = entry(Some(3), RUNNING, Some(true));
        assert_eq!(delivered(None, Some(persistent)), ["web defined", "web[3] started (booted)"]);
        let transient = entry(Some(3), PAUSED, Some(false));
        assert_eq!(
            delivered(None, Some(transient)),
            ["web[3] started", "web[3] suspended (paused)"]
        );
        assert_eq!(delivered(None, Some(entry(None, OFF, Some(true)))), ["web defined"]);
    }

    #[test]
    fn a_new_id_while_active_is_a_stop_and_a_start() {
        let old = entry(Some(3), RUNNING, Some(true));
        let new = entry(Some(4), RUNNING, Some(true));
        assert_eq!(delivered(Some(old), Some(new)), ["web[3] stopped", "web[4] started (booted)"]);
    }

    #[test]
    fn a_stop_has_the_cause_that_the_hypervisor_still_knows() {
        let old = entry(Some(3), RUNNING, Some(true));
        let new = entry(None, OFF, Some(true));
        assert_eq!(delivered(Some(old), Some(new)), ["web[3] stopped (destroyed)"]);
    }

    #[test]
    fn a_pause_and_a_resume_within_a_run_are_inferred() {
        let running = entry(Some(3), RUNNING, Some(true));
        let paused = entry(Some(3), PAUSED, Some(true));
        let resumed = entry(Some(3), State::Running(RunningReason::Unpaused), Some(true));
        assert_eq!(delivered(Some(running), Some(paused.clone())), ["web[3] suspended (paused)"]);
        assert_eq!(delivered(Some(paused), Some(resumed)), ["web[3] resumed (unpaused)"]);
    }

    #[test]
    fn a_changed_definition_is_inferred_for_the_run() {
        let persistent = entry(Some(3), RUNNING, Some(true));
        let transient = entry(Some(3), RUNNING, Some(false));
        let unsaid = entry(Some(3), RUNNING, None);
        assert_eq!(
            delivered(Some(persistent.clone()), Some(transient.clone())),
            ["web[3] undefined"]
        );
        assert_eq!(
            delivered(Some(transient.clone()), Some(persistent.clone())),
            ["web[3] defined"]
        );
        assert_eq!(delivered(Some(unsaid.clone()), Some(persistent.clone())), ["web[3] defined"]);
        assert_eq!(delivered(Some(unsaid.clone()), Some(transient)), [""; 0]);
        assert_eq!(delivered(Some(persistent), Some(unsaid)), [""; 0]);
    }

    #[test]
    fn the_end_of_a_sleep_is_a_wakeup() {
        let asleep = entry(Some(3), State::PmSuspended, Some(true));
        let running = entry(Some(3), RUNNING, Some(true));
        let paused = entry(Some(3), PAUSED, Some(true));
        assert_eq!(delivered(Some(asleep.clone()), Some(running)), ["web[3] started (wakeup)"]);
        assert_eq!(delivered(Some(asleep), Some(paused)), ["web[3] suspended (paused)"]);
    }

    #[test]
    fn a_domain_without_a_state_that_runs_has_not_changed() {
        let idle = entry(Some(3), State::NoState, Some(true));
        let running = entry(Some(3), RUNNING, Some(true));
        let paused = entry(Some(3), PAUSED, Some(true));
        assert_eq!(delivered(Some(idle.clone()), Some(running)), [""; 0]);
        assert_eq!(delivered(Some(idle), Some(paused)), ["web[3] suspended (paused)"]);
    }

    #[test]
    fn a_correction_remembers_which_run_is_over() {
        let ends = |found: Option<Entry>| {
            let mut roster = Roster::new(crate::domain::Host::new("s:".into(), "h".into()));
            let old = entry(Some(3), RUNNING, Some(true));
            let key = roster.key(&old.domain);
            roster.insert(key, old);
            let mut inference = Inference::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
            inference.correct(&mut roster, key, found);
            roster.has_ended(key, Some(3))
        };
        assert!(ends(None));
        assert!(ends(Some(entry(None, OFF, Some(true)))));
        assert!(ends(Some(entry(Some(4), RUNNING, Some(true)))));
        assert!(!ends(Some(entry(Some(3), PAUSED, Some(true)))));
    }

    #[test]
    fn a_run_that_was_seen_begins_with_what_is_known_of_it() {
        let seen = Entry { unannounced: true, ..entry(Some(3), RUNNING, Some(false)) };
        let paused = entry(Some(3), PAUSED, Some(true));
        let mut inference = Inference::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
        inference.differ(Some(&seen), &paused);
        let delivered: Vec<_> = inference.events.iter().map(DomainEvent::lifecycle).collect();
        let delivered: Vec<_> =
            delivered.into_iter().flatten().map(|e| (e.change, e.persistent)).collect();
        let suspended = Change::Suspended(crate::SuspendCause::Paused);
        assert_eq!(
            delivered,
            [
                (Change::Started(StartCause::Unspecified), Some(false)),
                (suspended, Some(false)),
                (Change::Defined(DefineCause::Unspecified), Some(true)),
            ]
        );
    }
}
