//! How far a registration is, and the way back.
//!
//! ```text
//!   Idle ─▶ Features ─▶ Watching ─▶ Registered ─▶ Listing ─▶ Telling
//!    ▲                                                │          │
//!    └── Unwatching (one by one, if need be) ◀─ Closing ◀────────┘   nobody listens
//! ```

use tokio::time::Instant;
use virevent::Error;
use virevent::driver::{Batch, Listed};

use super::Observer;
use crate::client::{Outcome, server_error};
use crate::ledger::Ledger;
use crate::request::{Ask, Node, Target};
use crate::slot::Watch;
use crate::wire::error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is watched.
    Idle,
    /// To ask, or asked, what the server can.
    Features,
    /// The watches that name no domain are being set.
    Watching,
    /// They are set.
    Registered,
    /// The domains are looked at for the first time: what is found is told as the list.
    Listing,
    /// What changes is told.
    Telling,
    /// Nobody listens any more: as soon as all is answered the watches are dropped.
    Closing,
    /// They are dropped one by one.
    Unwatching,
}

/// The feature bit of watches that can be held to a depth: `XENSTORE_SERVER_FEATURE_WATCHDEPTH` in Xen's
/// `xs_wire.h`.
const WATCH_DEPTH: u64 = 4;

impl Observer {
    /// Does what there is to do without another answer, and asks what is next.
    pub(crate) fn pump(&mut self, now: Instant, out: &mut Batch) {
        match self.phase {
            Phase::Features if self.client.is_quiet() => self.client.ask(Ask::Features, now),
            Phase::Watching => self.watch_specials(now),
            Phase::Registered if self.list_tag.is_some() => {
                (self.phase, self.list_due) = (Phase::Listing, true);
            }
            Phase::Closing if self.client.is_quiet() && !self.is_device => {
                self.client.ask(Ask::Reset, now);
            }
            Phase::Closing if self.client.is_quiet() => self.unwatch_all(),
            _ => {}
        }
        match self.phase {
            Phase::Idle | Phase::Registered | Phase::Telling | Phase::Listing => self.confirm(out),
            Phase::Unwatching => self.unwatch(now),
            _ => {}
        }
        if matches!(self.phase, Phase::Listing | Phase::Telling) {
            self.ask(now);
        }
        if self.phase == Phase::Listing && self.was_listed && self.unseen == 0 {
            self.phase = Phase::Telling;
            self.order_runs();
            // What came until now is all in the list.
            self.ledger = Ledger::default();
            self.past = super::Past::default();
        }
        if self.phase == Phase::Telling {
            self.finish_verification(now, out);
            if let Some(tag) = self.list_tag.take() {
                out.listed(tag, self.listed());
                self.told = true;
            }
            let is_looked =
                !self.list_due && !self.list_flying && !self.sweep && self.sweeping == 0;
            if self.ledger.is_open() && is_looked && self.ledger.settle() > 0 {
                self.finish_the_only_one(out);
            }
        }
        if std::mem::take(&mut self.probe) && self.client.is_quiet() {
            self.client.ask(Ask::Probe, now);
        }
    }

    fn confirm(&mut self, out: &mut Batch) {
        if let Some((tag, refused)) = self.interest.take() {
            out.interest_done(tag, &refused);
            self.told = true;
        }
    }

    /// Of two runs of one uuid that were there already the one is told that comes later in the list of
    /// the store: the C daemon lists places in the order in which they were made.
    fn order_runs(&mut self) {
        let slots = &self.slots;
        let place = |domid: &u16| slots.get(usize::from(*domid))?.as_ref().map(|slot| slot.place);
        self.runs.values_mut().for_each(|domids| domids.sort_by_key(place));
    }

    pub(super) fn listed(&self) -> Vec<Listed> {
        let told = self.runs.values().filter_map(|runs| self.slot(*runs.last()?)?.run.as_ref());
        // What a Xen store knows exists for as long as it runs.
        told.map(|run| Listed::new(run.domain.clone(), run.course.state(), Some(false))).collect()
    }

