//! The faults of a fake QEMU.

use std::collections::BTreeMap;
use std::time::Duration;

/// The faults of a [`FakeQemu`](super::FakeQemu). By default there are none.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The number of bytes that it writes at a time, so that the client reads between. Default:
    /// all.
    pub piece: Option<usize>,
    /// Bytes that it sends before its greeting.
    pub before_greeting: Vec<u8>,
    /// Bytes that it sends before the answer to a command.
    pub before: BTreeMap<String, Vec<u8>>,
    /// Bytes that it sends right behind the answer to a command.
    pub after: BTreeMap<String, Vec<u8>>,
    /// The time before its greeting. Default: none.
    pub greeting_delay: Duration,
    /// Whether it sends no greeting, as a QEMU that serves another client.
    pub deaf: bool,
    /// Whether it hangs up on every client at once.
    pub hang_up: bool,
    /// Commands that it does not answer, as a suspended process.
    pub unanswered: Vec<String>,
    /// Commands that it does not know.
    pub lacks: Vec<String>,
    /// Commands on which it hangs up.
    pub hang_up_at: Vec<String>,
}
