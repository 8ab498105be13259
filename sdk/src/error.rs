//! The error type: what can go wrong, and whether a retry can help.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::kind::ParseKindError;
use crate::{Fault, FaultKind, Kind};

/// Why a source could not be opened, reached or subscribed to.
///
/// Cloneable, since one failed connection fails every subscriber that waited for it. `Debug` is
/// [`to_line`](Self::to_line), so that a `main` that returns the error prints it for people.
#[non_exhaustive]
#[derive(Clone, thiserror::Error)]
pub enum Error {
    /// The URI cannot be used. Correct it.
    #[non_exhaustive]
    #[error("cannot use the URI {uri:?}: {reason}")]
    InvalidUri {
        /// The URI as it was given, without secrets.
        uri: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// An option has a value outside its range.
    #[non_exhaustive]
    #[error("{value:?} is not a {option}: give {expected}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What the option takes.
        expected: String,
    },
    /// The snapshot to [resume](crate::Options::resume()) from is of another source or host.
    #[non_exhaustive]
    #[error(
        "the snapshot does not fit {uri}: {reason}; take one of this host, or begin without one"
    )]
    UnfitSnapshot {
        /// The source's URI.
        uri: String,
        /// What the snapshot knows, and what the source is.
        reason: String,
    },
    /// No connection could be made, or it broke.
    #[non_exhaustive]
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// The socket path, or the address.
        endpoint: String,
        /// What to do.
        reason: String,
        /// The error of the operating system.
        #[source]
        source: Arc<io::Error>,
    },
    /// The server closed the connection.
    #[non_exhaustive]
    #[error(
        "{endpoint} closed the connection{}{detail}",
        if detail.is_empty() { "" } else { ": " }
    )]
    Closed {
        /// The socket path, or the address.
        endpoint: String,
        /// What is known of the reason; may be empty.
        detail: String,
    },
    /// The server did not answer in time.
    #[non_exhaustive]
    #[error(
        "no answer to {call} within {after:?}: the server hangs, has as many clients as it serves, \
         or its host is unreachable"
    )]
    Timeout {
        /// The call.
        call: &'static str,
        /// How long the driver waited.
        after: Duration,
    },
    /// The server broke its protocol; the driver dropped the connection.
    #[non_exhaustive]
    #[error("broken protocol: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// The hypervisor answered with an error.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The server requires an authentication that this source cannot give.
    #[non_exhaustive]
    #[error("the server requires authentication: {detail}")]
    Authentication {
        /// Which, and what to do.
        detail: String,
    },
    /// The server cannot prove that it is the one that is meant: its certificate is of another
    /// host, of an unknown CA, expired or revoked. Or it offers no connection that is secure.
    #[non_exhaustive]
    #[error("cannot trust {endpoint}: {detail}")]
    Untrusted {
        /// The address.
        endpoint: String,
        /// Why not, and what to do.
        detail: String,
    },
    /// The server refused a user and password. It does not say which of the two is wrong.
    #[non_exhaustive]
    #[error("the server refused the user and password of {origin}: {message}")]
    Credentials {
        /// Where user and password come from, without the password.
        origin: String,
        /// The server's message, and what to do.
        message: String,
    },
    /// A kind of event was asked for by name, and the hypervisor cannot report it.
    #[non_exhaustive]
    #[error("{uri} cannot report events of kind {kind}: leave it out")]
    Unsupported {
        /// The source's URI, without secrets.
        uri: String,
        /// The kind.
        kind: Kind,
    },
    /// The source exceeds a bound on what the driver keeps of one source.
    #[non_exhaustive]
    #[error("the source has more than {bound} {limit}: it is broken, or not to be trusted")]
    LimitExceeded {
        /// What there is too much of.
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
        "the task that drove the source has ended, with its runtime or by a panic: open the source \
         again"
    )]
    DriverEnded,
}

/// An error that a hypervisor answered with.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{call} failed: {message} ({}){}{help}",
    self.number(),
    if help.is_empty() { "" } else { "; " }
)]
pub struct ServerError {
    /// The call.
    pub call: &'static str,
    /// The hypervisor's error number (libvirt: `virErrorNumber`).
    pub code: i32,
    /// The part of the hypervisor that reports it (libvirt: `virErrorDomain`), where it says that.
    pub domain: Option<i32>,
    /// The hypervisor's message.
    pub message: String,
    /// What to do; may be empty.
    pub help: &'static str,
    /// Whether a retry cannot help.
    pub is_refusal: bool,
}

impl ServerError {
    /// Makes one that a retry may help, without help for people.
    pub fn new(call: &'static str, code: i32, message: impl Into<String>) -> Self {
        Self { call, code, domain: None, message: message.into(), help: "", is_refusal: false }
    }

    fn number(&self) -> String {
        match self.domain {
            Some(domain) => format!("code {}, domain {domain}", self.code),
            None => format!("code {}", self.code),
        }
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}

impl From<ParseKindError> for Error {
    fn from(error: ParseKindError) -> Self {
        Self::invalid_option("kind", error.text(), error.expected())
    }
}

/// The message of an error and those of its sources, in one line.
pub(crate) fn to_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    // A peer's message may have lines of its own; a log record and a JSON field are one line.
    line.replace(['\n', '\r'], " ")
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_line())
    }
}

