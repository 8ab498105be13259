//! Why an operation on a simulated host was refused.

use virevent::State;

/// Why an operation on a simulated host was refused. The host is as it was before.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// There is no domain of that name.
    #[error("cannot {operation} {name:?}: there is no such domain; define or create it first")]
    NoSuchDomain {
        /// What was asked.
        operation: &'static str,
        /// The name given.
        name: String,
    },
    /// There is a domain of that name.
    #[error("cannot {operation} {name:?}: that name is taken; use another, or undefine it first")]
    NameTaken {
        /// What was asked.
        operation: &'static str,
        /// The name given.
        name: String,
    },
    /// No domain can have that name.
    #[error(
        "cannot {operation} {name:?}: give a name of 1 to 255 bytes without '/' or control characters"
    )]
    BadName {
        /// What was asked.
        operation: &'static str,
        /// The name given.
        name: String,
    },
    /// The domain is not in a state for it.
    #[error("cannot {operation} {name:?}: it is {state}; {help}")]
    WrongState {
        /// What was asked.
        operation: &'static str,
        /// The domain.
        name: String,
        /// Its state.
        state: State,
        /// What to do.
        help: &'static str,
    },
    /// The domain is transient: it has no stored configuration.
    #[error("cannot {operation} {name:?}: it is transient; define it first")]
    Transient {
        /// What was asked.
        operation: &'static str,
        /// The domain.
        name: String,
    },
}
