//! The fold: how each event changes what is known of the domains.
//!
//! A source is uncertain from its first event to its first `Synced`. A reset
//! (`Lagged` with `reset`) does not empty the table: what was known stays, uncertain, until the
//! next `Synced`, and what no `Existing` event confirmed by then is gone.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::snapshot::{Snapshot, StoredDomain};
use super::transition::Transition;
use crate::domain::Host;
use crate::{
    Change, DefineCause, Domain, DomainEvent, Filter, Gap, GapKind, Lifecycle, Origin, Reboot,
    Scope, ShutoffReason, State, Synced, UndefineCause,
};

#[derive(Debug, Default)]
pub(super) struct Table {
    now: Snapshot,
    /// The sources that delivered an event, or that a stream was announced of.
    sources: HashSet<Arc<str>, foldhash::fast::RandomState>,
    resets: Vec<Reset>,
    /// The filter of the stream: of a domain that it selects by name nothing more is delivered once
    /// it has another name.
    filter: Filter,
    has_ended: bool,
}

/// A list of `Existing` events under way, after which the domains that it left out are gone.
#[derive(Debug)]
struct Reset {
    scope: Scope,
    unconfirmed: HashSet<(Arc<Host>, Uuid)>,
    /// The scope was known before: what is new in the list came into being since.
    was_synced: bool,
    /// Its scope was synced, but for parts that were unreachable.
    has_ended: bool,
}

impl Table {
    /// The table that a snapshot shows, with nothing in it certain.
    pub(super) fn resumed(mut snapshot: Snapshot) -> Self {
        // No stream resumes from the beginning of a list: it would not say which of these are gone.
        let synced = Arc::clone(snapshot.synced());
        snapshot.retain(|source| synced.contains(source));
        snapshot.begin(!synced.is_empty());
        let sources = synced.iter().cloned().collect();
        let mut table = Self { now: snapshot, sources, ..Self::default() };
        for source in table.sources.iter().cloned().collect::<Vec<_>>() {
            let scope = Scope::Source(source);
            table.now.doubt(&scope);
            table.set_certain(&scope);
        }
        table
    }