/// Constructors, for backends.
impl Error {
    /// Makes an [`InvalidUri`](Self::InvalidUri). The URI must be free of secrets.
    pub fn invalid_uri(uri: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidUri { uri: uri.into(), reason: reason.into() }
    }

    /// Makes an [`InvalidOption`](Self::InvalidOption).
    pub fn invalid_option(
        option: &'static str,
        value: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::InvalidOption { option, value: value.into(), expected: expected.into() }
    }

    /// Makes an [`Unreachable`](Self::Unreachable).
    pub fn unreachable(
        endpoint: impl Into<String>,
        reason: impl Into<String>,
        source: impl Into<Arc<io::Error>>,
    ) -> Self {
        let source = source.into();
        Self::Unreachable { endpoint: endpoint.into(), reason: reason.into(), source }
    }

    /// Makes a [`Closed`](Self::Closed).
    pub fn closed(endpoint: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Closed { endpoint: endpoint.into(), detail: detail.into() }
    }

    /// Makes a [`Timeout`](Self::Timeout).
    #[must_use]
    pub fn timeout(call: &'static str, after: Duration) -> Self {
        Self::Timeout { call, after }
    }

    /// Makes a [`Protocol`](Self::Protocol).
    pub fn protocol(detail: impl Into<String>) -> Self {
        Self::Protocol { detail: detail.into() }
    }

    /// Makes an [`Unsupported`](Self::Unsupported). The URI must be free of secrets.
    pub fn unsupported(uri: impl Into<String>, kind: Kind) -> Self {
        Self::Unsupported { uri: uri.into(), kind }
    }

    /// Makes a [`LimitExceeded`](Self::LimitExceeded).
    #[must_use]
    pub fn limit_exceeded(limit: &'static str, bound: usize) -> Self {
        Self::LimitExceeded { limit, bound }
    }

    /// Makes an [`Authentication`](Self::Authentication).
    pub fn authentication(detail: impl Into<String>) -> Self {
        Self::Authentication { detail: detail.into() }
    }

    /// Makes an [`Untrusted`](Self::Untrusted).
    pub fn untrusted(endpoint: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Untrusted { endpoint: endpoint.into(), detail: detail.into() }
    }

    /// Makes a [`Credentials`](Self::Credentials). Neither text may contain the password.
    pub fn credentials(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Credentials { origin: origin.into(), message: message.into() }
    }
}

impl Error {
    /// Whether this is a refusal: a retry cannot help, something has to be changed by hand.
    ///
    /// A source that meets one fails the first subscription with it. Later it ends its streams
    /// after a minute of nothing but refusals, or as long as
    /// [`refusal_timeout`](crate::driver::Settings::refusal_timeout) says.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::InvalidUri { .. }
            | Self::InvalidOption { .. }
            | Self::UnfitSnapshot { .. }
            | Self::Authentication { .. }
            | Self::Untrusted { .. }
            | Self::Credentials { .. }
            | Self::Unsupported { .. }
            | Self::LimitExceeded { .. }
            | Self::Shutdown
            | Self::NoRuntime
            | Self::DriverEnded => true,
            Self::Server(error) => error.is_refusal,
            // Everything else about a socket may pass: a daemon that restarts removes its socket,
            // or leaves one that refuses.
            Self::Unreachable { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Closed { .. } | Self::Timeout { .. } | Self::Protocol { .. } => false,
        }
    }

    /// The error as the small value that a [`Gap`](crate::Gap) carries.
    #[must_use]
    pub fn to_fault(&self) -> Fault {
        let kind = match self {
            Self::Unreachable { .. } => FaultKind::Unreachable,
            Self::Closed { .. } => FaultKind::Closed,
            Self::Timeout { .. } => FaultKind::Timeout,
            Self::Protocol { .. } => FaultKind::Protocol,
            Self::Server(_)
            | Self::Authentication { .. }
            | Self::Untrusted { .. }
            | Self::Credentials { .. }
            | Self::Unsupported { .. } => FaultKind::Refused,
            _ => FaultKind::Other,
        };
        Fault::new(kind, &self.to_line())
    }

    /// The error of a subscription to a source that is unreachable because of this fault.
    pub(crate) fn of_fault(endpoint: &str, fault: &Fault) -> Self {
        let kind = match fault.kind() {
            FaultKind::Timeout => io::ErrorKind::TimedOut,
            FaultKind::Closed => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::NotConnected,
        };
        Self::unreachable(endpoint, fault.message(), io::Error::from(kind))
    }

    /// The message and the messages of its sources, in one line for people.
    #[must_use]
    pub fn to_line(&self) -> String {
        to_line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_names_its_domain_where_it_has_one() {
        let mut error = ServerError::new("listing the domains", 38, "no route");
        assert_eq!(error.to_string(), "listing the domains failed: no route (code 38)");
        error.domain = Some(7);
        error.help = "check the network";
        let expected =
            "listing the domains failed: no route (code 38, domain 7); check the network";
        assert_eq!(Error::from(error).to_line(), expected);
    }
}
