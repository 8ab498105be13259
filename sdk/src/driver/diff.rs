//! What must have happened for the domains to be as they are now.

use std::time::SystemTime;

use super::roster::{Entry, Roster};
use crate::{
    Change, CrashCause, CrashedReason, DefineCause, Domain, Lifecycle, Origin, PmSuspendCause,
    ResumeCause, ShutdownCause, StartCause, State, StopCause, UndefineCause,
};

/// Collects events of one origin and time.
#[derive(Debug)]
pub(super) struct Tale {
    pub(super) events: Vec<Lifecycle>,
    origin: Origin,
    at: SystemTime,
}

impl Tale {
    pub(super) fn new(origin: Origin, at: SystemTime) -> Self {
        Self { events: Vec::new(), origin, at }
    }

    fn tell(&mut self, domain: &Domain, change: Change, persistent: Option<bool>) {
        let event = Lifecycle::new(domain.clone(), change, self.at);
        self.events.push(Lifecycle { origin: self.origin, persistent, ..event });
    }

    /// A known domain is no more.
    pub(super) fn gone(&mut self, old: &Entry, cause: StopCause) {
        if old.domain.is_active() {
            self.tell(&old.domain, Change::Stopped(cause), old.persistent);
        }
        if old.persistent != Some(false) {
            let inactive = old.domain.with_id(None);
            self.tell(&inactive, Change::Undefined(UndefineCause::Unspecified), Some(false));
        }
    }

    /// A domain is as `new` says; before it was as `old` says, or unknown.
    pub(super) fn differ(&mut self, old: Option<&Entry>, new: &Entry) {
        if let Some(old) = old {
            let renamed = old.domain.name() != new.domain.name();
            if renamed {
                self.tell(&old.domain, Change::Undefined(UndefineCause::Renamed), old.persistent);
                self.tell(&new.domain, Change::Defined(DefineCause::Renamed), new.persistent);
            }
            let same_run = old.domain.id() == new.domain.id();
            if old.domain.is_active() && !same_run {
                self.tell(&old.domain, Change::Stopped(stop_cause(new)), old.persistent);
            }
            match (old.persistent, new.persistent) {
                (Some(false), Some(true)) if !renamed => {
                    self.tell(&new.domain, Change::Defined(DefineCause::Unspecified), Some(true));
                }
                (Some(true), Some(false)) if !renamed => {
                    self.tell(
                        &new.domain,
                        Change::Undefined(UndefineCause::Unspecified),
                        Some(false),
                    );
                }
                _ => {}
            }
            if new.domain.is_active() {
                match same_run {
                    true => self.run_state(old.state, new),
                    false => self.started(new),
                }
            }
        } else {
            if new.persistent == Some(true) || !new.domain.is_active() {
                let inactive = new.domain.with_id(None);
                self.tell(&inactive, Change::Defined(DefineCause::Unspecified), Some(true));
            }
            if new.domain.is_active() {
                self.started(new);
            }
        }
    }

    fn started(&mut self, new: &Entry) {
        let cause = match new.state {
            State::Running(reason) => reason.into(),
            _ => StartCause::Unspecified,
        };
        self.tell(&new.domain, Change::Started(cause), new.persistent);
        if !matches!(new.state, State::Running(_) | State::Blocked) {
            self.entered(new);
        }
    }

    fn run_state(&mut self, before: State, new: &Entry) {
        if before.is_same(new.state) {
            return;
        }
        match new.state {
            State::Running(_) | State::Blocked => match before {
                // libvirt's term for the end of a sleep.
                State::PmSuspended => {
                    self.tell(&new.domain, Change::Started(StartCause::Wakeup), new.persistent)
                }
                State::NoState | State::Unknown { .. } => {}
                _ => self.entered(new),
            },
            _ => self.entered(new),
        }
    }

    fn entered(&mut self, new: &Entry) {
        if let Some(change) = change_into(new.state) {
            self.tell(&new.domain, change, new.persistent);
        }
    }

