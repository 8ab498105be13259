//! Which events the subscribers asked for, beside those of the lifecycle. QEMU sends all of them to
//! each client.

use virevent::driver::Interest;
use virevent::{EventName, Kind, Kinds};

use crate::decode::notice;

/// The kinds of notices that the subscribers asked for, and the names of events without a type.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventFilter {
    notices: Kinds,
    /// Whether a subscriber asked for all events without a type.
    others: bool,
    names: Vec<Box<str>>,
}

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Drop it.
    Nothing,
    /// Deliver it as it came: it has no type.
    Raw,
    /// Deliver its notice, or the event as it came if it has none.
    Notice,
    /// Deliver it as it came if it has no notice, although events of its name have a type.
    OnlyRaw,
}

impl EventFilter {
    /// The kinds that QEMU can report.
    pub(crate) fn possible() -> Kinds {
        let mut kinds = Kinds::from([Kind::Lifecycle, Kind::Reboot, Kind::Other]);
        kinds.extend(notice::kinds());
        kinds
    }

    /// The filter of an interest, and the kinds of it that are refused.
    pub(crate) fn new(interest: &Interest) -> (Self, Vec<Kind>) {
        let possible = Self::possible();
        let mut filter = Self::default();
        let mut refused = Vec::new();
        for kind in interest.kinds().iter() {
            match kind {
                Kind::Other => filter.others = true,
                Kind::Lifecycle | Kind::Reboot => {}
                // One with a type is asked for by its kind. Numbers are libvirt's.
                Kind::Named(EventName::Name(name)) if Kind::of_qemu(name).is_none() => {
                    filter.names.push((&**name).into());
                }
                kind if !matches!(kind, Kind::Named(_)) && possible.contains(kind) => {
                    filter.notices.insert(kind.clone());
                }
                kind => refused.push(kind.clone()),
            }
        }
        (filter, refused)
    }

    /// What to do with the event of this name.
    #[inline]
    pub(crate) fn wanted(&self, name: &str) -> Wanted {
        if !self.others && self.names.is_empty() && self.notices.is_empty() {
            return Wanted::Nothing;
        }
        match Kind::of_qemu(name) {
            Some(kind) if self.notices.contains(&kind) => Wanted::Notice,
            Some(_) if self.others => Wanted::OnlyRaw,
            Some(_) => Wanted::Nothing,
            None if self.others || self.names.iter().any(|wanted| **wanted == *name) => Wanted::Raw,
            None => Wanted::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(kinds: &str) -> (EventFilter, String) {
        let parsed = kinds.split(' ').map(|kind| kind.parse::<Kind>().unwrap());
        let (filter, refused) = EventFilter::new(&parsed.collect());
        (filter, refused.iter().map(Kind::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn kinds_that_qemu_lacks_are_refused() {
        let (_, refused) = filter("lifecycle reboot watchdog other:99 agent-lifecycle other:X");
        assert_eq!(refused, "agent-lifecycle other:99");
        let typed = Kind::Named(EventName::Name("RTC_CHANGE".into()));
        let (filter, refused) = EventFilter::new(&[typed.clone()].into_iter().collect());
        assert_eq!((filter.wanted("RTC_CHANGE"), refused), (Wanted::Nothing, vec![typed]));
    }

    #[test]
    fn an_event_is_wanted_by_its_kind_or_else_by_its_name() {
        use Wanted::{Nothing, Notice, OnlyRaw, Raw};
        for (kinds, rtc, power) in [
            ("lifecycle reboot", Nothing, Nothing),
            ("rtc-change", Notice, Nothing),
            ("watchdog", Nothing, Nothing),
            ("other:POWERDOWN", Nothing, Raw),
            ("other", OnlyRaw, Raw),
            ("other rtc-change", Notice, Raw),
        ] {
            let (filter, _) = filter(kinds);
            assert_eq!(filter.wanted("RTC_CHANGE"), rtc, "{kinds}");
            assert_eq!(filter.wanted("POWERDOWN"), power, "{kinds}");
        }
    }
}
