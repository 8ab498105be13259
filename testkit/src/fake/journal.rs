//! What the driver asked of the fake hypervisor.

use std::collections::VecDeque;
use std::fmt;

use virevent::Kinds;

/// How many entries a journal keeps; then it forgets the oldest.
const LIMIT: usize = 65_536;

/// One thing that the driver asked of the fake hypervisor.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To connect; whether or not it came to that.
    Connect,
    /// To send events of these kinds, and no others.
    Register(Kinds),
    /// To send no more events.
    Deregister,
    /// Which domains there are.
    List,
    /// Whether it lives.
    Ping,
    /// To disconnect. Not in the journal when it was the hypervisor who ended the connection.
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
