//! Recognises an event that only repeats what a sync has told already.
//!
//! The server takes its list at some moment after the registration, and may send an event from
//! before that moment after the list. The list has told it; told again it would look like a second
//! start. So, once for each domain, the first event that repeats what the sync told of the same run
//! is left out. Anything else that happens to the domain ends the suspicion: a doubtful event is
//! told, since the worst of that is a repetition, and the worst of the opposite a lie.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::roster::Entry;
use crate::{Change, DefineCause, Lifecycle};

/// After this an event cannot have been under way when the list was taken.
const LIFETIME: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Echoes {
    told: HashMap<Uuid, Told, foldhash::fast::RandomState>,
    until: Option<Instant>,
}

/// What a sync told of a domain since its last ending, or the ending.
#[derive(Debug, Default)]
struct Told {
    run: Option<u32>,
    defined: bool,
    undefined: bool,
    started: bool,
    stopped: bool,
    run_state: Option<Change>,
}

impl Echoes {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Begins to listen for echoes of what [`inferred`](Self::inferred) and
    /// [`existing`](Self::existing) are told.
    pub(super) fn arm(&mut self, now: Instant) {
        self.told.clear();
        self.until = Some(now + LIFETIME);
    }

    pub(super) fn existing(&mut self, entry: &Entry) {
        let active = entry.domain.is_active();
        let told = Told {
            run: entry.domain.id(),
            defined: true,
            started: active,
            stopped: !active,
            ..Told::default()
        };
        self.told.insert(entry.domain.uuid(), told);
    }

    pub(super) fn inferred(&mut self, event: &Lifecycle) {
        let told = self.told.entry(event.domain.uuid()).or_default();
        match event.change {
            Change::Defined(_) => (told.defined, told.undefined) = (true, false),
            Change::Undefined(_) => (told.defined, told.undefined) = (false, true),
            Change::Started(_) => {
                (told.started, told.stopped, told.run) = (true, false, event.domain.id());
            }
            Change::Stopped(_) => {
                (told.started, told.stopped, told.run) = (false, true, event.domain.id());
                told.run_state = None;
            }
            change => (told.run_state, told.run) = (Some(change), event.domain.id()),
        }
    }

    /// `event` was held, and is told after the list: whatever comes next is no echo of the list.
    pub(super) fn overtaken(&mut self, event: &Lifecycle) {
        self.told.remove(&event.domain.uuid());
    }

    /// Whether `event` is an echo, to be left out.
    pub(super) fn is_echo(&mut self, event: &Lifecycle) -> bool {
        // The common case: nothing was told lately.
        if self.until.is_none() {
            return false;
        }
        let Some(told) = self.told.get(&event.domain.uuid()) else { return false };
        let id = event.domain.id();
        let same_run = id == told.run;
        let echo = match event.change {
            Change::Started(_) => told.started && same_run,
            Change::Stopped(_) => told.stopped && (id.is_none() || same_run),
            Change::Defined(DefineCause::Added) => told.defined,
            Change::Undefined(_) => told.undefined,
            change => {
                let repeats =
                    |told| std::mem::discriminant(told) == std::mem::discriminant(&change);
                told.run_state.as_ref().is_some_and(repeats) && same_run
            }
        };
        // libvirt tells a start as resumed and then started: the start is still to come.
        let before_start = matches!(event.change, Change::Resumed(_)) && told.started && same_run;
        if echo || !before_start {
            self.told.remove(&event.domain.uuid());
        }
        echo
    }

    /// Forgets all when it is too late for an echo.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{Domain, Origin, ResumeCause, RunningReason, StartCause, State, StopCause};

    const STARTED: Change = Change::Started(StartCause::Booted);
    const STOPPED: Change = Change::Stopped(StopCause::Destroyed);
    const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);

    fn event(id: Option<u32>, change: Change) -> Lifecycle {
        let domain = Domain::new("h", Uuid::from_u128(1), "web", id);
        Lifecycle { domain, change, origin: Origin::Observed, at: SystemTime::UNIX_EPOCH }
    }

    fn after(told: &[Lifecycle]) -> Echoes {
        let mut echoes = Echoes::default();
        echoes.arm(Instant::now());
        told.iter().for_each(|event| echoes.inferred(event));
        echoes
    }

    #[test]
    fn the_late_event_of_a_start_that_the_list_had_is_left_out_once() {
        let mut echoes = after(&[event(Some(6), STARTED)]);
        assert!(!echoes.is_echo(&event(Some(6), RESUMED)), "comes before libvirt's started");
        assert!(echoes.is_echo(&event(Some(6), STARTED)));
        assert!(!echoes.is_echo(&event(Some(6), STARTED)));
    }

    #[test]
    fn a_real_stop_is_never_taken_for_the_stop_of_the_run_before() {
        let mut echoes = after(&[event(Some(5), STOPPED), event(Some(6), STARTED)]);
        assert!(!echoes.is_echo(&event(None, STOPPED)));
        assert!(!echoes.is_echo(&event(Some(7), STARTED)));
    }

    #[test]
    fn the_first_other_event_ends_the_suspicion() {
        let mut echoes = after(&[event(Some(5), STOPPED)]);
        assert!(!echoes.is_echo(&event(Some(6), STARTED)));
        assert!(!echoes.is_echo(&event(None, STOPPED)));
    }

    #[test]
    fn an_existing_domain_echoes_its_start() {
        let mut echoes = after(&[]);
        let domain = event(Some(6), STARTED).domain;
        let state = State::Running(RunningReason::Booted);
        echoes.existing(&Entry { domain, state, persistent: None });
        assert!(echoes.is_echo(&event(Some(6), STARTED)));
    }
}