    pub(super) fn features(&mut self, outcome: Outcome<'_>) {
        if self.phase != Phase::Features {
            return;
        }
        // Whatever error an older server has for a question that it does not know.
        let bits = outcome.ok().and_then(|text| {
            std::str::from_utf8(text.strip_suffix(b"\0").unwrap_or(text)).ok()?.parse::<u64>().ok()
        });
        // A kernel passes on no more of a watch than its path.
        self.has_depth = !self.is_device && bits.is_some_and(|bits| bits & WATCH_DEPTH != 0);
        self.phase = Phase::Watching;
    }

    fn watch_specials(&mut self, now: Instant) {
        let depth = self.has_depth.then_some(1);
        for (place, target) in Target::SPECIAL.into_iter().enumerate() {
            let is_wanted = target != Target::Children || self.has_depth;
            if is_wanted && self.specials[place] == Watch::Off && self.client.has_room() {
                self.specials[place] = Watch::Setting;
                self.initial[place] = true;
                self.client.ask(Ask::Watch(target, depth), now);
            }
        }
        let settled = |place: usize| self.specials[place] == Watch::On;
        if settled(0) && settled(1) && (settled(2) || !self.has_depth) {
            self.phase = Phase::Registered;
        }
    }

    pub(super) fn special_watched(
        &mut self,
        ask: Ask,
        place: usize,
        outcome: Outcome<'_>,
    ) -> Result<(), Error> {
        self.specials[place] = match outcome {
            Ok(_) => Watch::On,
            // It is there already, and fires nothing now.
            Err(name) if name == error::EEXIST.as_bytes() => {
                (self.initial[place], self.list_due) = (false, true);
                Watch::On
            }
            // It offers what it does not have.
            Err(name)
                if name == error::EINVAL.as_bytes() && matches!(ask, Ask::Watch(_, Some(_))) =>
            {
                self.has_depth = false;
                Watch::Off
            }
            Err(name) => return Err(server_error(ask, name)),
        };
        Ok(())
    }

    /// Nobody listens any more.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closing;
        self.list_tag = None;
        self.verification = None;
        self.queue.clear();
        self.urgent.clear();
    }

    /// The answer to a reset of all watches.
    pub(super) fn reset(&mut self, ask: Ask, outcome: Outcome<'_>) -> Result<(), Error> {
        match outcome {
            Ok(_) => self.forget(),
            Err(name) if name == error::ENOSYS.as_bytes() => self.unwatch_all(),
            Err(name) => return Err(server_error(ask, name)),
        }
        Ok(())
    }

    /// Begins to drop the watches one by one. Nothing is under way: each is set or is not.
    fn unwatch_all(&mut self) {
        self.phase = Phase::Unwatching;
        self.queue = self.slots().map(|(domid, _)| domid).collect();
    }

    fn unwatch(&mut self, now: Instant) {
        for (place, target) in Target::SPECIAL.into_iter().enumerate() {
            if self.specials[place] == Watch::On && self.client.has_room() {
                self.specials[place] = Watch::Clearing;
                self.client.ask(Ask::Unwatch(target), now);
            }
        }
        while let Some(domid) = self.queue.front().copied().filter(|_| self.client.has_room()) {
            let watched = self.slot_mut(domid).and_then(|slot| {
                let node = Node::ALL.into_iter().find(|node| *slot.watch(*node) == Watch::On)?;
                *slot.watch(node) = Watch::Clearing;
                Some(node)
            });
            match watched {
                Some(node) => self.client.ask(Ask::Unwatch(Target::Domain(domid, node)), now),
                None => drop(self.queue.pop_front()),
            }
        }
        // There is room for one at least: so all are off.
        if self.client.is_quiet() {
            self.forget();
        }
    }

    /// No watch is set: what was known is of no use.
    fn forget(&mut self) {
        let client =
            std::mem::replace(&mut self.client, crate::client::Client::new(self.is_device));
        let fresh =
            Self::new(self.host.clone(), self.with_dom0, self.is_device, super::Past::default());
        let interest = self.interest.take();
        let (list_tag, wants_requests) = (self.list_tag, self.wants_requests);
        *self = Self { client, interest, list_tag, wants_requests, ..fresh };
    }
}
