//! The observer: which domains there are, how they are, and what changed. Without I/O.
//!
//! # What is watched
//!
//! `@introduceDomain` and `@releaseDomain`, which name no domain, and three nodes of each running domain:
//! `vm`, `name`, `control/shutdown`. One watch on `/local/domain` would be enough, but it fires for every write
//! of every guest to any node of its own, such as device states and statistics. The daemon would send
//! all of that, and this process would read it, for no event. The daemon pays for the chosen watches: it goes
//! through all watches at each write, three more for each domain, where its own drivers set tens. It also
//! goes through all watches of a connection to set one more: those of 1,000 domains take a C xenstored
//! 0.4 s, of 3,000 2.5 s, of 10,000 a minute. That is why the first look may take longer than one reply.
//!
//! # How changes are found
//!
//! ```text
//!   watch event ──▶ due ──(64 in flight)──▶ pending ──reply──▶ settled? ──▶ reconciled ──▶ reported
//!                    ▲                          │
//!                    └── event meanwhile ───────┘ read once more
//! ```
//!
//! An event says only that something may have changed, and the daemon drops one that equals a queued one.
//! So an event marks facts as due for reading, and nothing else: any number of events takes no memory, and no
//! reply waits for them. What is read is compared with what was reported. No transaction is needed to read the
//! values of one domain as of one moment: the daemon announces a change after a read before its reply to the
//! next read, so a domain is reconciled only when nothing of it is due or pending.
//!
//! # Who decides what
//!
//! ```text
//!                    ┌─ Registration  the watches that name no domain; features; the way back
//!   event, reply ────┼─ Scan          when the list is read; first look or verification
//!                    └─ Domains       what is known of each domain, what is due, what was reported
//! ```
//!
//! This file and [`answer`] only route each event and reply to one of the three.
//!
//! # When the list is read
//!
//! A domain runs while the store has a directory for it and it is introduced. A domain that is introduced first
//! and gets its directory later announces nothing but `@introduceDomain`: so the list is read several times
//! in the 5 s after that event. A watch on the children of `/local/domain` alone, which new daemons offer, does
//! not replace this: it does not fire for a directory that is created by a write below it.
//!
//! A domain whose directory goes while it stays introduced has stopped, and its watches stay: reuse of its
//! number fires no `@introduceDomain`, and only those watches announce the new directory.
//!
//! `@releaseDomain` does not name the domain: all domains are asked whether they are still introduced, once for
//! any number of events. A daemon that offers depths names the domain, and only that one is asked.

mod answer;
mod domains;
mod listing;
mod registration;
mod report;
mod scan;
#[cfg(test)]
mod tests;
mod verification;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use virevent::driver::{Batch, Interest};
use virevent::{Error, Kind};

use self::domains::Domains;
pub(crate) use self::domains::PreviousRuns;
use self::registration::Registration;
use self::report::Report;
#[cfg(test)]
pub(crate) use self::scan::ATTENTION;
use self::scan::Scan;
use crate::decode::{REQUEST_EVENT, domid};
use crate::pipeline::{Pipeline, protocol};
use crate::request::{StoreRequest, WatchTarget};
use crate::wire::{Operation, Packet, WatchEvent};

#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) pipeline: Pipeline,
    registration: Registration,
    scan: Scan,
    domains: Domains,
    /// Whether to send the server a request that any server answers.
    probe_due: bool,
}

impl Observer {
    pub(crate) fn new(
        host: Arc<str>,
        with_dom0: bool,
        is_device: bool,
        previous: PreviousRuns,
    ) -> Self {
        Self {
            pipeline: Pipeline::new(is_device),
            registration: Registration::new(is_device),
            scan: Scan::waiting(None),
            domains: Domains::new(host, with_dom0, previous),
            probe_due: false,
        }
    }

    pub(crate) fn set_interest(&mut self, interest: &Interest, tag: u64) {
        let request = Kind::Named(REQUEST_EVENT.into());
        self.domains.reports_requests = interest.contains(&request);
        let lacks = |kind: &&Kind| match kind {
            Kind::Lifecycle | Kind::Other => false,
            kind => **kind != request,
        };
        let refused = interest.kinds().iter().filter(lacks).cloned().collect();
        self.registration.set_interest(interest, tag, refused);
        if interest.is_empty() && self.registration.is_closing() {
            self.scan = Scan::waiting(None);
            self.domains.clear_queue();
        }
    }

