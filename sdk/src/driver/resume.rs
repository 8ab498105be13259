//! Resuming: what a subscriber gets in place of `Existing` events, if it knows the domains from a
//! [`Snapshot`].
//!
//! The snapshot stands for an old roster, and the difference to the present one is inferred, as after
//! an outage: first the domains that are gone, then the others, each by name.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use super::entry::Entry;
use super::inference::Inference;
use super::observe::is_half_started;
use super::reconcile::{confirmed, without_run};
use super::roster::Roster;
use super::scopes::Scopes;
use super::subscribers::Subscriber;
use crate::domain::Host;
use crate::{
    Domain, DomainEvent, Error, EventSource, Origin, Scope, Snapshot, StopCause, StoredDomain,
};

/// # Errors
/// The snapshot does not know the source, nor any of its members.
pub(crate) fn check_source(known: &Snapshot, source: &dyn EventSource) -> Result<(), Error> {
    if known.knows_any(source) {
        return Ok(());
    }
    let reason = match known.sources().next() {
        None => "it knows no source".to_owned(),
        Some(_) => format!("it knows {}", list(known.sources())),
    };
    Err(Error::UnfitSnapshot { uri: source.uri().into(), reason })
}

/// # Errors
/// The snapshot has domains of the source, and none on a host that the source reports.
pub(super) fn check(known: &Snapshot, roster: &Roster) -> Result<(), Error> {
    let home = roster.home();
    let hosts: HashSet<_> = known.hosts_of(&home.source).collect();
    // A source may report domains of many hosts.
    let mut entries = roster.selected(|_| true).into_iter();
    if hosts.is_empty()
        || hosts.contains(&home)
        || entries.any(|entry| hosts.contains(entry.domain.shared_host()))
    {
        return Ok(());
    }
    let of = list(known.hosts_of(&home.source).map(|host| &*host.name));
    let reason = format!("it is of the host {of}, and this is {}", home.name);
    Err(Error::UnfitSnapshot { uri: home.source.to_string(), reason })
}

/// Adds to the roster what the snapshot knows of unreachable parts, so that what happens there is
/// compared with it; and marks the starts under way, of which the subscriber is not told.
pub(super) fn remember(known: &Snapshot, roster: &mut Roster, unreachable: &mut Scopes) {
    let source = Scope::Source(Arc::clone(&roster.home().source));
    for stored in known.within(&source) {
        let key = roster.key(&stored.domain);
        if roster.get(key).is_some() {
            continue;
        }
        let is_known = |domain: &Domain| roster.knows(domain) || known.same(domain).is_some();
        if unreachable.contains(&stored.domain) || unreachable.hide(&stored.domain, is_known) {
            roster.insert(key, entry_of(stored));
        }
    }
    let is_unknown_start = |entry: &&Entry| {
        let before = known.same(&entry.domain);
        entry.domain.is_active()
            && is_half_started(entry.state)
            && before.is_none_or(|before| before.domain.id() != entry.domain.id())
    };
    let starts: Vec<_> =
        roster.selected(|_| true).into_iter().filter(is_unknown_start).cloned().collect();
    for start in starts {
        let key = roster.key(&start.domain);
        if let Some(entry) = roster.get_mut(key) {
            entry.unannounced = true;
        }
    }
}

/// A few names.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let mut text = String::new();
    let mut more = 0;
    for (index, name) in names.enumerate() {
        match index {
            0 => text.push_str(name),
            1..SHOWN => text.extend([", ", name]),
            _ => more += 1,
        }
    }
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

/// What changed since the snapshot was taken, in the subscriber's filter. `entries`: every domain
/// that exists, by name.
pub(super) fn events(
    known: &Snapshot,
    source: &Scope,
    subscriber: &Subscriber,
    entries: Vec<&Entry>,
    unreachable: &Scopes,
    at: SystemTime,
) -> Vec<DomainEvent> {
    let mut inference = Inference::new(Origin::Inferred, at);
    let existing: HashSet<_> = entries.iter().map(|entry| identity(entry)).collect();
    let is_missing = |stored: &&Arc<StoredDomain>| {
        let identity = (&**stored.domain.shared_host(), stored.domain.uuid());
        // No list says anything of a domain that is unreachable.
        !existing.contains(&identity) && !unreachable.contains(&stored.domain)
    };
    let mut missing: Vec<_> = known.within(source).filter(is_missing).collect();
    missing.sort_by(|one, other| one.domain.name().cmp(other.domain.name()));
    for stored in missing {
        inference.gone(&entry_of(stored), StopCause::Unspecified);
    }
    let hosts: HashSet<_> = known.hosts_of(source.source()).collect();
    for entry in entries {
        // It does not say what was on a host that it does not know.
        if !hosts.is_empty() && !hosts.contains(entry.domain.shared_host()) {
            inference.events.push(entry.existing(at));
            continue;
        }
        let before = known.same(&entry.domain).map(|stored| entry_of(stored));
        match (announced(before.as_ref(), entry), before) {
            (Some(now), before) => inference.differ(before.as_ref(), &now),
            (None, Some(before)) => inference.gone(&before, StopCause::Unspecified),
            (None, None) => {}
        }
    }
    inference.events.retain(|event| subscriber.selects(event));
    inference.events
}

fn identity(entry: &Entry) -> (&Host, uuid::Uuid) {
    (entry.domain.shared_host(), entry.domain.uuid())
}

fn entry_of(stored: &StoredDomain) -> Entry {
    Entry::seen(stored.domain.clone(), stored.state, stored.persistent)
}

/// The domain without a run whose start is not complete: the start is delivered when it is.
fn announced(before: Option<&Entry>, entry: &Entry) -> Option<Entry> {
    let is_known_run = before.is_some_and(|before| before.domain.id() == entry.domain.id());
    let is_announced = is_known_run || !entry.unannounced;
    let entry = Entry { unannounced: false, ..entry.clone() };
    match is_announced {
        true => confirmed(before, entry),
        false => without_run(&entry),
    }
}
