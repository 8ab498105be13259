//! What a fake QEMU does wrong.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a [`FakeQemu`](super::FakeQemu) does wrong. By default it does everything right.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many bytes it writes at a time; the client reads before the next. Default: all there are.
    pub piece: Option<usize>,
    /// What it sends before its greeting.
    pub before_greeting: Vec<u8>,
    /// What it sends before the answer to a command.
    pub before: BTreeMap<String, Vec<u8>>,
    /// What it sends right behind the answer to a command.
    pub after: BTreeMap<String, Vec<u8>>,
    /// How long it waits before it greets.
    pub greeting_delay: Duration,
    /// It never greets, as one that has another client.
    pub deaf: bool,
    /// It hangs up on whoever comes.
    pub hang_up: bool,
    /// Commands that are not answered, as by a process that is stopped.
    pub unanswered: Vec<String>,
    /// Commands that it does not know.
    pub lacks: Vec<String>,
    /// Commands upon which it hangs up.
    pub hang_up_at: Vec<String>,
}
