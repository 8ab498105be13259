//! The comparison of what is known of a domain with what was reported of it.

use tokio::time::Instant;
use virevent::{Change, Domain, Lifecycle, ShutdownCause, Uuid};

use super::entry::{DomainRun, RunProgress};
use super::{
    DomainEntry, DomainState, Domains, FactSet, INCOMPLETE_LIMIT, PreviousRun, WatchState,
};
use crate::decode::{self, Request};
use crate::observer::report::Report;
use crate::observer::scan::Scan;

/// Where the differences go that a comparison finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::observer) enum Delivery {
    /// Into the first list.
    FirstList,
    /// Into the list of a verification.
    List,
    /// To the driver, at once.
    Events,
}

impl Domains {
    /// Compares what is known of a domain with what was reported, and reports the difference.
    #[inline]
    pub(in crate::observer) fn reconcile(
        &mut self,
        domid: u16,
        scan: &mut Scan,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        self.reconcile_as(scan.delivery(), domid, scan, now, report);
    }

    #[inline]
    pub(super) fn reconcile_as(
        &mut self,
        delivery: Delivery,
        domid: u16,
        scan: &mut Scan,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        // Taken out meanwhile, for the comparison may report another run of the same uuid.
        let taken = self.entries.get_mut(usize::from(domid)).and_then(Option::take);
        let Some(mut entry) = taken else { return };
        let was_examined = entry.is_examined;
        let mut comparison = Comparison { domains: self, delivery, domid, now, report };
        comparison.run(&mut entry, scan);
        if entry.is_examined && !was_examined {
            scan.domain_examined();
        }
        self.entries[usize::from(domid)] = Some(entry);
        self.remove_if_unused(domid, scan);
    }

    /// Reports that the only domain has shut down, if it was asked to.
    ///
    /// A release that no ending explains says that some domain shut down and still exists, or nothing. With
    /// several domains, or one that was not asked, reporting it would be a guess.
    pub(super) fn finish_only_run(&mut self, report: &mut Report<'_>) {
        let mut running =
            self.entries().filter(|(domid, entry)| *domid != 0 && entry.introduced == Some(true));
        let (Some((domid, _)), None) = (running.next(), running.next()) else { return };
        drop(running);
        let Some(run) = self.entry_mut(domid).and_then(|entry| entry.state.run_mut()) else {
            return;
        };
        if run.progress.is_asked && !std::mem::replace(&mut run.progress.is_finished, true) {
            report_finished(run, report);
        }
    }

    /// Forgets a domain id that no domain has, once nothing is under way for it.
    #[inline]
    pub(super) fn remove_if_unused(&mut self, domid: u16, scan: &mut Scan) {
        let Some(place) = self.entries.get_mut(usize::from(domid)) else { return };
        let removed = place.take_if(|entry| {
            let is_present = entry.is_listed || entry.introduced == Some(true);
            !is_present && entry.is_idle() && entry.state.run().is_none()
        });
        if removed.is_some_and(|entry| !entry.is_examined) {
            scan.domain_examined();
        }
    }
}

/// The comparison of one domain, whose entry is taken out.
struct Comparison<'a, 'b> {
    domains: &'a mut Domains,
    delivery: Delivery,
    domid: u16,
    now: Instant,
    report: &'a mut Report<'b>,
}

