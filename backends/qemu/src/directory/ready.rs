//! Which of many members want to be polled: one that has nothing to do costs nothing.
//!
//! Each member has a waker of its own, which puts it on a list and wakes whoever polls them all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

/// The list of those that want to be polled, each at most once, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct ReadyMembers(Arc<ReadyQueue>);

#[derive(Debug, Default)]
struct ReadyQueue {
    list: Mutex<VecDeque<Arc<MemberWaker>>>,
    waker: AtomicWaker,
}

/// A member's way to the list.
#[derive(Debug)]
pub(crate) struct MemberWaker {
    member: usize,
    is_listed: AtomicBool,
    ready: Arc<ReadyQueue>,
}

impl ReadyMembers {
    /// A member's call. It is on the list already: it has not been polled yet.
    pub(crate) fn call(&self, member: usize) -> Arc<MemberWaker> {
        let ready = Arc::clone(&self.0);
        let call = Arc::new(MemberWaker { member, is_listed: AtomicBool::new(false), ready });
        call.list();
        call
    }

    /// The member that has waited longest, taken from the list.
    pub(crate) fn next(&self) -> Option<usize> {
        let call = self.0.lock().pop_front()?;
        // Before it is polled: what happens from here on lists it anew.
        call.is_listed.store(false, Ordering::SeqCst);
        Some(call.member)
    }

    /// How many are on the list.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whom to wake when one is listed. To be set before the list is found empty.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.0.waker.register(cx.waker());
    }
}

impl ReadyQueue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<MemberWaker>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemberWaker {
    /// Puts the member on the list, and wakes whoever polls them all.
    pub(crate) fn list(self: &Arc<Self>) {
        if self.list_again() {
            self.ready.waker.wake();
        }
    }

    /// The same without waking: for whoever polls them, and will come back anyway. False if it was on
    /// the list already.
    pub(crate) fn list_again(self: &Arc<Self>) -> bool {
        let is_new = !self.is_listed.swap(true, Ordering::SeqCst);
        if is_new {
            self.ready.lock().push_back(Arc::clone(self));
        }
        is_new
    }

    /// What the member is to be polled with.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for MemberWaker {
    fn wake(self: Arc<Self>) {
        self.list();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.list();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn members(ready: &ReadyMembers) -> Vec<usize> {
        std::iter::from_fn(|| ready.next()).collect()
    }

    #[test]
    fn a_member_is_listed_once_in_its_turn_and_again_after_that() {
        let ready = ReadyMembers::default();
        let calls = [0, 1, 2].map(|member| ready.call(member));
        assert_eq!(members(&ready), [0, 1, 2]);
        for member in [2, 0, 2] {
            calls[member].waker().wake();
        }
        assert_eq!((ready.len(), members(&ready)), (2, vec![2, 0]));
        calls[2].waker().wake_by_ref();
        assert_eq!(members(&ready), [2]);
    }

    #[test]
    fn whoever_polls_them_is_woken() {
        let (ready, count) = (ReadyMembers::default(), Arc::new(Count::default()));
        let call = ready.call(7);
        members(&ready);
        let waker = Waker::from(Arc::clone(&count));
        ready.register(&Context::from_waker(&waker));
        call.waker().wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_wakes_a_member_while_it_is_polled_lists_it_again() {
        let ready = ReadyMembers::default();
        let call = ready.call(1);
        assert_eq!(ready.next(), Some(1));
        call.waker().wake();
        assert_eq!(members(&ready), [1]);
    }
}
