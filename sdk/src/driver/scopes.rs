//! The parts of a source that are unreachable.

use std::collections::BTreeMap;

use crate::event::ScopeKey;
use crate::{Domain, Fault, Scope};

#[derive(Debug, Default)]
pub(super) struct Scopes(BTreeMap<ScopeKey, (Scope, Fault)>);

impl Scopes {
    pub(super) fn insert(&mut self, scope: Scope, fault: Fault) {
        self.0.insert(scope.key(), (scope, fault));
    }

    /// False if the scope was not unreachable.
    pub(super) fn remove(&mut self, scope: &Scope) -> bool {
        self.0.remove(&scope.key()).is_some()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the domain is in one of the parts.
    pub(super) fn contains(&self, domain: &Domain) -> bool {
        let is_unreachable = |key: ScopeKey| self.0.contains_key(&key);
        // Mostly nothing is unreachable: no key is made then.
        !self.0.is_empty()
            && (is_unreachable(ScopeKey::of_source(&domain.shared_host().source))
                || is_unreachable(ScopeKey::of_host(domain))
                || is_unreachable(ScopeKey::of(domain)))
    }

    /// Why all of the source is unreachable, if it is.
    pub(super) fn whole(&self) -> Option<&Fault> {
        self.0.values().find(|(scope, _)| scope.is_source()).map(|(_, fault)| fault)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Scope, Fault)> {
        self.0.values()
    }
}
