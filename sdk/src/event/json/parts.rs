//! The parts of an event on their own: the same fields as in an event.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use super::{Flat, FlatName};
use crate::{
    Change, DomainEvent, EventData, EventName, Fault, FaultKind, Gap, GapKind, Lifecycle, Notice,
    NoticeBody, Origin, RawEvent, Reboot, Scope, State, Synced,
};

macro_rules! flat {
    ($($(#[$meta:meta])* $type:ident: $write:expr, $read:expr;)+) => { $(
        $(#[$meta])*
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                write(self, $write, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read: fn(Flat<'_>) -> Result<Self, String> = $read;
                read(Flat::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )+ };
}

fn write<'a, T, S: Serializer>(
    value: &'a T,
    flat: impl FnOnce(&'a T) -> Flat<'a>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    flat(value).serialize(serializer)
}

macro_rules! event {
    ($variant:ident) => {
        |flat| match flat.into_event()? {
            DomainEvent::$variant(event) => Ok(event),
            other => Err(format!("this is another event than expected: {other}")),
        }
    };
}

flat! {
    /// As [`DomainEvent`].
    Lifecycle: Flat::from_lifecycle, event!(Lifecycle);
    /// As [`DomainEvent`].
    Reboot: Flat::from_reboot, event!(Reboot);
    /// As [`DomainEvent`].
    Notice: Flat::from_notice, event!(Notice);
    /// As [`DomainEvent`].
    RawEvent: Flat::from_raw, event!(Other);
    /// As [`DomainEvent`].
    Synced: Flat::from_synced, event!(Synced);
    /// As [`DomainEvent`].
    Gap: Flat::from_gap, event!(Gap);
    /// `{"kind":"watchdog","data":{"action":"pause"}}`.
    NoticeBody: Flat::from_body, |flat| match &*flat.kind {
        "" => Err(flat.lacks("kind")),
        kind => flat.body(kind),
    };
    /// `{"data":…}` or `{"hex":"00ff"}`.
    EventData: Flat::from_data, |flat| flat.event_data();
    /// `{"change":"started","cause":"booted"}`.
    Change: |change| Flat::from_change(*change), |flat| flat.change();
    /// `{"state":"running","reason":"booted"}`.
    State: |state| Flat::from_state(*state), |flat| flat.state();
    /// `{"gap":"lagged","missed":17}`.
    GapKind: |kind| Flat::default().with_gap(kind), |flat| flat.gap();
    /// `{"source":"qemu:///system"}`; `host` or `domain` where it is narrower, `members` of a fleet.
    Scope: Flat::from_scope, |flat| flat.scope();
    /// `{"error":"connection refused","fault":"unreachable"}`.
    Fault: |fault| Flat::default().with_fault(fault), |flat| flat.fault();
}

macro_rules! name {
    ($($type:ident: $read:expr;)+) => { $(
        /// Its name.
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read: fn(&str) -> Result<Self, String> = $read;
                let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
                read(&name).map_err(D::Error::custom)
            }
        }
    )+ };
}

name! {
    Origin: super::read::origin;
    // As in an event: an unknown name is `other`.
    FaultKind: |name| Ok(FaultKind::from_name(name));
}

/// A number or a text.
impl Serialize for EventName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatName::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(FlatName::deserialize(deserializer)?.name())
    }
}
