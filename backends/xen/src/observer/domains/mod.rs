//! The domains: what is known of each, what is still to be read, and what was reported.

mod entry;
mod listed;
mod queue;
mod read;
mod reconcile;
mod release_ledger;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use virevent::Uuid;
use virevent::driver::Listed;

pub(super) use self::entry::{DomainEntry, DomainState, FactSet, WatchState};
use self::entry::{DomainRun, RunProgress};
use self::queue::RequestQueue;
pub(super) use self::read::Found;
pub(super) use self::reconcile::Delivery;
use self::release_ledger::ReleaseLedger;
use super::report::Report;
use super::scan::Scan;
use super::verification::Verification;
use crate::pipeline::Pipeline;
use crate::request::DomainNode;

/// How long a domain may take to have its name and uuid written.
pub(crate) const INCOMPLETE_LIMIT: Duration = Duration::from_secs(5);

/// The runs that the last connection knew, by domain id. The guest acknowledges a request by removing it, and
/// then the store has no trace of it; nor of a name or a uuid that was removed.
#[derive(Debug, Default)]
pub(crate) struct PreviousRuns(HashMap<u16, PreviousRun>);

#[derive(Clone, Debug)]
struct PreviousRun {
    uuid: Uuid,
    name: Box<str>,
    progress: RunProgress,
}

/// All domains, each in a [`DomainState`] of its own.
#[derive(Debug)]
pub(super) struct Domains {
    host: Arc<str>,
    /// Whether domain 0 is reported.
    with_dom0: bool,
    /// Whether requests to guests are reported as events of their own.
    pub(super) reports_requests: bool,
    entries: Vec<Option<Box<DomainEntry>>>,
    queue: RequestQueue,
    /// The number of domains for which `INTRODUCED` is due or pending.
    sweeping: usize,
    /// When a domain that runs and is incomplete is reported as it is.
    deadlines: BTreeSet<(Instant, u16)>,
    /// The domain ids of each uuid, in the order of their starts: one, or two in a migration within the host.
    /// The last is reported.
    runs: HashMap<Uuid, Vec<u16>>,
    pub(super) ledger: ReleaseLedger,
    previous: PreviousRuns,
    /// Whether a node was found that cannot be read.
    has_warned: bool,
}

impl Domains {
    pub(super) fn new(host: Arc<str>, with_dom0: bool, previous: PreviousRuns) -> Self {
        Self {
            host,
            with_dom0,
            reports_requests: false,
            entries: Vec::new(),
            queue: RequestQueue::default(),
            sweeping: 0,
            deadlines: BTreeSet::new(),
            runs: HashMap::new(),
            ledger: ReleaseLedger::default(),
            previous,
            has_warned: false,
        }
    }

