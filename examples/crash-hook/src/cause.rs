//! What counts as a crash or a failure.

use serde::{Deserialize, Serialize};
use virevent::{Domain, State, StopCause, Transition};

/// A crash or a failure of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// The domain, with the id of that run.
    pub domain: Domain,
    /// Why the hook runs.
    pub cause: Cause,
}

/// Why the hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The guest or the hypervisor's process crashed.
    Crashed,
    /// The hypervisor could not run the domain, or not go on with it.
    Failed,
}

impl Crash {
    /// The crash of which the transition is the first sign.
    pub(crate) fn of(transition: &Transition) -> Option<Self> {
        let is_crashed = |state: State| matches!(state, State::Crashed(_));
        let had_crashed = transition.before.as_ref().is_some_and(|before| is_crashed(before.state));
        if had_crashed {
            // A crashed guest was kept for inspection; now it ends.
            return None;
        }
        if let Some((domain, cause)) = transition.stopped() {
            let cause = match cause {
                StopCause::Crashed => Cause::Crashed,
                StopCause::Failed => Cause::Failed,
                _ => return None,
            };
            return Some(Self { domain: domain.clone(), cause });
        }
        // A domain that had crashed before this service started is not news.
        let after = transition.after.as_ref().filter(|after| is_crashed(after.state))?;
        transition.before.as_ref()?;
        Some(Self { domain: after.domain.clone(), cause: Cause::Crashed })
    }
}
