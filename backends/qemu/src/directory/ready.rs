//! Which of many members are to be polled: a member that was not woken costs nothing.
//!
//! Each member has a waker of its own, which puts it on a list and wakes the task that polls them
//! all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

/// The list of the members to be polled, each at most once, in the order in which they were woken.
#[derive(Debug, Default)]
pub(crate) struct ReadyMembers(Arc<ReadyQueue>);

#[derive(Debug, Default)]
struct ReadyQueue {
    list: Mutex<VecDeque<Arc<MemberWaker>>>,
    waker: AtomicWaker,
}

/// The waker of a member: it puts the member on the list.
#[derive(Debug)]
pub(crate) struct MemberWaker {
    member: usize,
    is_listed: AtomicBool,
    queue: Arc<ReadyQueue>,
}

impl ReadyMembers {
    /// The waker of a new member, which is on the list already: it has not been polled yet.
    pub(crate) fn waker(&self, member: usize) -> Arc<MemberWaker> {
        let queue = Arc::clone(&self.0);
        let waker = Arc::new(MemberWaker { member, is_listed: AtomicBool::new(false), queue });
        waker.list();
        waker
    }

    /// Takes the member that has waited longest from the list.
    pub(crate) fn next(&self) -> Option<usize> {
        let waker = self.0.lock().pop_front()?;
        // Before the member is polled, so that a wake during the poll lists it again.
        waker.is_listed.store(false, Ordering::SeqCst);
        Some(waker.member)
    }

    /// How many are on the list.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Sets the task to wake when a member is listed. To be called before the list is found empty,
    /// or a wake in between would be lost.
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
    /// Puts the member on the list, and wakes the task that polls them all.
    pub(crate) fn list(self: &Arc<Self>) {
        if self.list_again() {
            self.queue.waker.wake();
        }
    }

    /// The same without waking, for the task itself, which polls again anyway. False if the member
    /// was on the list already.
    pub(crate) fn list_again(self: &Arc<Self>) -> bool {
        let is_new = !self.is_listed.swap(true, Ordering::SeqCst);
        if is_new {
            self.queue.lock().push_back(Arc::clone(self));
        }
        is_new
    }

    /// The waker to poll the member with.
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
    fn a_member_is_listed_once_until_it_is_polled() {
        let ready = ReadyMembers::default();
        let wakers = [0, 1, 2].map(|member| ready.waker(member));
        assert_eq!(members(&ready), [0, 1, 2]);
        for member in [2, 0, 2] {
            wakers[member].waker().wake();
        }
        assert_eq!(ready.len(), 2);
        assert_eq!(members(&ready), [2, 0]);
        wakers[2].waker().wake_by_ref();
        assert_eq!(members(&ready), [2]);
    }

    #[test]
    fn a_wake_wakes_the_polling_task() {
        let ready = ReadyMembers::default();
        let count = Arc::new(Count::default());
        let waker = ready.waker(7);
        members(&ready);
        let task = Waker::from(Arc::clone(&count));
        ready.register(&Context::from_waker(&task));
        waker.waker().wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_wake_during_a_poll_lists_the_member_again() {
        let ready = ReadyMembers::default();
        let waker = ready.waker(1);
        assert_eq!(ready.next(), Some(1));
        waker.waker().wake();
        assert_eq!(members(&ready), [1]);
    }
}
