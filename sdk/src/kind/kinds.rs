//! Sets of kinds.

use std::collections::BTreeSet;
use std::fmt;

use super::Kind;

/// A set of kinds.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    kinds: BTreeSet<Kind>,
    /// Those of them that came with [`Kinds::all`]: a source may lack them.
    optional: BTreeSet<Kind>,
}

impl Kinds {
    /// What a subscriber gets that asks for no kind, as far as the source can report it: lifecycle
    /// and reboot.
    #[must_use]
    pub fn common() -> Self {
        [Kind::Lifecycle, Kind::Reboot].into()
    }

    /// Every kind: those with a type of their own, and all others. A subscriber that asks for all
    /// of them gets what the source can report. What it lacks is no error, but for kinds that are
    /// [inserted](Self::insert) besides.
    #[must_use]
    pub fn all() -> Self {
        let kinds: BTreeSet<Kind> = Kind::TYPED.iter().cloned().chain([Kind::Other]).collect();
        Self { optional: kinds.clone(), kinds }
    }

    /// Whether `kind` is in the set. A named kind is in every set that holds [`Kind::Other`].
    #[must_use]
    pub fn contains(&self, kind: &Kind) -> bool {
        self.holds(kind) || (matches!(kind, Kind::Named(_)) && self.holds(&Kind::Other))
    }

    /// Whether the set has this very kind.
    pub(crate) fn holds(&self, kind: &Kind) -> bool {
        self.kinds.contains(kind)
    }

    /// The kinds that a source must not lack.
    pub(crate) fn demanded(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().filter(|kind| !self.optional.contains(kind))
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: Kind) {
        self.optional.remove(&kind);
        self.kinds.insert(kind);
    }

    /// Whether a source may lack a kind of the set.
    #[cfg(feature = "serde")]
    pub(crate) fn is_optional(&self, kind: &Kind) -> bool {
        self.optional.contains(kind)
    }

    /// Adds a kind that a source may lack, unless the set has it.
    #[cfg(feature = "serde")]
    pub(crate) fn insert_optional(&mut self, kind: Kind) {
        if self.kinds.insert(kind.clone()) {
            self.optional.insert(kind);
        }
    }

    /// Adds the kinds of another set.
    pub fn merge(&mut self, other: Self) {
        for kind in other.kinds {
            if !other.optional.contains(&kind) {
                self.insert(kind);
            } else if self.kinds.insert(kind.clone()) {
                self.optional.insert(kind);
            }
        }
    }

    /// Takes a kind out.
    pub fn remove(&mut self, kind: &Kind) {
        self.kinds.remove(kind);
        self.optional.remove(kind);
    }

    /// The kinds, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}

/// Whether both have the same kinds.
impl PartialEq for Kinds {
    fn eq(&self, other: &Self) -> bool {
        self.kinds == other.kinds
    }
}

impl Eq for Kinds {}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Self { kinds: kinds.into_iter().collect(), optional: BTreeSet::new() }
    }
}

impl<const N: usize> From<[Kind; N]> for Kinds {
    fn from(kinds: [Kind; N]) -> Self {
        kinds.into_iter().collect()
    }
}

impl From<Kind> for Kinds {
    fn from(kind: Kind) -> Self {
        [kind].into()
    }
}

impl Extend<Kind> for Kinds {
    fn extend<I: IntoIterator<Item = Kind>>(&mut self, kinds: I) {
        kinds.into_iter().for_each(|kind| self.insert(kind));
    }
}

impl IntoIterator for Kinds {
    type Item = Kind;
    type IntoIter = std::collections::btree_set::IntoIter<Kind>;

    fn into_iter(self) -> Self::IntoIter {
        self.kinds.into_iter()
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
    fn kinds_of_all_may_be_lacking_and_inserted_ones_may_not() {
        let mut kinds = Kinds::all();
        assert_eq!(kinds.demanded().count(), 0);
        kinds.remove(&Kind::ControlError);
        kinds.insert(Kind::Named("99".into()));
        kinds.insert(Kind::Watchdog);
        let demanded: Vec<_> = kinds.demanded().map(Kind::to_string).collect();
        assert_eq!(demanded, ["watchdog", "other:99"]);
        let mut explicit = Kinds::from(Kind::Watchdog);
        explicit.merge(Kinds::all());
        assert_eq!(explicit.demanded().collect::<Vec<_>>(), [&Kind::Watchdog]);
        assert_eq!(explicit, Kinds::all());
    }

    #[test]
    fn a_set_with_other_holds_every_named_kind() {
        let kinds: Kinds = [Kind::Other].into_iter().collect();
        assert!(kinds.contains(&"other:99".parse().unwrap()));
        assert!(!kinds.contains(&Kind::Reboot));
    }
}
