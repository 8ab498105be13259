//! The scan: when the list of domains is read, and what for.

use std::time::Duration;

use tokio::time::Instant;
use virevent::Error;

use super::domains::{Delivery, Domains, INCOMPLETE_LIMIT};
use super::listing::{DirectoryListing, ListStep};
use super::report::Report;
use super::verification::Verification;
use crate::pipeline::{Outcome, Pipeline};
use crate::request::StoreRequest;

/// The delay of the list after an introduction; the next ones wait twice as long each, up to
/// [`INCOMPLETE_LIMIT`].
const RELIST: Duration = Duration::from_millis(100);

/// For so long after an event each reply is read as it comes, for it may belong to the event.
pub(crate) const ATTENTION: Duration = Duration::from_millis(10);

/// What is looked at.
///
/// ```text
///              registered, list requested              list read, all domains examined
///   Waiting ─────────────────────────────▶ FirstLook ─────────────────────────────────▶ Live
///      ▲                                       │                     list requested ▲    │
///      │ watches dropped                       │                          all read  │    ▼
///      └───────────────────────────────────────┴───────────────────────────────── Verifying
/// ```
#[derive(Debug)]
enum Stage {
    /// The watches that name no domain are not set, or the list is not requested.
    Waiting {
        /// The list that the driver has requested.
        tag: Option<u64>,
    },
    /// The domains are examined for the first time: what is found is the list.
    FirstLook {
        tag: u64,
        is_listed: bool,
        /// The number of domains that were not examined yet.
        unexamined: usize,
    },
    /// Changes are reported.
    Live,
    /// Changes are reported, and everything is read again for a list.
    Verifying(Verification),
}

/// Why the list is read. The more important cause is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ListCause {
    /// A domain may get its directory late.
    Relist,
    /// An event, the first look, or a verification.
    Event,
}

/// The lists that follow an introduction.
#[derive(Clone, Copy, Debug)]
struct Relist {
    at: Instant,
    /// The delay of the one after it.
    wait: Duration,
    until: Instant,
}

#[derive(Debug)]
pub(super) struct Scan {
    stage: Stage,
    listing: DirectoryListing,
    list_due: Option<ListCause>,
    list_pending: Option<ListCause>,
    relist: Option<Relist>,
    /// Whether all domains are to be asked whether they are introduced.
    sweep_due: bool,
    last_event: Option<Instant>,
}

impl Scan {
    pub(super) fn waiting(tag: Option<u64>) -> Self {
        Self {
            stage: Stage::Waiting { tag },
            listing: DirectoryListing::default(),
            list_due: None,
            list_pending: None,
            relist: None,
            sweep_due: false,
            last_event: None,
        }
    }

    pub(super) fn request_list(&mut self, tag: u64, domains: &mut Domains) {
        match &mut self.stage {
            Stage::Waiting { tag: requested } => *requested = Some(tag),
            Stage::FirstLook { tag: requested, .. } => *requested = tag,
            Stage::Live | Stage::Verifying(_) => self.verify(tag, domains),
        }
    }

    /// Begins to read everything again.
    fn verify(&mut self, tag: u64, domains: &mut Domains) {
        let is_listing = self.list_pending.is_some();
        let mut verification = Verification {
            tag,
            lists: if is_listing { 2 } else { 1 },
            has_introduction: self.list_due.is_some() || is_listing || self.relist.is_some(),
            has_release: self.sweep_due || domains.is_sweeping(),
            unread: 0,
            next_domid: 0,
        };
        // Before the list is due: its reply may mark further facts.
        domains.include_in(&mut verification);
        self.list_due = Some(ListCause::Event);
        self.stage = Stage::Verifying(verification);
    }

    /// Begins the first look, if the driver has requested the list.
    pub(super) fn start(&mut self) {
        // Only once the special watches are set: a domain that is introduced in between is in the list, or
        // announced, or both.
        if let Stage::Waiting { tag: Some(tag) } = self.stage {
            self.stage = Stage::FirstLook { tag, is_listed: false, unexamined: 0 };
            self.list_due = Some(ListCause::Event);
        }
    }

    /// The list that the driver has requested, while the first look has not begun.
    pub(super) fn list_tag(&self) -> Option<u64> {
        if let Stage::Waiting { tag } = self.stage { tag } else { None }
    }

