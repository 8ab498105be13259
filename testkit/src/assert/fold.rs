//! The state that a stream's events lead to.

use std::collections::BTreeMap;
use std::fmt;

use virevent::driver::Listed;
use virevent::{Change, Domain, DomainEvent, Gap, GapKind, ShutoffReason, State, Uuid};

use super::Failure;

/// The table of domains that a reader has after its events, to be compared with the truth, such as
/// `virsh list --all`.
///
/// The events may come from several sources: a domain is identified by its source, host and uuid.
///
/// ```
/// # use virevent_testkit::{FakeHypervisor, assert::{Fold, until_synced}};
/// # use virevent::{EventSource, Options};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let fake = FakeHypervisor::new();
/// # fake.create("web").unwrap();
/// # let mut events = fake.subscribe_with(Options::default()).await.unwrap();
/// let mut fold = Fold::default();
/// fold.extend(&until_synced(&mut events).await.unwrap());
/// fold.check(&fake.domains()).unwrap();
/// # });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    active: BTreeMap<Identity, Known>,
    inactive: BTreeMap<Identity, Known>,
}

/// The identity of a domain, in every run and under every name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The URI of its source.
    pub source: Box<str>,
    /// Its host.
    pub host: Box<str>,
    /// Its uuid.
    pub uuid: Uuid,
}

impl Identity {
    /// The identity of this domain.
    #[must_use]
    pub fn of(domain: &Domain) -> Self {
        let source = domain.source().into();
        Self { source, host: domain.host().into(), uuid: domain.uuid() }
    }
}

/// A domain, as its events describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The domain, with the id of its run if it is active.
    pub domain: Domain,
    /// The state after the last event.
    pub state: State,
    /// Whether it exists when it does not run, as of the last event.
    pub persistent: Option<bool>,
}

impl Fold {
    /// Applies an event.
    pub fn apply(&mut self, event: &DomainEvent) {
        if let DomainEvent::Gap(Gap { kind: GapKind::Lagged { reset: true, .. }, scope, .. }) =
            event
        {
            // All existing domains follow as Existing events; those that do not are gone.
            self.active.retain(|_, known| !scope.contains(&known.domain));
            self.inactive.retain(|_, known| !scope.contains(&known.domain));
        }
        let Some(lifecycle) = event.lifecycle() else { return };
        let identity = Identity::of(&lifecycle.domain);
        // Removed from both tables: the event decides in which one the domain is after it.
        let before = self.active.remove(&identity).or_else(|| self.inactive.remove(&identity));
        if lifecycle.is_gone() {
            return;
        }
        let named = before.as_ref().map_or(&lifecycle.domain, |known| &known.domain);
        let domain = match lifecycle.change {
            // The event has the id of the run that ended, and the name of that time.
            Change::Stopped(_) => named.with_id(None),
            // In a rename the event has the old name; the definition with the new one follows.
            Change::Undefined(_) => named.clone(),
            _ => lifecycle.domain.clone(),
        };
        let state = match (lifecycle.change, &before) {
            (Change::Existing(state), _) => state,
            (change, before) => {
                // A definition leaves the run state, and so does an unknown change.
                let kept = || before.as_ref().map(|known| known.state);
                let fresh = match domain.is_active() {
                    true => State::NoState,
                    false => State::Shutoff(ShutoffReason::Unspecified),
                };
                State::after(change).or_else(kept).unwrap_or(fresh)
            }
        };
        let is_active = domain.is_active();
        let known = Known { domain, state, persistent: lifecycle.persistent };
        if is_active { &mut self.active } else { &mut self.inactive }.insert(identity, known);
    }

    /// Applies these events in order.
    pub fn extend<'a>(&mut self, events: impl IntoIterator<Item = &'a DomainEvent>) {
        events.into_iter().for_each(|event| self.apply(event));
    }

    /// The active domains.
    #[must_use]
    pub fn active(&self) -> &BTreeMap<Identity, Known> {
        &self.active
    }

    /// The domains that exist and do not run.
    #[must_use]
    pub fn inactive(&self) -> &BTreeMap<Identity, Known> {
        &self.inactive
    }

    /// Every domain that exists.
    pub fn domains(&self) -> impl Iterator<Item = &Known> {
        self.active.values().chain(self.inactive.values())
    }

    /// Whether a domain with this name is active.
    #[must_use]
    pub fn is_active(&self, name: &str) -> bool {
        self.active.values().any(|known| known.domain.name() == name)
    }

    /// Whether a domain with this name exists.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        self.domains().any(|known| known.domain.name() == name)
    }

    /// Checks that the table equals the truth: the same domains, in the same runs and states, and
    /// persistent or not, as far as both sides know.
    ///
    /// The truth may have another source than the events, as that of a daemon's host has: if no
    /// domain has the same identity, one with the same uuid is compared.
    ///
    /// # Errors
    /// The differences.
    pub fn check(&self, truth: &[Listed]) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        let mut expected: BTreeMap<_, _> =
            self.domains().map(|known| (Identity::of(&known.domain), known)).collect();
        for entry in truth {
            let domain = &entry.domain;
            let identity = Identity::of(domain);
            let found = expected.remove(&identity).or_else(|| {
                let same = expected.keys().find(|known| known.uuid == identity.uuid).cloned();
                same.and_then(|same| expected.remove(&same))
            });
            match found {
                None => wrong.push(format!("{domain} is {}, but missing in the fold", entry.state)),
                Some(known) if !known.is(entry) => {
                    let is = describe(domain, entry.state, entry.persistent);
                    wrong.push(format!("{is}, but {known} in the fold"));
                }
                Some(_) => {}
            }
        }
        for known in expected.values() {
            wrong.push(format!("{} does not exist, but is {known} in the fold", known.domain));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::new(wrong.join("; "))) }
    }
}

