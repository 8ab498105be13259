//! The looking: which domains there are, how they are, and what changed. Without I/O.
//!
//! # What is watched
//!
//! `@introduceDomain` and `@releaseDomain`, which name no domain, and three nodes of each domain that
//! runs: `vm`, `name`, `control/shutdown`. A watch on `/local/domain` would do with one in place of
//! three a domain, but it fires for every write of every guest to any node of its own, device states and
//! statistics among them: that flood would have to be sent by the daemon and read by us to tell nothing.
//! The price is paid by the daemon, which goes through all watches at each write: three more for each
//! domain, where its own drivers set tens. It also goes through all of a connection's watches to set one
//! more: those of 1,000 domains take a C xenstored 0.4 s, of 3,000 2.5 s, of 10,000 a minute. That is why
//! the first look may take longer than any one answer.
//!
//! # How it is looked
//!
//! ```text
//!   watch event ──▶ due ──(64 in flight)──▶ asked ──reply──▶ settled? ──▶ judged ──▶ told
//!                    ▲                        │
//!                    └── event meanwhile ─────┘ asked once more
//! ```
//!
//! An event says only that something may have changed, and identical ones are dropped while one waits.
//! So an event marks what is to be read anew, and nothing else: however many come, they take no memory,
//! and no reply waits for them. What is read is compared with what was told. No transaction is needed for
//! the values of one domain to be of one moment: a change after a read is announced before the reply to
//! the next read, so a domain is judged only when nothing of it is due or asked any more.
//!
//! A domain runs while the store has a place for it and it is introduced. What is introduced first and
//! gets its place later announces nothing but `@introduceDomain`: so the list is asked for several times
//! more in the 5 s after one. A watch on the children of `/local/domain` alone, which new daemons can have,
//! is no substitute: it is not fired by a place that is made by writing into it.
//!
//! One whose place goes while it stays introduced has stopped, and its watches stay: a number that is used
//! again is not introduced anew, and nothing but those tells that there is a place again.
//!
//! `@releaseDomain` does not say whose: all domains are asked whether they are still introduced, once for
//! however many events came. A daemon that offers it names the domain, and then only that one is asked.

mod answer;
mod judge;
mod phase;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use virevent::driver::{Batch, Interest};
use virevent::{Error, Kind, Uuid};

use self::phase::Phase;
use self::verify::Verification;
use crate::client::{Client, protocol};
use crate::decode::{REQUEST_EVENT, domid};
use crate::ledger::Ledger;
use crate::listing::Listing;
use crate::request::Target;
use crate::slot::{Course, Questions, Run, Slot, Watch};
use crate::wire::{Operation, Packet, WatchEvent};

/// How long a domain may take to be wholly written.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// When to list again after an introduction; then after twice that, and so on up to [`LIMIT`].
const RELIST: Duration = Duration::from_millis(100);

/// After so many domains whose request is read first another has its turn.
const URGENT_IN_A_ROW: u32 = 16;

/// After so many domains of which events have something read the verification has its turn.
const QUEUED_IN_A_ROW: u32 = 4;

/// How long after an event its consequences are not kept waiting.
pub(crate) const ATTENTION: Duration = Duration::from_millis(10);

/// What outlives a connection: the run that each number had. The guest takes note of a request by
/// removing it, and then the store does not tell it any more; nor a name or a uuid that is not written.
#[derive(Debug, Default)]
pub(crate) struct Past(HashMap<u16, PastRun>);

#[derive(Clone, Debug)]
struct PastRun {
    uuid: Uuid,
    name: Box<str>,
    course: Course,
}

#[derive(Debug)]
pub(crate) struct Observer {
    host: Arc<str>,
    /// Whether domain 0 is told of.
    with_dom0: bool,
    is_device: bool,
    pub(crate) client: Client,
    phase: Phase,
    /// A change of interest that is not confirmed, and what cannot be had of it.
    interest: Option<(u64, Vec<Kind>)>,
    /// A list that is not answered.
    list_tag: Option<u64>,
    /// Whether requests to guests are wanted as events of their own.
    wants_requests: bool,
    /// Whether the server is to be asked whether it lives.
    probe: bool,
    /// Whether watches can be held to a depth, and then name the domain.
    has_depth: bool,
    /// Of [`Target::SPECIAL`].
    specials: [Watch; 3],
    /// Whether the event that each of those fires when it is set is still to come.
    initial: [bool; 3],

