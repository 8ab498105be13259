//! The faults of a fake xenstored.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use virevent_xen::wire::{MAX_PAYLOAD, Operation};

/// The faults of a [`FakeXenstored`](super::FakeXenstored), and its differences from the C
/// xenstored of Xen 4.17. By default there are none.
///
/// They do not affect requests of its own [`toolstack`](super::FakeXenstored::toolstack).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The number of bytes that it writes at a time, so that the client reads between. Default:
    /// all.
    pub piece: Option<usize>,
    /// The number of additional watch events between a request and its reply: for the client's own
    /// watches in turn, each with the watched path. None while the client has no watches.
    pub events_before: HashMap<Operation, usize>,
    /// The number of repetitions of each watch event. Default: 0.
    pub repeat: usize,
    /// Whether it sends no watch events for changes. Default: no.
    pub no_events: bool,
    /// Bytes that it sends before a reply.
    pub before: HashMap<Operation, Vec<u8>>,
    /// Bytes that it sends right behind a reply.
    pub after: HashMap<Operation, Vec<u8>>,
    /// Requests that it refuses: see [`refuse`](Self::refuse).
    pub errors: Vec<Refusal>,
    /// Requests that it executes, but whose replies have this body, valid or not.
    pub bodies: HashMap<Operation, Vec<u8>>,
    /// The delay of a reply, and so of every packet behind it.
    pub delays: HashMap<Operation, Duration>,
    /// Requests that it executes and does not answer.
    pub unanswered: HashSet<Operation>,
    /// Requests whose reply carries another request number.
    pub wrong_request: HashSet<Operation>,
    /// Requests whose reply carries another operation.
    pub wrong_operation: HashSet<Operation>,
    /// Requests whose reply is one byte longer than the protocol allows.
    pub oversize: HashSet<Operation>,
    /// Requests on which it hangs up.
    pub hang_up: HashSet<Operation>,
    /// Requests whose reply it truncates in the middle, and hangs up there.
    pub truncated: HashSet<Operation>,
    /// Whether it sends nothing, as a suspended process. It still reads.
    pub silent: bool,
    /// Operations that it does not know (`ENOSYS`).
    pub lacks: HashSet<Operation>,
    /// The longest list in one reply, in bytes. A longer one is refused with `E2BIG` and comes in
    /// parts of at most this length. Default: 4,096, as in the C daemon; oxenstored has no limit.
    pub longest_list: usize,
    /// The number of times that a directory changes while a client reads it in parts. Default: 0.
    pub part_changes: u32,
    /// The answer to `GET_FEATURE`: a sum of bits. With 4 (Xen 4.22) a watch may have a depth, and
    /// `@introduceDomain` and `@releaseDomain` name their domain: for a watch with a depth of 1, or
    /// on `@releaseDomain/<domid>`. Default: `None`, it does not know the operation.
    pub features: Option<u32>,
}

/// A rule that refuses requests.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The operation.
    pub operation: Operation,
    /// The first string of the request; `None` for any.
    pub path: Option<String>,
    /// The error in the reply.
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
    /// Lists as oxenstored does (observed with 4.20): a directory of any length comes in one reply,
    /// and `DIRECTORY_PART` is unknown.
    pub fn list_like_oxenstored(&mut self) {
        self.longest_list = usize::MAX;
        self.lacks.insert(Operation::DIRECTORY_PART);
    }

    /// Refuses requests of this operation, all or those for one path, with an error such as
    /// `"EACCES"`.
    pub fn refuse(&mut self, operation: Operation, path: Option<&str>, error: &str) {
        let path = path.map(Into::into);
        self.errors.push(Refusal { operation, path, error: error.into() });
    }

    /// The error with which this request is refused, if it is.
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
