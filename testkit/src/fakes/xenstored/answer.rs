//! The answer to each request.

use virevent_xen::wire::error::{E2BIG, EBUSY, EEXIST, EINVAL, ENOENT, ENOSYS};
use virevent_xen::wire::{Header, Operation};

use super::daemon::{Daemon, INTRODUCE, TOOLSTACK, Watch};
use super::store::{Permission, Refused, View, path_of, permissions_of};

/// The outcome of a request.
pub(super) struct Done {
    /// The body of the reply.
    pub(super) body: Vec<u8>,
    /// A watch that was set: its first event follows the reply.
    pub(super) initial: Option<Watch>,
}

type Answer = Result<Vec<u8>, Refused>;

fn ok() -> Answer {
    Ok(b"OK\0".to_vec())
}

impl Daemon {
    pub(super) fn answer(
        &mut self,
        number: u64,
        header: &Header,
        payload: &[u8],
    ) -> Result<Done, Refused> {
        use Operation as Op;
        let operation = header.operation;
        let with_features = [Op::GET_FEATURE, Op::SET_FEATURE].contains(&operation);
        // Xen 4.17 has removed RESTRICT, and does not know the operations of later versions.
        let known = match operation {
            Op::RESTRICT | Op::WATCH_EVENT | Op::ERROR => false,
            _ if with_features => self.faults.features.is_some(),
            Op(number) => number <= Op::DIRECTORY_PART.0,
        };
        if !known {
            return Err(ENOSYS);
        }
        let client = self.clients.get(&number).ok_or(ENOENT)?;
        // Watches are never part of a transaction, so the daemon ignores its id there.
        let outside = header.transaction == 0 || [Op::WATCH, Op::UNWATCH].contains(&operation);
        if !outside && !client.transactions.contains_key(&header.transaction) {
            return Err(ENOENT);
        }
        let mut initial = None;
        let body = match operation {
            Op::WATCH => {
                let watch = self.watch(number, payload)?;
                initial = Some(watch);
                ok()
            }
            Op::UNWATCH => self.unwatch(number, payload),
            // In spite of its name it also ends the client's transactions.
            Op::RESET_WATCHES => {
                let client = self.clients.entry(number).or_default();
                client.watches.clear();
                client.transactions.clear();
                ok()
            }
            Op::TRANSACTION_START => self.begin(number, header.transaction),
            Op::TRANSACTION_END => self.finish(number, header.transaction, payload),
            Op::INTRODUCE | Op::RELEASE | Op::RESUME | Op::SET_TARGET => {
                self.manage(operation, payload)
            }
            Op::IS_DOMAIN_INTRODUCED => {
                let domid = number_of(only(payload).ok_or(EINVAL)?);
                // Dom0 is always introduced. What is not a number reads as 0, and so as dom0.
                let is = domid == 0 || self.introduced(domid).is_some();
                Ok(if is { b"T\0" } else { b"F\0" }.to_vec())
            }
            // For any number, whether or not there is such a domain.
            Op::GET_DOMAIN_PATH => {
                let domid = number_of(only(payload).ok_or(EINVAL)?);
                Ok(format!("/local/domain/{domid}\0").into_bytes())
            }
            Op::GET_FEATURE => {
                Ok(format!("{}\0", self.faults.features.unwrap_or_default()).into_bytes())
            }
            Op::SET_FEATURE => ok(),
            // Administration, which the fake does not implement.
            Op::CONTROL => Err(EINVAL),
            _ => self.on_node(number, header, payload),
        };
        Ok(Done { body: body?, initial })
    }