    pub(super) fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.now.clone()
    }

    pub(super) fn apply(&mut self, event: &DomainEvent) -> Vec<Transition> {
        if self.has_ended {
            return Vec::new();
        }
        if !self.sources.contains(event.source()) {
            let source = Arc::<str>::from(event.source());
            self.now.doubt(&Scope::Source(Arc::clone(&source)));
            self.sources.insert(source);
        }
        match event {
            DomainEvent::Lifecycle(event) => self.lifecycle(event).into_iter().collect(),
            DomainEvent::Gap(Gap { scope, kind: GapKind::Disconnected { .. } }) => {
                self.now.doubt(scope);
                self.set_certain(scope)
            }
            DomainEvent::Gap(Gap { scope, kind: GapKind::Lagged { reset: true, .. } }) => {
                self.begin(scope)
            }
            DomainEvent::Gap(Gap { scope, kind: GapKind::Removed }) => self.forget(scope),
            // A lag without a reset keeps the last event of each domain.
            DomainEvent::Gap(_) => Vec::new(),
            DomainEvent::Synced(Synced { scope, .. }) => self.synced(scope),
            DomainEvent::Reboot(event) => self.reboot(event).into_iter().collect(),
            DomainEvent::Notice(_) | DomainEvent::Other(_) => Vec::new(),
        }
    }

    /// `Existing` events of the scope follow: what they leave out is gone.
    pub(super) fn begin(&mut self, scope: &Scope) -> Vec<Transition> {
        if let Scope::Source(source) = scope {
            self.sources.insert(Arc::clone(source));
        }
        let is_part = |source: &Arc<str>| {
            scope.includes(&Scope::Source(Arc::clone(source))) || **source == *scope.source()
        };
        let was_synced =
            self.sources.iter().any(|source| self.now.knows(source) && is_part(source));
        // Of a reset within a reset, what is still unconfirmed is in the table.
        self.resets.retain(|reset| !scope.includes(&reset.scope));
        let key = |stored: &Arc<StoredDomain>| key(&stored.domain);
        let unconfirmed = self.now.within(scope).map(key).collect();
        self.resets.push(Reset { scope: scope.clone(), unconfirmed, was_synced, has_ended: false });
        self.now.doubt(scope);
        self.set_certain(scope)
    }

    /// The scope was removed from the fleet.
    fn forget(&mut self, scope: &Scope) -> Vec<Transition> {
        self.resets.retain(|reset| !scope.includes(&reset.scope));
        for reset in &mut self.resets {
            let is_kept = |host: &Host| !scope.includes(&Scope::Source(Arc::clone(&host.source)));
            reset.unconfirmed.retain(|(host, _)| is_kept(host));
        }
        self.resets.retain(|reset| !reset.has_ended || !reset.unconfirmed.is_empty());
        self.sources.retain(|source| !scope.includes(&Scope::Source(Arc::clone(source))));
        self.now.unlearn(scope);
        self.now.trust(scope);
        let gone: Vec<_> = self.now.within(scope).cloned().collect();
        let forget = |before: Arc<StoredDomain>| {
            self.now.remove(&before.domain);
            Transition { is_forgotten: true, ..Transition::new(Some(before), None) }
        };
        gone.into_iter().map(forget).collect()
    }

    /// The stream has ended: from here on nothing is certain.
    pub(super) fn end(&mut self) -> Vec<Transition> {
        self.has_ended = true;
        let mut transitions = Vec::new();
        for source in self.sources.iter().cloned().collect::<Vec<_>>() {
            let scope = Scope::Source(source);
            self.now.doubt(&scope);
            transitions.append(&mut self.set_certain(&scope));
        }
        transitions
    }

    fn synced(&mut self, scope: &Scope) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let now = &mut self.now;
        for reset in &mut self.resets {
            reset.has_ended |= scope.includes(&reset.scope);
            // A part of the scope that is unreachable is not in this marker: its domains wait for
            // the part's own.
            if reset.has_ended || scope.is_source() {
                let is_gone =
                    |stored: &&Arc<StoredDomain>| reset.unconfirmed.contains(&key(&stored.domain));
                for before in now.within(scope).filter(is_gone).cloned().collect::<Vec<_>>() {
                    reset.unconfirmed.remove(&key(&before.domain));
                    now.remove(&before.domain);
                    transitions.push(Transition::new(Some(before), None));
                }
            }
        }
        self.resets.retain(|reset| !reset.has_ended || !reset.unconfirmed.is_empty());
        for source in &self.sources {
            if scope.includes(&Scope::Source(Arc::clone(source))) {
                self.now.learn(source);
            }
        }
        self.now.trust(scope);
        transitions.append(&mut self.set_certain(scope));
        transitions
    }

    /// Marks each domain of a scope as certain or not, as the uncertain scopes have it.
    fn set_certain(&mut self, scope: &Scope) -> Vec<Transition> {
        let is_wrong =
            |stored: &&Arc<StoredDomain>| stored.certain != self.now.trusts(&stored.domain);
        let wrong: Vec<_> = self.now.within(scope).filter(is_wrong).cloned().collect();
        let mark = |before: Arc<StoredDomain>| {
            let after = StoredDomain { certain: !before.certain, ..(*before).clone() };
            let after = Arc::new(after);
            self.now.insert(Arc::clone(&after));
            Transition { origin: Origin::Observed, ..Transition::new(Some(before), Some(after)) }
        };
        wrong.into_iter().map(mark).collect()
    }

    fn lifecycle(&mut self, event: &Lifecycle) -> Option<Transition> {
        // What begins behind the list is confirmed by its start.
        let is_news = !event.is_gone() && self.confirm(&event.domain);
        let origin = match event.change {
            Change::Existing(_) if is_news => Origin::Inferred,
            _ => event.origin,
        };
        let before = self.now.same(&event.domain).cloned();
        let is_lost = matches!(event.change, Change::Undefined(UndefineCause::Renamed))
            && self.filter.selects_by_name_alone(&event.domain);
        let after = match event.is_gone() || is_lost {
            true => None,
            false => Some(self.after(before.as_deref(), event, origin)),
        };
        if before.as_deref() == after.as_ref() {
            return None;
        }
        let after = after.map(Arc::new);
        match &after {
            Some(after) => drop(self.now.insert(Arc::clone(after))),
            None => drop(self.now.remove(&event.domain)),
        }
        let event = Some(event.clone().into());
        Some(Transition { event, origin, is_forgotten: is_lost, ..Transition::new(before, after) })
    }

    /// A reboot may give the run another id (LXC).
    fn reboot(&mut self, event: &Reboot) -> Option<Transition> {
        let before = self.now.same(&event.domain).cloned()?;
        let both_active = before.domain.is_active() && event.domain.is_active();
        if !both_active || before.domain.id() == event.domain.id() {
            return None;
        }
        let domain = before.domain.with_id(event.domain.id());
        let after = Arc::new(StoredDomain { domain, ..(*before).clone() });
        self.now.insert(Arc::clone(&after));
        let origin = event.origin;
        let event = Some(event.clone().into());
        Some(Transition { event, origin, ..Transition::new(Some(before), Some(after)) })
    }

    /// Confirms a domain in the resets that are under way. Whether what is new of it came into being
    /// since its scope was known.
    fn confirm(&mut self, domain: &Domain) -> bool {
        let mut is_news = false;
        for reset in self.resets.iter_mut().filter(|reset| reset.scope.contains(domain)) {
            reset.unconfirmed.remove(&key(domain));
            is_news |= reset.was_synced;
        }
        is_news
    }

    /// What is stored of a domain after an event that leaves it in existence.
    fn after(
        &self,
        before: Option<&StoredDomain>,
        event: &Lifecycle,
        origin: Origin,
    ) -> StoredDomain {
        let named = before.map_or(&event.domain, |before| &before.domain);
        let domain = match event.change {
            // The event has the id of the run that ended, and the name of that time.
            Change::Stopped(_) => named.with_id(None),
            // In a rename the event has the old name; the definition with the new one follows.
            Change::Undefined(_) => named.clone(),
            // A stream that selects by name may begin with it, in the middle of a run.
            Change::Defined(DefineCause::Renamed) if before.is_none() => event.domain.clone(),
            // It may name a run that no event has begun, and that none will end.
            Change::Defined(_) => {
                event.domain.with_id(before.and_then(|before| before.domain.id()))
            }
            _ => event.domain.clone(),
        };
        let fresh = || match domain.is_active() {
            true => State::NoState,
            false => State::Shutoff(ShutoffReason::Unspecified),
        };
        // A definition leaves the run state, and so does an unknown change.
        let stated = State::after(event.change);
        let state = stated.or_else(|| before.map(|before| before.state)).unwrap_or_else(fresh);
        let is_listed = matches!(event.change, Change::Existing(_));
        let same = before.filter(|before| {
            before.domain.id() == domain.id()
                && before.state.is_same(state)
                && (stated.is_none() || is_listed)
        });
        let persistent = event.persistent.or(match event.change {
            Change::Defined(_) => Some(true),
            Change::Undefined(cause) if cause != UndefineCause::Renamed => Some(false),
            _ => before.and_then(|before| before.persistent),
        });
        let certain = self.now.trusts(&domain);
        match same {
            Some(before) => StoredDomain { domain, state, persistent, certain, ..before.clone() },
            None => StoredDomain {
                domain,
                state,
                change: event.change,
                origin,
                since: (!is_listed).then_some(event.at),
                persistent,
                certain,
            },
        }
    }
}

fn key(domain: &Domain) -> (Arc<Host>, Uuid) {
    (Arc::clone(domain.shared_host()), domain.uuid())
}
