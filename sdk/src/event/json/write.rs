//! The way from an event to the flat object.

use std::borrow::Cow;

use super::data::Data;
use super::text::{Hex, Stamp, Text};
use super::{Flat, FlatDomain, FlatName};
use crate::{Change, DomainEvent, EventData, EventName, Gap, GapKind, RawEvent, Scope, State};

impl<'a> Flat<'a> {
    pub(super) fn from_event(event: &'a DomainEvent) -> Self {
        match event {
            DomainEvent::Lifecycle(event) => Self {
                source: Some(event.domain.source().into()),
                domain: Some(FlatDomain::of(&event.domain)),
                origin: Some(event.origin.as_str().into()),
                at: Some(Text(Stamp(event.at))),
                persistent: event.persistent,
                ..Self::from_change(event.change)
            },
            DomainEvent::Reboot(event) => Self {
                kind: "reboot".into(),
                source: Some(event.domain.source().into()),
                domain: Some(FlatDomain::of(&event.domain)),
                origin: Some(event.origin.as_str().into()),
                at: Some(Text(Stamp(event.at))),
                ..Self::default()
            },
            DomainEvent::Notice(notice) => Self {
                kind: notice.kind().to_string().replace('-', "_").into(),
                data: Some(Data::Fields(&notice.body)),
                source: Some(notice.domain.source().into()),
                domain: Some(FlatDomain::of(&notice.domain)),
                origin: Some(notice.origin.as_str().into()),
                at: Some(Text(Stamp(notice.at))),
                ..Self::default()
            },
            DomainEvent::Other(event) => Self::from_raw(event),
            DomainEvent::Synced(synced) => Self {
                kind: "synced".into(),
                domains: Some(synced.domains),
                ..Self::from_scope(&synced.scope)
            },
            DomainEvent::Gap(gap) => Self::from_gap(gap),
        }
    }

    fn from_change(change: Change) -> Self {
        let flat = Self {
            kind: "lifecycle".into(),
            change: Some(change.as_str().into()),
            ..Self::default()
        };
        match change {
            Change::Existing(State::Unknown { state, reason }) => Self {
                state: Some("unknown".into()),
                raw: Some(state),
                detail: Some(reason),
                ..flat
            },
            Change::Existing(state) => Self {
                state: Some(state.as_str().into()),
                reason: given(state.reason()),
                raw: (state.reason() == "unknown").then_some(state.codes().1),
                ..flat
            },
            Change::Unknown { event, detail } => {
                Self { raw: Some(event), detail: Some(detail), ..flat }
            }
            change => Self {
                cause: given(change.cause()),
                // A name says what the number would, so the number stands only where this version
                // has no name for it.
                raw: change.codes().filter(|_| change.cause() == "unknown").map(|(_, cause)| cause),
                ..flat
            },
        }
    }

    fn from_raw(event: &'a RawEvent) -> Self {
        let (data, hex) = match event.data() {
            EventData::Json(text) => (Some(Data::of(text)), None),
            EventData::Bytes(bytes) => (None, Some(Text(Hex(Cow::Borrowed(bytes))))),
        };
        let name = match event.name() {
            EventName::Number(number) => FlatName::Number(*number),
            EventName::Name(name) => FlatName::Name(Cow::Borrowed(name)),
        };
        Self {
            kind: "other".into(),
            event: Some(name),
            data,
            hex,
            origin: Some(event.origin.as_str().into()),
            at: Some(Text(Stamp(event.at))),
            source: Some(event.source().into()),
            domain: event.domain.as_ref().map(FlatDomain::of),
            ..Self::default()
        }
    }

    fn from_gap(gap: &'a Gap) -> Self {
        let flat = Self { kind: "gap".into(), ..Self::from_scope(&gap.scope) };
        match &gap.kind {
            GapKind::Disconnected { fault } => Self {
                gap: Some("disconnected".into()),
                error: Some(fault.message().into()),
                fault: Some(fault.kind().as_str().into()),
                ..flat
            },
            GapKind::Lagged { missed, reset } => Self {
                gap: Some("lagged".into()),
                missed: Some(*missed),
                reset: reset.then_some(true),
                ..flat
            },
            GapKind::Removed => Self { gap: Some("removed".into()), ..flat },
        }
    }

    fn from_scope(scope: &'a Scope) -> Self {
        let host = match scope {
            Scope::Host { host, .. } => Some(Cow::Borrowed(&**host)),
            Scope::Source(_) | Scope::Domain(_) | Scope::Fleet { .. } => None,
        };
        let members = match scope {
            Scope::Fleet { members, .. } => {
                Some(members.iter().map(|member| Cow::Borrowed(&**member)).collect())
            }
            _ => None,
        };
        Self {
            source: Some(scope.source().into()),
            members,
            host,
            domain: scope.domain().map(FlatDomain::of),
            ..Self::default()
        }
    }
}

/// Absent where the hypervisor gave none.
fn given(name: &'static str) -> Option<Cow<'static, str>> {
    (!name.is_empty()).then_some(Cow::Borrowed(name))
}
