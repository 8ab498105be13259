//! What a fake xenstored does wrong.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use virevent_xen::wire::{MAX_PAYLOAD, Operation};

/// What a [`FakeXenstored`](super::FakeXenstored) does wrong, or as another one does it. By default it does everything right, as a C xenstored of Xen
/// 4.17.
///
/// Requests of its own [`toolstack`](super::FakeXenstored::toolstack) are never affected.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How many bytes it writes at a time; the client reads before the next. Default: all there are.
    pub piece: Option<usize>,
    /// How many watch events it sends between a request and its reply, besides those that there are:
    /// of the client's own watches in turn, each with the path that is watched. None while it has no
    /// watches.
    pub events_before: HashMap<Operation, usize>,
    /// How many times more each watch event is sent. Default: 0.
    pub repeat: usize,
    /// Whether it sends no watch events of what changes, as one that loses them. Default: no.
    pub no_events: bool,
    /// What it sends before a reply.
    pub before: HashMap<Operation, Vec<u8>>,
    /// What it sends right behind a reply.
    pub after: HashMap<Operation, Vec<u8>>,
    /// Requests that are refused: see [`refuse`](Self::refuse).
    pub errors: Vec<Refusal>,
    /// Requests that are done but answered with this body, whatever it is.
    pub bodies: HashMap<Operation, Vec<u8>>,
    /// How long it waits before a reply, which all that comes after it waits for too.
    pub delays: HashMap<Operation, Duration>,
    /// Requests that are done but never answered.
    pub unanswered: HashSet<Operation>,
    /// Requests whose reply carries another number.
    pub wrong_request: HashSet<Operation>,
    /// Requests whose reply carries another operation.
    pub wrong_operation: HashSet<Operation>,
    /// Requests whose reply says that it has a byte more than any may have, and has them.
    pub oversize: HashSet<Operation>,
    /// Requests upon which it hangs up.
    pub hang_up: HashSet<Operation>,
    /// Requests whose reply breaks off in the middle: it hangs up there.
    pub truncated: HashSet<Operation>,
    /// It says nothing at all any more, as one that is stopped. It reads on.
    pub silent: bool,
    /// Operations that it does not know (`ENOSYS`).
    pub lacks: HashSet<Operation>,
    /// The longest list that fits into a reply, in bytes: a longer one is `E2BIG`, and comes in parts
    /// no longer than that. Default: 4,096, as the C daemon's; oxenstored knows no limit.
    pub longest_list: usize,
    /// How many times more a directory changes between two of its parts, under the client's backend.
    /// Default: 0.
    pub part_changes: u32,
    /// What it answers to `GET_FEATURE`: a sum of bits. With 4 (Xen 4.22) a watch may have a depth,
    /// and `@introduceDomain` and `@releaseDomain` tell which domain: at a depth of 1, or to those
    /// that watch `@releaseDomain/<domid>`. Default: `None`, it does not know the operation.
    pub features: Option<u32>,
}

/// A request that is refused.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which operation.
    pub operation: Operation,
    /// With this as its first string; any if `None`.
    pub path: Option<String>,
    /// The word that is answered.
    pub error: String,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            piece: None,
            events_before: HashMap::new(),
            repeat: 0,
            no_events: false,
            before: HashMap::new(),
            after: HashMap::new(),
            errors: Vec::new(),
            bodies: HashMap::new(),
            delays: HashMap::new(),
            unanswered: HashSet::new(),
            wrong_request: HashSet::new(),
            wrong_operation: HashSet::new(),
            oversize: HashSet::new(),
            hang_up: HashSet::new(),
            truncated: HashSet::new(),
            silent: false,
            lacks: HashSet::new(),
            longest_list: MAX_PAYLOAD,
            part_changes: 0,
            features: None,
        }
    }
}

impl Faults {
    /// Lists as oxenstored does (seen of 4.20): a directory of any length comes in one reply, and
    /// `DIRECTORY_PART` is not known.
    pub fn list_like_oxenstored(&mut self) {
        self.longest_list = usize::MAX;
        self.lacks.insert(Operation::DIRECTORY_PART);
    }

    /// Has requests of this operation refused, all or those for one path: with `"EACCES"`, say, or
    /// with any other word.
    pub fn refuse(&mut self, operation: Operation, path: Option<&str>, error: &str) {
        let (path, error) = (path.map(Into::into), error.into());
        self.errors.push(Refusal { operation, path, error });
    }

    /// Whether and how this request is refused.
    pub(super) fn refusal(&self, operation: Operation, payload: &[u8]) -> Option<String> {
        if self.lacks.contains(&operation) {
            return Some("ENOSYS".into());
        }
        let first = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        let meant = |refusal: &&Refusal| {
            let path = refusal.path.as_deref();
            refusal.operation == operation && path.is_none_or(|path| path.as_bytes() == first)
        };
        self.errors.iter().find(meant).map(|refusal| refusal.error.clone())
    }

    /// Whether watches have depths.
    pub(super) fn has_depth(&self) -> bool {
        self.features.is_some_and(|bits| bits & 4 != 0)
    }
}
