//! The state of the daemon: clients, their watches, domains. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use virevent_xen::wire::{Header, MAX_PAYLOAD, Operation, packet};

use super::faults::Faults;
use super::store::{Change, Store, Transaction};
use crate::toolstack::RunState;

/// The client of the toolstack inside the process: it has no watches, and no socket.
pub(super) const TOOLSTACK: u64 = 0;

pub(super) const INTRODUCE: &str = "@introduceDomain";
pub(super) const RELEASE: &str = "@releaseDomain";

#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) faults: Faults,
    pub(super) store: Store,
    pub(super) clients: BTreeMap<u64, Client>,
    /// The domains in the hypervisor.
    pub(super) hypervisor: BTreeMap<u32, RunState>,
    /// The domains that clients have named, the latest first: the order in which events are sent.
    pub(super) domains: Vec<Domain>,
    /// Clients so far.
    pub(super) accepted: u64,
    /// Requests of clients so far, by operation.
    pub(super) calls: HashMap<Operation, u64>,
}

#[derive(Debug)]
pub(super) struct Domain {
    pub(super) domid: u32,
    /// False if a client has only named it in the permissions of a node.
    pub(super) introduced: bool,
    /// Whether an event for its shutdown was sent: xenstored sends it once.
    pub(super) shutdown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) watches: Vec<Watch>,
    pub(super) transactions: HashMap<u32, Transaction>,
    pub(super) last_transaction: u32,
    /// The queue of what is to be sent.
    pub(super) out: VecDeque<Out>,
    /// The watch events in the queue: the same event is not queued twice.
    pending: HashSet<Vec<u8>>,
    /// Wakes the task that sends.
    pub(super) wake: Arc<Notify>,
    /// The connection ends at once, whatever is queued.
    pub(super) is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) path: Vec<u8>,
    pub(super) token: Vec<u8>,
    /// The number of levels below the path that count; `None` for all.
    pub(super) depth: Option<usize>,
    /// The length of the prefix of a relative path, which events leave out.
    pub(super) prefix: usize,
}

#[derive(Debug)]
pub(super) enum Out {
    Bytes(Vec<u8>),
    /// A watch event.
    Event(Vec<u8>),
    /// A pause.
    Pause(Duration),
    /// The end of the connection, once all before it is sent.
    End,
}

impl Client {
    pub(super) fn send(&mut self, out: Out) {
        self.out.push_back(out);
        self.wake.notify_one();
    }

    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.wake.notify_one();
    }

    /// Takes the next item of the queue.
    pub(super) fn take(&mut self) -> Option<Out> {
        let out = self.out.pop_front();
        if let Some(Out::Event(bytes)) = &out {
            self.pending.remove(bytes);
        }
        out
    }

    /// Queues a watch event. An event that is queued already is not queued again, unless its path
    /// is special (`@...`), as in the real daemon.
    pub(super) fn send_event(&mut self, path: &[u8], token: &[u8], times: usize) {
        let mut bytes = Vec::new();
        // Cannot fail: path and token fitted into the request that set the watch.
        let _ = packet(&mut bytes, &Header::watch_event(), &[path, b"\0", token, b"\0"]);
        // The C daemon of 4.17 drops an event that is queued already, so
        // that a client that does not read cannot fill its memory. Special ones are exempt.
        if path.starts_with(b"@") || self.pending.insert(bytes.clone()) || times > 1 {
            (0..times).for_each(|_| self.out.push_back(Out::Event(bytes.clone())));
        }
        self.wake.notify_one();
    }

    /// Queues this number of events for its own watches in turn.
    pub(super) fn flood(&mut self, events: usize) {
        let watches = self.watches.clone();
        for watch in watches.iter().cycle().take(events) {
            let mut bytes = Vec::new();
            let pieces: [&[u8]; 4] = [&watch.path[watch.prefix..], b"\0", &watch.token, b"\0"];
            let _ = packet(&mut bytes, &Header::watch_event(), &pieces);
            self.out.push_back(Out::Event(bytes));
        }
        self.wake.notify_one();
    }
}

