//! The smallest service worth copying: it keeps track of which domains run.
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

/// What the service knows, for the rest of the program to watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The domains that run. By identity: a name can change, and an id is reused.
    pub domains: BTreeMap<Identity, Domain>,
    /// What is not known for certain now: the whole source until the first sync, or what is out of
    /// reach, be it the source, a host or a domain.
    pub uncertain: Vec<Scope>,
}

/// What tells one domain from another: its source, its host and its uuid. Two sources may know one
/// machine under the same host and uuid.
pub type Identity = (Box<str>, Box<str>, Uuid);

/// What tells this domain from another, in every run and under every name.
pub fn identity(domain: &Domain) -> Identity {
    (domain.source().into(), domain.host().into(), domain.uuid())
}

impl Running {
    /// Nothing is known yet of the source with this URI.
    pub fn of_source(uri: &str) -> Self {
        Self { domains: BTreeMap::new(), uncertain: vec![Scope::source_wide(uri)] }
    }
}

/// Keeps `running` true until the source ends or `shutdown` resolves.
///
/// # Errors
/// The source cannot be reached at the start, or refuses for good later.
pub async fn serve(
    source: Arc<dyn EventSource>,
    running: watch::Sender<Running>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut events = source.subscribe().await?;
    let mut shutdown = std::pin::pin!(shutdown);
    let end = loop {
        tokio::select! {
            // `next()` is cancel safe: dropped for the other branch, it loses nothing.
            event = events.next() => match event {
                Some(event) => running.send_modify(|running| react(running, &event)),
                None => break events.end(),
            },
            () = &mut shutdown => break None,
        }
    };
    // Returns when the hypervisor has confirmed it; dropping the stream would not wait.
    events.close().await;
    match end {
        // An outage is none of these: the stream lives through it.
        Some(End::Failed(error)) => Err(error),
        _ => Ok(()),
    }
}

/// What happened in an outage comes as ordinary events before `Synced`, so nothing else is needed.
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
        // Out of reach is not stopped: the domains stay as they are, only less certain.
        DomainEvent::Gap(Gap { kind: GapKind::Disconnected { .. }, scope, .. }) => {
            running.uncertain.retain(|known| !scope.includes(known));
            running.uncertain.push(scope.clone());
        }
        DomainEvent::Synced(synced) => {
            running.uncertain.retain(|known| !synced.scope.includes(known));
        }
        // We read far too slowly. What there is follows, and what is not in it has gone.
        DomainEvent::Gap(Gap { kind: GapKind::Lagged { reset: true, .. }, scope, .. }) => {
            running.domains.retain(|_, domain| !scope.contains(domain));
            running.uncertain.retain(|known| !scope.includes(known));
            running.uncertain.push(scope.clone());
        }
        // Among them that we read a little too slowly: where each domain ended up is kept for us.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use virevent::{Fault, FaultKind, Lifecycle, StartCause, Synced};

    use super::*;

    #[test]
    fn one_domain_out_of_reach_leaves_the_others_certain() {
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

    /// libvirt, and the monitor of its QEMU.
    #[test]
    fn one_machine_of_two_sources_is_two_domains() {
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
        assert_eq!(left, [&one], "a reset is of one source");
        assert_eq!(running.uncertain, ["a:", "b:"].map(Scope::source_wide));
    }

    #[test]
    fn what_is_told_anew_replaces_what_was_known() {
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
