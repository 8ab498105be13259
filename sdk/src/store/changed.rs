//! The transitions of a store, as a stream.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use futures::stream::FusedStream;

use uuid::Uuid;

use super::{DomainStore, Snapshot, StoredDomain, Transition};
use crate::domain::Host;
use crate::{Domain, Origin};

/// Beyond so many transitions that were not yet read, a reader gets the difference instead.
const LIMIT: usize = 1024;

/// The readers of a store.
#[derive(Debug, Default)]
pub(super) struct Readers {
    next: u64,
    readers: BTreeMap<u64, Reader>,
}

#[derive(Debug, Default)]
struct Reader {
    queue: Queue,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Queue {
    /// The transitions that were not read yet.
    Each(Vec<Transition>),
    /// There were too many: of each domain that changed, what the reader knows of it.
    Difference(BTreeMap<(Arc<Host>, Uuid), Known>),
}

/// What a reader knows of a domain.
#[derive(Debug)]
struct Known {
    domain: Domain,
    before: Option<Arc<StoredDomain>>,
    is_forgotten: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self::Each(Vec::new())
    }
}

impl Queue {
    fn push(&mut self, new: &[Transition]) {
        match self {
            Self::Each(transitions) if transitions.len() + new.len() <= LIMIT => {
                transitions.extend_from_slice(new);
            }
            Self::Each(transitions) => {
                let transitions = std::mem::take(transitions);
                *self = Self::Difference(BTreeMap::new());
                self.push(&transitions);
                self.push(new);
            }
            Self::Difference(known) => {
                for transition in new {
                    let domain = transition.domain();
                    let key = (Arc::clone(domain.shared_host()), domain.uuid());
                    let first = || Known {
                        domain: domain.clone(),
                        before: transition.before.clone(),
                        is_forgotten: false,
                    };
                    known.entry(key).or_insert_with(first).is_forgotten = transition.is_forgotten;
                }
            }
        }
    }

    /// What led to `now`.
    fn take(&mut self, now: &Snapshot) -> Vec<Transition> {
        match std::mem::take(self) {
            Self::Each(transitions) => transitions,
            Self::Difference(known) => {
                let step = |Known { domain, before, is_forgotten }| {
                    let after = now.same(&domain).cloned();
                    let origin = after.as_ref().map_or(Origin::Inferred, |after| after.origin);
                    let is_step = before != after;
                    let step =
                        Transition { origin, is_forgotten, ..Transition::new(before, after) };
                    is_step.then_some(step)
                };
                known.into_values().filter_map(step).collect()
            }
        }
    }
}

impl Readers {
    pub(super) fn push(&mut self, transitions: &[Transition]) {
        for reader in self.readers.values_mut() {
            reader.queue.push(transitions);
        }
    }

    /// The wakers of all readers, to be woken outside the lock: they are the program's code.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        self.readers.values_mut().filter_map(|reader| reader.waker.take()).collect()
    }
}

/// The transitions of a [`DomainStore`] from a moment on, as
/// [`DomainStore::changed`] gives them. It ends when the store's events have ended.
///
/// Each transition is delivered, unless the reader is too slow: when more than 1024 wait to be
/// read, the difference between what it last read and what is known now replaces them, one
/// transition for each domain that is stored otherwise. So the memory is bounded, and a table kept
/// from the transitions always ends up right.
///
/// # Cancel safety
/// `next()` may be dropped at any time; no transition is lost.
pub struct Changed {
    store: DomainStore,
    id: u64,
    taken: VecDeque<Transition>,
    terminated: bool,
}

impl Changed {
    pub(super) fn new(store: DomainStore) -> Self {
        let mut id = 0;
        store.state.send_if_modified(|state| {
            id = state.readers.next;
            state.readers.next += 1;
            state.readers.readers.insert(id, Reader::default());
            false
        });
        Self { store, id, taken: VecDeque::new(), terminated: false }
    }
}

impl Stream for Changed {
    type Item = Transition;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Transition>> {
        let this = &mut *self;
        if this.taken.is_empty() && !this.terminated {
            let id = this.id;
            let mut waker = Some(cx.waker().clone());
            this.store.state.send_if_modified(|state| {
                if let Some(reader) = state.readers.readers.get_mut(&id) {
                    this.taken = reader.queue.take(&state.table.snapshot()).into();
                    this.terminated = this.taken.is_empty() && state.end.is_some();
                    // The one before is dropped outside the lock.
                    std::mem::swap(&mut reader.waker, &mut waker);
                }
                false
            });
        }
        match this.taken.pop_front() {
            None if !this.terminated => Poll::Pending,
            next => Poll::Ready(next),
        }
    }
}

impl FusedStream for Changed {
    fn is_terminated(&self) -> bool {
        self.terminated && self.taken.is_empty()
    }
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let id = self.id;
        let mut removed = None;
        self.store.state.send_if_modified(|state| {
            removed = state.readers.readers.remove(&id);
            false
        });
    }
}
