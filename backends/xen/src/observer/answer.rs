//! What an answer says, and what is to be asked next.

use tokio::time::Instant;
use virevent::Error;
use virevent::driver::Batch;

use super::Observer;
use super::phase::Phase;
use super::verify::Verification;
use crate::client::{Outcome, protocol, server_error};
use crate::decode::{self, Request};
use crate::listing::Step;
use crate::request::{Ask, Node, Target};
use crate::slot::{Questions, Slot, Watch};
use crate::wire::error;

/// What a read found.
#[derive(Clone, Copy)]
enum Found<'a> {
    Value(&'a [u8]),
    /// There is no such node.
    Nothing,
    /// There may be one, but the server does not show it.
    Unreadable,
}

impl Observer {
    pub(super) fn answer(
        &mut self,
        ask: Ask,
        outcome: Outcome<'_>,
        now: Instant,
        out: &mut Batch,
    ) -> Result<(), Error> {
        accepted(ask, outcome)?;
        match ask {
            Ask::Features => self.features(outcome),
            Ask::Reset => self.reset(ask, outcome)?,
            // Any answer will do.
            Ask::Probe => {}
            Ask::Watch(target, _) => self.watched(ask, target, outcome)?,
            Ask::Unwatch(target) => self.unwatched(ask, target, outcome)?,
            // Nobody wants to know any more.
            _ if !matches!(self.phase, Phase::Listing | Phase::Telling) => {}
            Ask::List | Ask::ListPart(_) => match self.listing.answer(ask, outcome)? {
                Step::Ask(next) => self.client.ask(next, now),
                Step::Done(domids) => self.listed_are(&domids, now, out),
            },
            Ask::IsIntroduced(domid) => {
                let said = match outcome {
                    Ok(b"T\0" | b"T") => true,
                    Ok(b"F\0" | b"F") => false,
                    Ok(_) => {
                        return Err(protocol(format!("neither T nor F to a {}", ask.to_line())));
                    }
                    Err(name) => return Err(server_error(ask, name)),
                };
                self.introduced(domid, said, now);
                self.judge(domid, now, out);
            }
            Ask::ReadHome(domid) => {
                let found = self.found(ask, outcome);
                if let Some(slot) = self.answered(domid, Questions::HOME) {
                    let homeless = match found {
                        Found::Value(_) => false,
                        Found::Nothing => domid != 0,
                        Found::Unreadable => slot.homeless,
                    };
                    let before = std::mem::replace(&mut slot.homeless, homeless);
                    slot.note(Questions::HOME, before == homeless);
                }
                self.judge(domid, now, out);
            }
            Ask::Read(domid, node) => {
                let found = self.found(ask, outcome);
                self.read(domid, node, found);
                self.judge(domid, now, out);
            }
        }
        Ok(())
    }

