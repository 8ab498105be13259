//! The hosts that a relay speaks of.

use std::collections::BTreeSet;

use virevent::Snapshot;

/// The hosts of the domains in a snapshot.
pub(super) fn hosts_of(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    for stored in snapshot.iter() {
        if !hosts.contains(stored.domain.host()) {
            hosts.insert(stored.domain.host().to_owned());
        }
    }
    hosts
}
