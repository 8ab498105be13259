//! The status of a fleet, from those of its members.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{StreamExt, StreamMap};

use super::Shared;
use crate::{Error, Health, Status};

/// A change of what the status is made of.
pub(super) enum MemberChange {
    Added(Arc<str>, Health),
    Removed(Arc<str>),
}

/// Starts the task that keeps the status, until the fleet is dropped or shut down.
pub(super) fn spawn(
    runtime: &Handle,
    fleet: &Arc<Shared>,
    members: Vec<(Arc<str>, Health)>,
) -> mpsc::UnboundedSender<MemberChange> {
    let (changes, receiver) = mpsc::unbounded_channel();
    for (uri, health) in members {
        // The receiver is at hand.
        let _ = changes.send(MemberChange::Added(uri, health));
    }
    runtime.spawn(keep(Arc::downgrade(fleet), receiver));
    changes
}

async fn keep(fleet: Weak<Shared>, mut changes: mpsc::UnboundedReceiver<MemberChange>) {
    let mut updates = StreamMap::new();
    let mut statuses = BTreeMap::new();
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(MemberChange::Added(uri, health)) => {
                    statuses.insert(Arc::clone(&uri), health.status());
                    updates.insert(uri, WatchStream::new(health.into_status()));
                }
                Some(MemberChange::Removed(uri)) => {
                    statuses.remove(&uri);
                    updates.remove(&uri);
                }
                // The fleet is gone, or was shut down.
                None => return,
            },
            Some((uri, status)) = updates.next(), if !updates.is_empty() => {
                statuses.insert(uri, status);
            }
        }
        let Some(fleet) = fleet.upgrade() else { return };
        let state = fleet.lock();
        // Its last status is set by the shutdown.
        if state.is_shut_down {
            return;
        }
        let status = status_of(&statuses);
        fleet.status.send_if_modified(|known| {
            let is_changed = *known != status;
            if is_changed {
                *known = status;
            }
            is_changed
        });
    }
}

/// What is still under way decides; then what is reachable; then the first outage. A member that was
/// shut down, or has ended, is unreachable.
fn status_of(statuses: &BTreeMap<Arc<str>, Status>) -> Status {
    let has = |wanted: &Status| statuses.values().any(|status| status == wanted);
    for status in [Status::Connecting, Status::Syncing, Status::Synced] {
        if has(&status) {
            return status;
        }
    }
    if has(&Status::Idle) {
        return Status::Idle;
    }
    let lost = statuses.values().map(|status| match status {
        Status::Ended => Status::Disconnected(Error::DriverEnded.to_fault()),
        Status::Shutdown => Status::Disconnected(Error::Shutdown.to_fault()),
        status => status.clone(),
    });
    lost.max_by_key(|status| matches!(status, Status::Disconnected(_))).unwrap_or(Status::Synced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, FaultKind};

    #[test]
    fn the_status_of_a_fleet_is_that_of_what_is_reachable() {
        let lost = || Status::Disconnected(Fault::new(FaultKind::Closed, "hung up"));
        let table = [
            (vec![], Status::Synced),
            (vec![Status::Idle, Status::Idle], Status::Idle),
            (vec![Status::Synced, lost()], Status::Synced),
            (vec![Status::Synced, Status::Connecting], Status::Connecting),
            (vec![Status::Synced, Status::Syncing, lost()], Status::Syncing),
            (vec![lost(), lost()], lost()),
            (vec![Status::Shutdown, lost()], lost()),
            (vec![Status::Shutdown], Status::Disconnected(Error::Shutdown.to_fault())),
        ];
        for (statuses, expected) in table {
            let statuses = statuses.into_iter().enumerate();
            let statuses = statuses.map(|(n, status)| (n.to_string().into(), status)).collect();
            assert_eq!(status_of(&statuses), expected, "{statuses:?}");
        }
    }
}
