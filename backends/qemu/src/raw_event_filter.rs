//! Which events without a type the subscribers asked for. QEMU sends all of them to each client.

use virevent::driver::Interest;
use virevent::{EventName, Kind, Kinds};

/// The names of the events that the subscribers asked for, or all.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawEventFilter {
    all: bool,
    names: Vec<Box<str>>,
}

impl RawEventFilter {
    /// The kinds that QEMU can report.
    pub(crate) fn kinds() -> Kinds {
        [Kind::Lifecycle, Kind::Reboot, Kind::Other].into_iter().collect()
    }

    /// The filter of an interest, and the kinds of it that are refused: QEMU numbers no events.
    pub(crate) fn new(interest: &Interest) -> (Self, Vec<Kind>) {
        let mut filter = Self::default();
        let mut refused = Vec::new();
        for kind in interest.kinds().iter() {
            match kind {
                Kind::Other => filter.all = true,
                Kind::Named(EventName::Name(name)) => filter.names.push((&**name).into()),
                Kind::Lifecycle | Kind::Reboot => {}
                // Numbers are libvirt's; QEMU's events have names alone. Its other events have no
                // type here yet: they are asked for by QEMU's own names.
                _ => refused.push(kind.clone()),
            }
        }
        (filter, refused)
    }

    /// Whether a subscriber asked for the event of this name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|wanted| **wanted == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_matches_by_name_and_never_by_number() {
        let kinds = ["lifecycle", "reboot", "other:RTC_CHANGE", "other:99", "watchdog"];
        let kinds = kinds.map(|kind| kind.parse().unwrap());
        let (filter, refused) = RawEventFilter::new(&kinds.into_iter().collect());
        assert!(filter.matches("RTC_CHANGE") && !filter.matches("POWERDOWN"));
        assert_eq!(refused, ["watchdog", "other:99"].map(|kind| kind.parse().unwrap()));
        let (filter, _) = RawEventFilter::new(&[Kind::Other].into_iter().collect());
        assert!(filter.matches("POWERDOWN"));
    }
}