    /// What the answer to a read says. One node that cannot be read is no reason to lose sight of all
    /// the other domains.
    fn found<'a>(&mut self, ask: Ask, outcome: Outcome<'a>) -> Found<'a> {
        match outcome {
            Ok(value) => Found::Value(value),
            Err(name) if name == error::ENOENT.as_bytes() => Found::Nothing,
            Err(name) => {
                // Once is enough: the node is read at each event that it has.
                if !std::mem::replace(&mut self.warned, true) {
                    let error = server_error(ask, name);
                    tracing::warn!(%error, "what cannot be read of a domain is taken for unknown");
                }
                Found::Unreadable
            }
        }
    }

    /// What was asked of the domain is answered.
    fn answered(&mut self, domid: u16, bit: Questions) -> Option<&mut Slot> {
        self.is_read(domid, bit);
        let slot = self.slots.get_mut(usize::from(domid))?.as_deref_mut()?;
        slot.flying = slot.flying.without(bit);
        if bit == Questions::INTRODUCED && !slot.due.has_any(bit) {
            self.sweeping -= 1;
        }
        // It is to be asked once more.
        if slot.due.has_any(Questions::SHUTDOWN) && !std::mem::replace(&mut slot.urgent, true) {
            self.urgent.push_back(domid);
        }
        if !slot.due.is_empty() && !std::mem::replace(&mut slot.queued, true) {
            self.queue.push_back(domid);
        }
        Some(slot)
    }

    fn introduced(&mut self, domid: u16, introduced: bool, now: Instant) {
        let verifies = self.verification.is_some();
        let Some(slot) = self.answered(domid, Questions::INTRODUCED) else { return };
        let before = slot.introduced.replace(introduced);
        slot.note(Questions::INTRODUCED, before == Some(introduced));
        let unread = Questions::NODES.without(slot.read);
        let is_silent = verifies && !slot.heard;
        match (before == Some(true), introduced) {
            (false, true) => {
                self.ledger.appeared(now);
                // Not left to the events that its watches fire: where one was lost, others may be.
                if is_silent {
                    self.follow_up(domid, unread);
                }
            }
            (true, false) => self.ledger.ended(now),
            _ => {}
        }
    }

    fn read(&mut self, domid: u16, node: Node, found: Found<'_>) {
        let Some(slot) = self.answered(domid, Questions::of(node)) else { return };
        let value = match found {
            Found::Value(value) => Some(value),
            Found::Nothing | Found::Unreadable => None,
        };
        // What cannot be read is not about to be written, and is not waited for.
        slot.late |= matches!(found, Found::Unreadable) && node != Node::Shutdown;
        let was_read = slot.read.has_all(Questions::of(node));
        slot.read = slot.read.with(Questions::of(node));
        let is_same = match node {
            Node::Vm => {
                let uuid = value.and_then(decode::uuid);
                std::mem::replace(&mut slot.uuid, uuid) == uuid
            }
            // Most often it is the same, which is known without making another.
            Node::Name if slot.name.as_deref().map(str::as_bytes) == value => true,
            Node::Name => {
                let name = value.and_then(decode::name).map(String::into_boxed_str);
                let before = std::mem::replace(&mut slot.name, name);
                before == slot.name
            }
            Node::Shutdown => {
                slot.request = Request::read(value.unwrap_or_default());
                true
            }
        };
        slot.note(Questions::of(node), is_same && was_read);
        // A whole domain that is removed fires no watch of its own, nor does one that is written anew:
        // only those on its nodes do.
        if slot.homeless == value.is_some() && node != Node::Shutdown {
            self.follow_up(domid, Questions::HOME);
        }
    }

    fn watched(&mut self, ask: Ask, target: Target, outcome: Outcome<'_>) -> Result<(), Error> {
        let Target::Domain(domid, node) = target else {
            let place = Target::SPECIAL.iter().position(|special| *special == target);
            return self.special_watched(ask, place.unwrap_or_default(), outcome);
        };
        // The event that it fires at once has the node read. So a change after that read fires anew; one
        // before it may have been dropped, for it looks like the first. One that is there already fires
        // nothing.
        let due = match outcome {
            Ok(_) => Questions::NONE,
            Err(name) if name == error::EEXIST.as_bytes() => Questions::of(node),
            Err(name) => return Err(server_error(ask, name)),
        };
        if let Some(slot) = self.slot_mut(domid) {
            *slot.watch(node) = Watch::On;
            self.mark(domid, due);
        }
        Ok(())
    }

    fn unwatched(&mut self, ask: Ask, target: Target, outcome: Outcome<'_>) -> Result<(), Error> {
        match outcome {
            Ok(_) => {}
            Err(name) if name == error::ENOENT.as_bytes() => {}
            Err(name) => return Err(server_error(ask, name)),
        }
        match target {
            Target::Domain(domid, node) => {
                if let Some(slot) = self.slot_mut(domid) {
                    *slot.watch(node) = Watch::Off;
                    slot.read = slot.read.without(Questions::of(node));
                    // It may be wanted again, or for nothing any more.
                    self.mark(domid, Questions::NONE);
                    self.sweep_out(domid);
                }
            }
            special => {
                let place = Target::SPECIAL.iter().position(|other| *other == special);
                self.specials[place.unwrap_or_default()] = Watch::Off;
            }
        }
        Ok(())
    }

    /// These are the domains that the store has a place for.
    fn listed_are(&mut self, domids: &[u16], now: Instant, out: &mut Batch) {
        self.list_flying = false;
        self.was_listed = true;
        let mut sorted = domids.to_vec();
        sorted.sort_unstable();
        // A place that goes is announced by its nodes; if nothing was, a verification finds out.
        let mut missing: Vec<_> = self.slots().map(|(domid, _)| domid).collect();
        let is_whole = !self.is_relist;
        missing.retain(|domid| is_whole && *domid != 0 && sorted.binary_search(domid).is_err());
        for domid in missing {
            let Some(slot) = self.slot_mut(domid) else { continue };
            slot.listed = false;
            match slot.introduced {
                Some(true) if !slot.homeless => self.mark_listed(domid, Questions::HOME),
                _ => self.judge(domid, now, out),
            }
        }
        let dom0 = self.with_dom0.then_some(0);
        let others = domids.iter().copied().filter(|domid| *domid != 0);
        for (place, domid) in dom0.into_iter().chain(others).enumerate() {
            self.listed_is(domid, place, now, out);
        }
        if let Some(verification) = &mut self.verification {
            verification.lists = verification.lists.saturating_sub(1);
        }
    }

    /// The list leads to these questions.
    fn mark_listed(&mut self, domid: u16, bits: Questions) {
        // Events have the domains listed again and again: only its own list is the verification's.
        if self.verification.as_ref().is_some_and(|verification| verification.lists > 0) {
            self.follow_up(domid, bits);
        } else {
            self.mark(domid, bits);
        }
    }

    fn listed_is(&mut self, domid: u16, place: usize, now: Instant, out: &mut Batch) {
        let at = usize::from(domid);
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        // Of a list that an event has asked for nothing is withheld.
        let is_silent = |verification: &Verification| verification.lists > 0 && !verification.began;
        let heard = !self.verification.as_ref().is_some_and(is_silent);
        let slot = self.slots[at].get_or_insert_with(|| {
            self.unseen += 1;
            Box::new(Slot { place, heard, ..Slot::default() })
        });
        slot.listed = true;
        let due = match (slot.introduced, slot.homeless) {
            // Domain 0 is always there.
            (None, _) if domid == 0 => {
                slot.introduced = Some(true);
                return self.judge(domid, now, out);
            }
            (_, true) => Questions::HOME.with(Questions::INTRODUCED),
            (Some(true), false) => return,
            _ => Questions::INTRODUCED,
        };
        self.mark_listed(domid, due);
    }
}

/// What is done and tells nothing is answered by `OK`, and by nothing else: whoever sends something else
/// is no store, and must not pass for an empty one.
fn accepted(ask: Ask, outcome: Outcome<'_>) -> Result<(), Error> {
    let is_done = matches!(ask, Ask::Watch(..) | Ask::Unwatch(_) | Ask::Reset);
    match outcome {
        Ok(said) if is_done && !matches!(said, b"OK\0" | b"OK") => {
            Err(protocol(format!("not OK to a {}", ask.to_line())))
        }
        _ => Ok(()),
    }
}
