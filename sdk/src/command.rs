//! Commands: what streams and source handles request of the driver's task.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::mailbox::{Mailbox, contain_panic};
use crate::{Error, Options};

/// What streams and source handles ask of the driver's task.
pub(crate) enum Command {
    Subscribe {
        id: u64,
        mailbox: Arc<Mailbox>,
        options: Options,
        ready: SubscribeReply,
    },
    Cancel {
        id: u64,
        done: Option<oneshot::Sender<()>>,
    },
    /// The mailbox of this subscriber was emptied: fill it with a snapshot of the roster.
    Reset {
        id: u64,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// Where the outcome of a subscription goes.
pub(crate) type SubscribeReply = oneshot::Sender<Result<(), Error>>;

/// Answers a command. That wakes the task that awaits the answer; a panic of its waker must not end
/// the driver's task.
pub(crate) fn answer<T>(to: oneshot::Sender<T>, value: T) {
    contain_panic(|| {
        let _ = to.send(value);
    });
}

/// Sends commands to the task. Sending needs no runtime and never blocks: each subscriber sends at
/// most a handful of commands, so their number bounds the channel.
#[derive(Clone)]
pub(crate) struct CommandSender(mpsc::UnboundedSender<Command>);

impl CommandSender {
    /// The sender, and where the task receives.
    pub(crate) fn channel() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Sends a command. After the task has ended there is nothing left to do for it.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }
}