    /// A request about one node.
    fn on_node(&mut self, number: u64, header: &Header, payload: &[u8]) -> Answer {
        use Operation as Op;
        let longest = self.faults.longest_list;
        let of_client = number != TOOLSTACK;
        let permissions = match header.operation {
            Op::SET_PERMS => self.permissions(payload),
            _ => Err(EINVAL),
        };
        let client = self.clients.get_mut(&number).ok_or(ENOENT)?;
        let transaction = client.transactions.get_mut(&header.transaction);
        let mut view = self.store.view(transaction);
        let part_changes = &mut self.faults.part_changes;
        let answer = match header.operation {
            Op::READ => view.named(&the_path(payload)?).ok_or(ENOENT).map(|node| node.value),
            Op::DIRECTORY => {
                let names = names(&mut view, &the_path(payload)?)?.1;
                // The client then asks for the list in parts.
                if names.len() > longest { Err(E2BIG) } else { Ok(names) }
            }
            Op::DIRECTORY_PART => {
                let [path, offset] = all(payload).try_into().map_err(|_| EINVAL)?;
                let path = path_of(path)?;
                let offset = number_of(offset) as usize;
                // Not before the first part: a change there would not be between two parts.
                if offset > 0 && *part_changes > 0 && of_client {
                    *part_changes -= 1;
                    view.touch(&path);
                }
                let (generation, names) = names(&mut view, &path)?;
                Ok(part(generation, &names, offset, longest))
            }
            Op::GET_PERMS => view.named(&the_path(payload)?).ok_or(ENOENT).map(|node| {
                let all = node.permissions.iter();
                all.flat_map(|one| format!("{}{}\0", one.letter, one.domid).into_bytes()).collect()
            }),
            Op::SET_PERMS => match permissions? {
                // The right to watch them, which every client here has, as one of dom0.
                (b"@introduceDomain" | b"@releaseDomain", _) => ok(),
                (path, permissions) => {
                    view.permit(&path_of(path)?, permissions).and_then(|()| ok())
                }
            },
            Op::WRITE => {
                // The value is the rest of the payload: raw bytes without a NUL at their end.
                let end = payload.iter().position(|byte| *byte == 0).ok_or(EINVAL)?;
                view.write(&path_of(&payload[..end])?, Some(&payload[end + 1..]));
                ok()
            }
            Op::MKDIR => {
                view.write(&the_path(payload)?, None);
                ok()
            }
            Op::RM => view.remove(&the_path(payload)?).and_then(|()| ok()),
            _ => Err(ENOSYS),
        };
        // Queued before the reply: a client gets the events of its own change first.
        let changes = view.into_changes();
        self.send_events(&changes);
        answer
    }

    /// The path and the permissions of a `SET_PERMS`. The owner must exist.
    fn permissions<'a>(
        &mut self,
        payload: &'a [u8],
    ) -> Result<(&'a [u8], Vec<Permission>), Refused> {
        let strings = all(payload);
        let Some((path, [first, rest @ ..])) = strings.split_first() else { return Err(EINVAL) };
        let permissions = permissions_of([first].into_iter().chain(rest).copied())?;
        // The daemon adds every domain that is named, even if it refuses the request.
        let exist = permissions.iter().map(|one| one.domid);
        let exist: Vec<_> = exist.map(|id| id == 0 || self.find_or_add(id).is_some()).collect();
        if exist.first() == Some(&false) {
            return Err(ENOENT);
        }
        Ok((path, permissions))
    }

    fn watch(&mut self, number: u64, payload: &[u8]) -> Result<Watch, Refused> {
        let has_depth = self.faults.has_depth();
        let (given, token, depth) = match all(payload)[..] {
            [path, token] => (path, token, None),
            [path, token, depth] if has_depth => (path, token, Some(number_of(depth) as usize)),
            _ => return Err(EINVAL),
        };
        let path = watched(given)?;
        let prefix = path.len() - given.len();
        let watch = Watch { path, token: token.to_vec(), depth, prefix };
        let client = self.clients.get_mut(&number).ok_or(ENOENT)?;
        let same = |known: &Watch| (&known.path, &known.token) == (&watch.path, &watch.token);
        // A watch is its path and its token: one path may be watched with many tokens.
        if client.watches.iter().any(same) {
            return Err(EEXIST);
        }
        client.watches.push(watch.clone());
        Ok(watch)
    }

    fn unwatch(&mut self, number: u64, payload: &[u8]) -> Answer {
        let [given, token] = all(payload).try_into().map_err(|_| EINVAL)?;
        // xenstored answers ENOENT, not EINVAL, for a path that no watch can have.
        let path = watched(given).map_err(|_| ENOENT)?;
        let client = self.clients.get_mut(&number).ok_or(ENOENT)?;
        let before = client.watches.len();
        client.watches.retain(|known| (&known.path[..], &known.token[..]) != (&path, token));
        if client.watches.len() < before { ok() } else { Err(ENOENT) }
    }

    fn begin(&mut self, number: u64, within: u32) -> Answer {
        // Transactions do not nest.
        if within != 0 {
            return Err(EBUSY);
        }
        let client = self.clients.get_mut(&number).ok_or(ENOENT)?;
        client.last_transaction += 1;
        let id = client.last_transaction;
        client.transactions.insert(id, Default::default());
        Ok(format!("{id}\0").into_bytes())
    }

    fn finish(&mut self, number: u64, id: u32, payload: &[u8]) -> Answer {
        let commit = match only(payload) {
            Some(b"T") => true,
            Some(b"F") => false,
            _ => return Err(EINVAL),
        };
        let client = self.clients.get_mut(&number).ok_or(ENOENT)?;
        // Removed in any case: after EAGAIN the client begins another one.
        let transaction = client.transactions.remove(&id).ok_or(ENOENT)?;
        if commit {
            let changes = self.store.commit(transaction)?;
            self.send_events(&changes);
        }
        ok()
    }

    /// A toolstack's request about a domain.
    fn manage(&mut self, operation: Operation, payload: &[u8]) -> Answer {
        let strings = all(payload);
        let domid = number_of(strings.first().copied().ok_or(EINVAL)?);
        let at = self.introduced(domid);
        match operation {
            Operation::INTRODUCE => {
                let [_, _, port] = strings[..] else { return Err(EINVAL) };
                if number_of(port) == 0 {
                    return Err(EINVAL);
                }
                // A second introduction succeeds without an event, also if the id was reused.
                if domid != 0 && at.is_none() {
                    // The real daemon fails to map the ring of a domain that does not exist.
                    let exists = self.hypervisor.contains_key(&domid);
                    let at = self.find_or_add(domid).filter(|_| exists).ok_or(EINVAL)?;
                    self.domains[at].introduced = true;
                    self.send_special_events(INTRODUCE, domid);
                }
            }
            Operation::RELEASE => {
                if domid == 0 {
                    return Err(EINVAL);
                }
                self.end(at.ok_or(ENOENT)?);
            }
            Operation::RESUME => {
                if domid == 0 {
                    return Err(EINVAL);
                }
                // No event. The next shutdown of this run has one again.
                self.domains[at.ok_or(ENOENT)?].shutdown = false;
            }
            // SET_TARGET: one domain gets the rights of another one.
            _ => {
                let target = number_of(strings.get(1).copied().ok_or(EINVAL)?);
                let known = |domid: u32| domid == 0 || self.introduced(domid).is_some();
                if !known(domid) || !known(target) {
                    return Err(ENOENT);
                }
            }
        }
        ok()
    }
}

