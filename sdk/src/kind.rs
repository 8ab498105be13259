//! Kinds of events: what a subscriber asks for and a source can report.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a hypervisor calls one of its events: libvirt numbers its events, QEMU names them.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventName {
    /// A number: libvirt's event id (`virDomainEventID`).
    Number(u32),
    /// A name: QEMU's `RTC_CHANGE`.
    Name(Arc<str>),
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl From<&str> for EventName {
    fn from(text: &str) -> Self {
        // libvirt's events have numbers and QEMU's have names that begin with a letter, so the form
        // tells which is meant.
        match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Name(text.into()),
        }
    }
}

/// A kind of event.
///
/// In text: `lifecycle`, `reboot`, `other` (every event that the crate has no type for), or one
/// such event by its number or name, `other:8`, `other:RTC_CHANGE`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`DomainEvent::Lifecycle`](crate::DomainEvent::Lifecycle).
    Lifecycle,
    /// [`DomainEvent::Reboot`](crate::DomainEvent::Reboot).
    Reboot,
    /// [`DomainEvent::Other`](crate::DomainEvent::Other), all of them.
    Other,
    /// One [`DomainEvent::Other`](crate::DomainEvent::Other), by its name.
    Named(EventName),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lifecycle => f.write_str("lifecycle"),
            Self::Reboot => f.write_str("reboot"),
            Self::Other => f.write_str("other"),
            Self::Named(name) => write!(f, "other:{name}"),
        }
    }
}

impl FromStr for Kind {
    type Err = ParseKindError;

    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        match text {
            "lifecycle" => Ok(Self::Lifecycle),
            "reboot" => Ok(Self::Reboot),
            "other" => Ok(Self::Other),
            _ => match text.strip_prefix("other:") {
                Some(name) if !name.is_empty() => Ok(Self::Named(name.into())),
                _ => Err(ParseKindError(text.into())),
            },
        }
    }
}

/// A text that names no kind of event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind: give {expected}", expected = Self::EXPECTED)]
pub struct ParseKindError(Box<str>);

impl ParseKindError {
    pub(crate) const EXPECTED: &str = "lifecycle, reboot, other, or other:NAME";

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// A set of kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(BTreeSet<Kind>);

impl Kinds {
    /// The kinds that have a type of their own in this version of the crate.
    #[must_use]
    pub fn typed() -> Self {
        [Kind::Lifecycle, Kind::Reboot].into_iter().collect()
    }

    /// Whether `kind` is in the set. A named kind is in every set that holds [`Kind::Other`].
    #[must_use]
    pub fn contains(&self, kind: &Kind) -> bool {
        self.0.contains(kind) || (matches!(kind, Kind::Named(_)) && self.0.contains(&Kind::Other))
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: Kind) {
        self.0.insert(kind);
    }

    /// Takes a kind out.
    pub fn remove(&mut self, kind: &Kind) {
        self.0.remove(kind);
    }

    /// The kinds, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Self(kinds.into_iter().collect())
    }
}

impl Extend<Kind> for Kinds {
    fn extend<I: IntoIterator<Item = Kind>>(&mut self, kinds: I) {
        self.0.extend(kinds);
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, kind) in self.iter().enumerate() {
            write!(f, "{}{kind}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_reads_back_from_its_text() {
        for text in ["lifecycle", "reboot", "other", "other:8", "other:RTC_CHANGE"] {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        let error = "lifecyle".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("lifecyle") && error.contains("reboot"), "{error}");
    }

    #[test]
    fn a_set_with_other_holds_every_named_kind() {
        let kinds: Kinds = [Kind::Other].into_iter().collect();
        assert!(kinds.contains(&"other:8".parse().unwrap()));
        assert!(!kinds.contains(&Kind::Reboot));
    }
}
