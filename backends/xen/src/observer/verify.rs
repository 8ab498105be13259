//! A list that is asked for while changes are delivered: everything is read from the store again.
//!
//! ```text
//!   request_list ─▶ list, and of each domain: introduced, vm, name, control/shutdown
//!                     │                                        │
//!                     │ nothing accounts for a difference      │ an event came meanwhile
//!                     ▼                                        ▼
//!                   withheld ──all is read──▶ in the list    delivered at once, as ever
//! ```
//!
//! What differs from what was delivered although no event came is left to the list, so that the driver
//! corrects it as inferred. What an event accounts for never waits for the list. Both go through the
//! same comparison, so the list is at least as new as all that was delivered before it.
//!
//! A verification asks each question once. It ends however many events come: what they mark is asked
//! once more, and not waited for. They never wait for it: its questions are asked when no other is to be,
//! and after some of those in a row.

use tokio::time::Instant;
use virevent::driver::Batch;

use super::Observer;
use crate::slot::{Questions, Slot};

#[derive(Debug)]
pub(super) struct Verification {
    tag: u64,
    /// How many lists are still to come: one more where one was under way when it began.
    pub(super) lists: u8,
    /// Whether an event accounts for domains that are new.
    pub(super) began: bool,
    /// Whether an event accounts for domains that have ended.
    pub(super) ended: bool,
    /// How many domains have something that is still to be read.
    unread: usize,
    /// The first domain id of which nothing was asked yet.
    next: usize,
}

impl Observer {
    /// Begins to read everything again.
    pub(super) fn verify(&mut self, tag: u64) {
        let began = self.list_due || self.relist_due || self.list_flying || self.relist.is_some();
        let lists = if self.list_flying { 2 } else { 1 };
        let ended = self.sweep || self.sweeping > 0;
        self.verification = Some(Verification { tag, lists, began, ended, unread: 0, next: 0 });
        self.list_due = true;
        let domids: Vec<_> = self.slots().map(|(domid, _)| domid).collect();
        for domid in domids {
            let Some(slot) = self.slot_mut(domid) else { continue };
            let questions = slot.to_verify(domid);
            slot.stale = slot.flying;
            slot.unread = Questions::NONE;
            slot.withheld = false;
            // What is under way was marked by an event; what is incomplete is delivered after a while.
            slot.heard = !slot.due.with(slot.flying).is_empty()
                || slot.shut_down
                || (slot.since.is_some() && slot.run.is_none());
            self.must_read(domid, questions);
        }
    }

    /// Puts the questions of one more domain into the queue. What events have asked comes first: it would
    /// otherwise wait until all other domains are read.
    pub(super) fn verify_another(&mut self) -> bool {
        self.queued_in_a_row = 0;
        let Some(verification) = &mut self.verification else { return false };
        let rest = self.slots.iter().enumerate().skip(verification.next);
        let mut next = rest.filter_map(|(at, slot)| Some((at, slot.as_deref()?.to_ask_for_list())));
        let Some((at, questions)) = next.find(|(_, questions)| !questions.is_empty()) else {
            verification.next = self.slots.len();
            return false;
        };
        verification.next = at + 1;
        self.mark(at as u16, questions);
        true
    }

    /// The verification, if there is one, waits for answers to these.
    pub(super) fn must_read(&mut self, domid: u16, questions: Questions) {
        let slot = self.slots.get_mut(usize::from(domid)).and_then(Option::as_mut);
        let (Some(verification), Some(slot)) = (&mut self.verification, slot) else { return };
        if slot.unread.is_empty() && !questions.is_empty() {
            verification.unread += 1;
        }
        slot.unread = slot.unread.with(questions);
    }

    /// Something that was read leads to these questions.
    pub(super) fn follow_up(&mut self, domid: u16, questions: Questions) {
        // What events lead to has no end.
        if self.slot(domid).is_some_and(|slot| !slot.heard) {
            self.must_read(domid, questions);
        }
        self.mark(domid, questions);
    }

    /// This was answered.
    pub(super) fn is_read(&mut self, domid: u16, bit: Questions) {
        let slot = self.slots.get_mut(usize::from(domid)).and_then(Option::as_mut);
        let (Some(verification), Some(slot)) = (&mut self.verification, slot) else { return };
        if slot.stale.has_any(bit) {
            // It was asked before the verification began.
            slot.stale = slot.stale.without(bit);
        } else if slot.unread.has_any(bit) {
            slot.unread = slot.unread.without(bit);
            verification.unread -= usize::from(slot.unread.is_empty());
        }
    }

    /// An event accounts for what is read of this domain from now on.
    pub(super) fn heard_of(&mut self, domid: u16) {
        if let Some(slot) = self.slot_mut(domid) {
            slot.heard = true;
        }
    }

    /// Whether what is known of this domain is left to the list.
    pub(super) fn is_withheld(&self, slot: &Slot) -> bool {
        let Some(verification) = &self.verification else { return false };
        let introduced = slot.introduced == Some(true);
        let begins = introduced && !slot.homeless && slot.run.is_none();
        let ends = !introduced && slot.run.is_some();
        !(slot.heard || (begins && verification.began) || (ends && verification.ended))
    }

    /// Answers with the list, once everything is read.
    pub(super) fn finish_verification(&mut self, now: Instant, out: &mut Batch) {
        let is_read =
            |verification: &mut Verification| verification.lists == 0 && verification.unread == 0;
        let Some(verification) = self.verification.take_if(is_read) else { return };
        let withheld = self.slots().filter(|(_, slot)| slot.withheld);
        let withheld: Vec<_> = withheld.map(|(domid, slot)| (domid, slot.heard)).collect();
        for (domid, heard) in withheld {
            // What an event has announced since is not the list's.
            self.quiet = !heard;
            self.judge(domid, now, out);
        }
        self.quiet = false;
        out.listed(verification.tag, self.listed());
        self.told = true;
    }
}
