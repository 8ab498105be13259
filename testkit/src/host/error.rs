//! Errors of operations on a simulated host.

use virevent::State;

/// The refusal of an operation on a simulated host, which is not changed then.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// There is no domain with that name.
    #[error("cannot {operation} {name:?}: there is no such domain; define or create it first")]
    NoSuchDomain {
        /// The operation.
        operation: &'static str,
        /// The name.
        name: String,
    },
    /// There is a domain with that name already.
    #[error("cannot {operation} {name:?}: that name is taken; use another, or undefine it first")]
    NameTaken {
        /// The operation.
        operation: &'static str,
        /// The name.
        name: String,
    },
    /// A domain cannot have that name.
    #[error(
        "cannot {operation} {name:?}: give a name of 1 to 255 bytes without '/' or control characters"
    )]
    BadName {
        /// The operation.
        operation: &'static str,
        /// The name.
        name: String,
    },
    /// The domain's state does not allow the operation.
    #[error("cannot {operation} {name:?}: it is {state}; {help}")]
    WrongState {
        /// The operation.
        operation: &'static str,
        /// The domain.
        name: String,
        /// Its state.
        state: State,
        /// What to do first.
        help: &'static str,
    },
    /// The domain is transient: it has no stored configuration.
    #[error("cannot {operation} {name:?}: it is transient; define it first")]
    Transient {
        /// The operation.
        operation: &'static str,
        /// The domain.
        name: String,
    },
}
