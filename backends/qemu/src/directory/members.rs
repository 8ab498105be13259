//! The monitors of a directory's sockets, each polled only when it has something to do.
//!
//! A member is one file, and lasts while that file is there, under whatever path, or a QEMU runs
//! behind it: a new file of the same name is another member, and the QEMU whose file was removed
//! stays until its process ends. No file has two members, since QEMU would never serve the second.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use virevent::Uuid;
use virevent::driver::{Batch, Listed};

use super::ready::{MemberWaker, ReadyMembers};
use super::scan::{Scan, SocketFile};
use super::socket_pattern::SocketPattern;
use crate::config::MonitorConfig;
use crate::monitor::{Monitor, Role, Turn};
use crate::peer::pinned_socket::FileId;
use crate::uri::Endpoint;

/// How many members take a step in a poll, and after how many events the poll ends: a member with
/// many events delays the others by no more than this.
const MAX_STEPS: usize = 64;
const MAX_EVENTS: usize = 1024;

/// The monitors of a directory.
#[derive(Default)]
pub(crate) struct Members {
    slots: Vec<Option<Member>>,
    free: Vec<usize>,
    by_file: HashMap<FileId, usize>,
    /// Those whose file is there.
    by_path: HashMap<PathBuf, usize>,
    /// How many there are of which it is not known if there is a QEMU.
    unsettled: usize,
    /// How many a list waits for.
    unverified: usize,
    ready: ReadyMembers,
}

struct Member {
    monitor: Monitor,
    socket: SocketFile,
    /// Whether the path still leads to the file.
    is_linked: bool,
    is_settled: bool,
    /// Whether a list waits for its answer.
    is_unverified: bool,
    waker: Arc<MemberWaker>,
}

/// The answer about one domain.
#[derive(Debug)]
pub(crate) enum DomainAnswer {
    /// Its QEMU has not answered yet.
    Pending,
    /// The domain; `None` if it does not exist.
    Known(Option<Listed>),
    /// Its QEMU is unreachable.
    Failed,
}

/// What a poll of the members has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PollSummary {
    /// A member took a step.
    pub(crate) has_stepped: bool,
    /// Of a member it became known if there is a QEMU.
    pub(crate) has_settled: bool,
    /// A member was removed.
    pub(crate) has_removed: bool,
}

impl Members {
    /// Whether it is known of all if there is a QEMU.
    pub(crate) fn are_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Follows a scan: its sockets are there, and no others but those in directories that were not
    /// read.
    pub(crate) fn update(
        &mut self,
        scan: Scan,
        pattern: &SocketPattern,
        config: &MonitorConfig,
        turn: &mut Turn<'_>,
    ) {
        let mut left = std::mem::take(&mut self.by_path);
        let mut moved = Vec::new();
        let mut new = Vec::new();
        for socket in scan.sockets {
            match self.by_file.get(&socket.file).copied() {
                Some(at) if self.member(at).is_some_and(|member| member.socket == socket) => {
                    left.remove(&socket.path);
                    self.by_path.insert(socket.path, at);
                    // It may have been gone in an earlier scan: a rename can be seen half done.
                    self.relink(at);
                }
                Some(at) => moved.push((at, socket)),
                None => new.push(socket),
            }
        }
        // The moved before those that are gone: two sockets may have swapped their names.
        for (at, socket) in moved {
            self.rename(at, socket, &mut left);
        }
        let unread: HashSet<&Path> = scan.unread.iter().map(|(path, _)| &**path).collect();
        for (path, at) in left {
            if path.parent().is_some_and(|parent| unread.contains(parent)) {
                self.by_path.insert(path, at);
            } else {
                self.unlink(at, turn);
            }
        }
        for socket in new {
            self.add(socket, pattern, config);
        }
    }

    fn rename(&mut self, at: usize, socket: SocketFile, left: &mut HashMap<PathBuf, usize>) {
        let Some(member) = self.member(at) else { return };
        let old = std::mem::replace(&mut member.socket.path, socket.path.clone());
        tracing::debug!(from = %old.display(), to = %socket.path.display(), "a socket was moved");
        member.is_linked = true;
        member.monitor.set_path(Endpoint::Unix(socket.path.clone()));
        member.waker.list();
        if left.get(&old) == Some(&at) {
            left.remove(&old);
        }
        self.by_path.insert(socket.path, at);
    }

    /// Has the member at this path connect at once, for something has happened to its file.
    pub(crate) fn connect_now(&mut self, path: &Path) {
        let at = self.by_path.get(path).copied();
        if let Some(member) = at.and_then(|at| self.member(at)) {
            member.monitor.connect_now();
            member.waker.list();
        }
    }

    /// The directory is readable again.
    pub(crate) fn reopen(&mut self) {
        for member in self.slots.iter_mut().flatten() {
            member.monitor.reopen();
            member.waker.list();
        }
    }

