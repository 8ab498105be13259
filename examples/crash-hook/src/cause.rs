//! What counts as a crash or a failure.

use virevent::{State, StopCause, Transition};

/// Why the hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The guest or the hypervisor's process crashed.
    Crashed,
    /// The hypervisor could not run the domain, or not go on with it.
    Failed,
}

/// Whether a transition is the first sign of a run's crash or failure.
#[must_use]
pub fn cause(transition: &Transition) -> Option<Cause> {
    let is_crashed = |state: State| matches!(state, State::Crashed(_));
    let had_crashed = transition.before.as_ref().is_some_and(|before| is_crashed(before.state));
    if had_crashed {
        // A crashed guest was kept for inspection; now it ends.
        return None;
    }
    match transition.ended_run() {
        Some(StopCause::Crashed) => Some(Cause::Crashed),
        Some(StopCause::Failed) => Some(Cause::Failed),
        Some(_) => None,
        // A domain that had crashed before this service started is not news.
        None => (transition.before.is_some()
            && transition.after.as_ref().is_some_and(|after| is_crashed(after.state)))
        .then_some(Cause::Crashed),
    }
}
