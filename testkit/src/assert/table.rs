//! Comparison of a store with the truth.

use std::collections::BTreeMap;

use virevent::driver::Listed;
use virevent::{Domain, DomainStore, State, StoredDomain};

use super::Failure;

/// Checks that a store equals the truth, such as `virsh list --all`: the same domains, in the same
/// runs and states, and persistent or not, as far as both sides know. Reasons of states are not
/// compared, since inferred events may lack them.
///
/// The truth may have another source than the events, as that of a daemon's host has: if no
/// domain has the same identity, one with the same uuid is compared.
///
/// ```
/// # use virevent_testkit::{FakeHypervisor, assert::{check_store, until_synced}};
/// # use virevent::{DomainStore, EventSource, Options};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let fake = FakeHypervisor::new();
/// # fake.create("web").unwrap();
/// # let mut events = fake.subscribe_with(Options::default()).await.unwrap();
/// let store = DomainStore::new();
/// store.extend(&until_synced(&mut events).await.unwrap());
/// check_store(&store, &fake.domains()).unwrap();
/// # });
/// ```
///
/// # Errors
/// The differences.
pub fn check_store(store: &DomainStore, truth: &[Listed]) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    let now = store.snapshot();
    let mut expected: BTreeMap<_, _> =
        now.iter().map(|stored| (identity(&stored.domain), stored)).collect();
    for entry in truth {
        let domain = &entry.domain;
        let found = expected.remove(&identity(domain)).or_else(|| {
            let same = expected.keys().find(|(.., uuid)| *uuid == domain.uuid()).copied();
            same.and_then(|same| expected.remove(&same))
        });
        match found {
            None => wrong.push(format!("{domain} is {}, but missing in the store", entry.state)),
            Some(stored) if !is_same(stored, entry) => {
                let is = describe(domain, entry.state, entry.persistent);
                wrong.push(format!("{is}, but {} in the store", stored_as(stored)));
            }
            Some(_) => {}
        }
    }
    for stored in expected.values() {
        let domain = &stored.domain;
        wrong.push(format!("{domain} does not exist, but is {} in the store", stored_as(stored)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::new(wrong.join("; "))) }
}

fn identity(domain: &Domain) -> (&str, &str, virevent::Uuid) {
    (domain.source(), domain.host(), domain.uuid())
}

fn is_same(stored: &StoredDomain, entry: &Listed) -> bool {
    let is_known = |persistent: &Option<bool>| persistent.is_some();
    let both = [stored.persistent, entry.persistent].iter().all(is_known);
    stored.domain.id() == entry.domain.id()
        && stored.domain.name() == entry.domain.name()
        && stored.state.is_same(entry.state)
        && (!both || stored.persistent == entry.persistent)
}

fn stored_as(stored: &StoredDomain) -> String {
    describe(&stored.domain, stored.state, stored.persistent)
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
    use virevent::{DomainEvent, Lifecycle};

    use super::*;
    use crate::Host;
    use crate::host::{Emitted, Observer};

    /// The emitted events, completed as by the driver, which sets whether a domain is persistent.
    fn emitted(observer: &mut Observer) -> Vec<DomainEvent> {
        let settle = |Emitted { event, now }| match event {
            DomainEvent::Lifecycle(lifecycle) => {
                let persists = now.is_some_and(|entry: Listed| entry.persistent == Some(true));
                Lifecycle::persistent(lifecycle, persists).into()
            }
            event => event,
        };
        std::iter::from_fn(|| observer.try_next()).map(settle).collect()
    }

    fn filled(events: &[DomainEvent]) -> DomainStore {
        let store = DomainStore::new();
        store.extend(events);
        store
    }

    #[test]
    fn store_of_all_events_equals_the_list() {
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
        let store = filled(&emitted(&mut observer));
        check_store(&store, &host.domains()).unwrap();
        let now = store.snapshot();
        assert_eq!((now.active().count(), now.len()), (2, 4));
        assert!(now.get("db").is_none() && now.get("cache").is_none());
        assert!(now.get("store").is_some());
    }

    #[test]
    fn store_without_the_last_event_differs_from_the_list() {
        type Act = fn(&Host);
        let table: [(Act, &str); 4] = [
            (|host| drop(host.create("a")), "a[2] is running (booted), but missing in the store"),
            (
                |host| drop(host.stop("db")),
                "db[1] does not exist, but is db[1] running (booted), transient in the store",
            ),
            (
                |host| drop(host.define("db")),
                "db[1] running (booted), persistent, but db[1] running (booted), transient in the \
                 store",
            ),
            (
                |host| drop(host.undefine("web")),
                "web does not exist, but is web shutoff, persistent in the store",
            ),
        ];
        for (act, expected) in table {
            let host = Host::default();
            let mut observer = host.observe();
            host.create("db").unwrap();
            host.define("web").unwrap();
            act(&host);
            let events = emitted(&mut observer);
            let store = filled(&events[..events.len() - 1]);
            let failure = check_store(&store, &host.domains()).unwrap_err().to_string();
            assert_eq!(failure, expected);
        }
    }
}
