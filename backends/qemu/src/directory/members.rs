//! The monitors of a directory's sockets, each polled only when it has something to do.
//!
//! A member is one file, and goes on while that file is there, under whatever path, or a QEMU runs behind
//! it: a new file of the same name is another member, and the QEMU whose file was removed stays until
//! its process ends. No file has two members, since the second would wait behind the first for ever.

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
use crate::monitor::{Monitor, Role, SourceContext};
use crate::peer::pinned_socket::FileId;
use crate::uri::Endpoint;

/// How many members take a step in a turn, and after how many events it is over: one that is noisy
/// holds up the others for so long at most.
const TURN: usize = 64;
const EVENTS: usize = 1024;

#[derive(Default)]
pub(crate) struct Members {
    slots: Vec<Option<Member>>,
    free: Vec<usize>,
    by_file: HashMap<FileId, usize>,
    /// Those whose file is there.
    by_path: HashMap<PathBuf, usize>,
    /// Those of which it is not known whether there is a QEMU.
    unsettled: usize,
    /// Those that a list waits for.
    unverified: usize,
    ready: ReadyMembers,
}

struct Member {
    monitor: Monitor,
    socket: SocketFile,
    /// Whether the path still leads to the file.
    is_there: bool,
    is_settled: bool,
    /// A list waits for its answer.
    is_unverified: bool,
    call: Arc<MemberWaker>,
}

/// What a look at one domain has come to.
#[derive(Debug)]
pub(crate) enum DomainAnswer {
    /// Its QEMU has not answered yet.
    Pending,
    /// How it is; `None` if it is no more.
    At(Option<Listed>),
    /// Its QEMU cannot be reached.
    Failed,
}

/// What a turn has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PollSummary {
    /// A member did something.
    pub(crate) is_step: bool,
    /// Of a member it became known whether there is a QEMU.
    pub(crate) is_settled: bool,
    /// A member is no more.
    pub(crate) is_parting: bool,
}

impl Members {
    /// Whether it is known of all whether there is a QEMU.
    pub(crate) fn are_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// These sockets are there, and no others but for those in sub-directories that were not read.
    pub(crate) fn see(
        &mut self,
        found: Scan,
        place: &SocketPattern,
        config: &MonitorConfig,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) {
        let mut left = std::mem::take(&mut self.by_path);
        let (mut moved, mut new) = (Vec::new(), Vec::new());
        for socket in found.sockets {
            match self.by_file.get(&socket.file).copied() {
                Some(at) if self.slot(at).is_some_and(|member| member.socket == socket) => {
                    left.remove(&socket.path);
                    self.by_path.insert(socket.path, at);
                    self.relink(at);
                }
                Some(at) => moved.push((at, socket)),
                None => new.push(socket),
            }
        }
        let unread: HashSet<&Path> = found.unread.iter().map(|(path, _)| &**path).collect();
        for (at, socket) in moved {
            let Some(member) = self.slot(at) else { continue };
            let old = std::mem::replace(&mut member.socket.path, socket.path.clone());
            tracing::debug!(from = %old.display(), to = %socket.path.display(), "a socket was moved");
            member.is_there = true;
            member.monitor.moved(Endpoint::Unix(socket.path.clone()));
            member.call.list();
            if left.get(&old) == Some(&at) {
                left.remove(&old);
            }
            self.by_path.insert(socket.path, at);
        }
        for (path, at) in left {
            if path.parent().is_some_and(|parent| unread.contains(parent)) {
                self.by_path.insert(path, at);
            } else {
                self.unlink(at, shared, out);
            }
        }
        for socket in new {
            self.add(socket, place, config);
        }
    }

    /// Something has happened to the file at this path.
    pub(crate) fn hurry(&mut self, path: &Path) {
        let at = self.by_path.get(path).copied();
        if let Some(member) = at.and_then(|at| self.slot(at)) {
            member.monitor.look_now();
            member.call.list();
        }
    }

    /// The directory can be read again.
    pub(crate) fn reopen(&mut self) {
        for member in self.slots.iter_mut().flatten() {
            member.monitor.reopen();
            member.call.list();
        }
    }

