//! What a reply says of a domain, and which facts it leads to.

use tokio::time::Instant;

use super::{DomainEntry, Domains, FactSet, WatchState};
use crate::decode::{self, Request};
use crate::observer::scan::Scan;
use crate::pipeline::{Outcome, server_error};
use crate::request::{DomainNode, StoreRequest};
use crate::wire::error;

/// What a read found.
#[derive(Clone, Copy)]
pub(in crate::observer) enum Found<'a> {
    Value(&'a [u8]),
    /// There is no such node.
    Nothing,
    /// There may be one, but the server does not show it.
    Unreadable,
}

impl Domains {
    /// What the reply to a read says. A node that cannot be read is no reason to lose sight of all other
    /// domains.
    #[inline]
    pub(in crate::observer) fn found<'a>(
        &mut self,
        request: StoreRequest,
        outcome: Outcome<'a>,
    ) -> Found<'a> {
        match outcome {
            Ok(value) => Found::Value(value),
            Err(name) if name == error::ENOENT.as_bytes() => Found::Nothing,
            Err(name) => {
                // The node is read at each of its events: one warning is enough.
                if !std::mem::replace(&mut self.has_warned, true) {
                    let error = server_error(request, name);
                    tracing::warn!(%error, "a node of a domain is unreadable: its value is unknown");
                }
                Found::Unreadable
            }
        }
    }

    /// A pending fact has its reply.
    #[inline]
    fn replied(&mut self, domid: u16, fact: FactSet, scan: &mut Scan) -> Option<&mut DomainEntry> {
        let entry = self.entries.get_mut(usize::from(domid))?.as_deref_mut()?;
        // Before the comparison that follows: with the last fact read, the verification can end.
        if let Some(verification) = scan.verification() {
            verification.is_read(entry, fact);
        }
        entry.pending = entry.pending.without(fact);
        if fact == FactSet::INTRODUCED && !entry.due.has_any(fact) {
            // The count includes facts that are due again: those are still to be asked.
            self.sweeping -= 1;
        }
        // An event came after the request was sent: the fact is read once more.
        if entry.due.has_any(FactSet::SHUTDOWN) && !std::mem::replace(&mut entry.is_urgent, true) {
            self.queue.urgent.push_back(domid);
        }
        if !entry.due.is_empty() && !std::mem::replace(&mut entry.is_queued, true) {
            self.queue.normal.push_back(domid);
        }
        Some(entry)
    }

    /// Takes in whether a domain is introduced.
    pub(in crate::observer) fn introduced(
        &mut self,
        domid: u16,
        is_introduced: bool,
        scan: &mut Scan,
        now: Instant,
    ) {
        let Some(entry) = self.replied(domid, FactSet::INTRODUCED, scan) else { return };
        // A domain that was never asked counts as not introduced, so its first F is no ending.
        let before = entry.introduced.replace(is_introduced);
        entry.note_read(FactSet::INTRODUCED, before == Some(is_introduced));
        let unread = FactSet::NODES.without(entry.read);
        let has_event = entry.check.has_event;
        match (before == Some(true), is_introduced) {
            (false, true) => {
                self.ledger.appeared(now);
                // Not left to the events that its watches fire when they are set: where one event was lost,
                // others may be.
                if let Some(verification) = scan.verification().filter(|_| !has_event) {
                    self.follow_up(domid, unread, Some(verification));
                }
            }
            (true, false) => self.ledger.ended(now),
            _ => {}
        }
    }

    /// Takes in whether a domain's directory exists.
    pub(in crate::observer) fn read_directory(
        &mut self,
        domid: u16,
        found: Found<'_>,
        scan: &mut Scan,
    ) {
        let Some(entry) = self.replied(domid, FactSet::DIRECTORY, scan) else { return };
        let is_removed = match found {
            Found::Value(_) => false,
            // On a bare xenstored domain 0 has no directory, and runs nevertheless.
            Found::Nothing => domid != 0,
            // A refused read says nothing about the directory.
            Found::Unreadable => entry.is_removed,
        };
        let before = std::mem::replace(&mut entry.is_removed, is_removed);
        entry.note_read(FactSet::DIRECTORY, before == is_removed);
    }

    /// Takes in the value of a watched node.
    #[inline]
    pub(in crate::observer) fn read(
        &mut self,
        domid: u16,
        node: DomainNode,
        found: Found<'_>,
        scan: &mut Scan,
    ) {
        let fact = FactSet::of(node);
        let Some(entry) = self.replied(domid, fact, scan) else { return };
        let value = match found {
            Found::Value(value) => Some(value),
            Found::Nothing | Found::Unreadable => None,
        };
        // A node that cannot be read is not about to be written: the domain does not wait for it.
        entry.is_overdue |= matches!(found, Found::Unreadable) && node != DomainNode::Shutdown;
        // The first read since the watch is set confirms nothing: a change before it was not announced.
        let was_read = entry.read.has_all(fact);
        entry.read = entry.read.with(fact);
        let is_same = match node {
            // A value without a uuid in it is treated as missing: it may still be written.
            DomainNode::Vm => {
                let uuid = value.and_then(decode::uuid);
                std::mem::replace(&mut entry.uuid, uuid) == uuid
            }
            // Most often the name is the same, which takes no allocation to see.
            DomainNode::Name if entry.name.as_deref().map(str::as_bytes) == value => true,
            DomainNode::Name => {
                let name = value.and_then(decode::name).map(String::into_boxed_str);
                let before = std::mem::replace(&mut entry.name, name);
                before == entry.name
            }
            DomainNode::Shutdown => {
                entry.request = Request::read(value.unwrap_or_default());
                true
            }
        };
        entry.note_read(fact, is_same && was_read);
        // Removing a whole directory, or writing it again, fires no watch of the directory: only those of
        // its nodes.
        if entry.is_removed == value.is_some() && node != DomainNode::Shutdown {
            self.follow_up(domid, FactSet::DIRECTORY, scan.verification());
        }
    }

    /// A watch of a node is set; `is_new` unless it was there already.
    pub(in crate::observer) fn watched(&mut self, domid: u16, node: DomainNode, is_new: bool) {
        // The event that a new watch fires has the node read. A change after that read fires another event; one
        // before it may be dropped by the daemon, for it equals the first. A watch that was there
        // fires nothing.
        let due = if is_new { FactSet::NONE } else { FactSet::of(node) };
        if let Some(entry) = self.entry_mut(domid) {
            *entry.watch(node) = WatchState::On;
            self.mark(domid, due);
        }
    }

    /// A watch of a node is dropped.
    pub(in crate::observer) fn unwatched(&mut self, domid: u16, node: DomainNode, scan: &mut Scan) {
        let Some(entry) = self.entry_mut(domid) else { return };
        *entry.watch(node) = WatchState::Off;
        entry.read = entry.read.without(FactSet::of(node));
        // The domain may want watches again, or be gone.
        self.mark(domid, FactSet::NONE);
        self.remove_if_unused(domid, scan);
    }
}
