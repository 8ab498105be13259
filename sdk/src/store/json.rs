//! The form in which a program keeps a [`Snapshot`] while it does not run (feature `serde`).
//!
//! ```json
//! {"version":1,"sources":["qemu:///system"],"uncertain":[],"domains":[
//!  {"domain":{"source":"qemu:///system","host":"h","uuid":"…","name":"web","id":3},
//!   "state":{"state":"running","reason":"booted"},"change":{"change":"started","cause":"booted"},
//!   "origin":"observed","since":"2026-01-31T12:00:00.000000Z","persistent":true,"certain":true}]}
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Transition;
use super::snapshot::{Snapshot, StoredDomain};
use crate::{Domain, DomainEvent, Origin, Scope};

/// The version that is written, and the oldest that is read.
const VERSION: u32 = 1;

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("Snapshot", 4)?;
        // First, so that a version that cannot be read is recognized before anything else.
        form.serialize_field("version", &VERSION)?;
        form.serialize_field("sources", &self.sources().collect::<Vec<_>>())?;
        form.serialize_field("uncertain", &self.uncertain().collect::<Vec<_>>())?;
        form.serialize_field("domains", &self.iter().map(|one| &**one).collect::<Vec<_>>())?;
        form.end()
    }
}

/// Unknown fields are ignored. A snapshot of a version that cannot be read is an error.
impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SnapshotVisitor)
    }
}

struct SnapshotVisitor;

impl<'de> Visitor<'de> for SnapshotVisitor {
    type Value = Snapshot;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a snapshot of a store, an object with \"version\" and \"domains\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Snapshot, A::Error> {
        let mut version = None;
        let mut sources = BTreeSet::<Arc<str>>::new();
        let mut uncertain = Vec::<Scope>::new();
        let mut domains = None;
        while let Some(field) = map.next_key::<String>()? {
            match &*field {
                "version" => version = Some(check_version(map.next_value()?)?),
                "sources" => {
                    sources.extend(map.next_value::<Vec<String>>()?.into_iter().map(Into::into));
                }
                "uncertain" => uncertain = map.next_value()?,
                "domains" => domains = Some(map.next_value::<Vec<StoredDomain>>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        version.ok_or_else(|| A::Error::missing_field("version"))?;
        let domains = domains.ok_or_else(|| A::Error::missing_field("domains"))?;
        let mut snapshot = Snapshot::default();
        sources.iter().for_each(|source| snapshot.learn(source));
        uncertain.iter().for_each(|scope| snapshot.doubt(scope));
        for stored in domains {
            let named = &stored.domain;
            // All domains of a host share it.
            let host = snapshot.host(named).unwrap_or(named.shared_host());
            let domain = Domain::on(Arc::clone(host), named.uuid(), named.name(), named.id());
            snapshot.insert(Arc::new(StoredDomain { domain, ..stored }));
        }
        Ok(snapshot)
    }
}

/// `{"before":{…},"after":{…},"event":{…},"origin":"observed"}`, with `"forgotten":true` where the
/// source was removed from its fleet.
impl Serialize for Transition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TransitionForm {
            before: self.before.as_deref(),
            after: self.after.as_deref(),
            event: self.event.as_ref(),
            origin: self.origin,
            forgotten: self.is_forgotten,
        }
        .serialize(serializer)
    }
}

/// One without a domain before and after is an error.
impl<'de> Deserialize<'de> for Transition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = TransitionForm::<StoredDomain, DomainEvent>::deserialize(deserializer)?;
        let TransitionForm { before, after, event, origin, forgotten } = form;
        if before.is_none() && after.is_none() {
            return Err(D::Error::custom("a transition needs \"before\" or \"after\""));
        }
        let before = before.map(Arc::new);
        let after = after.map(Arc::new);
        Ok(Self { before, after, event, origin, is_forgotten: forgotten })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct TransitionForm<D, E> {
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<D>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<D>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<E>,
    origin: Origin,
    #[serde(skip_serializing_if = "is_false", default)]
    forgotten: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

fn check_version<E: Error>(version: u32) -> Result<u32, E> {
    match version {
        VERSION => Ok(version),
        newer if newer > VERSION => Err(E::custom(format_args!(
            "a snapshot of version {newer}, from a newer virevent: this one reads version {VERSION}"
        ))),
        older => Err(E::custom(format_args!(
            "a snapshot of version {older}, which this virevent no longer reads: begin without it"
        ))),
    }
}
