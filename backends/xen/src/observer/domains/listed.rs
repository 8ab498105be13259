//! What a list says of the domains.

use tokio::time::Instant;

use super::{DomainEntry, Domains, FactSet};
use crate::observer::report::Report;
use crate::observer::scan::Scan;

impl Domains {
    /// The domains that are known and not in the list.
    pub(in crate::observer) fn missing_from(
        &mut self,
        domids: &[u16],
        scan: &mut Scan,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        let mut sorted = domids.to_vec();
        sorted.sort_unstable();
        let mut missing: Vec<_> = self.entries().map(|(domid, _)| domid).collect();
        missing.retain(|domid| *domid != 0 && sorted.binary_search(domid).is_err());
        // The list is a hint. Only reading the domain itself decides whether it has ended.
        for domid in missing {
            let Some(entry) = self.entry_mut(domid) else { continue };
            entry.is_listed = false;
            match entry.introduced {
                // The list may be older than the directory.
                Some(true) if !entry.is_removed => {
                    self.mark_listed(domid, FactSet::DIRECTORY, scan);
                }
                _ => self.reconcile(domid, scan, now, report),
            }
        }
    }

    /// The domains in the list.
    pub(in crate::observer) fn listed_are(
        &mut self,
        domids: &[u16],
        scan: &mut Scan,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        let dom0 = self.with_dom0.then_some(0);
        let others = domids.iter().copied().filter(|domid| *domid != 0);
        // Domain 0 is in the list of a real host, and not in that of a bare xenstored.
        for (position, domid) in dom0.into_iter().chain(others).enumerate() {
            self.listed_is(domid, position, scan, now, report);
        }
    }

    fn listed_is(
        &mut self,
        domid: u16,
        position: usize,
        scan: &mut Scan,
        now: Instant,
        report: &mut Report<'_>,
    ) {
        let at = usize::from(domid);
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        let entry = self.entries[at].get_or_insert_with(|| {
            scan.domain_added();
            let mut entry = DomainEntry { list_position: position, ..DomainEntry::default() };
            // Nothing is withheld that a list has found which an event has caused.
            let verification = scan.verification_of_list();
            entry.check.has_event =
                verification.is_none_or(|verification| verification.has_introduction);
            Box::new(entry)
        });
        entry.is_listed = true;
        let due = match (entry.introduced, entry.is_removed) {
            // Domain 0 always exists.
            (None, _) if domid == 0 => {
                entry.introduced = Some(true);
                return self.reconcile(domid, scan, now, report);
            }
            (_, true) => FactSet::DIRECTORY.with(FactSet::INTRODUCED),
            (Some(true), false) => return,
            _ => FactSet::INTRODUCED,
        };
        self.mark_listed(domid, due, scan);
    }

    /// Marks facts to which the list leads.
    fn mark_listed(&mut self, domid: u16, facts: FactSet, scan: &mut Scan) {
        // Events have the domains listed again and again: facts of those lists do not hold up a verification.
        self.follow_up(domid, facts, scan.verification_of_list());
    }
}
