//! A verification: a list that the driver requests while changes are reported. Everything is read again.
//!
//! ```text
//!   request_list ─▶ list, and of each domain: introduced, vm, name, control/shutdown
//!                     │                                        │
//!                     │ no event accounts for a difference     │ an event came meanwhile
//!                     ▼                                        ▼
//!                   withheld ──all is read──▶ in the list    reported at once, as ever
//! ```
//!
//! A difference from what was reported, for which no event came, is left to the list, so that the driver
//! corrects it as inferred. A difference that an event accounts for never waits for the list. Both go through
//! the same comparison, so the list is at least as new as everything that was reported before it.
//!
//! A verification reads each fact once. It ends however many events come: facts that they mark are read once
//! more, and the list does not wait for those. Events never wait for it: its facts are read when no other is due,
//! and after a few of those in a row.

use super::domains::{DomainEntry, DomainState, FactSet};

#[derive(Debug)]
pub(super) struct Verification {
    pub(super) tag: u64,
    /// The replies to a list that are still to come: one more where one was under way at the beginning, which
    /// is too old.
    pub(super) lists: u8,
    /// Whether an event accounts for new domains.
    pub(super) has_introduction: bool,
    /// Whether an event accounts for domains that have ended.
    pub(super) has_release: bool,
    /// The number of domains with a fact that is still to be read.
    pub(super) unread: usize,
    /// The first domain id of which nothing was requested yet.
    pub(super) next_domid: usize,
}

/// What a verification keeps of one domain.
#[derive(Debug, Default)]
pub(crate) struct EntryCheck {
    /// The facts that are still to be read.
    pub(super) unread: FactSet,
    /// The facts whose request was under way at the beginning: the reply is too old.
    pub(super) stale: FactSet,
    /// Whether an event accounts for what is read from now on.
    pub(super) has_event: bool,
    /// Whether a difference was found that is left to the list.
    pub(super) is_withheld: bool,
}

impl Verification {
    /// Begins to verify a domain.
    pub(super) fn include(&mut self, entry: &mut DomainEntry, domid: u16) {
        let is_pending = !entry.due.with(entry.pending).is_empty();
        let is_incomplete = matches!(entry.state, DomainState::Incomplete { .. });
        entry.check = EntryCheck {
            unread: FactSet::NONE,
            stale: entry.pending,
            // An event has marked what is due or pending; an incomplete domain is reported after a while.
            has_event: is_pending || entry.has_shut_down || is_incomplete,
            is_withheld: false,
        };
        self.must_read(entry, entry.facts_to_verify(domid));
    }

    /// The list waits for these facts.
    pub(super) fn must_read(&mut self, entry: &mut DomainEntry, facts: FactSet) {
        if entry.check.unread.is_empty() && !facts.is_empty() {
            self.unread += 1;
        }
        entry.check.unread = entry.check.unread.with(facts);
    }

    /// This fact was read.
    pub(super) fn is_read(&mut self, entry: &mut DomainEntry, fact: FactSet) {
        let check = &mut entry.check;
        if check.stale.has_any(fact) {
            check.stale = check.stale.without(fact);
        } else if check.unread.has_any(fact) {
            check.unread = check.unread.without(fact);
            self.unread -= usize::from(check.unread.is_empty());
        }
    }

    /// The facts of a domain that no request under way will bring.
    pub(super) fn to_request(entry: &DomainEntry) -> FactSet {
        entry.check.unread.without(entry.pending.without(entry.check.stale))
    }

    /// Whether what is known of this domain is left to the list.
    pub(super) fn withholds(&self, entry: &DomainEntry) -> bool {
        let introduced = entry.introduced == Some(true);
        let begins = introduced && !entry.is_removed && entry.state.run().is_none();
        let ends = !introduced && entry.state.run().is_some();
        let has_event = entry.check.has_event
            || (begins && self.has_introduction)
            || (ends && self.has_release);
        !has_event
    }

    /// Whether everything is read.
    pub(super) fn is_complete(&self) -> bool {
        self.lists == 0 && self.unread == 0
    }
}