    /// Whether anything is looked at.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::Waiting { .. })
    }

    #[inline]
    pub(super) fn verification(&mut self) -> Option<&mut Verification> {
        if let Stage::Verifying(verification) = &mut self.stage { Some(verification) } else { None }
    }

    /// Where a difference goes that a comparison finds.
    #[inline]
    pub(super) fn delivery(&self) -> Delivery {
        match self.stage {
            Stage::Waiting { .. } | Stage::FirstLook { .. } => Delivery::FirstList,
            Stage::Live | Stage::Verifying(_) => Delivery::Events,
        }
    }

    pub(super) fn is_patient(&self, now: Instant) -> bool {
        // After an event the session reads each reply as it comes, for some belong to the event.
        matches!(self.stage, Stage::Verifying(_))
            && self.last_event.is_none_or(|at| at + ATTENTION <= now)
    }

    #[inline]
    pub(super) fn note_event(&mut self, now: Instant) {
        self.last_event = Some(now);
    }

    pub(super) fn children_changed(&mut self) {
        self.list_due = Some(ListCause::Event);
        if let Some(verification) = self.verification() {
            verification.has_introduction = true;
        }
    }

    pub(super) fn introduced(&mut self, now: Instant) {
        // The event comes before the toolstack has written everything, and may come before it has written anything.
        self.children_changed();
        let until = now + INCOMPLETE_LIMIT;
        self.relist = Some(Relist { at: now + RELIST, wait: RELIST * 2, until });
    }

    /// A domain was released, and the event names it.
    pub(super) fn released_by_name(&mut self) {
        self.list_due = Some(ListCause::Event);
    }

    /// Some domain was released.
    pub(super) fn released(&mut self) {
        self.list_due = Some(ListCause::Event);
        self.sweep_due = true;
        if let Some(verification) = self.verification() {
            verification.has_release = true;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.relist.map(|relist| relist.at)
    }

    pub(super) fn ring(&mut self, now: Instant) {
        // Only timers lead here: an introduction without a directory fires no further event.
        let Some(relist) = self.relist.filter(|relist| relist.at <= now) else { return };
        self.list_due = self.list_due.max(Some(ListCause::Relist));
        // The last list is read at the very end.
        self.relist = (relist.at < relist.until).then(|| Relist {
            at: (relist.at + relist.wait).min(relist.until),
            wait: relist.wait * 2,
            until: relist.until,
        });
    }

    /// Queues requests, as far as there is room.
    pub(super) fn send_requests(
        &mut self,
        domains: &mut Domains,
        pipeline: &mut Pipeline,
        now: Instant,
    ) {
        if !self.is_active() {
            return;
        }
        // Before the list: a domain that has ended and is still listed is found by the sweep alone.
        if std::mem::take(&mut self.sweep_due) {
            domains.sweep();
        }
        // One list at a time: the parts of two lists could not be told apart. An event meanwhile makes the next
        // one due.
        if self.list_due.is_some() && self.list_pending.is_none() && pipeline.has_room() {
            self.list_pending = self.list_due.take();
            pipeline.send(self.listing.begin(), now);
        }
        domains.send_requests(self.verification(), pipeline, now);
    }

    /// Takes in a reply to a request for the list.
    ///
    /// # Errors
    /// The server cannot list the domains, or breaks the protocol.
    pub(super) fn list_replied(
        &mut self,
        request: StoreRequest,
        outcome: Outcome<'_>,
        pipeline: &mut Pipeline,
        now: Instant,
    ) -> Result<Option<Vec<u16>>, Error> {
        match self.listing.answer(request, outcome)? {
            ListStep::Send(next) => pipeline.send(next, now),
            ListStep::Done(domids) => return Ok(Some(domids)),
        }
        Ok(None)
    }

    /// These are the domains that the store has a directory for.
    pub(super) fn listed(
        &mut self,
        domids: &[u16],
        domains: &mut Domains,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        // The list has ended, and a list that became due meanwhile may begin.
        let cause = self.list_pending.take();
        if let Stage::FirstLook { is_listed, .. } = &mut self.stage {
            *is_listed = true;
        }
        // A directory that goes is announced by its nodes. If it was not, a verification finds out.
        if cause != Some(ListCause::Relist) {
            // First those that are gone: an ended run is reported before the run that replaces it.
            domains.missing_from(domids, self, now, report);
        }
        domains.listed_are(domids, self, now, report);
        if let Some(verification) = self.verification() {
            verification.lists = verification.lists.saturating_sub(1);
        }
    }

    /// The verification, while its own list is still to come. Events have the domains listed again and again,
    /// and the facts that those lists lead to are not the verification's.
    pub(super) fn verification_of_list(&mut self) -> Option<&mut Verification> {
        self.verification().filter(|verification| verification.lists > 0)
    }

    /// A domain was found.
    pub(super) fn domain_added(&mut self) {
        if let Stage::FirstLook { unexamined, .. } = &mut self.stage {
            *unexamined += 1;
        }
    }

    /// A domain was examined for the first time, or removed before that.
    pub(super) fn domain_examined(&mut self) {
        if let Stage::FirstLook { unexamined, .. } = &mut self.stage {
            *unexamined = unexamined.saturating_sub(1);
        }
    }

    /// Ends the first look once all domains are examined. Returns the tag of the list.
    pub(super) fn finish_first_look(&mut self) -> Option<u64> {
        let Stage::FirstLook { tag, is_listed: true, unexamined: 0 } = self.stage else {
            return None;
        };
        self.stage = Stage::Live;
        Some(tag)
    }

    /// Answers with the list, once everything is read.
    pub(super) fn finish_verification(
        &mut self,
        domains: &mut Domains,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        let Stage::Verifying(verification) = &self.stage else { return };
        if !verification.is_complete() {
            return;
        }
        let tag = verification.tag;
        // The stage comes first: withheld domains are compared as if no verification were under way.
        self.stage = Stage::Live;
        domains.reconcile_withheld(self, now, report);
        report.listed(tag, domains.listed());
    }

    /// Whether every domain that an event may be about is examined.
    pub(super) fn has_looked(&self) -> bool {
        let is_live = matches!(self.stage, Stage::Live | Stage::Verifying(_));
        // Before that, a release could be attributed to a domain whose end is only not read yet. A list by the
        // clock is not about a release.
        let is_list_due = self.list_due == Some(ListCause::Event);
        is_live && !is_list_due && self.list_pending.is_none() && !self.sweep_due
    }
}

#[cfg(test)]
impl Scan {
    pub(super) fn state(&self) -> &'static str {
        match self.stage {
            Stage::Waiting { .. } => "registered",
            Stage::FirstLook { .. } => "first look",
            Stage::Live => "live",
            Stage::Verifying(_) => "verifying",
        }
    }
}
