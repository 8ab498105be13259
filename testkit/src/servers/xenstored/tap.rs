//! A proxy before a xenstored's socket: it counts what passes, and it can be cut while the daemon
//! lives on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::Xenstored;
use crate::servers::LaunchError;
use crate::servers::relay::{Ear, Relay, Side, lock};

const WATCH_EVENT: u32 = 15;

/// Counts what passes between clients and a [`Xenstored`]. Dropping it cuts the connections.
///
/// The daemon and its toolstack go on while it is down: that is an outage in which things happen.
#[derive(Debug)]
pub struct StoreTap {
    relay: Relay,
    seen: Arc<Mutex<StoreSeen>>,
    drops_events: Arc<AtomicBool>,
}

/// What has passed so far.
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
}

impl StoreTap {
    /// Listens on a socket of its own, and passes each connection on to the daemon. It goes on when
    /// the daemon is started again; as long as that is down it hangs up at once.
    ///
    /// # Errors
    /// That no socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn before(daemon: &Xenstored) -> Result<Self, LaunchError> {
        let seen = Arc::<Mutex<StoreSeen>>::default();
        let drops_events = Arc::<AtomicBool>::default();
        let for_ears = (Arc::clone(&seen), Arc::clone(&drops_events));
        let ears = move || -> Box<dyn Ear> {
            let (seen, drops_events) = &for_ears;
            Box::new(Connection::new(Arc::clone(seen), Arc::clone(drops_events)))
        };
        Ok(Self { relay: Relay::before(daemon.socket(), ears)?, seen, drops_events })
    }

    /// Whether watch events are dropped on their way to clients, which never hear of them. Default: no.
    pub fn drop_events(&self, drop: bool) {
        self.drops_events.store(drop, Ordering::SeqCst);
    }

    /// Cuts the connections, and removes the socket: to its clients the daemon is gone.
    pub fn go_down(&self) {
        self.relay.go_down();
    }

    /// Listens again after [`go_down`](Self::go_down).
    ///
    /// # Errors
    /// That no socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn come_back(&self) -> Result<(), LaunchError> {
        self.relay.come_back()
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.relay.socket()
    }

    /// The URI by way of this tap: `xenstore:/tmp/...`
    pub fn uri(&self) -> String {
        format!("xenstore:{}", self.socket().display())
    }

    /// What has passed so far.
    pub fn seen(&self) -> StoreSeen {
        lock(&self.seen).clone()
    }
}

/// One connection, counted as open while it lives.
struct Connection {
    seen: Arc<Mutex<StoreSeen>>,
    drops_events: Arc<AtomicBool>,
    client: Operations,
    daemon: Operations,
}

impl Connection {
    fn new(seen: Arc<Mutex<StoreSeen>>, drops_events: Arc<AtomicBool>) -> Self {
        let mut now = lock(&seen);
        now.open += 1;
        now.connections += 1;
        drop(now);
        let client = Operations::default();
        let daemon = Operations::default();
        Self { seen, drops_events, client, daemon }
    }
}

impl Ear for Connection {
    fn hear(&mut self, side: Side, bytes: &[u8]) {
        self.pass(side, bytes, &mut Vec::new());
    }

    fn pass(&mut self, side: Side, bytes: &[u8], out: &mut Vec<u8>) {
        let mut seen = lock(&self.seen);
        let drops_events = self.drops_events.load(Ordering::SeqCst);
        match side {
            Side::Client => self.client.push(bytes, out, |operation| {
                *seen.requests.entry(operation).or_default() += 1;
                true
            }),
            Side::Server => self.daemon.push(bytes, out, |operation| {
                let is_event = operation == WATCH_EVENT;
                seen.events += u64::from(is_event);
                !(is_event && drops_events)
            }),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.seen).open -= 1;
    }
}

/// Finds the operations in a stream of packets that comes in pieces, and lets some pass.
#[derive(Debug, Default)]
struct Operations {
    header: Vec<u8>,
    /// Bytes of the present payload that are still to come.
    rest: usize,
    /// Whether the present packet passes.
    passes: bool,
}

const HEADER: usize = 16;

impl Operations {
    /// Appends the packets to `out` that `passes` says yes to. A header is passed on once it is whole.
    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, mut passes: impl FnMut(u32) -> bool) {
        while !bytes.is_empty() {
            let payload = self.rest.min(bytes.len());
            if self.passes {
                out.extend_from_slice(&bytes[..payload]);
            }
            self.rest -= payload;
            bytes = &bytes[payload..];
            let (begun, rest) = bytes.split_at(bytes.len().min(HEADER - self.header.len()));
            self.header.extend_from_slice(begun);
            bytes = rest;
            if self.header.len() == HEADER {
                let word = |at: usize| {
                    u32::from_ne_bytes([0, 1, 2, 3].map(|byte| self.header[4 * at + byte]))
                };
                self.passes = passes(word(0));
                self.rest = usize::try_from(word(3)).unwrap_or(usize::MAX);
                if self.passes {
                    out.extend_from_slice(&self.header);
                }
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_however_the_stream_is_cut() {
        let packet = |operation: u32, length: u32| {
            let header = [operation, 1, 0, length].map(u32::to_ne_bytes).concat();
            [header, vec![0xff; length as usize]].concat()
        };
        let stream = [packet(4, 20), packet(15, 0), packet(2, 61)].concat();
        for size in 1..stream.len() {
            let mut operations = Operations::default();
            let mut found = Vec::new();
            let mut passed = Vec::new();
            for piece in stream.chunks(size) {
                operations.push(piece, &mut passed, |operation| {
                    found.push(operation);
                    operation != WATCH_EVENT
                });
            }
            assert_eq!(found, [4, 15, 2], "in pieces of {size}");
            assert_eq!(passed, [packet(4, 20), packet(2, 61)].concat());
        }
    }
}