impl Watch {
    /// The path in this watch's event for a change; `None` if the watch does not match.
    fn event_path<'a>(&self, change: &'a Change) -> Option<&'a [u8]> {
        let path = change.path.as_bytes();
        let below = match (&self.path[..], path.strip_prefix(&self.path[..])?) {
            (_, []) => 0,
            // A removal has one event for those above it: that of the topmost node.
            (_, _) if change.exact => return None,
            (b"/", rest) => 1 + slashes(rest),
            (_, [b'/', rest @ ..]) => 1 + slashes(rest),
            _ => return None,
        };
        let near = self.depth.is_none_or(|depth| below <= depth);
        near.then(|| path.get(self.prefix..)).flatten()
    }
}

fn slashes(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

impl Daemon {
    pub(super) fn new() -> Self {
        Self {
            faults: Faults::default(),
            store: Store::new(),
            clients: [(TOOLSTACK, Client::default())].into(),
            hypervisor: BTreeMap::new(),
            domains: Vec::new(),
            accepted: 0,
            calls: HashMap::new(),
        }
    }

    /// Handles a packet from a client: its reply, and the events that it causes, are queued.
    pub(super) fn receive(&mut self, number: u64, header: Header, payload: &[u8]) {
        let operation = header.operation;
        *self.calls.entry(operation).or_default() += 1;
        let refused = self.faults.refusal(operation, payload);
        let done = match refused {
            Some(error) => Err(error),
            None => self.answer(number, &header, payload).map_err(Into::into),
        };
        let (answer, after) = match done {
            Ok(done) => (Ok(done.body), done.initial),
            Err(error) => (Err(error), None),
        };
        let faults = &self.faults;
        let repeat = faults.repeat + 1;
        let Some(client) = self.clients.get_mut(&number) else { return };
        // The order on the wire: events, pause, bytes before, reply, bytes after, a watch's first
        // event.
        client.flood(faults.events_before.get(&operation).copied().unwrap_or(0));
        if let Some(pause) = faults.delays.get(&operation) {
            client.send(Out::Pause(*pause));
        }
        if let Some(bytes) = faults.before.get(&operation) {
            client.send(Out::Bytes(bytes.clone()));
        }
        for out in reply(faults, header, answer) {
            client.send(out);
        }
        if let Some(bytes) = faults.after.get(&operation) {
            client.send(Out::Bytes(bytes.clone()));
        }
        if let Some(watch) = after {
            client.send_event(&watch.path[watch.prefix..], &watch.token, repeat);
        }
    }

    /// Queues the events of changes: for each client in the order in which it set its watches.
    pub(super) fn send_events(&mut self, changes: &[Change]) {
        if self.faults.no_events {
            return;
        }
        // Change by change, not client by client: the order in which the daemon queues them.
        let times = self.faults.repeat + 1;
        for change in changes {
            for client in self.clients.values_mut() {
                let events: Vec<(Vec<u8>, Vec<u8>)> = client
                    .watches
                    .iter()
                    .filter_map(|watch| {
                        Some((watch.event_path(change)?.to_vec(), watch.token.clone()))
                    })
                    .collect();
                for (path, token) in events {
                    client.send_event(&path, &token, times);
                }
            }
        }
    }

    /// Queues the events of a domain that was introduced or released.
    pub(super) fn send_special_events(&mut self, name: &str, domid: u32) {
        if self.faults.no_events {
            return;
        }
        let one = format!("{name}/{domid}");
        let times = self.faults.repeat + 1;
        let has_depth = self.faults.has_depth();
        for client in self.clients.values_mut() {
            let mut events: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for watch in &client.watches {
                let path = match watch.depth {
                    Some(1..) if has_depth && watch.path == name.as_bytes() => &one,
                    _ if watch.path == name.as_bytes() => name,
                    _ if has_depth && watch.path == one.as_bytes() => &one,
                    _ => continue,
                };
                events.push((path.into(), watch.token.clone()));
            }
            for (path, token) in events {
                client.send_event(&path, &token, times);
            }
        }
    }

    /// Reads the run states of the domains, as after a VIRQ.
    pub(super) fn read_states(&mut self) {
        let mut shut_down = Vec::new();
        let mut at = 0;
        while let Some(domain) = self.domains.get_mut(at) {
            let state = self.hypervisor.get(&domain.domid);
            let down = matches!(state, Some(RunState::Shutdown | RunState::Crashed));
            if domain.introduced && down && !domain.shutdown {
                domain.shutdown = true;
                shut_down.push(domain.domid);
            }
            at += 1;
            // One that a client has only named is removed too, but without a special event.
            if state.is_none() || (domain.introduced && state == Some(&RunState::Dying)) {
                let introduced = domain.introduced;
                if introduced && !self.faults.has_depth() {
                    // Observed: the event of an end replaces those of shutdowns before the same
                    // VIRQ.
                    shut_down.clear();
                }
                self.end(at - 1);
                // Observed: ends are reported before shutdowns.
                at = 0;
            }
        }
        // Observed: events without a domain id are merged if they belong to one VIRQ.
        if !self.faults.has_depth() {
            shut_down.truncate(1);
        }
        for domid in shut_down {
            self.send_special_events(RELEASE, domid);
        }
    }

    /// Removes a domain and the nodes that it owns.
    pub(super) fn end(&mut self, at: usize) {
        let Domain { domid, introduced, .. } = self.domains.remove(at);
        let mut view = self.store.view(None);
        view.remove_owned(domid);
        let changes = view.into_changes();
        self.send_events(&changes);
        if introduced {
            self.send_special_events(RELEASE, domid);
        }
    }

    /// The place of a domain that clients have named. One that the hypervisor has is added.
    pub(super) fn find_or_add(&mut self, domid: u32) -> Option<usize> {
        let at = self.domains.iter().position(|domain| domain.domid == domid);
        at.or_else(|| {
            self.hypervisor.contains_key(&domid).then(|| {
                // At the front, as in the daemon's list: the latest is looked at first.
                self.domains.insert(0, Domain { domid, introduced: false, shutdown: false });
                0
            })
        })
    }

    /// The place of an introduced domain.
    pub(super) fn introduced(&self, domid: u32) -> Option<usize> {
        self.domains.iter().position(|domain| domain.domid == domid && domain.introduced)
    }
}

/// The reply to a request, with its faults.
fn reply(faults: &Faults, header: Header, answer: Result<Vec<u8>, String>) -> Vec<Out> {
    let operation = header.operation;
    if faults.unanswered.contains(&operation) {
        return Vec::new();
    }
    if faults.hang_up.contains(&operation) {
        return vec![Out::End];
    }
    let (mut header, body) = match answer {
        Ok(body) => (header, faults.bodies.get(&operation).cloned().unwrap_or(body)),
        Err(error) => (header.error(), [error.as_bytes(), b"\0"].concat()),
    };
    if faults.wrong_request.contains(&operation) {
        header.request = header.request.wrapping_add(1_000);
    }
    if faults.wrong_operation.contains(&operation) {
        header.operation = Operation::GET_PERMS;
    }
    if faults.oversize.contains(&operation) {
        let length = MAX_PAYLOAD + 1;
        return vec![Out::Bytes([&header.to_bytes(4_097)[..], &vec![b'x'; length]].concat())];
    }
    let mut bytes = Vec::new();
    if operation == Operation::DIRECTORY && body.len() <= faults.longest_list {
        // oxenstored's list may be longer than the protocol allows.
        bytes.extend_from_slice(&header.to_bytes(body.len() as u32));
        bytes.extend_from_slice(&body);
    } else if packet(&mut bytes, &header, &[&body]).is_err() {
        // Only the body of a fault can be too long: a value arrived in a packet with its path.
        return vec![Out::End];
    }
    if faults.truncated.contains(&operation) {
        bytes.truncate(bytes.len() / 2);
        return vec![Out::Bytes(bytes), Out::End];
    }
    vec![Out::Bytes(bytes)]
}
