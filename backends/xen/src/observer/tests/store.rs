//! A store in memory that serves one request at a time, when the test says so. Its rules are those of the C
//! xenstored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::wire::{Decoder, Header, MAX_PAYLOAD, Operation, Packet, error, packet, strings};

/// A store with one connection, and what a toolstack does to it.
#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    pub(super) nodes: BTreeMap<String, Vec<u8>>,
    /// The generation in which a node was made: children are listed in that order.
    made: BTreeMap<String, u64>,
    pub(super) introduced: BTreeSet<u16>,
    pub(super) watches: BTreeSet<(String, String)>,
    /// The requests that are not served yet.
    pub(super) inbox: VecDeque<(Header, Vec<u8>)>,
    /// The packets that the client has not read yet.
    pub(super) outbox: VecDeque<(Header, Vec<u8>)>,
    /// The operations of all requests that were served.
    pub(super) asked: Vec<Operation>,
    /// Whether the store offers watches with a depth.
    pub(super) has_depth: bool,
    /// Whether no change fires a watch.
    pub(super) is_silent: bool,
    /// Requests to guests: each is made once so many requests in all have been served.
    pub(super) script: VecDeque<(usize, u16, &'static str)>,
    generation: u64,
}

type Answer = Result<Vec<u8>, &'static str>;

