//! The fault of a gap: why a source, or a part of it, is unreachable.

use std::fmt;
use std::sync::Arc;

/// Why a source is unreachable: a small value that is cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(Arc<FaultInner>);

#[derive(Debug, PartialEq, Eq)]
struct FaultInner {
    kind: FaultKind,
    message: Box<str>,
}

impl Fault {
    /// Makes a fault of this kind, with a message for people.
    #[must_use]
    pub fn new(kind: FaultKind, message: &str) -> Self {
        Self(Arc::new(FaultInner { kind, message: message.into() }))
    }

    /// The kind of fault.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        self.0.kind
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Fault {}

/// The kinds of fault.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// No connection could be made.
    Unreachable,
    /// The peer closed the connection.
    Closed,
    /// The peer did not answer in time.
    Timeout,
    /// The peer broke its protocol.
    Protocol,
    /// The peer refused.
    Refused,
    /// Any other.
    Other,
}

impl FaultKind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Unreachable,
        Self::Closed,
        Self::Timeout,
        Self::Protocol,
        Self::Refused,
        Self::Other,
    ];

    /// The name in the JSON form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }

    /// From the name in the JSON form. An unknown name is [`FaultKind::Other`].
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or(Self::Other)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
