//! What can go wrong, and whether trying again can mend it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::{Fault, FaultKind, Kind};

/// Why a source could not be opened, reached or subscribed to.
///
/// Cloneable, since one failed connection fails every subscriber that waited for it.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The URI cannot be used. Mend it.
    #[error("cannot use the URI {uri:?}: {reason}")]
    InvalidUri {
        /// The URI as it was given, without secrets.
        uri: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// An option has a value that it cannot have.
    #[error("{value:?} is not a {option}: give {expected}")]
    InvalidOption {
        /// Which option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// No connection could be made, or it broke.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// The socket path, or the address.
        endpoint: String,
        /// What to do.
        reason: String,
        /// What the operating system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The other side closed the connection.
    #[error("{endpoint} closed the connection{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Closed {
        /// The socket path, or the address.
        endpoint: String,
        /// What is known of the reason; may be empty.
        detail: String,
    },
    /// The other side did not answer in time.
    #[error(
        "no answer to {call} within {after:?}: the server hangs, serves as many clients as it may, or its host is out of reach"
    )]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// The other side broke its protocol; the connection was dropped.
    #[error("broken protocol: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// The hypervisor answered with an error. [`Error::is_refusal`] says whether it may change its
    /// mind.
    #[error("{call} failed: {message} (code {code}, domain {domain}){}{help}", if help.is_empty() { "" } else { "; " })]
    Server {
        /// What was asked.
        call: &'static str,
        /// The hypervisor's error number (libvirt: `virErrorNumber`).
        code: i32,
        /// The part of the hypervisor that it comes from (libvirt: `virErrorDomain`).
        domain: i32,
        /// The hypervisor's message.
        message: String,
        /// What to do; may be empty.
        help: &'static str,
        /// Whether asking again cannot help.
        refusal: bool,
    },
    /// The server wants an authentication that this version cannot do.
    #[error("the server wants authentication: {detail}")]
    Authentication {
        /// Which, and what to do.
        detail: String,
    },
    /// A kind of event was asked for by name, and the hypervisor cannot report it.
    #[error("{uri} cannot report events of kind {kind}: leave it out")]
    Unsupported {
        /// The source's URI, without secrets.
        uri: String,
        /// The kind.
        kind: Kind,
    },
    /// The source has more than is ever kept of one.
    #[error("the source has more than {bound} {limit}: it is broken, or not to be trusted")]
    LimitExceeded {
        /// Of what there is too much.
        limit: &'static str,
        /// How much there may be.
        bound: usize,
    },
    /// The source was shut down.
    #[error("the source was shut down: open it again")]
    Shutdown,
    /// A subscription was made outside a tokio runtime.
    #[error("there is no tokio runtime here: subscribe inside one")]
    NoRuntime,
    /// The task that drove the source has ended: with its runtime, or by a panic of the backend.
    #[error(
        "the task that drove the source has ended, with its runtime or by a panic: open the source again"
    )]
    DriverEnded,
}

impl Error {
    /// Whether this is a refusal: trying again cannot mend it, somebody has to change something.
    ///
    /// A source that meets one fails the first subscription with it. Later it ends its streams once it
    /// has met nothing else for a minute, or as long as
    /// [`refusal_timeout`](crate::driver::Settings::refusal_timeout) says.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::InvalidUri { .. }
            | Self::InvalidOption { .. }
            | Self::Authentication { .. }
            | Self::Unsupported { .. }
            | Self::LimitExceeded { .. }
            | Self::Shutdown
            | Self::NoRuntime
            | Self::DriverEnded => true,
            Self::Server { refusal, .. } => *refusal,
            Self::Unreachable { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Closed { .. } | Self::Timeout { .. } | Self::Protocol { .. } => false,
        }
    }

    /// The error as the small value that a [`Gap`](crate::Gap) carries.
    pub fn to_fault(&self) -> Fault {
        let kind = match self {
            Self::Unreachable { .. } => FaultKind::Unreachable,
            Self::Closed { .. } => FaultKind::Closed,
            Self::Timeout { .. } => FaultKind::Timeout,
            Self::Protocol { .. } => FaultKind::Protocol,
            Self::Server { .. } | Self::Authentication { .. } | Self::Unsupported { .. } => {
                FaultKind::Refused
            }
            _ => FaultKind::Other,
        };
        Fault::new(kind, &self.to_line())
    }

    /// What a session said of all that is behind it.
    pub(crate) fn of_fault(endpoint: &str, fault: &Fault) -> Self {
        let kind = match fault.kind() {
            FaultKind::Timeout => io::ErrorKind::TimedOut,
            FaultKind::Closed => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::NotConnected,
        };
        Self::Unreachable {
            endpoint: endpoint.into(),
            reason: fault.message().into(),
            source: Arc::new(kind.into()),
        }
    }

    /// The message, with the messages of what it comes from, in one line for people.
    pub fn to_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line.replace(['\n', '\r'], " ")
    }
}
