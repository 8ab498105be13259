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

use super::diff::change_into;
use super::roster::{Entry, Key};
use crate::{Change, DefineCause, Lifecycle, StartCause};

/// After this an event cannot have been under way when the list was taken.
const LIFETIME: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Echoes {
    told: HashMap<Key, Told, foldhash::fast::RandomState>,
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

    pub(super) fn existing(&mut self, key: Key, entry: &Entry) {
        let active = entry.domain.is_active();
        let told = Told {
            run: entry.domain.id(),
            defined: entry.persistent != Some(false),
            undefined: false,
            started: active,
            stopped: !active,
            // A run that goes on normally is all in its start.
            run_state: change_into(entry.state).filter(|_| !entry.state.is_running()),
        };
        self.told.insert(key, told);
    }

    pub(super) fn inferred(&mut self, key: Key, event: &Lifecycle) {
        let told = self.told.entry(key).or_default();
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

    /// An event of the domain was held, and is told after the list: whatever comes next is no echo of
    /// the list.
    pub(super) fn overtaken(&mut self, key: Key) {
        self.told.remove(&key);
    }

    /// Whether anything may be an echo.
    pub(super) fn is_armed(&self) -> bool {
        self.until.is_some()
    }

    /// Whether `event` is an echo, to be left out.
    pub(super) fn is_echo(&mut self, key: Key, event: &Lifecycle) -> bool {
        let Some(told) = self.told.get(&key) else { return false };
        let id = event.domain.id();
        let same_run = id == told.run;
        let echo = match event.change {
            // The guest wakes up in the middle of its run.
            Change::Started(StartCause::Wakeup) => false,
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
        let before_start = matches!(event.change, Change::Resumed(_))
            && told.started
            && told.run_state.is_none()
            && same_run;
        if echo || !before_start {
            self.told.remove(&key);
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

    use uuid::Uuid;

    use super::*;
    use crate::driver::roster::Roster;
    use crate::{Domain, PausedReason, ResumeCause, RunningReason, State, StopCause, SuspendCause};

    const STARTED: Change = Change::Started(StartCause::Booted);
    const STOPPED: Change = Change::Stopped(StopCause::Destroyed);
    const RESUMED: Change = Change::Resumed(ResumeCause::Unpaused);
    const SUSPENDED: Change = Change::Suspended(SuspendCause::Paused);
    const RUNNING: State = State::Running(RunningReason::Booted);

    struct Listener {
        roster: Roster,
        echoes: Echoes,
    }

    fn event(host: &str, id: Option<u32>, change: Change) -> Lifecycle {
        let domain = Domain::new("s:", host, Uuid::from_u128(1), "web", id);
        Lifecycle::new(domain, change, SystemTime::UNIX_EPOCH)
    }

    impl Listener {
        fn new() -> Self {
            let mut echoes = Echoes::default();
            echoes.arm(Instant::now());
            Self { roster: Roster::new(crate::domain::Host::new("s:".into(), "h".into())), echoes }
        }

        fn after(told: &[(u32, Change)]) -> Self {
            let mut listener = Self::new();
            for (id, change) in told {
                let event = event("h", Some(*id), *change);
                let key = listener.roster.key(&event.domain);
                listener.echoes.inferred(key, &event);
            }
            listener
        }

        fn after_existing(id: Option<u32>, state: State, persistent: Option<bool>) -> Self {
            let mut listener = Self::new();
            let domain = event("h", id, STARTED).domain;
            let key = listener.roster.key(&domain);
            listener.echoes.existing(key, &Entry { domain, state, persistent });
            listener
        }

        fn is_echo(&mut self, id: Option<u32>, change: Change) -> bool {
            self.is_echo_on("h", id, change)
        }

        fn is_echo_on(&mut self, host: &str, id: Option<u32>, change: Change) -> bool {
            let event = event(host, id, change);
            let key = self.roster.key(&event.domain);
            self.echoes.is_echo(key, &event)
        }
    }

    #[test]
    fn the_late_event_of_a_start_that_the_list_had_is_left_out_once() {
        let mut listener = Listener::after(&[(6, STARTED)]);
        assert!(!listener.is_echo(Some(6), RESUMED), "comes before libvirt's started");
        assert!(listener.is_echo(Some(6), STARTED));
        assert!(!listener.is_echo(Some(6), STARTED));
    }

    #[test]
    fn a_real_stop_is_never_taken_for_the_stop_of_the_run_before() {
        let mut listener = Listener::after(&[(5, STOPPED), (6, STARTED)]);
        assert!(!listener.is_echo(None, STOPPED));
        assert!(!listener.is_echo(Some(7), STARTED));
    }

    #[test]
    fn the_first_other_event_ends_the_suspicion() {
        let mut listener = Listener::after(&[(5, STOPPED)]);
        assert!(!listener.is_echo(Some(6), STARTED));
        assert!(!listener.is_echo(None, STOPPED));
    }

    #[test]
    fn an_existing_domain_echoes_its_start() {
        assert!(Listener::after_existing(Some(6), RUNNING, None).is_echo(Some(6), STARTED));
    }

    #[test]
    fn a_resume_and_a_pause_after_a_pause_that_was_told_are_real() {
        let paused = State::Paused(PausedReason::User);
        let listeners = [
            Listener::after(&[(6, STARTED), (6, SUSPENDED)]),
            Listener::after_existing(Some(6), paused, None),
        ];
        for mut listener in listeners {
            assert!(!listener.is_echo(Some(6), RESUMED));
            assert!(!listener.is_echo(Some(6), SUSPENDED));
        }
    }

    #[test]
    fn a_wakeup_is_no_echo_of_a_start() {
        let mut listener = Listener::after_existing(Some(6), State::PmSuspended, None);
        assert!(!listener.is_echo(Some(6), Change::Started(StartCause::Wakeup)));
    }

    #[test]
    fn a_transient_domain_that_gets_defined_is_no_echo() {
        let added = Change::Defined(DefineCause::Added);
        assert!(!Listener::after_existing(Some(6), RUNNING, Some(false)).is_echo(Some(6), added));
        assert!(Listener::after_existing(Some(6), RUNNING, Some(true)).is_echo(Some(6), added));
    }

    #[test]
    fn what_happens_on_another_host_is_no_echo() {
        let mut listener = Listener::after(&[(6, STARTED)]);
        assert!(!listener.is_echo_on("other", Some(6), STARTED));
    }

    #[test]
    fn after_ten_seconds_nothing_is_an_echo() {
        let mut listener = Listener::after(&[(6, STARTED)]);
        listener.echoes.expire(Instant::now() + LIFETIME);
        assert!(!listener.is_echo(Some(6), STARTED));
    }
}
