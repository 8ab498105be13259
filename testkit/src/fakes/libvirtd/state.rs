//! What the handle of a fake daemon and its connections share.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::faults::Faults;
use super::sync_count::SyncCount;
use crate::Host;
use crate::fakes::state::Watched;

pub(super) struct Shared {
    pub(super) host: Host,
    pub(super) state: Watched<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) faults: Faults,
    /// The open connections, by number.
    pub(super) connections: BTreeMap<u64, Open>,
    /// Connections accepted so far.
    pub(super) accepted: u64,
    /// Calls so far, by procedure.
    pub(super) calls: BTreeMap<i32, u64>,
    /// Replies to the daemon's own pings so far.
    pub(super) pongs: u64,
    pub(super) next_callback: i32,
    pub(super) sync_count: Option<SyncCount>,
}

/// An open connection, as its daemon sees it.
pub(super) struct Open {
    pub(super) orders: mpsc::UnboundedSender<Order>,
    /// The event ids that it is registered for.
    pub(super) registered: Vec<i32>,
}

/// What a test has a connection do.
pub(super) enum Order {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send a keepalive ping.
    Ping,
    /// Send nothing more until the connection ends.
    Silence,
    /// Send the held replies.
    Release,
    /// Hang up.
    Cut,
}