    /// Lets those that want to do something take a step each. Pending if none did.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> Poll<PollSummary> {
        self.ready.register(cx);
        let (mut turn, mut steps) = (PollSummary::default(), 0);
        for _ in 0..self.ready.len() {
            let Some(at) = self.ready.next() else { break };
            let Some(member) = self.slot(at) else { continue };
            let waker = member.call.waker();
            let mut context = Context::from_waker(&waker);
            // A part is never an error.
            if member.monitor.poll(&mut context, shared, out).is_ready() {
                member.call.list_again();
                turn.is_step = true;
                steps += 1;
            }
            self.note(at, &mut turn);
            if steps >= TURN || out.events().len() >= EVENTS {
                break;
            }
        }
        if turn == PollSummary::default() { Poll::Pending } else { Poll::Ready(turn) }
    }

    /// The list cannot wait any longer for those that have not settled.
    pub(crate) fn overdue(&mut self, shared: &mut SourceContext, out: &mut Batch) {
        let mut turn = PollSummary::default();
        for at in 0..self.slots.len() {
            let Some(member) = self.slot(at).filter(|member| !member.is_settled) else { continue };
            member.monitor.overdue(shared, out);
            member.call.list();
            self.note(at, &mut turn);
        }
    }

    /// The QEMUs that there are, and can be reached.
    pub(crate) fn list(&mut self, out: &mut Batch) -> Vec<Listed> {
        self.slots.iter_mut().flatten().filter_map(|member| member.monitor.listed(out)).collect()
    }

    /// Asks each QEMU how it is, for a list.
    pub(crate) fn verify(&mut self) {
        for at in 0..self.slots.len() {
            let Some(member) = self.slot(at) else { continue };
            member.monitor.verify();
            // What is queued is written by a poll.
            member.call.list();
            let is_new = !std::mem::replace(&mut member.is_unverified, true);
            self.unverified += usize::from(is_new);
            self.note(at, &mut PollSummary::default());
        }
    }

    /// Asks the QEMU that is this domain how it is: see [`look`](Self::look).
    pub(crate) fn verify_one(&mut self, uuid: Uuid) {
        if let Some(member) = self.of_domain(uuid) {
            member.monitor.verify();
            member.call.list();
        }
    }

    /// How this domain is, by the answer to [`verify_one`](Self::verify_one).
    pub(crate) fn look(&mut self, uuid: Uuid, out: &mut Batch) -> DomainAnswer {
        match self.of_domain(uuid) {
            None => DomainAnswer::At(None),
            Some(member) if !member.monitor.is_verified() => DomainAnswer::Pending,
            Some(member) => match member.monitor.listed(out) {
                Some(found) => DomainAnswer::At(Some(found)),
                None => DomainAnswer::Failed,
            },
        }
    }

    fn of_domain(&mut self, uuid: Uuid) -> Option<&mut Member> {
        self.slots.iter_mut().flatten().find(|member| member.monitor.is_domain(uuid))
    }

    /// Whether the list waits for none: see [`Monitor::is_verified`].
    pub(crate) fn are_verified(&self) -> bool {
        self.unverified == 0
    }

    fn slot(&mut self, at: usize) -> Option<&mut Member> {
        self.slots.get_mut(at)?.as_mut()
    }

    fn add(&mut self, socket: SocketFile, place: &SocketPattern, config: &MonitorConfig) {
        tracing::debug!(path = %socket.path.display(), "a socket");
        let endpoint = Endpoint::Unix(socket.path.clone());
        let (origin, name) = (endpoint.clone(), place.name(&socket.path));
        let config =
            MonitorConfig { endpoint, origin, name, file: Some(socket.file), ..config.clone() };
        let monitor = Monitor::new(Arc::new(config), Role::Part);
        let at = self.free.pop().unwrap_or(self.slots.len());
        if at == self.slots.len() {
            self.slots.push(None);
        }
        self.by_file.insert(socket.file, at);
        self.by_path.insert(socket.path.clone(), at);
        self.unsettled += 1;
        let call = self.ready.call(at);
        self.slots[at] = Some(Member {
            monitor,
            socket,
            is_there: true,
            is_settled: false,
            is_unverified: false,
            call,
        });
    }

    fn relink(&mut self, at: usize) {
        let Some(member) = self.slot(at).filter(|member| !member.is_there) else { return };
        member.is_there = true;
        member.monitor.relink();
        member.call.list();
    }

    fn unlink(&mut self, at: usize, shared: &mut SourceContext, out: &mut Batch) {
        let Some(member) = self.slot(at) else { return };
        tracing::debug!(path = %member.socket.path.display(), "the socket is gone");
        member.is_there = false;
        member.monitor.unlink(shared, out);
        member.call.list();
        self.note(at, &mut PollSummary::default());
    }

    /// Takes note of what became of a member.
    fn note(&mut self, at: usize, turn: &mut PollSummary) {
        let Some(member) = self.slot(at) else { return };
        let settles = !member.is_settled && !member.monitor.is_first();
        let is_parting = !member.is_there && member.monitor.is_vacant();
        member.is_settled |= settles;
        let is_verified = member.is_unverified && (is_parting || member.monitor.is_verified());
        member.is_unverified &= !is_verified;
        self.unverified -= usize::from(is_verified);
        if settles {
            self.unsettled -= 1;
            turn.is_settled = true;
        }
        if is_parting {
            if let Some(member) = self.slots[at].take() {
                self.by_file.remove(&member.socket.file);
                self.free.push(at);
            }
            turn.is_parting = true;
        }
    }
}
