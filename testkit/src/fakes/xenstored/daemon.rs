//! The daemon as it stands: connections, their watches, domains. No I/O.

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
    /// The hypervisor's part: the domains that there are.
    pub(super) hypervisor: BTreeMap<u32, RunState>,
    /// The domains that clients have named, the latest first.
    pub(super) domains: Vec<Domain>,
    /// Clients so far.
    pub(super) accepted: u64,
    /// What clients asked, of each operation how often.
    pub(super) calls: HashMap<Operation, u64>,
}

#[derive(Debug)]
pub(super) struct Domain {
    pub(super) domid: u32,
    /// Else a client has only named it in the permissions of a node.
    pub(super) introduced: bool,
    /// Whether its shutting down was told: a real one tells it once.
    pub(super) shutdown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) watches: Vec<Watch>,
    pub(super) transactions: HashMap<u32, Transaction>,
    pub(super) last_transaction: u32,
    /// What is to be sent.
    pub(super) out: VecDeque<Out>,
    /// Watch events among it, without which the like are dropped.
    pending: HashSet<Vec<u8>>,
    /// Wakes who sends it.
    pub(super) wake: Arc<Notify>,
    /// It is to be hung up on at once, whatever is queued.
    pub(super) is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) path: Vec<u8>,
    pub(super) token: Vec<u8>,
    /// How far below; any if `None`.
    pub(super) depth: Option<usize>,
    /// What is in front of the path that the client said, and is left out of what it is told.
    pub(super) prefix: usize,
}

#[derive(Debug)]
pub(super) enum Out {
    Bytes(Vec<u8>),
    /// A watch event.
    Event(Vec<u8>),
    /// Nothing, for so long.
    Pause(Duration),
    /// Hang up, when all before it is sent.
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

    /// Takes the next thing to be sent.
    pub(super) fn take(&mut self) -> Option<Out> {
        let out = self.out.pop_front();
        if let Some(Out::Event(bytes)) = &out {
            self.pending.remove(bytes);
        }
        out
    }

    /// Tells of a watch's path or one below it. Something that is said already, and not yet sent, is
    /// not said again, unless it is of a special path.
    pub(super) fn tell(&mut self, path: &[u8], token: &[u8], times: usize) {
        let mut bytes = Vec::new();
        // A token or a path can be no longer than the request that it came in.
        let _ = packet(&mut bytes, &Header::watch_event(), &[path, b"\0", token, b"\0"]);
        if path.starts_with(b"@") || self.pending.insert(bytes.clone()) || times > 1 {
            (0..times).for_each(|_| self.out.push_back(Out::Event(bytes.clone())));
        }
        self.wake.notify_one();
    }

    /// Sends so many events of its own watches, in turn.
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
    /// What is told to it of a node that changed, if anything.
    fn path_told<'a>(&self, change: &'a Change) -> Option<&'a [u8]> {
        let path = change.path.as_bytes();
        let below = match (&self.path[..], path.strip_prefix(&self.path[..])?) {
            (_, []) => 0,
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
        let (mut answer, mut after) = (refused.map_or(Ok(Vec::new()), Err), None);
        if answer.is_ok() {
            (answer, after) = match self.answer(number, &header, payload) {
                Ok(done) => (Ok(done.body), done.initial),
                Err(error) => (Err(error.into()), None),
            };
        }
        let (faults, repeat) = (&self.faults, self.faults.repeat + 1);
        let Some(client) = self.clients.get_mut(&number) else { return };
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
            client.tell(&watch.path[watch.prefix..], &watch.token, repeat);
        }
    }

    /// Tells watches of changes, each client's in the order in which they were set.
    pub(super) fn tell(&mut self, changes: &[Change]) {
        if self.faults.no_events {
            return;
        }
        let times = self.faults.repeat + 1;
        for change in changes {
            for client in self.clients.values_mut() {
                let told: Vec<(Vec<u8>, Vec<u8>)> = client
                    .watches
                    .iter()
                    .filter_map(|watch| {
                        Some((watch.path_told(change)?.to_vec(), watch.token.clone()))
                    })
                    .collect();
                for (path, token) in told {
                    client.tell(&path, &token, times);
                }
            }
        }
    }

    /// Tells who watches for it that a domain was introduced or released.
    pub(super) fn tell_special(&mut self, name: &str, domid: u32) {
        if self.faults.no_events {
            return;
        }
        let (one, times) = (format!("{name}/{domid}"), self.faults.repeat + 1);
        let has_depth = self.faults.has_depth();
        for client in self.clients.values_mut() {
            let mut told: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for watch in &client.watches {
                let path = match watch.depth {
                    Some(1..) if has_depth && watch.path == name.as_bytes() => &one,
                    _ if watch.path == name.as_bytes() => name,
                    _ if has_depth && watch.path == one.as_bytes() => &one,
                    _ => continue,
                };
                told.push((path.into(), watch.token.clone()));
            }
            for (path, token) in told {
                client.tell(&path, &token, times);
            }
        }
    }

    /// Looks how the domains fare, as upon a VIRQ.
    pub(super) fn look(&mut self) {
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
            if state.is_none() || (domain.introduced && state == Some(&RunState::Dying)) {
                let introduced = domain.introduced;
                if introduced && !self.faults.has_depth() {
                    // Seen of a real one: whoever shut down before the same VIRQ has no event of its own.
                    shut_down.clear();
                }
                self.end(at - 1);
                // Seen of a real one, too: what ends is told before what shut down.
                at = 0;
            }
        }
        // As seen: several that shut down before one VIRQ are one event, where it names nobody.
        if !self.faults.has_depth() {
            shut_down.truncate(1);
        }
        for domid in shut_down {
            self.tell_special(RELEASE, domid);
        }
    }

    /// Forgets a domain, and what it owns.
    pub(super) fn end(&mut self, at: usize) {
        let Domain { domid, introduced, .. } = self.domains.remove(at);
        let mut view = self.store.view(None);
        view.remove_owned(domid);
        let changes = view.into_changes();
        self.tell(&changes);
        if introduced {
            self.tell_special(RELEASE, domid);
        }
    }

    /// Where a domain is that clients have named, or name now if the hypervisor has it.
    pub(super) fn heard_of(&mut self, domid: u32) -> Option<usize> {
        let at = self.domains.iter().position(|domain| domain.domid == domid);
        at.or_else(|| {
            self.hypervisor.contains_key(&domid).then(|| {
                self.domains.insert(0, Domain { domid, introduced: false, shutdown: false });
                0
            })
        })
    }

    /// Where a domain is that is introduced.
    pub(super) fn introduced(&self, domid: u32) -> Option<usize> {
        self.domains.iter().position(|domain| domain.domid == domid && domain.introduced)
    }
}

/// What is sent as the reply to a request.
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
        // oxenstored's may be longer than any packet should be.
        bytes.extend_from_slice(&header.to_bytes(body.len() as u32));
        bytes.extend_from_slice(&body);
    } else if packet(&mut bytes, &header, &[&body]).is_err() {
        // A value that was written with its path left out is never so long; a fault's body may be.
        return vec![Out::End];
    }
    if faults.truncated.contains(&operation) {
        bytes.truncate(bytes.len() / 2);
        return vec![Out::Bytes(bytes), Out::End];
    }
    vec![Out::Bytes(bytes)]
}