    slots: Vec<Option<Box<Slot>>>,
    /// Domains of which something is to be asked, each once.
    queue: VecDeque<u16>,
    /// Domains whose request is to be read before all that, each once.
    urgent: VecDeque<u16>,
    urgent_in_a_row: u32,
    /// How many others were asked since the verification had its turn.
    queued_in_a_row: u32,
    /// When the last event came.
    last_event: Option<Instant>,
    listing: Listing,
    list_due: bool,
    list_flying: bool,
    /// Whether the list is to be asked for by the clock: for domains that get a place late.
    relist_due: bool,
    /// Whether that is all that the list under way is for.
    is_relist: bool,
    /// Whether there was a list since the last registration.
    was_listed: bool,
    /// When to list again, after how long once more, and until when.
    relist: Option<(Instant, Duration, Instant)>,
    /// All domains are to be asked whether they are introduced.
    sweep: bool,
    /// How many domains are to be asked that, or were.
    sweeping: usize,
    /// How many domains were not looked at yet.
    unseen: usize,
    /// When domains that run and are not wholly known are told as they are: each once at most.
    limits: BTreeSet<(Instant, u16)>,
    /// The runs of each uuid: one, but two in a migration within the host. The last is told.
    runs: HashMap<Uuid, Vec<u16>>,
    ledger: Ledger,
    past: Past,
    /// What is read again for a list, and not answered.
    verification: Option<Verification>,
    /// Whether what changed is left to a list.
    quiet: bool,
    /// Whether it was said that a node cannot be read.
    warned: bool,
    /// Whether anything was put into the batch.
    told: bool,
}

impl Observer {
    pub(crate) fn new(host: Arc<str>, with_dom0: bool, is_device: bool, past: Past) -> Self {
        Self {
            host,
            with_dom0,
            is_device,
            client: Client::new(is_device),
            phase: Phase::Idle,
            interest: None,
            list_tag: None,
            wants_requests: false,
            probe: false,
            has_depth: false,
            specials: [Watch::Off; 3],
            initial: [false; 3],
            slots: Vec::new(),
            queue: VecDeque::new(),
            urgent: VecDeque::new(),
            urgent_in_a_row: 0,
            queued_in_a_row: 0,
            last_event: None,
            listing: Listing::default(),
            list_due: false,
            list_flying: false,
            relist_due: false,
            is_relist: false,
            was_listed: false,
            relist: None,
            sweep: false,
            sweeping: 0,
            unseen: 0,
            limits: BTreeSet::new(),
            runs: HashMap::new(),
            ledger: Ledger::default(),
            past,
            verification: None,
            quiet: false,
            warned: false,
            told: false,
        }
    }

    pub(crate) fn set_interest(&mut self, interest: &Interest, tag: u64) {
        let request = Kind::Named(REQUEST_EVENT.into());
        self.wants_requests = interest.contains(&request);
        let lacks = |kind: &&Kind| match kind {
            Kind::Lifecycle | Kind::Other => false,
            kind => **kind != request,
        };
        self.interest = Some((tag, interest.kinds().iter().filter(lacks).cloned().collect()));
        match (interest.is_empty(), self.phase) {
            (false, Phase::Idle) => self.phase = Phase::Features,
            (true, Phase::Idle) | (false, _) => {}
            (true, _) => self.close(),
        }
    }

    /// The first time the domains are listed as they are found; then a list verifies.
    pub(crate) fn request_list(&mut self, tag: u64) {
        match self.phase {
            Phase::Telling => self.verify(tag),
            _ => self.list_tag = Some(tag),
        }
    }

    pub(crate) fn ping(&mut self) {
        self.probe = true;
    }

    /// Whether anything was told since this was asked last.
    pub(crate) fn take_told(&mut self) -> bool {
        std::mem::take(&mut self.told)
    }

    /// What the next connection is to know.
    pub(crate) fn take_past(&mut self) -> Past {
        let mut past = std::mem::take(&mut self.past);
        for (domid, slot) in self.slots() {
            if let Some(Run { domain, course, .. }) = &slot.run {
                let (uuid, name, course) = (domain.uuid(), domain.name().into(), *course);
                past.0.insert(domid, PastRun { uuid, name, course });
            }
        }
        past
    }