impl Comparison<'_, '_> {
    #[inline]
    fn run(&mut self, entry: &mut DomainEntry, scan: &mut Scan) {
        // With a fact of the identity due or pending, the facts may be of two domains.
        if !entry.is_identity_settled() {
            return;
        }
        let Some(introduced) = entry.introduced else { return };
        // Also without a directory: the number may be reused without an introduction, and only the watches of
        // its nodes announce that.
        entry.wants_watches = introduced;
        let unlike = if introduced { WatchState::Off } else { WatchState::On };
        if entry.watches.contains(&unlike) && !std::mem::replace(&mut entry.is_queued, true) {
            self.domains.queue.normal.push_back(self.domid);
        }
        let is_gone = !introduced || entry.is_removed;
        // An end needs no further fact. A start needs the values of all nodes, read since they are watched: a value
        // read before could have changed without an event.
        if !is_gone {
            if matches!(entry.state, DomainState::Absent) {
                self.begin_deadline(entry);
            }
            if !entry.read.has_all(FactSet::NODES) {
                return;
            }
        }
        // The first look waits for this, and not for names and uuids that are never written.
        entry.is_examined = true;
        let verification = scan.verification();
        entry.check.is_withheld =
            verification.is_some_and(|verification| verification.withholds(entry));
        if entry.check.is_withheld {
            return;
        }
        if is_gone {
            // The announcement was of the end, and is not to be reported of the next domain with this number.
            entry.has_shut_down = false;
            self.end(entry);
            return;
        }
        // In this order: a request belongs to the run that has just begun.
        self.identify(entry);
        self.follow_request(entry);
    }

    /// The domain is present from now on: when it is reported even if it is incomplete.
    fn begin_deadline(&mut self, entry: &mut DomainEntry) {
        entry.state = DomainState::Incomplete { since: self.now };
        self.domains.deadlines.insert((self.now + INCOMPLETE_LIMIT, self.domid));
    }

    /// Compares the identity with that of the reported run.
    fn identify(&mut self, entry: &mut DomainEntry) {
        let uuid = if self.domid == 0 { Some(Uuid::nil()) } else { entry.uuid };
        if let Some(run) = entry.state.run() {
            if uuid.is_some_and(|uuid| uuid != run.domain.uuid()) {
                // Another domain has this number now.
                // The driver must receive the end first: both runs have the same id.
                self.end(entry);
                self.begin_deadline(entry);
            }
        }
        if entry.state.run().is_some() {
            self.rename(entry);
        } else if let Some(domain) = self.new_domain(entry, uuid) {
            self.begin(entry, domain);
        }
    }

    /// The identity of a domain that is not reported, once it is complete or overdue.
    fn new_domain(&mut self, entry: &DomainEntry, uuid: Option<Uuid>) -> Option<Domain> {
        // What is not written is as it was before the connection, if it is the same run.
        let previous = self.previous_run();
        let previous = previous.filter(|run| uuid.is_none_or(|uuid| uuid == run.uuid));
        let uuid = uuid.or(previous.map(|run| run.uuid));
        let name = entry.name.clone().or_else(|| Some(previous?.name.clone()));
        // The request may be the one to the domain that had this number before.
        let is_request_read = entry.is_settled(FactSet::SHUTDOWN);
        let is_complete = uuid.is_some() && name.is_some() && is_request_read;
        // The identity of domain 0 is known without the store.
        if !is_complete && !entry.is_overdue && self.domid != 0 {
            return None;
        }
        let uuid = uuid.unwrap_or_else(|| decode::uuid_of(&self.domains.host, self.domid));
        let name = name.unwrap_or_else(|| decode::name_of(self.domid).into());
        Some(self.report.domain(uuid, &name, self.domid))
    }

    fn rename(&mut self, entry: &mut DomainEntry) {
        let Some(run) = entry.state.run_mut() else { return };
        // A name that is removed is about to be written again, or the whole directory is.
        let Some(name) = entry.name.as_deref().filter(|name| *name != run.domain.name()) else {
            return;
        };
        run.domain = self.report.domain(run.domain.uuid(), name, self.domid);
        let domain = run.domain.clone();
        let state = run.progress.state();
        if self.is_reported(domain.uuid()) {
            self.report.state(domain, state);
        }
    }

    /// The run that the last connection knew, during the first look.
    fn previous_run(&self) -> Option<&PreviousRun> {
        let previous = self.domains.previous.0.get(&self.domid);
        previous.filter(|_| self.delivery == Delivery::FirstList)
    }