    /// Forgets all domains.
    pub(super) fn clear(&mut self) {
        let reports_requests = self.reports_requests;
        let empty = Self::new(Arc::clone(&self.host), self.with_dom0, PreviousRuns::default());
        *self = Self { reports_requests, ..empty };
    }

    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
    }

    pub(super) fn take_previous(&mut self) -> PreviousRuns {
        let mut previous = std::mem::take(&mut self.previous);
        for (domid, entry) in self.entries() {
            // A run that this connection knows is newer than one of the connection before.
            if let Some(DomainRun { domain, progress, .. }) = entry.state.run() {
                let run = PreviousRun {
                    uuid: domain.uuid(),
                    name: domain.name().into(),
                    progress: *progress,
                };
                previous.0.insert(domid, run);
            }
        }
        previous
    }

    /// Marks facts of a domain as due.
    #[inline]
    fn mark(&mut self, domid: u16, facts: FactSet) {
        let Some(entry) = self.entries.get_mut(usize::from(domid)).and_then(Option::as_mut) else {
            return;
        };
        if facts.has_any(FactSet::INTRODUCED) && !entry.awaits(FactSet::INTRODUCED) {
            self.sweeping += 1;
        }
        entry.due = entry.due.with(facts);
        // The guest acknowledges a request by removing the value, perhaps before a long queue is sent. Together with
        // other facts this one is not urgent, but still the first that is read of its domain.
        if facts == FactSet::SHUTDOWN {
            if !std::mem::replace(&mut entry.is_urgent, true) {
                self.queue.urgent.push_back(domid);
            }
        } else if !std::mem::replace(&mut entry.is_queued, true) {
            self.queue.normal.push_back(domid);
        }
    }

    /// Marks facts to which another fact leads, for which a verification waits as well.
    fn follow_up(&mut self, domid: u16, facts: FactSet, verification: Option<&mut Verification>) {
        if let (Some(verification), Some(entry)) = (verification, self.entry_mut(domid)) {
            // Events may lead to ever more facts, and the verification would never end.
            if !entry.check.has_event {
                verification.must_read(entry, facts);
            }
        }
        self.mark(domid, facts);
    }

    /// An event of a watched node.
    #[inline]
    pub(super) fn node_changed(&mut self, domid: u16, node: DomainNode) {
        let fact = FactSet::of(node);
        // An event that was under way when its watch was dropped changes nothing.
        let Some(entry) = self.entry_mut(domid).filter(|entry| entry.wants_watches) else { return };
        // The first event of a watch comes of setting it.
        // Setting a watch is no change, and accounts for none that a verification finds.
        if entry.read.has_all(fact) {
            entry.check.has_event = true;
        }
        self.mark(domid, fact);
    }

    /// The server says that this domain has shut down or ended.
    pub(super) fn shut_down(&mut self, domid: u16) {
        if let Some(entry) = self.entry_mut(domid) {
            entry.has_shut_down = true;
            entry.check.has_event = true;
            self.mark(domid, FactSet::INTRODUCED);
        }
    }

    /// All domains are to be asked whether they are introduced.
    pub(super) fn sweep(&mut self) {
        // A domain whose reply is under way may have been introduced when it was asked.
        let is_present = |entry: &DomainEntry| {
            entry.introduced == Some(true) || entry.pending.has_any(FactSet::INTRODUCED)
        };
        // Domain 0 never ends, and IS_DOMAIN_INTRODUCED is always true of it.
        let present = self.entries().filter(|(domid, entry)| *domid != 0 && is_present(entry));
        let present: Vec<_> = present.map(|(domid, _)| domid).collect();
        for domid in present {
            self.mark(domid, FactSet::INTRODUCED);
        }
    }

    pub(super) fn is_sweeping(&self) -> bool {
        self.sweeping > 0
    }

    /// Begins to verify every domain.
    pub(super) fn include_in(&mut self, verification: &mut Verification) {
        for (domid, entry) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = entry {
                verification.include(entry, domid as u16);
            }
        }
    }

    /// Puts one more domain of a verification into the queue. If all were put there at once, what events
    /// ask would wait until all of them are read.
    fn queue_for(&mut self, verification: &mut Verification) -> bool {
        self.queue.verification_had_its_turn();
        let rest = self.entries.iter().enumerate().skip(verification.next_domid);
        let mut facts = rest
            .filter_map(|(domid, entry)| Some((domid, Verification::to_request(entry.as_ref()?))));
        let Some((domid, facts)) = facts.find(|(_, facts)| !facts.is_empty()) else {
            verification.next_domid = self.entries.len();
            return false;
        };
        verification.next_domid = domid + 1;
        self.mark(domid as u16, facts);
        true
    }

    /// Queues the requests that are due, as far as there is room.
    pub(super) fn send_requests(
        &mut self,
        mut verification: Option<&mut Verification>,
        pipeline: &mut Pipeline,
        now: Instant,
    ) {
        // One request for each reply would be one system call for each: half of them are sent at a time,
        // while the server answers the other half.
        let is_refill = pipeline.is_half_empty();
        while pipeline.has_room() {
            // Urgent requests do not wait for half of the pipeline to be empty.
            let is_urgent = self.queue.is_urgent_next();
            if !is_urgent && !is_refill {
                return;
            }
            let Some(domid) = self.queue.next(is_urgent) else {
                let Some(verification) = verification.as_deref_mut() else { return };
                if !self.queue_for(verification) {
                    return;
                }
                continue;
            };
            let request = self.entry_mut(domid).and_then(|entry| {
                let request = entry.next_request(domid);
                let is_waiting =
                    if is_urgent { &mut entry.is_urgent } else { &mut entry.is_queued };
                *is_waiting = request.is_some();
                request
            });
            match request {
                Some(request) => pipeline.send(request, now),
                // A due fact that is pending is read once more after the reply, which queues it again.
                None => self.queue.pop(is_urgent),
            }
            if let Some(verification) = verification.as_deref_mut() {
                if self.queue.is_verifications_turn() {
                    self.queue_for(verification);
                }
            }
        }
    }

    /// Drops watches, from this domain id on, as far as there is room.
    pub(super) fn unwatch(
        &mut self,
        next_domid: &mut usize,
        pipeline: &mut Pipeline,
        now: Instant,
    ) {
        while let Some(entry) = self.entries.get_mut(*next_domid) {
            if !pipeline.has_room() {
                return;
            }
            let domid = *next_domid as u16;
            // A cursor and not a search from the first: with 10,000 domains that would be quadratic.
            match entry.as_mut().and_then(|entry| entry.next_unwatch(domid)) {
                Some(request) => pipeline.send(request, now),
                None => *next_domid += 1,
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Domains that are incomplete for too long are read again, and reported as they are.
    pub(super) fn ring(&mut self, now: Instant) {
        while let Some((_, domid)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            // Each deadline rings once. What it marks is compared when the replies are there.
            self.deadlines.pop_first();
            let Some(entry) = self.entry_mut(domid) else { continue };
            let DomainState::Incomplete { since } = entry.state else { continue };
            if since + INCOMPLETE_LIMIT <= now && entry.wants_watches {
                entry.is_overdue = true;
                entry.check.has_event = true;
                self.mark(domid, FactSet::NODES);
            }
        }
    }

    /// The first look is over.
    pub(super) fn finish_first_look(&mut self) {
        // Of two runs of one uuid that were there already, the one is reported that comes later in the list:
        // the C xenstored lists directories in the order in which they were made.
        let entries = &self.entries;
        let position = |domid: &u16| {
            entries.get(usize::from(*domid))?.as_ref().map(|entry| entry.list_position)
        };
        // Until now they stand in the order in which their replies came, which is by chance.
        self.runs.values_mut().for_each(|domids| domids.sort_by_key(position));
        // What came until now is all in the list.
        self.ledger = ReleaseLedger::default();
        self.previous = PreviousRuns::default();
    }

    /// What is reported of all domains.
    pub(super) fn listed(&self) -> Vec<Listed> {
        let reported = self.runs.values().filter_map(|runs| self.entry(*runs.last()?)?.state.run());
        // A domain of a store exists only as long as it runs: none is persistent.
        reported
            .map(|run| Listed::new(run.domain.clone(), run.progress.state(), Some(false)))
            .collect()
    }

    /// Reports what a release says of which no domain has ended, once all are examined.
    pub(super) fn settle_releases(&mut self, report: &mut Report<'_>) {
        if self.ledger.is_open() && !self.is_sweeping() && self.ledger.settle() > 0 {
            self.finish_only_run(report);
        }
    }

    /// Compares what the verification that has ended withheld. Its list carries the differences, but for
    /// those that an event has announced since.
    pub(super) fn reconcile_withheld(
        &mut self,
        scan: &mut Scan,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        let withheld = self.entries().filter(|(_, entry)| entry.check.is_withheld);
        let withheld: Vec<_> =
            withheld.map(|(domid, entry)| (domid, entry.check.has_event)).collect();
        // In the order of ids. The driver orders what it derives from the list itself.
        for (domid, has_event) in withheld {
            let delivery = if has_event { Delivery::Events } else { Delivery::List };
            self.reconcile_as(delivery, domid, scan, now, report);
        }
    }

    #[inline]
    fn entry(&self, domid: u16) -> Option<&DomainEntry> {
        self.entries.get(usize::from(domid))?.as_deref()
    }

    #[inline]
    fn entry_mut(&mut self, domid: u16) -> Option<&mut DomainEntry> {
        self.entries.get_mut(usize::from(domid))?.as_deref_mut()
    }

    fn entries(&self) -> impl Iterator<Item = (u16, &DomainEntry)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(domid, entry)| Some((domid as u16, entry.as_deref()?)))
    }
}

#[cfg(test)]
impl Domains {
    /// The lengths of the two queues together.
    pub(super) fn queued(&self) -> usize {
        self.queue.normal.len() + self.queue.urgent.len()
    }
}
