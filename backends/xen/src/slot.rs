//! What is known of one domain id, and what is still to be asked.

use tokio::time::Instant;
use virevent::{Domain, RunningReason, ShuttingDownReason, State, Uuid};

use crate::decode::Request;
use crate::request::{Ask, Node, Target};

/// A set of questions about a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Questions(u8);

impl Questions {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const INTRODUCED: Self = Self(1);
    pub(crate) const HOME: Self = Self(2);
    pub(crate) const VM: Self = Self(4);
    pub(crate) const NAME: Self = Self(8);
    pub(crate) const SHUTDOWN: Self = Self(16);
    /// What is watched.
    pub(crate) const NODES: Self = Self(4 | 8 | 16);
    /// What says who it is, and whether it runs.
    const IDENTITY: Self = Self(1 | 2 | 4 | 8);

    pub(crate) fn of(node: Node) -> Self {
        match node {
            Node::Vm => Self::VM,
            Node::Name => Self::NAME,
            Node::Shutdown => Self::SHUTDOWN,
        }
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn has_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How far a watch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    Off,
    Setting,
    On,
    Clearing,
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Whether the last list had it.
    pub(crate) listed: bool,
    /// Whether it uses the store, as last read.
    pub(crate) introduced: Option<bool>,
    /// Whether its directory is not there, as last read.
    pub(crate) homeless: bool,
    pub(crate) uuid: Option<Uuid>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) request: Request,

    /// What is to be asked.
    pub(crate) due: Questions,
    /// What was asked and is not answered.
    pub(crate) flying: Questions,
    /// What was read since it is watched.
    pub(crate) read: Questions,
    /// What was read once more since the identity was last found to be another, and was as before.
    pub(crate) same: Questions,
    /// Of [`Node::ALL`].
    pub(crate) watches: [Watch; 3],
    /// Whether it is to be watched: it is introduced.
    pub(crate) wanted: bool,
    /// Whether it waits for its turn.
    pub(crate) queued: bool,
    /// Whether it waits for its request to be read, which takes precedence.
    pub(crate) urgent: bool,
    /// Whether it was looked at.
    pub(crate) seen: bool,

    /// What the verification under way has still to read.
    pub(crate) unread: Questions,
    /// What was under way when it began: those answers are older.
    pub(crate) stale: Questions,
    /// Whether an event accounts for what is read since it began.
    pub(crate) heard: bool,
    /// Whether what was read is left to its list.
    pub(crate) withheld: bool,
    /// Where it was in the list of the store that had it first.
    pub(crate) place: usize,

    /// Since when it runs and is not wholly known.
    pub(crate) since: Option<Instant>,
    /// That was too long: it is told with what is known.
    pub(crate) late: bool,
    /// The run, if it is known who it is.
    pub(crate) run: Option<Run>,
    /// It shut down, says the server, which names the domain.
    pub(crate) shut_down: bool,
}

/// A run of a domain.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) domain: Domain,
    pub(crate) course: Course,
    /// The request that was told last.
    pub(crate) request: Request,
}

/// How far a run is on the way to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Course {
    /// It was asked to end.
    pub(crate) asked: bool,
    /// It has shut down, and is still there.
    pub(crate) finished: bool,
}

impl Course {
    pub(crate) fn state(self) -> State {
        match (self.asked, self.finished) {
            (true, _) => State::ShuttingDown(ShuttingDownReason::User),
            (false, true) => State::ShuttingDown(ShuttingDownReason::Unspecified),
            (false, false) => State::Running(RunningReason::Unspecified),
        }
    }
}

impl Slot {
    /// Whether there is an answer to come on any of these.
    pub(crate) fn awaits(&self, bits: Questions) -> bool {
        self.due.with(self.flying).has_any(bits)
    }

    /// Takes note that this was read, and whether it was as before.
    pub(crate) fn note(&mut self, bit: Questions, is_same: bool) {
        if bit.has_any(Questions::IDENTITY) && !is_same {
            self.same = Questions::NONE;
        } else {
            self.same = self.same.with(bit);
        }
    }

    /// Whether what is known of these is of one moment: nothing of it is to come, or was read again
    /// since the last of it changed. The latter is for events that never stop.
    pub(crate) fn is_settled(&self, bits: Questions) -> bool {
        self.due.with(self.flying).both(bits).without(self.same).is_empty()
    }

    pub(crate) fn is_identity_settled(&self) -> bool {
        self.is_settled(Questions::IDENTITY)
    }

    /// What a verification asks of it; whether it has a place, the list says.
    pub(crate) fn to_verify(&self, domid: u16) -> Questions {
        let home = if self.homeless { Questions::HOME } else { Questions::NONE };
        match self.introduced {
            // Domain 0 is always there.
            _ if domid == 0 => Questions::NODES,
            Some(true) => Questions::INTRODUCED.with(Questions::NODES).with(home),
            _ => Questions::INTRODUCED.with(home),
        }
    }

    /// What a verification has still to read of it, and what is under way since it began will not answer.
    pub(crate) fn to_ask_for_list(&self) -> Questions {
        self.unread.without(self.flying.without(self.stale))
    }

    /// Whether nothing of it is under way or watched.
    pub(crate) fn is_idle(&self) -> bool {
        self.due.is_empty() && self.flying.is_empty() && self.watches == [Watch::Off; 3]
    }

    /// What to ask next of the domain, of which note is taken.
    pub(crate) fn next_ask(&mut self, domid: u16) -> Option<Ask> {
        for (node, watch) in Node::ALL.into_iter().zip(&mut self.watches) {
            match (*watch, self.wanted) {
                (Watch::Off, true) => {
                    *watch = Watch::Setting;
                    return Some(Ask::Watch(Target::Domain(domid, node), None));
                }
                (Watch::On, false) => {
                    *watch = Watch::Clearing;
                    return Some(Ask::Unwatch(Target::Domain(domid, node)));
                }
                _ => {}
            }
        }
        let questions = [
            // First, for the guest may remove it at any time.
            (Questions::SHUTDOWN, Ask::Read(domid, Node::Shutdown)),
            (Questions::INTRODUCED, Ask::IsIntroduced(domid)),
            (Questions::HOME, Ask::ReadHome(domid)),
            (Questions::VM, Ask::Read(domid, Node::Vm)),
            (Questions::NAME, Ask::Read(domid, Node::Name)),
        ];
        // What was asked before the last event is asked once more when its answer is there.
        let open = self.due.without(self.flying);
        let (bit, ask) = questions.into_iter().find(|(bit, _)| open.has_any(*bit))?;
        self.due = self.due.without(bit);
        self.flying = self.flying.with(bit);
        Some(ask)
    }

    pub(crate) fn watch(&mut self, node: Node) -> &mut Watch {
        let [vm, name, shutdown] = &mut self.watches;
        match node {
            Node::Vm => vm,
            Node::Name => name,
            Node::Shutdown => shutdown,
        }
    }
}