impl MemoryStore {
    /// The client has written these packets.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        while let Some(packet) = decoder.next_packet().unwrap() {
            self.inbox.push_back((packet.header, packet.payload.to_vec()));
        }
    }

    /// Serves one request.
    pub(super) fn serve(&mut self) -> bool {
        let Some((header, payload)) = self.inbox.pop_front() else { return false };
        self.asked.push(header.operation);
        let mut initial = None;
        match self.answer(&Packet { header, payload: &payload }, &mut initial) {
            Ok(answer) => self.outbox.push_back((header, answer)),
            Err(name) => self.outbox.push_back((header.error(), format!("{name}\0").into())),
        }
        if let Some((path, token)) = initial {
            self.event(&path, &token);
        }
        if self.script.front().is_some_and(|(at, ..)| *at <= self.asked.len()) {
            if let Some((_, domid, word)) = self.script.pop_front() {
                self.request(domid, word);
            }
        }
        true
    }

    /// An event overtakes the reply before it, as the protocol allows.
    pub(super) fn overtake(&mut self) {
        let is_event = |at: usize| {
            self.outbox.get(at).map(|(header, _)| header.operation == Operation::WATCH_EVENT)
        };
        if is_event(0) == Some(false) && is_event(1) == Some(true) {
            self.outbox.swap(0, 1);
        }
    }

    /// The next packet that the client reads.
    pub(super) fn give(&mut self) -> Option<Vec<u8>> {
        let (header, payload) = self.outbox.pop_front()?;
        let mut bytes = Vec::new();
        packet(&mut bytes, &header, &[&payload]).unwrap();
        Some(bytes)
    }

    fn answer(&mut self, packet: &Packet<'_>, initial: &mut Option<(String, String)>) -> Answer {
        let arguments: Vec<_> =
            strings(packet.payload).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
        let argument = |at: usize| arguments.get(at).cloned().unwrap_or_default();
        match packet.header.operation {
            Operation::GET_FEATURE if self.has_depth => Ok(b"4\0".to_vec()),
            Operation::WATCH => {
                if arguments.len() > 2 && !self.has_depth {
                    return Err(error::EINVAL);
                }
                let watch = (argument(0), argument(1));
                if !self.watches.insert(watch.clone()) {
                    return Err(error::EEXIST);
                }
                *initial = Some(watch);
                Ok(b"OK\0".to_vec())
            }
            Operation::UNWATCH => match self.watches.remove(&(argument(0), argument(1))) {
                true => Ok(b"OK\0".to_vec()),
                false => Err(error::ENOENT),
            },
            Operation::RESET_WATCHES => {
                self.watches.clear();
                Ok(b"OK\0".to_vec())
            }
            Operation::READ => self.nodes.get(&argument(0)).cloned().ok_or(error::ENOENT),
            Operation::IS_DOMAIN_INTRODUCED => {
                let domid: u16 = argument(0).parse().map_err(|_| error::EINVAL)?;
                let known = domid == 0 || self.introduced.contains(&domid);
                Ok(if known { b"T\0".to_vec() } else { b"F\0".to_vec() })
            }
            Operation::DIRECTORY => {
                let names = self.names(&argument(0)).ok_or(error::ENOENT)?;
                if names.len() > MAX_PAYLOAD { Err(error::E2BIG) } else { Ok(names) }
            }
            Operation::DIRECTORY_PART => {
                let names = self.names(&argument(0)).ok_or(error::ENOENT)?;
                let offset: usize = argument(1).parse().map_err(|_| error::EINVAL)?;
                let rest = &names[offset.min(names.len())..];
                let mut part = format!("{}\0", self.generation).into_bytes();
                let room = MAX_PAYLOAD - part.len() - 1;
                if rest.len() <= room {
                    part.extend_from_slice(rest);
                    part.push(0);
                } else {
                    let end = rest[..room].iter().rposition(|byte| *byte == 0).unwrap();
                    part.extend_from_slice(&rest[..=end]);
                }
                Ok(part)
            }
            _ => Err(error::ENOSYS),
        }
    }

    fn names(&self, path: &str) -> Option<Vec<u8>> {
        self.nodes.get(path)?;
        let below = format!("{path}/");
        let children = self.nodes.keys().filter_map(|key| key.strip_prefix(&below));
        let mut names: Vec<_> = children.filter(|name| !name.contains('/')).collect();
        names.sort_by_key(|name| self.made.get(&format!("{below}{name}")));
        Some(names.into_iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect())
    }

    fn event(&mut self, path: &str, token: &str) {
        let event = (Header::watch_event(), format!("{path}\0{token}\0").into_bytes());
        // As the C xenstored does since its security fixes: an event equal to a queued one is dropped, but for
        // those of the special watches.
        if path.starts_with('@') || !self.outbox.contains(&event) {
            self.outbox.push_back(event);
        }
    }

    /// Fires the watches of `path` and of all above it; if it was removed, those below it as well.
    fn fire(&mut self, path: &str, removed: bool) {
        let is_below = |one: &str, other: &str| {
            one == other || one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
        };
        if self.is_silent {
            return;
        }
        for (watched, token) in self.watches.clone() {
            if is_below(path, &watched) {
                self.event(path, &token);
            } else if removed && is_below(&watched, path) {
                self.event(&watched, &token);
            }
        }
    }

    /// Writes a node, and makes those above it that are missing.
    pub(super) fn write(&mut self, path: &str, value: &str) {
        self.generation += 1;
        for (at, _) in path.match_indices('/').skip(1) {
            self.nodes.entry(path[..at].into()).or_default();
            self.made.entry(path[..at].into()).or_insert(self.generation);
        }
        self.nodes.insert(path.into(), value.into());
        self.fire(path, false);
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.generation += 1;
        let below = format!("{path}/");
        let before = self.nodes.len();
        self.nodes.retain(|key, _| key != path && !key.starts_with(&below));
        self.made.retain(|key, _| key != path && !key.starts_with(&below));
        if self.nodes.len() < before {
            self.fire(path, true);
        }
    }

    /// Writes a domain's directory in one transaction: its watches fire when everything is written.
    pub(super) fn write_down(&mut self, domid: u16, uuid: u128, name: &str) {
        let home = format!("/local/domain/{domid}");
        let watches = std::mem::take(&mut self.watches);
        self.remove(&home);
        self.write(&format!("{home}/vm"), &format!("/vm/{}", virevent::Uuid::from_u128(uuid)));
        self.write(&format!("{home}/name"), name);
        self.write(&format!("{home}/control/shutdown"), "");
        self.watches = watches;
        for node in ["", "/vm", "/name", "/control/shutdown"] {
            self.fire(&format!("{home}{node}"), node.is_empty());
        }
    }

    pub(super) fn introduce(&mut self, domid: u16) {
        if self.introduced.insert(domid) {
            self.special("@introduceDomain", domid);
        }
    }

    pub(super) fn start(&mut self, domid: u16, uuid: u128, name: &str) {
        self.write_down(domid, uuid, name);
        self.introduce(domid);
    }

    pub(super) fn request(&mut self, domid: u16, request: &str) {
        self.write(&format!("/local/domain/{domid}/control/shutdown"), request);
    }

    /// A domain shuts down, and still exists.
    pub(super) fn shut_down(&mut self, domid: u16) {
        self.special("@releaseDomain", domid);
    }

    pub(super) fn release(&mut self, domid: u16) {
        if self.introduced.remove(&domid) {
            self.special("@releaseDomain", domid);
        }
    }

    pub(super) fn destroy(&mut self, domid: u16) {
        self.remove(&format!("/local/domain/{domid}"));
        self.release(domid);
    }

    /// Changes the store, and fires no watch.
    pub(super) fn silently(&mut self, act: impl FnOnce(&mut Self)) {
        self.is_silent = true;
        act(self);
        self.is_silent = false;
    }

    fn special(&mut self, path: &str, domid: u16) {
        let fired = if self.has_depth { format!("{path}/{domid}") } else { path.into() };
        if self.is_silent {
            return;
        }
        for (watched, token) in self.watches.clone() {
            if watched == path {
                self.event(&fired, &token);
            }
        }
    }
}

/// Events that may come at any time, and mean nothing.
impl MemoryStore {
    pub(super) fn special_events(&mut self) {
        for (path, token) in self.watches.clone() {
            self.event(&path, &token);
            self.event(&path, &token);
        }
        self.event("/unknown", "x");
        self.event("/local/domain/77/name", "n77");
    }

    pub(super) fn stray_release(&mut self) {
        self.event("@releaseDomain", "R");
    }
}