    /// Begins a run.
    fn begin(&mut self, entry: &mut DomainEntry, domain: Domain) {
        let uuid = domain.uuid();
        let progress = RunProgress::default();
        let mut run = DomainRun { domain, progress, request: Request::Nothing };
        if self.delivery == Delivery::FirstList {
            let previous = self.previous_run().filter(|previous| previous.uuid == uuid);
            run.progress = previous.map(|previous| previous.progress).unwrap_or_default();
            run.progress.is_asked |= entry.request.is_ending();
            run.request = entry.request.clone();
        }
        let runs = self.domains.runs.entry(uuid).or_default();
        let before = runs.last().copied();
        // Also in the first look, where the list decides the order when it ends.
        runs.push(self.domid);
        if self.delivery == Delivery::Events {
            // Of one uuid the driver knows one run, so the earlier one has to end first.
            // A migration within the host: from now on the domain is the one that it goes to.
            let before = before.and_then(|before| self.domains.entry(before)?.state.run());
            if let Some(before) = before {
                self.report.gone(&before.domain, decode::stop_cause(before.progress.is_asked));
            }
            self.report.state(run.domain.clone(), run.progress.state());
        }
        let since = entry.state.since().unwrap_or(self.now);
        entry.state = DomainState::Running { since, run };
    }

    /// Ends the run of this domain id, if there is one.
    fn end(&mut self, entry: &mut DomainEntry) {
        let state = std::mem::take(&mut entry.state);
        if let Some(since) = state.since() {
            self.domains.deadlines.remove(&(since + INCOMPLETE_LIMIT, self.domid));
        }
        entry.is_overdue = false;
        let DomainState::Running { run, .. } = state else { return };
        let uuid = run.domain.uuid();
        // Asked before the run is removed: only the last of its uuid was reported.
        let was_reported = self.is_reported(uuid);
        let left = self.domains.runs.get_mut(&uuid).and_then(|runs| {
            runs.retain(|other| *other != self.domid);
            runs.last().copied()
        });
        if left.is_none() {
            self.domains.runs.remove(&uuid);
        }
        if !was_reported {
            return;
        }
        self.report.gone(&run.domain, decode::stop_cause(run.progress.is_asked));
        // A migration within the host has failed, or its source is gone: the other run is the domain now.
        if let Some(left) = left.and_then(|left| self.domains.entry(left)?.state.run()) {
            self.report.state(left.domain.clone(), left.progress.state());
        }
    }

    /// Whether a change of this domain's run is reported at once: of two runs of one uuid only the last is.
    #[inline]
    fn is_reported(&self, uuid: Uuid) -> bool {
        let is_last = |runs: &Vec<u16>| runs.last() == Some(&self.domid);
        self.delivery == Delivery::Events && self.domains.runs.get(&uuid).is_some_and(is_last)
    }

    /// Compares what the host asks of the guest, and whether the guest has shut down.
    fn follow_request(&mut self, entry: &mut DomainEntry) {
        let has_shut_down = std::mem::take(&mut entry.has_shut_down);
        let Some(run) = entry.state.run_mut() else { return };
        let is_reported = self.is_reported(run.domain.uuid());
        if run.request != entry.request {
            run.request = entry.request.clone();
            if run.request.is_ending() {
                // How far the guest came after the request before has no meaning any more.
                run.progress = RunProgress { is_asked: true, is_finished: false };
            }
            if is_reported {
                self.report_request(run);
            }
        }
        if has_shut_down && !std::mem::replace(&mut run.progress.is_finished, true) && is_reported {
            report_finished(run, self.report);
        }
    }

    fn report_request(&mut self, run: &DomainRun) {
        if run.request.is_ending() {
            let at = self.report.received();
            // First the change of state, and then the word: readers that know only lifecycle events need nothing else.
            let change = Change::ShuttingDown(ShutdownCause::Host);
            self.report.event(Lifecycle::new(run.domain.clone(), change, at));
        }
        if self.domains.reports_requests && run.request != Request::Nothing {
            self.report.request(&run.domain, &run.request);
        }
    }
}

fn report_finished(run: &DomainRun, report: &mut Report<'_>) {
    let change = Change::ShuttingDown(ShutdownCause::Finished);
    let at = report.received();
    report.event(Lifecycle::new(run.domain.clone(), change, at));
}
