//! Why a host is unreachable: a host may have several reasons at once, and is reachable when it has
//! none.

use std::collections::BTreeMap;
use std::sync::Arc;

use virevent::{Fault, FaultKind};

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// The relay's source reports a gap.
    Relayed,
    /// The relay has not been synced since it began.
    Unsynced,
    /// The relay has ended, or sends no heartbeats.
    Silent,
}

impl Reason {
    /// The fault of a gap for this reason.
    pub(super) fn fault(self, relay: &str) -> Fault {
        match self {
            Self::Relayed => Fault::new(FaultKind::Unreachable, "the relay reports a gap"),
            Self::Unsynced => Fault::new(
                FaultKind::Closed,
                &format!("the relay {relay} began, and is not synced yet"),
            ),
            Self::Silent => {
                Fault::new(FaultKind::Timeout, &format!("the relay {relay} has fallen silent"))
            }
        }
    }
}

/// What becomes of a host by a change of reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Lost(Arc<str>, Fault),
    Restored(Arc<str>),
}

/// The hosts of one relay, each with its reasons.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<Arc<str>, BTreeMap<Reason, Fault>>,
    /// The reasons that hold for every host of the relay, later ones too.
    all: BTreeMap<Reason, Fault>,
}

impl Hosts {
    /// The relay speaks of this host.
    pub(super) fn add(&mut self, host: &str) -> Option<Turn> {
        if self.hosts.contains_key(host) {
            return None;
        }
        let host = Arc::<str>::from(host);
        self.hosts.insert(Arc::clone(&host), self.all.clone());
        self.all.values().next().map(|fault| Turn::Lost(host, fault.clone()))
    }

    /// A reason begins for one host.
    pub(super) fn lose(&mut self, host: &str, reason: Reason, fault: Fault) -> Option<Turn> {
        let (host, reasons) = self.hosts.get_key_value(host)?;
        let host = Arc::clone(host);
        let was_reachable = reasons.is_empty();
        self.hosts.get_mut(&host)?.insert(reason, fault.clone());
        was_reachable.then_some(Turn::Lost(host, fault))
    }

    /// Reasons end for one host.
    pub(super) fn restore(&mut self, host: &str, ended: &[Reason]) -> Option<Turn> {
        let (host, _) = self.hosts.get_key_value(host)?;
        let host = Arc::clone(host);
        let reasons = self.hosts.get_mut(&host)?;
        let was_reachable = reasons.is_empty();
        reasons.retain(|reason, _| !ended.contains(reason));
        (reasons.is_empty() && !was_reachable).then_some(Turn::Restored(host))
    }

    /// A reason begins for all.
    pub(super) fn lose_all(&mut self, reason: Reason, fault: &Fault) -> Vec<Turn> {
        self.all.insert(reason, fault.clone());
        let names: Vec<_> = self.hosts.keys().cloned().collect();
        names.iter().filter_map(|host| self.lose(host, reason, fault.clone())).collect()
    }

    /// A reason ends for all.
    pub(super) fn restore_all(&mut self, reason: Reason) -> Vec<Turn> {
        self.all.remove(&reason);
        let names: Vec<_> = self.hosts.keys().cloned().collect();
        names.iter().filter_map(|host| self.restore(host, &[reason])).collect()
    }

    /// A reason ends for the relay, but not for the hosts that it holds for now.
    pub(super) fn end(&mut self, reason: Reason) {
        self.all.remove(&reason);
    }

    pub(super) fn has(&self, reason: Reason) -> bool {
        self.all.contains_key(&reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_restored_when_its_last_reason_ends() {
        let mut hosts = Hosts::default();
        assert_eq!(hosts.add("h"), None);
        let silent = Reason::Silent.fault("r");
        let gap = Reason::Relayed.fault("r");
        let lost = hosts.lose_all(Reason::Silent, &silent);
        assert_eq!(lost, [Turn::Lost("h".into(), silent.clone())]);
        assert_eq!(hosts.lose("h", Reason::Relayed, gap), None, "it is lost already");
        assert_eq!(hosts.restore_all(Reason::Silent), []);
        assert_eq!(hosts.restore("h", &[Reason::Relayed]), Some(Turn::Restored("h".into())));
        assert_eq!(hosts.restore("h", &[Reason::Relayed]), None);
    }

    #[test]
    fn a_host_that_is_added_to_a_silent_relay_is_lost() {
        let mut hosts = Hosts::default();
        let silent = Reason::Silent.fault("r");
        hosts.lose_all(Reason::Silent, &silent);
        assert_eq!(hosts.add("h"), Some(Turn::Lost("h".into(), silent)));
    }
}
