//! The way from an event to the flat object.

use std::borrow::Cow;

use super::data::Data;
use super::text::{Hex, Stamp, Text};
use super::{Flat, FlatDomain, FlatName};
use crate::{
    Change, DomainEvent, EventData, Fault, Gap, GapKind, Lifecycle, Notice, NoticeBody, RawEvent,
    Reboot, Scope, State, Synced,
};

impl<'a> Flat<'a> {
    pub(super) fn from_event(event: &'a DomainEvent) -> Self {
        match event {
            DomainEvent::Lifecycle(event) => Self::from_lifecycle(event),
            DomainEvent::Reboot(event) => Self::from_reboot(event),
            DomainEvent::Notice(notice) => Self::from_notice(notice),
            DomainEvent::Other(event) => Self::from_raw(event),
            DomainEvent::Synced(synced) => Self::from_synced(synced),
            DomainEvent::Gap(gap) => Self::from_gap(gap),
        }
    }

    pub(super) fn from_lifecycle(event: &'a Lifecycle) -> Self {
        Self {
            kind: "lifecycle".into(),
            source: Some(event.domain.source().into()),
            domain: Some(FlatDomain::of(&event.domain)),
            origin: Some(event.origin.as_str().into()),
            at: Some(Text(Stamp(event.at))),
            persistent: event.persistent,
            ..Self::from_change(event.change)
        }
    }

    pub(super) fn from_reboot(event: &'a Reboot) -> Self {
        Self {
            kind: "reboot".into(),
            source: Some(event.domain.source().into()),
            domain: Some(FlatDomain::of(&event.domain)),
            origin: Some(event.origin.as_str().into()),
            at: Some(Text(Stamp(event.at))),
            ..Self::default()
        }
    }

    pub(super) fn from_notice(notice: &'a Notice) -> Self {
        Self {
            source: Some(notice.domain.source().into()),
            domain: Some(FlatDomain::of(&notice.domain)),
            origin: Some(notice.origin.as_str().into()),
            at: Some(Text(Stamp(notice.at))),
            ..Self::from_body(&notice.body)
        }
    }

    pub(super) fn from_body(body: &'a NoticeBody) -> Self {
        Self {
            kind: body.kind().to_string().replace('-', "_").into(),
            data: Some(Data::Fields(body)),
            ..Self::default()
        }
    }

    pub(super) fn from_synced(synced: &'a Synced) -> Self {
        Self {
            kind: "synced".into(),
            domains: Some(synced.domains),
            ..Self::from_scope(&synced.scope)
        }
    }

    pub(super) fn from_change(change: Change) -> Self {
        let flat = match change {
            Change::Existing(state) => Self::from_state(state),
            Change::Unknown { event, detail } => {
                Self { raw: Some(event), detail: Some(detail), ..Self::default() }
            }
            change => Self {
                cause: given(change.cause()),
                // A name says what the number would, so the number stands only where this version
                // has no name for it.
                raw: change.codes().filter(|_| change.cause() == "unknown").map(|(_, cause)| cause),
                ..Self::default()
            },
        };
        Self { change: Some(change.as_str().into()), ..flat }
    }

    pub(super) fn from_state(state: State) -> Self {
        match state {
            State::Unknown { state, reason } => Self {
                state: Some("unknown".into()),
                raw: Some(state),
                detail: Some(reason),
                ..Self::default()
            },
            state => Self {
                state: Some(state.as_str().into()),
                reason: given(state.reason()),
                raw: (state.reason() == "unknown").then_some(state.codes().1),
                ..Self::default()
            },
        }
    }

    pub(super) fn from_raw(event: &'a RawEvent) -> Self {
        Self {
            kind: "other".into(),
            event: Some(FlatName::of(event.name())),
            origin: Some(event.origin.as_str().into()),
            at: Some(Text(Stamp(event.at))),
            source: Some(event.source().into()),
            domain: event.domain.as_ref().map(FlatDomain::of),
            ..Self::from_data(event.data())
        }
    }

    pub(super) fn from_data(data: &'a EventData) -> Self {
        match data {
            EventData::Json(text) => Self { data: Some(Data::of(text)), ..Self::default() },
            EventData::Bytes(bytes) => {
                Self { hex: Some(Text(Hex(Cow::Borrowed(bytes)))), ..Self::default() }
            }
        }
    }

    pub(super) fn from_gap(gap: &'a Gap) -> Self {
        let flat = Self { kind: "gap".into(), ..Self::from_scope(&gap.scope) };
        flat.with_gap(&gap.kind)
    }

    pub(super) fn with_gap(self, kind: &'a GapKind) -> Self {
        let flat = self;
        match kind {
            GapKind::Disconnected { fault } => {
                Self { gap: Some("disconnected".into()), ..flat.with_fault(fault) }
            }
            GapKind::Lagged { missed, reset } => Self {
                gap: Some("lagged".into()),
                missed: Some(*missed),
                reset: reset.then_some(true),
                ..flat
            },
            GapKind::Removed => Self { gap: Some("removed".into()), ..flat },
        }
    }

    pub(super) fn with_fault(self, fault: &'a Fault) -> Self {
        Self {
            error: Some(fault.message().into()),
            fault: Some(fault.kind().as_str().into()),
            ..self
        }
    }

    pub(super) fn from_scope(scope: &'a Scope) -> Self {
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