/// The strings of a payload: those that end with a NUL.
fn all(payload: &[u8]) -> Vec<&[u8]> {
    let mut strings: Vec<_> = payload.split(|byte| *byte == 0).collect();
    // The bytes behind the last NUL.
    strings.pop();
    strings
}

/// The string of a payload that has exactly one.
fn only(payload: &[u8]) -> Option<&[u8]> {
    match all(payload)[..] {
        [one] if payload.len() == one.len() + 1 => Some(one),
        _ => None,
    }
}

// ENOENT, not EINVAL, for a payload that is not one string: as the C daemon answers a READ.
fn the_path(payload: &[u8]) -> Result<String, Refused> {
    path_of(only(payload).ok_or(ENOENT)?)
}

/// The path of a watch: a node's, or a special one.
fn watched(given: &[u8]) -> Result<Vec<u8>, Refused> {
    match given.starts_with(b"@") {
        true => Ok(given.to_vec()),
        false => path_of(given).map(String::into_bytes),
    }
}

/// A number, read as atoi() does.
fn number_of(text: &[u8]) -> u32 {
    let digits: Vec<u8> = text.iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A node's generation and the names of its children, each with a NUL behind it.
fn names(view: &mut View<'_>, path: &str) -> Result<(u64, Vec<u8>), Refused> {
    let node = view.named(path).ok_or(ENOENT)?;
    let names = node.children.iter().flat_map(|child| [child.as_bytes(), b"\0"].concat()).collect();
    Ok((node.generation, names))
}

/// The part of a list from `offset` on: as many whole names as fit.
fn part(generation: u64, names: &[u8], offset: usize, longest: usize) -> Vec<u8> {
    let mut part = format!("{generation}\0").into_bytes();
    let rest = names.get(offset..).unwrap_or_default();
    let room = longest.saturating_sub(part.len());
    if rest.len() < room {
        part.extend_from_slice(rest);
        // An empty name marks the end of the list.
        part.push(0);
        return part;
    }
    let end = rest[..room.min(rest.len())].iter().rposition(|byte| *byte == 0);
    part.extend_from_slice(&rest[..end.map_or(0, |end| end + 1)]);
    part
}
