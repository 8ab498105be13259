//! A tap in front of a libvirtd: what a test asserts "on the wire".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{Libvirtd, with_socket};
use crate::servers::LaunchError;
use crate::servers::messages::{Inspected, Messages, word};
use crate::servers::proxy::{Proxy, Side, Sniffer, lock};

/// `REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY`, and the two calls that clients used
/// before libvirt 1.2.1.
const REGISTER: [i32; 3] = [316, 167, 105];

/// The calls that undo those of [`REGISTER`].
const DEREGISTER: [i32; 3] = [317, 168, 106];

/// The length of a message's header: its own length, then six words of the RPC header.
const HEADER: usize = 28;

/// A proxy in front of a [`Libvirtd`] that counts calls, registrations and events.
pub type Tap = Proxy<Seen>;

/// The counts of a [`Tap`].
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections that are open.
    pub open: u64,
    /// Connections made, those that are closed again included.
    pub connections: u64,
    /// Registrations of domain events that the daemon has confirmed and still holds:
    /// deregistering ends them, and so does the end of the connection.
    pub registered: usize,
    /// Registrations that the daemon has confirmed.
    pub registrations: u64,
    /// Deregistrations that the daemon has confirmed.
    pub deregistrations: u64,
    /// Calls by procedure number.
    pub calls: BTreeMap<i32, u64>,
    /// Messages that answer no call: events, and keepalive.
    pub messages: u64,
}

impl Tap {
    /// Listens on a socket of its own and passes each connection on to the daemon.
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn before(daemon: &Libvirtd) -> Result<Self, LaunchError> {
        Self::open(daemon.socket(), CallSniffer::new)
    }

    /// `uri` (`test:///default`) through this tap: `test+unix:///default?socket=...`
    pub fn uri(&self, uri: &str) -> String {
        with_socket(uri, &self.socket().display().to_string())
    }
}

/// One connection, which counts as open while this lives.
struct CallSniffer {
    seen: Arc<Mutex<Seen>>,
    /// The registrations of this connection.
    registered: usize,
    client: Messages<HEADER>,
    daemon: Messages<HEADER>,
}

impl CallSniffer {
    fn new(seen: Arc<Mutex<Seen>>) -> Self {
        let mut now = lock(&seen);
        now.open += 1;
        now.connections += 1;
        drop(now);
        Self { seen, registered: 0, client: Messages::default(), daemon: Messages::default() }
    }
}

impl Sniffer for CallSniffer {
    fn pass(&mut self, side: Side, bytes: &[u8], out: &mut Vec<u8>) {
        let messages = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.daemon,
        };
        let mut seen = lock(&self.seen);
        messages.push(bytes, out, |header| {
            let [length, procedure, kind, status] =
                [0, 3, 4, 6].map(|at| i32::from_be_bytes(word(header, at)));
            // The kind is 0 for a call, 1 for a reply, 2 for a message; the status 0 for success.
            match (kind, status) {
                (0, _) => *seen.calls.entry(procedure).or_default() += 1,
                (1, 0) if REGISTER.contains(&procedure) => {
                    seen.registrations += 1;
                    seen.registered += 1;
                    self.registered += 1;
                }
                (1, 0) if DEREGISTER.contains(&procedure) => {
                    seen.deregistrations += 1;
                    seen.registered = seen.registered.saturating_sub(1);
                    self.registered = self.registered.saturating_sub(1);
                }
                (2, _) => seen.messages += 1,
                _ => {}
            }
            // Both ends notice broken framing by themselves; only the counts are wrong then.
            let payload = usize::try_from(length).unwrap_or(0).saturating_sub(HEADER);
            Inspected { payload, passes: true }
        });
    }
}

impl Drop for CallSniffer {
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        seen.open -= 1;
        // The daemon ends a connection's registrations with it.
        seen.registered = seen.registered.saturating_sub(self.registered);
    }
}
