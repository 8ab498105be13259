//! What a reader of a stream believes.

use std::collections::BTreeMap;
use std::fmt;

use virevent::driver::Listed;
use virevent::{Change, Domain, DomainEvent, Gap, GapKind, ShutoffReason, State, Uuid};

use super::Failure;

/// What a reader of streams believes, folded from events: which domains exist, and how they are. The
/// streams may be those of several sources, for a domain is its source, host and uuid. It is to be compared with the truth, `virsh list --all`.
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

/// What tells one domain from another, in every run and under every name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The URI of the source that knows the domain.
    pub source: Box<str>,
    /// The host that it is on.
    pub host: Box<str>,
    /// Its uuid.
    pub uuid: Uuid,
}

impl Identity {
    /// That of a domain.
    pub fn of(domain: &Domain) -> Self {
        let source = domain.source().into();
        Self { source, host: domain.host().into(), uuid: domain.uuid() }
    }
}

/// A domain as the events describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The domain, with the id of its run if it is active.
    pub domain: Domain,
    /// The state that the events led to.
    pub state: State,
    /// Whether it exists when it does not run, as the last event says.
    pub persistent: Option<bool>,
}

impl Fold {
    /// Takes note of an event.
    pub fn apply(&mut self, event: &DomainEvent) {
        if let DomainEvent::Gap(Gap { kind: GapKind::Lagged { reset: true, .. }, scope, .. }) =
            event
        {
            self.active.retain(|_, known| !scope.contains(&known.domain));
            self.inactive.retain(|_, known| !scope.contains(&known.domain));
        }
        let Some(lifecycle) = event.lifecycle() else { return };
        let identity = Identity::of(&lifecycle.domain);
        let before = self.active.remove(&identity).or_else(|| self.inactive.remove(&identity));
        if lifecycle.is_gone() {
            return;
        }
        let named = before.as_ref().map_or(&lifecycle.domain, |known| &known.domain);
        let domain = match lifecycle.change {
            // The event has the id of the run that ended, and the name that it had.
            Change::Stopped(_) => named.with_id(None),
            // It has the old name; the definition with the new one follows.
            Change::Undefined(_) => named.clone(),
            _ => lifecycle.domain.clone(),
        };
        let state = match (lifecycle.change, &before) {
            (Change::Existing(state), _) => state,
            (change, before) => {
                // A definition says nothing of a run, nor does what has no name here.
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

    /// Takes note of these events.
    pub fn extend<'a>(&mut self, events: impl IntoIterator<Item = &'a DomainEvent>) {
        events.into_iter().for_each(|event| self.apply(event));
    }

    /// The active domains.
    pub fn active(&self) -> &BTreeMap<Identity, Known> {
        &self.active
    }

    /// The domains that exist and do not run.
    pub fn inactive(&self) -> &BTreeMap<Identity, Known> {
        &self.inactive
    }

    /// Every domain that exists.
    pub fn domains(&self) -> impl Iterator<Item = &Known> {
        self.active.values().chain(self.inactive.values())
    }

    /// Whether the domain of that name is believed to be active.
    pub fn is_active(&self, name: &str) -> bool {
        self.active.values().any(|known| known.domain.name() == name)
    }

    /// Whether a domain of that name is believed to exist.
    pub fn exists(&self, name: &str) -> bool {
        self.domains().any(|known| known.domain.name() == name)
    }

    /// That what is believed is the truth: the same domains exist, in the same runs and states, and
    /// outlive their runs or not, as far as either says. The truth may come from elsewhere than the
    /// events, as that of a daemon's host does: a domain of another source stands for the one with its
    /// uuid, where none has its whole identity.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, truth: &[Listed]) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        let mut believed: BTreeMap<_, _> =
            self.domains().map(|known| (Identity::of(&known.domain), known)).collect();
        for entry in truth {
            let domain = &entry.domain;
            let identity = Identity::of(domain);
            let found = believed.remove(&identity).or_else(|| {
                let same = believed.keys().find(|known| known.uuid == identity.uuid).cloned();
                same.and_then(|same| believed.remove(&same))
            });
            match found {
                None => wrong.push(format!("{domain} is {}, and unknown", entry.state)),
                Some(known) if !known.is(entry) => {
                    let is = describe(domain, entry.state, entry.persistent);
                    wrong.push(format!("{is}, and believed to be {known}"));
                }
                Some(_) => {}
            }
        }
        for known in believed.values() {
            wrong.push(format!("{} does not exist, and is believed to be {known}", known.domain));
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

    /// What was emitted, as the driver passes it on: it settles whether a domain persists.
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
    fn a_fold_of_all_events_equals_the_list() {
        let host = Host::default();
        let mut observer = host.observe();
        host.define("web").unwrap();
        host.create("db").unwrap();
        host.start("web").unwrap();
        host.suspend("web").unwrap();
        host.define("cache").unwrap();
        host.rename("cache", "store").unwrap();
        // One that runs without a definition lives on, and one that gets one persists.
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
    fn a_fold_that_lacks_an_event_differs_from_the_list() {
        type Act = fn(&Host);
        let table: [(Act, &str); 4] = [
            (|host| drop(host.create("a")), "a[2] is running (booted), and unknown"),
            (
                |host| drop(host.stop("db")),
                "db[1] does not exist, and is believed to be db[1] running (booted), transient",
            ),
            (
                |host| drop(host.define("db")),
                "db[1] running (booted), persistent, and believed to be db[1] running (booted), \
                 transient",
            ),
            (
                |host| drop(host.undefine("web")),
                "web does not exist, and is believed to be web shutoff, persistent",
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

    /// libvirt, and the monitor of its QEMU.
    #[test]
    fn one_machine_of_two_sources_is_two_domains_of_a_fold() {
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
        let lagged = GapKind::Lagged { missed: 1, reset: true };
        fold.apply(&Gap::new(Scope::source_wide("qmp:/run/web"), lagged).into());
        let left: Vec<_> = fold.domains().map(|known| &known.domain).collect();
        assert_eq!(left, [&libvirt], "a reset is of one source");
    }

    #[test]
    fn a_reset_makes_a_fold_forget() {
        let host = Host::default();
        let mut observer = host.observe();
        host.create("web").unwrap();
        host.define("db").unwrap();
        let mut fold = folded(&emitted(&mut observer));
        for (reset, believed) in [(false, true), (true, false)] {
            let lagged = GapKind::Lagged { missed: 1, reset };
            fold.apply(&Gap::new(Scope::source_wide("fake:"), lagged).into());
            assert_eq!((fold.exists("web"), fold.exists("db")), (believed, believed));
        }
    }
}