    /// Polls the members that were woken, each once. Pending if none did anything.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<PollSummary> {
        self.ready.register(cx);
        let mut summary = PollSummary::default();
        let mut steps = 0;
        // Only those that are listed now: a member that lists itself again must not starve the
        // session.
        for _ in 0..self.ready.len() {
            let Some(at) = self.ready.next() else { break };
            let Some(member) = self.member(at) else { continue };
            let waker = member.waker.waker();
            let mut context = Context::from_waker(&waker);
            // A member never returns an error.
            if member.monitor.poll(&mut context, turn).is_ready() {
                member.waker.list_again();
                summary.has_stepped = true;
                steps += 1;
            }
            self.note(at, &mut summary);
            // The members that are left stay on the list, and the session is polled again at once.
            if steps >= MAX_STEPS || turn.out.events().len() >= MAX_EVENTS {
                break;
            }
        }
        match summary == PollSummary::default() {
            true => Poll::Pending,
            false => Poll::Ready(summary),
        }
    }

    /// Reports the members that are not settled, for the list cannot wait for them any longer.
    pub(crate) fn overdue(&mut self, turn: &mut Turn<'_>) {
        let mut summary = PollSummary::default();
        for at in 0..self.slots.len() {
            let Some(member) = self.member(at).filter(|member| !member.is_settled) else {
                continue;
            };
            member.monitor.overdue(turn);
            member.waker.list();
            self.note(at, &mut summary);
        }
    }

    /// The QEMUs that there are, and that are reachable.
    pub(crate) fn list(&mut self, out: &mut Batch) -> Vec<Listed> {
        self.slots.iter_mut().flatten().filter_map(|member| member.monitor.listed(out)).collect()
    }

    /// Asks each QEMU for its run state, for a list.
    pub(crate) fn verify(&mut self) {
        for at in 0..self.slots.len() {
            let Some(member) = self.member(at) else { continue };
            member.monitor.verify();
            // The question is queued, and a poll writes it.
            member.waker.list();
            let is_new = !std::mem::replace(&mut member.is_unverified, true);
            self.unverified += usize::from(is_new);
            self.note(at, &mut PollSummary::default());
        }
    }

    /// Asks the QEMU of this domain for its run state: see [`domain`](Self::domain).
    pub(crate) fn verify_domain(&mut self, uuid: Uuid) {
        if let Some(member) = self.member_of(uuid) {
            member.monitor.verify();
            member.waker.list();
        }
    }

    /// This domain, by the answer to [`verify_domain`](Self::verify_domain).
    pub(crate) fn domain(&mut self, uuid: Uuid, out: &mut Batch) -> DomainAnswer {
        match self.member_of(uuid) {
            None => DomainAnswer::Known(None),
            Some(member) if !member.monitor.is_verified() => DomainAnswer::Pending,
            Some(member) => match member.monitor.listed(out) {
                Some(listed) => DomainAnswer::Known(Some(listed)),
                None => DomainAnswer::Failed,
            },
        }
    }

    fn member_of(&mut self, uuid: Uuid) -> Option<&mut Member> {
        self.slots.iter_mut().flatten().find(|member| member.monitor.is_domain(uuid))
    }

    /// Whether the list waits for none: see [`Monitor::is_verified`].
    pub(crate) fn are_verified(&self) -> bool {
        self.unverified == 0
    }

    fn member(&mut self, at: usize) -> Option<&mut Member> {
        self.slots.get_mut(at)?.as_mut()
    }

    fn add(&mut self, socket: SocketFile, pattern: &SocketPattern, config: &MonitorConfig) {
        tracing::debug!(path = %socket.path.display(), "found a socket");
        let endpoint = Endpoint::Unix(socket.path.clone());
        let config = MonitorConfig {
            origin: endpoint.clone(),
            endpoint,
            name: pattern.name(&socket.path),
            file: Some(socket.file),
            ..config.clone()
        };
        let at = self.free.pop().unwrap_or(self.slots.len());
        if at == self.slots.len() {
            self.slots.push(None);
        }
        // Both maps before the first poll: a scan that finds the file again must find this member.
        self.by_file.insert(socket.file, at);
        self.by_path.insert(socket.path.clone(), at);
        self.unsettled += 1;
        self.slots[at] = Some(Member {
            monitor: Monitor::new(Arc::new(config), Role::Member),
            socket,
            is_linked: true,
            is_settled: false,
            is_unverified: false,
            waker: self.ready.waker(at),
        });
    }

    fn relink(&mut self, at: usize) {
        let Some(member) = self.member(at).filter(|member| !member.is_linked) else { return };
        member.is_linked = true;
        member.monitor.relink();
        member.waker.list();
    }

    fn unlink(&mut self, at: usize, turn: &mut Turn<'_>) {
        let Some(member) = self.member(at) else { return };
        tracing::debug!(path = %member.socket.path.display(), "the socket is gone");
        member.is_linked = false;
        member.monitor.unlink(turn);
        member.waker.list();
        self.note(at, &mut PollSummary::default());
    }

    /// Updates the counts by what became of a member, and removes it if it is of no use any more.
    fn note(&mut self, at: usize, summary: &mut PollSummary) {
        let Some(member) = self.member(at) else { return };
        let settles = !member.is_settled && member.monitor.is_settled();
        let is_removed = !member.is_linked && member.monitor.is_unused();
        member.is_settled |= settles;
        let is_verified = member.is_unverified && (is_removed || member.monitor.is_verified());
        member.is_unverified &= !is_verified;
        self.unverified -= usize::from(is_verified);
        if settles {
            self.unsettled -= 1;
            summary.has_settled = true;
        }
        if is_removed {
            if let Some(member) = self.slots[at].take() {
                // The same file may get a name again, and is a new member then.
                self.by_file.remove(&member.socket.file);
                self.free.push(at);
            }
            summary.has_removed = true;
        }
    }
}
