//! What the handle of a fake QEMU and its connections share.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::faults::Faults;

#[derive(Default)]
pub(super) struct State {
    pub(super) faults: Faults,
    pub(super) guest: Guest,
    /// To the one client that is served.
    pub(super) client: Option<mpsc::UnboundedSender<Order>>,
    /// Clients served so far.
    pub(super) accepted: u64,
    /// Commands so far, by name.
    pub(super) calls: BTreeMap<String, u64>,
}

/// The virtual machine of the latest run.
#[derive(Clone, Default)]
pub(super) struct Guest {
    pub(super) name: String,
    pub(super) uuid: String,
    /// The run state, as `query-status` names it.
    pub(super) status: String,
    /// The thread of its virtual CPU: another one in each run, since it is the run's id.
    pub(super) thread: u32,
}

/// What a test has the connection do.
pub(super) enum Order {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send the greeting and wait for a new negotiation.
    Greet,
    /// Hang up.
    Cut,
}