impl Known {
    fn is(&self, entry: &Listed) -> bool {
        let is_known = |persistent: &Option<bool>| persistent.is_some();
        let both = [self.persistent, entry.persistent].iter().all(is_known);
        self.domain.id() == entry.domain.id()
            && self.domain.name() == entry.domain.name()
            // Without the reason, which an inferred event may not know.
            && self.state.is_same(entry.state)
            && (!both || self.persistent == entry.persistent)
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.domain, self.state, self.persistent))
    }
}

fn describe(domain: &Domain, state: State, persistent: Option<bool>) -> String {
    let kind = match persistent {
        Some(true) => ", persistent",
        Some(false) => ", transient",
        None => "",
    };
    format!("{domain} {state}{kind}")
}

#[cfg(test)]
mod tests {
    use virevent::{Lifecycle, Scope, StartCause, StopCause};

    use super::*;
    use crate::Host;
    use crate::host::{Emitted, Observer};

    /// The emitted events, completed as by the driver, which sets whether a domain is persistent.
    fn emitted(observer: &mut Observer) -> Vec<DomainEvent> {
        let settle = |Emitted { event, now }| match event {
            DomainEvent::Lifecycle(lifecycle) => {
                let persists = now.is_some_and(|entry: Listed| entry.persistent == Some(true));
                lifecycle.persistent(persists).into()
            }
            event => event,
        };
        std::iter::from_fn(|| observer.try_next()).map(settle).collect()
    }

    fn folded(events: &[DomainEvent]) -> Fold {
        let mut fold = Fold::default();
        fold.extend(events);
        fold
    }

    #[test]
    fn fold_of_all_events_equals_the_list() {
        let host = Host::default();
        let mut observer = host.observe();
        host.define("web").unwrap();
        host.create("db").unwrap();
        host.start("web").unwrap();
        host.suspend("web").unwrap();
        host.define("cache").unwrap();
        host.rename("cache", "store").unwrap();
        // Undefined while it runs: transient from then on. Defined while it runs: persistent.
        host.define("old").unwrap();
        host.start("old").unwrap();
        host.undefine("old").unwrap();
        host.create("new").unwrap();
        host.define("new").unwrap();
        host.crash("new").unwrap();
        host.stop("db").unwrap();
        let events = emitted(&mut observer);
        let fold = folded(&events);
        fold.check(&host.domains()).unwrap();
        assert_eq!((fold.active().len(), fold.inactive().len()), (2, 2));
        assert!(!fold.exists("db") && !fold.exists("cache") && fold.exists("store"));
    }

    #[test]
    fn fold_without_the_last_event_differs_from_the_list() {
        type Act = fn(&Host);
        let table: [(Act, &str); 4] = [
            (|host| drop(host.create("a")), "a[2] is running (booted), but missing in the fold"),
            (
                |host| drop(host.stop("db")),
                "db[1] does not exist, but is db[1] running (booted), transient in the fold",
            ),
            (
                |host| drop(host.define("db")),
                "db[1] running (booted), persistent, but db[1] running (booted), transient in the \
                 fold",
            ),
            (
                |host| drop(host.undefine("web")),
                "web does not exist, but is web shutoff, persistent in the fold",
            ),
        ];
        for (act, expected) in table {
            let host = Host::default();
            let mut observer = host.observe();
            host.create("db").unwrap();
            host.define("web").unwrap();
            act(&host);
            let events = emitted(&mut observer);
            let fold = folded(&events[..events.len() - 1]);
            let failure = fold.check(&host.domains()).unwrap_err().to_string();
            assert_eq!(failure, expected);
        }
    }

    /// As with libvirt and the monitor of its QEMU.
    #[test]
    fn one_vm_of_two_sources_is_two_domains_of_a_fold() {
        let [libvirt, qmp] = ["qemu:///system", "qmp:/run/web"]
            .map(|source| Domain::new(source, "h", Uuid::from_u128(1), "web", Some(1)));
        let at = std::time::SystemTime::UNIX_EPOCH;
        let event = |domain: &Domain, change| Lifecycle::new(domain.clone(), change, at).into();
        let mut fold = Fold::default();
        for domain in [&libvirt, &qmp] {
            fold.apply(&event(domain, Change::Started(StartCause::Booted)));
        }
        assert_eq!(fold.active().len(), 2);
        fold.apply(&event(&qmp, Change::Stopped(StopCause::Shutdown)));
        assert!(fold.active().contains_key(&Identity::of(&libvirt)));
        fold.apply(&event(&qmp, Change::Started(StartCause::Booted)));
        let lagged = GapKind::lagged(1, true);
        fold.apply(&Gap::new(Scope::source_wide("qmp:/run/web"), lagged).into());
        let left: Vec<_> = fold.domains().map(|known| &known.domain).collect();
        assert_eq!(left, [&libvirt], "a reset affects its own source only");
    }

    #[test]
    fn reset_empties_a_fold() {
        let host = Host::default();
        let mut observer = host.observe();
        host.create("web").unwrap();
        host.define("db").unwrap();
        let mut fold = folded(&emitted(&mut observer));
        for (reset, exist) in [(false, true), (true, false)] {
            let lagged = GapKind::lagged(1, reset);
            fold.apply(&Gap::new(Scope::source_wide("fake:"), lagged).into());
            assert_eq!((fold.exists("web"), fold.exists("db")), (exist, exist));
        }
    }
}