    /// Takes in a packet.
    ///
    /// # Errors
    /// It is not what a server says, or says that it cannot do what must be done.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        packet: &Packet<'_>,
        now: Instant,
        out: &mut Batch,
    ) -> Result<(), Error> {
        if packet.header.operation == Operation::WATCH_EVENT {
            let event = WatchEvent::read(packet).map_err(|error| protocol(error.to_string()))?;
            self.event(&event, now);
            return Ok(());
        }
        if packet.header.transaction != 0 {
            let transaction = packet.header.transaction;
            return Err(protocol(format!(
                "an answer within transaction {transaction} of ours: we have none"
            )));
        }
        let (ask, outcome) = self.client.answered(packet, now)?;
        self.answer(ask, outcome, now, out)
    }

    /// Whether all that is under way is a verification's: no subscriber waits for the replies.
    pub(crate) fn is_patient(&self, now: Instant) -> bool {
        self.verification.is_some()
            && self.phase == Phase::Telling
            && self.last_event.is_none_or(|at| at + ATTENTION <= now)
    }

    fn event(&mut self, event: &WatchEvent<'_>, now: Instant) {
        self.last_event = Some(now);
        let Some(target) = Target::of_token(event.token) else {
            tracing::debug!(token = ?event.token, "passed over an event of no watch of ours");
            return;
        };
        match target {
            Target::Domain(domid, node) => {
                // One that was under way when its watch was removed changes nothing.
                let bits = Questions::of(node);
                if self.slot(domid).is_some_and(|slot| slot.wanted) {
                    // The first comes of setting the watch.
                    if self.slot(domid).is_some_and(|slot| slot.read.has_all(bits)) {
                        self.heard_of(domid);
                    }
                    self.mark(domid, bits);
                }
            }
            Target::Children => {
                self.list_due = true;
                self.began();
            }
            Target::Introduced => {
                self.list_due = true;
                self.began();
                if !std::mem::take(&mut self.initial[0]) {
                    self.ledger.introduced(now);
                }
                self.relist = Some((now + RELIST, RELIST * 2, now + LIMIT));
            }
            Target::Released => {
                let initial = std::mem::take(&mut self.initial[1]);
                match event.path.strip_prefix(b"@releaseDomain/").and_then(domid) {
                    Some(domid) => {
                        self.list_due = true;
                        if let Some(slot) = self.slot_mut(domid) {
                            slot.shut_down = true;
                            slot.heard = true;
                            self.mark(domid, Questions::INTRODUCED);
                        }
                    }
                    None => {
                        self.sweep = true;
                        self.list_due = true;
                        if let Some(verification) = &mut self.verification {
                            verification.ended = true;
                        }
                        if !initial {
                            self.ledger.released(now);
                        }
                    }
                }
            }
        }
    }

    /// An event accounts for domains that are new.
    fn began(&mut self) {
        if let Some(verification) = &mut self.verification {
            verification.began = true;
        }
    }

    /// When something is to be done although nothing comes; the first of all.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let limit = self.limits.first().map(|(at, _)| *at);
        let relist = self.relist.map(|(at, ..)| at);
        limit.into_iter().chain(relist).chain(self.client.overdue_at(timeout)).min()
    }

    /// Does what is due by the clock.
    ///
    /// # Errors
    /// The server has not answered a request in time.
    pub(crate) fn ring(&mut self, now: Instant, timeout: Duration) -> Result<(), Error> {
        if self.client.overdue_at(timeout).is_some_and(|at| at <= now) {
            let call = self.client.oldest().and_then(|ask| ask.operation().name());
            return Err(Error::Timeout { call: call.unwrap_or("a request"), after: timeout });
        }
        if let Some((at, wait, until)) = self.relist.filter(|(at, ..)| *at <= now) {
            self.relist_due = true;
            // The last look is at the very end.
            self.relist = (at < until).then(|| ((at + wait).min(until), wait * 2, until));
        }
        while let Some((_, domid)) = self.limits.first().copied().filter(|(at, _)| *at <= now) {
            self.limits.pop_first();
            let Some(slot) = self.slot_mut(domid) else { continue };
            let is_late = slot.since.is_some_and(|since| since + LIMIT <= now);
            if is_late && slot.run.is_none() && slot.wanted {
                slot.late = true;
                slot.heard = true;
                self.mark(domid, Questions::NODES);
            }
        }
        Ok(())
    }

    /// Asks what is to be asked, as far as there is room.
    fn ask(&mut self, now: Instant) {
        if std::mem::take(&mut self.sweep) {
            // One whose answer is under way may have been introduced when it was asked.
            let is_there = |slot: &Slot| {
                slot.introduced == Some(true) || slot.flying.has_any(Questions::INTRODUCED)
            };
            let there = self.slots().filter(|(domid, slot)| *domid != 0 && is_there(slot));
            let there: Vec<_> = there.map(|(domid, _)| domid).collect();
            there.into_iter().for_each(|domid| self.mark(domid, Questions::INTRODUCED));
        }
        let is_due = self.list_due || self.relist_due;
        if is_due && !self.list_flying && self.client.has_room() {
            self.is_relist = !self.list_due;
            self.list_due = false;
            self.relist_due = false;
            self.list_flying = true;
            let ask = self.listing.begin();
            self.client.ask(ask, now);
        }
        // One request for each answer would be one system call for each: half of them go at a time,
        // while the server has the other half to answer.
        let is_refill = self.client.is_half_empty();
        while self.client.has_room() {
            // Guests that write requests all the time must not keep all the others waiting.
            let is_urgent = !self.urgent.is_empty()
                && (self.queue.is_empty() || self.urgent_in_a_row < URGENT_IN_A_ROW);
            if !is_urgent && !is_refill {
                return;
            }
            let queue = if is_urgent { &mut self.urgent } else { &mut self.queue };
            let Some(domid) = queue.front().copied() else {
                if self.verify_another() {
                    continue;
                }
                return;
            };
            let ask = self.slot_mut(domid).and_then(|slot| {
                let ask = slot.next_ask(domid);
                let waits = if is_urgent { &mut slot.urgent } else { &mut slot.queued };
                *waits = ask.is_some();
                ask
            });
            match ask {
                Some(ask) => self.client.ask(ask, now),
                // What is asked already is asked once more when its answer is there.
                None if is_urgent => {
                    self.urgent.pop_front();
                    self.urgent_in_a_row += 1;
                }
                None => {
                    self.queue.pop_front();
                    self.urgent_in_a_row = 0;
                    self.queued_in_a_row += 1;
                    // Events that never stop do not keep a verification from its end.
                    if self.queued_in_a_row >= QUEUED_IN_A_ROW {
                        self.verify_another();
                    }
                }
            }
        }
    }

    /// These are to be asked of the domain.
    #[inline]
    fn mark(&mut self, domid: u16, bits: Questions) {
        let Some(slot) = self.slots.get_mut(usize::from(domid)).and_then(Option::as_mut) else {
            return;
        };
        if bits.has_any(Questions::INTRODUCED) && !slot.awaits(Questions::INTRODUCED) {
            self.sweeping += 1;
        }
        slot.due = slot.due.with(bits);
        // A guest may take note of a request in no time: it does not wait for all the others.
        if bits == Questions::SHUTDOWN {
            if !std::mem::replace(&mut slot.urgent, true) {
                self.urgent.push_back(domid);
            }
        } else if !std::mem::replace(&mut slot.queued, true) {
            self.queue.push_back(domid);
        }
    }

    fn slot(&self, domid: u16) -> Option<&Slot> {
        self.slots.get(usize::from(domid))?.as_deref()
    }

    fn slot_mut(&mut self, domid: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(domid))?.as_deref_mut()
    }

    fn slots(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(domid, slot)| Some((domid as u16, slot.as_deref()?)))
    }
}

#[cfg(test)]
impl Observer {
    /// The name of the main state, for the table of states.
    fn state(&self) -> &'static str {
        match (self.phase, self.verification.is_some()) {
            (Phase::Idle, _) => "idle",
            (Phase::Features, _) => "features",
            (Phase::Watching, _) => "watching",
            (Phase::Registered, _) => "registered",
            (Phase::Listing, _) => "first look",
            (Phase::Telling, false) => "live",
            (Phase::Telling, true) => "verifying",
            (Phase::Closing, _) => "closing",
            (Phase::Unwatching, _) => "unwatching",
        }
    }
}
