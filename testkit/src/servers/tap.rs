//! A proxy before a daemon's socket that counts what passes: what a test asserts "on the wire".
//!
//! It knows no more of the protocol than the 28 bytes that begin each message, so that it does not
//! share a mistake with the client under test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::libvirtd::with_socket;
use super::relay::{Ear, Relay, Side, lock};
use super::{LaunchError, Libvirtd};

/// `REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY` and its opposite, and their elders of
/// before libvirt 1.2.1.
const REGISTER: [i32; 3] = [316, 167, 105];
const DEREGISTER: [i32; 3] = [317, 168, 106];

/// Counts what passes between clients and a daemon. Dropping it cuts the connections.
#[derive(Debug)]
pub struct Tap {
    relay: Relay,
    seen: Arc<Mutex<Seen>>,
}

/// What has passed so far.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections that are open.
    pub open: u64,
    /// Connections made, those that are closed again included.
    pub connections: u64,
    /// Registrations of domain events that the daemon has confirmed and holds still: deregistering
    /// ends them, and so does the end of the connection.
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
    /// Listens on a socket of its own, and passes each connection on to the daemon. It goes on when
    /// the daemon is started again; as long as that is down it hangs up at once.
    ///
    /// # Errors
    /// That no socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn before(daemon: &Libvirtd) -> Result<Self, LaunchError> {
        let seen = Arc::<Mutex<Seen>>::default();
        let for_ears = Arc::clone(&seen);
        let ears = move || -> Box<dyn Ear> { Box::new(Connection::new(Arc::clone(&for_ears))) };
        Ok(Self { relay: Relay::before(daemon.socket(), ears)?, seen })
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

    /// `uri` (`test:///default`) by way of this tap: `test+unix:///default?socket=...`
    pub fn uri(&self, uri: &str) -> String {
        with_socket(uri, &self.socket().display().to_string())
    }

    /// What has passed so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

/// One connection, counted as open while it lives.
struct Connection {
    seen: Arc<Mutex<Seen>>,
    registered: usize,
    client: Headers,
    daemon: Headers,
}

impl Connection {
    fn new(seen: Arc<Mutex<Seen>>) -> Self {
        let mut now = lock(&seen);
        now.open += 1;
        now.connections += 1;
        drop(now);
        Self { seen, registered: 0, client: Headers::default(), daemon: Headers::default() }
    }

    fn note(&mut self, header: &Header) {
        let mut seen = lock(&self.seen);
        match (header.kind, header.status) {
            (0, _) => *seen.calls.entry(header.procedure).or_default() += 1,
            (1, 0) if REGISTER.contains(&header.procedure) => {
                seen.registrations += 1;
                seen.registered += 1;
                self.registered += 1;
            }
            (1, 0) if DEREGISTER.contains(&header.procedure) => {
                seen.deregistrations += 1;
                seen.registered = seen.registered.saturating_sub(1);
                self.registered = self.registered.saturating_sub(1);
            }
            (2, _) => seen.messages += 1,
            _ => {}
        }
    }
}

impl Ear for Connection {
    fn hear(&mut self, side: Side, bytes: &[u8]) {
        let headers = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.daemon,
        };
        let mut found = Vec::new();
        headers.push(bytes, |header| found.push(*header));
        found.iter().for_each(|header| self.note(header));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        seen.open -= 1;
        seen.registered = seen.registered.saturating_sub(self.registered);
    }
}

/// The part of a message's header that is of interest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    procedure: i32,
    /// 0 call, 1 reply, 2 message.
    kind: i32,
    /// 0 ok, 1 error.
    status: i32,
}

/// Finds the headers in a stream of messages that comes in pieces.
#[derive(Debug, Default)]
struct Headers {
    header: Vec<u8>,
    /// Bytes of the present message that are still to come.
    skip: usize,
}

const HEADER: usize = 28;

impl Headers {
    fn push(&mut self, mut bytes: &[u8], mut found: impl FnMut(&Header)) {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let (begun, rest) = bytes.split_at(bytes.len().min(HEADER - self.header.len()));
            self.header.extend_from_slice(begun);
            bytes = rest;
            if self.header.len() == HEADER {
                let word = |at: usize| {
                    let bytes = [0, 1, 2, 3].map(|byte| self.header[4 * at + byte]);
                    i32::from_be_bytes(bytes)
                };
                found(&Header { procedure: word(3), kind: word(4), status: word(6) });
                // Of broken framing the two ends will take notice; here nothing more is counted.
                self.skip = usize::try_from(word(0)).unwrap_or(0).saturating_sub(HEADER);
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(procedure: i32, kind: i32, payload: usize) -> Vec<u8> {
        let length = i32::try_from(HEADER + payload).unwrap();
        let mut bytes: Vec<u8> = [length, 0x2000_8086, 1, procedure, kind, 7, 0]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        bytes.resize(HEADER + payload, 0xff);
        bytes
    }

    #[test]
    fn headers_are_found_however_the_stream_is_cut() {
        let stream = [message(316, 0, 8), message(66, 1, 0), message(318, 2, 61)].concat();
        for size in 1..stream.len() {
            let (mut headers, mut found) = (Headers::default(), Vec::new());
            for piece in stream.chunks(size) {
                headers.push(piece, |header| found.push((header.procedure, header.kind)));
            }
            assert_eq!(found, [(316, 0), (66, 1), (318, 2)], "in pieces of {size}");
        }
    }
}
