//! The parts of a source that are unreachable.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::ScopeKey;
use crate::{Domain, Fault, Scope};

#[derive(Debug, Default)]
pub(super) struct Scopes {
    parts: BTreeMap<ScopeKey, (Scope, Fault)>,
    /// Those among them that may be behind another one: see [`hide`](Self::hide).
    hidden: BTreeSet<ScopeKey>,
}

impl Scopes {
    pub(super) fn insert(&mut self, scope: Scope, fault: Fault) {
        self.parts.insert(scope.key(), (scope, fault));
    }

    /// False if the scope was not unreachable.
    pub(super) fn remove(&mut self, scope: &Scope) -> bool {
        self.parts.remove(&scope.key()).is_some()
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.hidden.clear();
    }

    /// A domain that no list shows may be behind a part of its host that is unreachable and not
    /// identified: a monitor that has not answered yet is reported by its path. Then the domain
    /// counts as unreachable, too, and true is returned. `is_known` says which are identified.
    pub(super) fn hide(&mut self, domain: &Domain, is_known: impl Fn(&Domain) -> bool) -> bool {
        let Some(fault) = self.hiding(domain, is_known).cloned() else { return false };
        let scope = Scope::Domain(domain.clone());
        self.hidden.insert(scope.key());
        self.insert(scope, fault);
        true
    }

    /// The hidden domains that nothing hides any more. They count as reachable from now on: a list
    /// that does not show them says that they are gone.
    pub(super) fn unhide(&mut self, is_known: impl Fn(&Domain) -> bool) -> Vec<Scope> {
        let is_shown = |key: &&ScopeKey| match self.parts.get(key) {
            Some((Scope::Domain(domain), _)) => self.hiding(domain, &is_known).is_none(),
            _ => true,
        };
        let shown: Vec<_> = self.hidden.iter().filter(is_shown).cloned().collect();
        self.hidden.retain(|key| !shown.contains(key));
        shown.iter().filter_map(|key| Some(self.parts.remove(key)?.0)).collect()
    }

    pub(super) fn has_hidden(&self) -> bool {
        !self.hidden.is_empty()
    }

    fn hiding(&self, domain: &Domain, is_known: impl Fn(&Domain) -> bool) -> Option<&Fault> {
        let hides = |key: &ScopeKey, scope: &Scope| {
            let may_be = |part: &Domain| {
                part.shared_host() == domain.shared_host()
                    && !part.is_same(domain)
                    && !is_known(part)
            };
            scope.domain().is_some_and(may_be) && !self.hidden.contains(key)
        };
        self.parts.iter().find(|(key, (scope, _))| hides(key, scope)).map(|(_, (_, fault))| fault)
    }

    /// Whether the domain is in one of the parts.
    pub(super) fn contains(&self, domain: &Domain) -> bool {
        let is_unreachable = |key: ScopeKey| self.parts.contains_key(&key);
        // Mostly nothing is unreachable: no key is made then.
        !self.parts.is_empty()
            && (is_unreachable(ScopeKey::of_source(&domain.shared_host().source))
                || is_unreachable(ScopeKey::of_host(domain))
                || is_unreachable(ScopeKey::of(domain)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Why the part is unreachable, if it is.
    pub(super) fn fault(&self, scope: &Scope) -> Option<&Fault> {
        self.parts.get(&scope.key()).map(|(_, fault)| fault)
    }

    /// Why all of the source is unreachable, if it is.
    pub(super) fn whole(&self) -> Option<&Fault> {
        self.parts.values().find(|(scope, _)| scope.is_source()).map(|(_, fault)| fault)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Scope, Fault)> {
        self.parts.values()
    }
}
