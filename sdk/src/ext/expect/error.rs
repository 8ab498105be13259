//! Why what was expected did not come about.

use std::time::Duration;

use crate::error::to_line;
use crate::{Change, CrashCause, Domain, End, Error, Gap, Scope, Selector, State, StopCause};

/// Why an [`Expectation`](crate::Expectation) was not met. In each variant `expected` is what was:
/// `running`, `stopped` or `in the awaited state`.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum WaitError {
    /// A run of the domain ended.
    #[non_exhaustive]
    #[error("{domain} is not {expected}: {}", Change::Stopped(*cause))]
    Stopped {
        /// The domain, with the id of the run that ended.
        domain: Domain,
        /// What was expected.
        expected: &'static str,
        /// Why the run ended.
        cause: StopCause,
    },
    /// The guest crashed. The hypervisor may stop it, restart it or keep it.
    #[non_exhaustive]
    #[error("{domain} is not {expected}: {}", Change::Crashed(*cause))]
    Crashed {
        /// The domain.
        domain: Domain,
        /// What was expected.
        expected: &'static str,
        /// How it crashed.
        cause: CrashCause,
    },
    /// The domain was undefined while it did not run: it no longer exists.
    #[non_exhaustive]
    #[error("{domain} is not {expected}: it was undefined")]
    Gone {
        /// The domain.
        domain: Domain,
        /// What was expected.
        expected: &'static str,
    },
    /// The domain that was expected by its name has another one now.
    #[non_exhaustive]
    #[error("{domain} is not {expected}: it was renamed")]
    Renamed {
        /// The domain, with the name that it had.
        domain: Domain,
        /// What was expected.
        expected: &'static str,
    },
    /// The domain's source was removed from its fleet. The domain may still exist, and run.
    #[non_exhaustive]
    #[error("{domain} is not known to be {expected}: {} was removed from its fleet", domain.source())]
    Removed {
        /// The domain.
        domain: Domain,
        /// What was expected.
        expected: &'static str,
    },
    /// The deadline passed.
    #[non_exhaustive]
    #[error(
        "{domain} is not {}{expected} at the deadline of {after:?}: {}",
        if outage.is_some() || unsynced.is_some() { "known to be " } else { "" },
        describe(*state, *is_starting, outage.as_deref(), unsynced.as_ref())
    )]
    Deadline {
        /// The domain that was expected.
        domain: Selector,
        /// What was expected.
        expected: &'static str,
        /// The time that the call waited.
        after: Duration,
        /// The state of the domain, as of before the outage if there is one; `None` if it is not
        /// known to exist.
        state: Option<State>,
        /// The run is in that state, and its start is not complete: it may still fail.
        is_starting: bool,
        /// The outage that is still on: of the domain's source, or of one that may have the domain.
        outage: Option<Box<Gap>>,
        /// A source that may have the domain, whose domains are not known yet.
        unsynced: Option<Scope>,
    },
    /// The source was shut down.
    #[non_exhaustive]
    #[error("{domain} is not known to be {expected}: {end}")]
    Ended {
        /// The domain that was expected.
        domain: Selector,
        /// What was expected.
        expected: &'static str,
        /// Why the events ended.
        end: End,
    },
    /// The source failed in a way that no retry can help.
    #[non_exhaustive]
    #[error("{domain} is not known to be {expected}: the source failed for good")]
    Failed {
        /// The domain that was expected.
        domain: Selector,
        /// What was expected.
        expected: &'static str,
        /// Why.
        #[source]
        error: Error,
    },
}

impl WaitError {
    /// The message and the messages of its sources, in one line for people.
    #[must_use]
    pub fn to_line(&self) -> String {
        to_line(self)
    }
}

fn describe(
    state: Option<State>,
    is_starting: bool,
    outage: Option<&Gap>,
    unsynced: Option<&Scope>,
) -> String {
    match (outage, state, unsynced) {
        (None, Some(state), _) if is_starting => format!("it is {state}, its start not complete"),
        (None, Some(state), _) => format!("it is {state}"),
        (None, None, Some(scope)) => format!("{scope} is not synced yet"),
        (None, None, None) => "it does not exist".into(),
        (Some(gap), Some(state), _) => format!("{gap}; it was {state} before"),
        (Some(gap), None, _) => gap.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_error_leaves_room_in_the_error_of_a_program() {
        enum OfProgram {
            _Waiting(WaitError),
            _Source(Error),
            _Command(String),
        }
        // Clippy's result_large_err is about 128 bytes and more.
        assert!(size_of::<OfProgram>() < 128, "{}", size_of::<OfProgram>());
    }
}
