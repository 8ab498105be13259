//! A minimal service to copy: it keeps a table of the running domains.
//!
//! Copy the folder, and put your own work where [`Running`] is changed.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::watch;
use virevent::{
    Change, Domain, DomainEvent, End, Error, EventSource, EventSourceExt, Gap, GapKind, Scope, Uuid,
};

/// The service's table, for the rest of the program to watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The running domains, by identity: a name can change, and an id is reused.
    pub domains: BTreeMap<Identity, Domain>,
    /// The scopes whose state is uncertain: the source until the first sync, and every unreachable
    /// source, host or domain.
    pub uncertain: Vec<Scope>,
}

/// The identity of a domain: its source, host and uuid. Two sources may have the same virtual
/// machine under the same host and uuid.
pub type Identity = (Box<str>, Box<str>, Uuid);

/// The identity of this domain, in every run and under every name.
#[must_use]
pub fn identity(domain: &Domain) -> Identity {
    (domain.source().into(), domain.host().into(), domain.uuid())
}

impl Running {
    /// The table before the first sync of the source with this URI.
    #[must_use]
    pub fn of_source(uri: &str) -> Self {
        Self { domains: BTreeMap::new(), uncertain: vec![Scope::source_wide(uri)] }
    }
}

/// Keeps `running` up to date until the source ends or `shutdown` resolves.
///
/// # Errors
/// The source is unreachable at the start, or refuses permanently later.
pub async fn serve(
    source: Arc<dyn EventSource>,
    running: watch::Sender<Running>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut events = source.subscribe().await?;
    let mut shutdown = std::pin::pin!(shutdown);
    let end = loop {
        tokio::select! {
            // `next()` is cancel safe: if the other branch wins, no event is lost.
            event = events.next() => match event {
                Some(event) => running.send_modify(|running| react(running, &event)),
                None => break events.end(),
            },
            () = &mut shutdown => break None,
        }
    };
    // Waits until the hypervisor has confirmed the deregistration; dropping the stream would not.
    events.close().await;
    match end {
        // An outage does not end the stream.
        Some(End::Failed(error)) => Err(error),
        _ => Ok(()),
    }
}

/// Applies an event. The changes of an outage are delivered as ordinary events before `Synced`, so
/// there is no other case for them.
fn react(running: &mut Running, event: &DomainEvent) {
    match event {
        DomainEvent::Lifecycle(event) => match event.change {
            Change::Started(_) | Change::Existing(_) if event.domain.is_active() => {
                running.domains.insert(identity(&event.domain), event.domain.clone());
            }
            Change::Stopped(_) | Change::Existing(_) => {
                running.domains.remove(&identity(&event.domain));
            }
            _ => {}
        },
        // Unreachable is not stopped: the domains stay in the table, and are uncertain.
        DomainEvent::Gap(Gap { kind: GapKind::Disconnected { .. }, scope, .. }) => {
            running.uncertain.retain(|known| !scope.includes(known));
            running.uncertain.push(scope.clone());
        }
        DomainEvent::Synced(synced) => {
            running.uncertain.retain(|known| !synced.scope.includes(known));
        }
        // This loop read far too slowly: all existing domains follow, and the others are gone.
        DomainEvent::Gap(Gap { kind: GapKind::Lagged { reset: true, .. }, scope, .. }) => {
            running.domains.retain(|_, domain| !scope.contains(domain));
            running.uncertain.retain(|known| !scope.includes(known));
            running.uncertain.push(scope.clone());
        }
        // Also `Lagged` without `reset`: the last event of each domain is kept.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use virevent::{Fault, FaultKind, Lifecycle, StartCause, Synced};

    use super::*;

    #[test]
    fn an_unreachable_domain_leaves_the_others_certain() {
        let [web, db] = [1, 2].map(|n| {
            let domain =
                Domain::new("qmp-dir:/run", "h", Uuid::from_u128(n), &n.to_string(), Some(7));
            Scope::Domain(domain)
        });
        let gone = |scope: &Scope| {
            let fault = Fault::new(FaultKind::Closed, "hung up");
            Gap::new(scope.clone(), GapKind::disconnected(fault)).into()
        };
        let back = |scope: &Scope| Synced::new(scope.clone(), 1).into();
        let all = Scope::source_wide("qmp-dir:/run");
        let mut running = Running::of_source("qmp-dir:/run");
        react(&mut running, &back(&all));
        assert_eq!(running.uncertain, []);
        [gone(&web), gone(&db), gone(&web), back(&db)].iter().for_each(|e| react(&mut running, e));
        assert_eq!(running.uncertain, std::slice::from_ref(&web));
        [gone(&all), gone(&web), back(&all)].iter().for_each(|e| react(&mut running, e));
        assert_eq!(running.uncertain, []);
    }

    /// As with libvirt and the monitor of its QEMU.
    #[test]
    fn one_vm_of_two_sources_is_two_domains() {
        let mut running = Running::of_source("a:");
        let [one, other] =
            ["a:", "b:"].map(|source| Domain::new(source, "h", Uuid::from_u128(1), "web", Some(1)));
        let at = std::time::SystemTime::UNIX_EPOCH;
        for domain in [&one, &other] {
            let started = Change::Started(StartCause::Booted);
            react(&mut running, &Lifecycle::new(domain.clone(), started, at).into());
        }
        assert_eq!(running.domains.len(), 2);
        let lagged = GapKind::lagged(9, true);
        react(&mut running, &Gap::new(Scope::source_wide("b:"), lagged).into());
        let left: Vec<_> = running.domains.values().collect();
        assert_eq!(left, [&one], "a reset affects its own source only");
        assert_eq!(running.uncertain, ["a:", "b:"].map(Scope::source_wide));
    }

    #[test]
    fn reset_empties_the_table() {
        let mut running = Running::of_source("fake:");
        let web = Domain::new("fake:", "h", Uuid::from_u128(1), "web", Some(1));
        let started = Change::Started(StartCause::Booted);
        let at = std::time::SystemTime::UNIX_EPOCH;
        react(&mut running, &Lifecycle::new(web, started, at).into());
        assert_eq!(running.domains.len(), 1);
        for (reset, left) in [(false, 1), (true, 0)] {
            let lagged = GapKind::lagged(9, reset);
            react(&mut running, &Gap::new(Scope::source_wide("fake:"), lagged).into());
            assert_eq!(running.domains.len(), left);
        }
    }
}