    /// The first list is what the first look finds. A later one verifies.
    pub(crate) fn request_list(&mut self, tag: u64) {
        self.scan.request_list(tag, &mut self.domains);
    }

    pub(crate) fn ping(&mut self) {
        self.probe_due = true;
    }

    /// What the next connection is to know.
    pub(crate) fn take_previous(&mut self) -> PreviousRuns {
        self.domains.take_previous()
    }

    /// Whether a verification is all that is under way: no subscriber waits for the replies.
    pub(crate) fn is_patient(&self, now: Instant) -> bool {
        self.scan.is_patient(now)
    }

    /// Does what is possible without another reply, and queues the next requests. Returns whether anything
    /// was reported.
    pub(crate) fn pump(&mut self, now: Instant, out: &mut Batch) -> bool {
        let mut report = Report::new(out);
        if self.registration.is_registered() {
            self.scan.start();
        }
        // The order matters: a stage ends with replies, and the next one sends its requests in the same pump. The list
        // is reported before what changes after it.
        self.registration.advance(&mut self.pipeline, now);
        if self.registration.unwatch(&mut self.domains, &mut self.pipeline, now) {
            self.forget();
        }
        self.registration.confirm(&mut report);
        self.scan.send_requests(&mut self.domains, &mut self.pipeline, now);
        if let Some(tag) = self.scan.finish_first_look() {
            self.domains.finish_first_look();
            report.listed(tag, self.domains.listed());
        }
        self.scan.finish_verification(&mut self.domains, now, &mut report);
        if self.scan.has_looked() {
            self.domains.settle_releases(&mut report);
        }
        // A pending request is a probe as good as any.
        if std::mem::take(&mut self.probe_due) && self.pipeline.is_idle() {
            self.pipeline.send(StoreRequest::Probe, now);
        }
        report.is_used()
    }

    /// Takes in a packet.
    ///
    /// # Errors
    /// It is not what a server sends, or says that the server cannot do what must be done.
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
                "a reply within transaction {transaction}, and this client starts none"
            )));
        }
        let (request, outcome) = self.pipeline.answered(packet, now)?;
        self.answer(request, outcome, now, &mut Report::new(out))
    }

    fn event(&mut self, event: &WatchEvent<'_>, now: Instant) {
        // Events of unknown watches count as well: the daemon is busy with changes.
        self.scan.note_event(now);
        let Some(target) = WatchTarget::of_token(event.token) else {
            tracing::debug!(token = ?event.token, "ignored an event of an unknown watch");
            return;
        };
        match target {
            WatchTarget::Domain(domid, node) => self.domains.node_changed(domid, node),
            WatchTarget::Children => self.scan.children_changed(),
            WatchTarget::Introduced => {
                if !self.registration.is_initial_event(target) {
                    self.domains.ledger.introduced(now);
                }
                self.scan.introduced(now);
            }
            WatchTarget::Released => {
                let is_initial = self.registration.is_initial_event(target);
                // With depth 1 the path ends with the domain id, since Xen 4.22.
                if let Some(domid) = event.path.strip_prefix(b"@releaseDomain/").and_then(domid) {
                    self.scan.released_by_name();
                    self.domains.shut_down(domid);
                } else {
                    self.scan.released();
                    if !is_initial {
                        self.domains.ledger.released(now);
                    }
                }
            }
        }
    }

    /// The first time at which something is to be done although no packet comes.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let deadlines =
            [self.domains.deadline(), self.scan.deadline(), self.pipeline.overdue_at(timeout)];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due by the clock.
    ///
    /// # Errors
    /// The server has not replied to a request in time.
    pub(crate) fn ring(&mut self, now: Instant, timeout: Duration) -> Result<(), Error> {
        if self.pipeline.overdue_at(timeout).is_some_and(|at| at <= now) {
            let call = self.pipeline.oldest().and_then(|request| request.operation().name());
            return Err(Error::timeout(call.unwrap_or("a request"), timeout));
        }
        self.scan.ring(now);
        self.domains.ring(now);
        Ok(())
    }

    /// Forgets all that is known: no watch is set, so nothing announces a change of it.
    fn forget(&mut self) {
        self.registration.reset();
        self.scan = Scan::waiting(self.scan.list_tag());
        self.domains.clear();
    }
}

#[cfg(test)]
impl Observer {
    /// The name of the main state.
    fn state(&self) -> &'static str {
        match self.registration.state() {
            "registered" => self.scan.state(),
            state => state,
        }
    }
}