    /// A level-triggered hypervisor says how a domain is now.
    pub(super) fn level(&mut self, roster: &mut Roster, domain: Domain, state: State) {
        let old = roster.find(&domain).cloned();
        let persistent = match &old {
            Some(old) => old.persistent,
            // What is there without running has been defined, or so it seems.
            None => domain.is_active().then_some(false),
        };
        let new = Entry { domain, state, persistent };
        self.differ(old.as_ref(), &new);
        if persistent == Some(false) && !new.domain.is_active() {
            roster.remove(&new.domain);
        } else {
            roster.insert(new);
        }
    }

    /// A level-triggered hypervisor says that a domain is no more.
    pub(super) fn gone_level(&mut self, roster: &mut Roster, domain: &Domain, cause: StopCause) {
        // Word of a run that is over by now says nothing of the next.
        let is_past = |old: &Entry| matches!((old.domain.id(), domain.id()), (Some(runs), Some(ended)) if runs != ended);
        if roster.find(domain).is_some_and(is_past) {
            return;
        }
        if let Some(old) = roster.remove(domain) {
            self.gone(&old, cause);
        }
    }
}

/// The change that leads into a state within a run.
pub(super) fn change_into(state: State) -> Option<Change> {
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
        Entry { domain: Domain::new("s:", "h", Uuid::from_u128(1), "web", id), state, persistent }
    }

    fn told(old: Option<Entry>, new: Option<Entry>) -> Vec<String> {
        let mut tale = Tale::new(Origin::Inferred, SystemTime::UNIX_EPOCH);
        match (old, new) {
            (old, Some(new)) => tale.differ(old.as_ref(), &new),
            (Some(old), None) => tale.gone(&old, StopCause::Unspecified),
            (None, None) => {}
        }
        tale.events.iter().map(|event| format!("{} {}", event.domain, event.change)).collect()
    }

    #[test]
    fn an_unchanged_domain_tells_nothing() {
        let running = entry(Some(3), RUNNING, Some(true));
        assert!(told(Some(running.clone()), Some(running)).is_empty());
        let off = entry(None, OFF, None);
        assert!(told(Some(off.clone()), Some(off)).is_empty());
    }

    #[test]
    fn a_missing_domain_stopped_and_was_undefined_unless_it_was_transient() {
        let persistent = entry(Some(3), RUNNING, Some(true));
        assert_eq!(told(Some(persistent), None), ["web[3] stopped", "web undefined"]);
        let transient = entry(Some(3), RUNNING, Some(false));
        assert_eq!(told(Some(transient), None), ["web[3] stopped"]);
        let inactive = entry(None, OFF, Some(true));
        assert_eq!(told(Some(inactive), None), ["web undefined"]);
    }

    #[test]
    fn a_new_domain_was_defined_and_started() {
        let persistent = entry(Some(3), RUNNING, Some(true));
        assert_eq!(told(None, Some(persistent)), ["web defined", "web[3] started (booted)"]);
        let transient = entry(Some(3), PAUSED, Some(false));
        assert_eq!(told(None, Some(transient)), ["web[3] started", "web[3] suspended (paused)"]);
        assert_eq!(told(None, Some(entry(None, OFF, Some(true)))), ["web defined"]);
    }

    #[test]
    fn a_new_id_while_active_is_a_stop_and_a_start() {
        let old = entry(Some(3), RUNNING, Some(true));
        let new = entry(Some(4), RUNNING, Some(true));
        assert_eq!(told(Some(old), Some(new)), ["web[3] stopped", "web[4] started (booted)"]);
    }

    #[test]
    fn a_stop_has_the_cause_that_the_hypervisor_still_knows() {
        let old = entry(Some(3), RUNNING, Some(true));
        let new = entry(None, OFF, Some(true));
        assert_eq!(told(Some(old), Some(new)), ["web[3] stopped (destroyed)"]);
    }

    #[test]
    fn a_pause_and_a_resume_within_a_run_are_told_as_such() {
        let running = entry(Some(3), RUNNING, Some(true));
        let paused = entry(Some(3), PAUSED, Some(true));
        let resumed = entry(Some(3), State::Running(RunningReason::Unpaused), Some(true));
        assert_eq!(told(Some(running), Some(paused.clone())), ["web[3] suspended (paused)"]);
        assert_eq!(told(Some(paused), Some(resumed)), ["web[3] resumed (unpaused)"]);
    }
}
