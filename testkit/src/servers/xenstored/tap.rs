//! A tap in front of a xenstored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::Xenstored;
use crate::servers::LaunchError;
use crate::servers::messages::{Inspected, Messages, word};
use crate::servers::proxy::{Proxy, Side, Sniffer, lock};

const WATCH_EVENT: u32 = 15;

/// The length of a packet's header: operation, request, transaction and the payload's length.
const HEADER: usize = 16;

/// A proxy in front of a [`Xenstored`] that counts requests and watch events.
pub type StoreTap = Proxy<StoreSeen>;

/// The counts of a [`StoreTap`].
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreSeen {
    /// Connections that are open.
    pub open: u64,
    /// Connections made, those that are closed again included.
    pub connections: u64,
    /// Requests of clients by the number of the operation: 2 is `READ`, 4 `WATCH`, 11 `WRITE`.
    pub requests: BTreeMap<u32, u64>,
    /// Watch events of the daemon, those that were dropped included.
    pub events: u64,
    /// Whether watch events are dropped: see [`StoreTap::drop_events`].
    pub drops_events: bool,
}

impl StoreTap {
    /// Listens on a socket of its own and passes each connection on to the daemon.
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn before(daemon: &Xenstored) -> Result<Self, LaunchError> {
        Self::open(daemon.socket(), RequestSniffer::new)
    }

    /// Sets whether watch events are dropped on their way to the clients. Default: no.
    pub fn drop_events(&self, drop: bool) {
        self.counts().drops_events = drop;
    }

    /// The URI through this tap: `xenstore:/tmp/...`
    pub fn uri(&self) -> String {
        format!("xenstore:{}", self.socket().display())
    }
}

/// One connection, which counts as open while this lives.
struct RequestSniffer {
    seen: Arc<Mutex<StoreSeen>>,
    client: Messages<HEADER>,
    daemon: Messages<HEADER>,
}

impl RequestSniffer {
    fn new(seen: Arc<Mutex<StoreSeen>>) -> Self {
        let mut now = lock(&seen);
        now.open += 1;
        now.connections += 1;
        drop(now);
        Self { seen, client: Messages::default(), daemon: Messages::default() }
    }
}

impl Sniffer for RequestSniffer {
    fn pass(&mut self, side: Side, bytes: &[u8], out: &mut Vec<u8>) {
        let mut seen = lock(&self.seen);
        let messages = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.daemon,
        };
        messages.push(bytes, out, |header| {
            let [operation, length] = [0, 3].map(|at| u32::from_ne_bytes(word(header, at)));
            let is_event = side == Side::Server && operation == WATCH_EVENT;
            match side {
                Side::Client => *seen.requests.entry(operation).or_default() += 1,
                Side::Server => seen.events += u64::from(is_event),
            }
            Inspected {
                payload: usize::try_from(length).unwrap_or(usize::MAX),
                passes: !(is_event && seen.drops_events),
            }
        });
    }
}

impl Drop for RequestSniffer {
    fn drop(&mut self) {
        lock(&self.seen).open -= 1;
    }
}
