//! The driver's requests to the fake hypervisor.

use std::collections::VecDeque;
use std::fmt;

use virevent::Kinds;

/// The number of entries that a journal keeps: the latest.
const LIMIT: usize = 65_536;

/// A request of the driver to the fake hypervisor.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An attempt to connect, successful or not.
    Connect,
    /// A registration for events of these kinds and no others.
    Register(Kinds),
    /// A deregistration of all events.
    Deregister,
    /// A request for the list of domains.
    List,
    /// A keepalive ping.
    Ping,
    /// The driver's end of the connection. An end by the hypervisor has no entry.
    Disconnect,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Register(kinds) => write!(f, "register {kinds}"),
            Self::Deregister => f.write_str("deregister"),
            Self::List => f.write_str("list"),
            Self::Ping => f.write_str("ping"),
            Self::Disconnect => f.write_str("disconnect"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Journal(VecDeque<Asked>);

impl Journal {
    pub(super) fn note(&mut self, asked: Asked) {
        if self.0.len() == LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(asked);
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Asked> {
        self.0.iter()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
