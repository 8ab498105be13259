//! Both halves of a subscription to one source.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio::task::coop::RestoreOnPending;

use crate::command::{Command, CommandSender};
use crate::mailbox::{Mailbox, Taken};
use crate::{DomainEvent, End};

/// After this many events a reader that always finds more has used up as much of its task's turn as
/// by one read of a socket.
const YIELD_EVERY: usize = 64;

/// The receiving half.
pub(super) struct SourceEvents {
    id: u64,
    mailbox: Arc<Mailbox>,
    commands: CommandSender,
    taken: VecDeque<DomainEvent>,
    terminated: bool,
}

impl SourceEvents {
    pub(super) fn new(id: u64, mailbox: Arc<Mailbox>, commands: CommandSender) -> Self {
        Self { id, mailbox, commands, taken: VecDeque::new(), terminated: false }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn source(&self) -> Arc<str> {
        self.mailbox.source()
    }

    pub(super) fn end(&self) -> Option<End> {
        self.mailbox.ended()
    }

    pub(super) fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// How many events are at hand.
    pub(super) fn buffered(&self) -> usize {
        if self.mailbox.is_cancelled() { 0 } else { self.taken.len() }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<DomainEvent>> {
        if self.mailbox.is_cancelled() {
            self.taken = VecDeque::new();
            self.terminated = true;
            // Discarded rather than drained: after a cancel nothing is delivered, and the buffer
            // may be long.
            return Poll::Ready(None);
        }
        loop {
            // A reader that always finds events lets its neighbours run now and then.
            // The budget is tokio's own, which a socket read spends as well, once for 64 events:
            // taking an event is much cheaper than a system call.
            let coop = match self.taken.len() % YIELD_EVERY {
                0 => Some(ready!(tokio::task::coop::poll_proceed(cx))),
                _ => None,
            };
            if let Some(event) = self.taken.pop_front() {
                coop.iter().for_each(RestoreOnPending::made_progress);
                return Poll::Ready(Some(event));
            }
            if self.terminated {
                return Poll::Ready(None);
            }
            match ready!(self.mailbox.poll_take(cx, &mut self.taken)) {
                Taken::Events => coop.iter().for_each(RestoreOnPending::made_progress),
                Taken::Ended => self.terminated = true,
                // The next look leaves the waker for what the driver answers.
                Taken::Stale => self.commands.send(Command::Reset { id: self.id }),
            }
        }
    }
}

impl Drop for SourceEvents {
    fn drop(&mut self) {
        cancel(&self.mailbox, &self.commands, self.id);
    }
}

/// The guard.
pub(super) struct SourceSubscription {
    id: u64,
    mailbox: Arc<Mailbox>,
    commands: CommandSender,
}

impl SourceSubscription {
    pub(super) fn new(id: u64, mailbox: Arc<Mailbox>, commands: CommandSender) -> Self {
        Self { id, mailbox, commands }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) async fn close(self) {
        let (done, confirmed) = oneshot::channel();
        self.mailbox.cancel();
        // Also where that did nothing: the driver may still wait for the server's confirmation.
        self.commands.send(Command::Cancel { id: self.id, done: Some(done) });
        // An error means that the driver has ended, and with it the connection.
        let _ = confirmed.await;
    }
}

impl Drop for SourceSubscription {
    fn drop(&mut self) {
        cancel(&self.mailbox, &self.commands, self.id);
    }
}

fn cancel(mailbox: &Mailbox, commands: &CommandSender, id: u64) {
    // The second half of a stream to go has nothing left to cancel.
    if mailbox.cancel() {
        commands.send(Command::Cancel { id, done: None });
    }
}
