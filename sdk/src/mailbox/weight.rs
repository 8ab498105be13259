//! The weight of an event while it waits, in bytes.
//!
//! A peer chooses names, data and messages, so they count with every event that holds them,
//! although events of one domain share them: the sum is an upper limit, and needs no book of what
//! is shared. The URI of the source does not count: the program chose it.

use crate::{DomainEvent, Gap, GapKind, Scope, Synced};

/// What an event weighs: its place in the queue, and all that it refers to.
#[inline]
pub(super) fn weight(event: &DomainEvent) -> usize {
    let rest = match event {
        DomainEvent::Lifecycle(event) => event.domain.weight(),
        DomainEvent::Reboot(event) => event.domain.weight(),
        DomainEvent::Notice(notice) => notice.weight(),
        DomainEvent::Other(event) => event.weight(),
        DomainEvent::Synced(Synced { scope, .. }) => scope_weight(scope),
        DomainEvent::Gap(Gap { scope, kind, .. }) => {
            let message = match kind {
                GapKind::Disconnected { fault } => fault.message().len(),
                GapKind::Lagged { .. } | GapKind::Removed => 0,
            };
            scope_weight(scope) + message
        }
    };
    size_of::<DomainEvent>() + rest
}

fn scope_weight(scope: &Scope) -> usize {
    match scope {
        Scope::Source(_) | Scope::Fleet { .. } => 0,
        Scope::Host { host, .. } => host.len(),
        Scope::Domain(domain) => domain.weight(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use uuid::Uuid;

    use super::*;
    use crate::{
        Change, Domain, EventData, EventName, Fault, FaultKind, Lifecycle, RawEvent, Reboot,
        StopCause,
    };

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    /// What an event weighs more than the same one with empty texts.
    fn more(event: impl Fn(&str) -> DomainEvent) -> usize {
        weight(&event(&"x".repeat(1000))) - weight(&event(""))
    }

    fn named(name: &str) -> Domain {
        Domain::new("s", "h", Uuid::from_u128(1), name, Some(1))
    }

    #[test]
    fn all_that_a_peer_chooses_has_a_weight() {
        let stopped = Change::Stopped(StopCause::Shutdown);
        let raw = |domain, name: &str, data| {
            DomainEvent::from(RawEvent::new("s", domain, EventName::Name(name.into()), data, AT))
        };
        let json = |text: &str| EventData::Json(text.into());
        let gap = |scope, message: &str| {
            let fault = Fault::new(FaultKind::Other, message);
            DomainEvent::from(Gap::new(scope, GapKind::disconnected(fault)))
        };
        assert_eq!(more(|name| Lifecycle::new(named(name), stopped, AT).into()), 1000);
        assert_eq!(more(|name| Reboot::new(named(name), AT).into()), 1000);
        assert_eq!(
            more(|host| Reboot::new(Domain::new("s", host, Uuid::nil(), "d", None), AT).into()),
            1000
        );
        assert_eq!(more(|name| raw(None, name, json(""))), 1000);
        assert_eq!(more(|name| raw(Some(named(name)), "e", json(""))), 1000);
        assert_eq!(more(|text| raw(None, "e", json(text))), 1000);
        assert_eq!(more(|text| raw(None, "e", EventData::Bytes(text.as_bytes().into()))), 1000);
        assert_eq!(more(|message| gap(Scope::source_wide("s"), message)), 1000);
        assert_eq!(more(|host| gap(Scope::on_host("s", host), "")), 1000);
        assert_eq!(more(|name| Synced::new(Scope::Domain(named(name)), 1).into()), 1000);
    }

    #[test]
    fn an_event_weighs_at_least_its_place_in_the_queue() {
        let synced = Synced::new(Scope::source_wide("fake:"), 1);
        assert_eq!(weight(&synced.into()), size_of::<DomainEvent>());
    }
}
