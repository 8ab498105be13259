//! The body of an event: a CloudEvents 1.0 envelope around the event's documented JSON form. Pure.
//!
//! ```json
//! {"specversion":"1.0","id":"web1/1764257000000000/17","source":"virevent:web1",
//!  "type":"virevent.event","datacontenttype":"application/json","data":{"kind":"lifecycle", ...}}
//! ```
//!
//! The id is relay, epoch and sequence: the same event has the same id, however often it is sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use virevent::{Domain, DomainEvent};

use crate::subject::{Subject, check_name};

/// Where an event stands among those of its relay. A relay's epochs grow with each start of it, and
/// its sequences from 1 on within an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// The stable id of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    pub(crate) relay: String,
    pub(crate) position: Position,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { epoch, sequence } = self.position;
        write!(f, "{}/{epoch}/{sequence}", self.relay)
    }
}

impl FromStr for EventId {
    type Err = Refused;

    fn from_str(id: &str) -> Result<Self, Refused> {
        let number = |text: &str| text.parse().map_err(|_| Refused::Id);
        let mut parts = id.split('/');
        let (Some(relay), Some(epoch), Some(sequence), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Id);
        };
        check_name(relay).map_err(|_| Refused::Id)?;
        let position = Position { epoch: number(epoch)?, sequence: number(sequence)? };
        Ok(Self { relay: relay.into(), position })
    }
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the subject is not that of an event")]
    Subject,
    #[error("the body is no envelope of an event: {0}")]
    Body(String),
    #[error("the id is not that of an event")]
    Id,
    #[error("the body is of another relay, host or domain than the subject")]
    Mismatch,
}

#[derive(Serialize)]
struct Written<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: &'static str,
    datacontenttype: &'static str,
    data: &'a DomainEvent,
}

#[derive(Deserialize)]
struct Read {
    specversion: String,
    id: String,
    data: DomainEvent,
}

/// The body of an event.
///
/// # Errors
/// The event's own data is no JSON.
pub(crate) fn write(id: &EventId, event: &DomainEvent) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Written {
        specversion: "1.0",
        id: id.to_string(),
        source: format!("virevent:{}", id.relay),
        r#type: "virevent.event",
        datacontenttype: "application/json",
        data: event,
    })
}

/// The event of a message, if its body and its subject name the same relay, host and domain.
///
/// # Errors
/// The message is refused.
pub(crate) fn read(subject: &str, body: &[u8]) -> Result<(Subject, EventId, DomainEvent), Refused> {
    let subject = Subject::parse(subject).ok_or(Refused::Subject)?;
    let read: Read =
        serde_json::from_slice(body).map_err(|error| Refused::Body(error.to_string()))?;
    if read.specversion != "1.0" {
        return Err(Refused::Body("it is not of version 1.0".into()));
    }
    let id: EventId = read.id.parse()?;
    let event = read.data;
    // A server's permissions are by subject: a host may write its own subjects, and no body speaks
    // for another host.
    let is_same = match event.domain() {
        Some(domain) => is_of(&subject, domain),
        None => {
            subject.uuid.is_none() && marker_host(&event).is_none_or(|host| host == subject.host)
        }
    };
    match is_same && id.relay == subject.relay {
        true => Ok((subject, id, event)),
        false => Err(Refused::Mismatch),
    }
}

fn is_of(subject: &Subject, domain: &Domain) -> bool {
    domain.host() == subject.host && Some(domain.uuid()) == subject.uuid
}

/// The host that a marker names; an empty text for one of a whole source, which no relay sends.
fn marker_host(event: &DomainEvent) -> Option<&str> {
    let scope = match event {
        DomainEvent::Synced(synced) => &synced.scope,
        DomainEvent::Gap(gap) => &gap.scope,
        _ => return None,
    };
    Some(match scope {
        virevent::Scope::Host { host, .. } => host,
        _ => "",
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use uuid::Uuid;
    use virevent::{Change, Fault, FaultKind, Gap, GapKind, Lifecycle, Scope, StartCause, Synced};

    use super::*;
    use crate::subject;

    fn id(relay: &str) -> EventId {
        EventId { relay: relay.into(), position: Position { epoch: 5, sequence: 17 } }
    }

    fn started(host: &str, name: &str) -> DomainEvent {
        let domain = Domain::new("s:", host, Uuid::from_u128(1), name, Some(3));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        Lifecycle::new(domain, Change::Started(StartCause::Booted), at).persistent(true).into()
    }

    #[test]
    fn every_kind_of_body_comes_back_as_written() {
        let fault = Fault::new(FaultKind::Closed, "it \"closed\"\n");
        let events = [
            started("h.1", "\"},{\u{0}"),
            Synced::new(Scope::on_host("s:", "h.1"), 3).into(),
            Gap::new(Scope::on_host("s:", "h.1"), GapKind::disconnected(fault)).into(),
        ];
        for event in events {
            let body = write(&id("r"), &event).unwrap();
            let subject = subject::of_event("r", "h.1", &event);
            assert_eq!(
                read(&subject, &body).unwrap(),
                (Subject::parse(&subject).unwrap(), id("r"), event)
            );
        }
    }

    #[test]
    fn an_envelope_has_the_required_attributes() {
        let body = write(&id("web1"), &started("h", "web")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["id"], "web1/5/17");
        assert_eq!(json["source"], "virevent:web1");
        assert_eq!(json["type"], "virevent.event");
        assert_eq!(json["data"]["domain"]["name"], "web");
    }

    #[test]
    fn a_body_of_another_host_relay_or_domain_is_refused() {
        let event = started("h", "web");
        let body = write(&id("r"), &event).unwrap();
        let other = Uuid::from_u128(2);
        let own = Uuid::from_u128(1);
        for subject in [
            subject::of_event("r", "other", &event),
            subject::of_event("other", "h", &event),
            format!("virevent.r.h.{other}.lifecycle"),
            "virevent.r.h._.lifecycle".to_owned(),
        ] {
            assert_eq!(read(&subject, &body), Err(Refused::Mismatch), "{subject}");
        }
        read(&format!("virevent.r.h.{own}.lifecycle"), &body).unwrap();
        let marker = Synced::new(Scope::on_host("s:", "other"), 0).into();
        let body = write(&id("r"), &marker).unwrap();
        assert_eq!(read("virevent.r.h._.synced", &body), Err(Refused::Mismatch));
        let wide = Synced::new(Scope::source_wide("s:"), 0).into();
        let body = write(&id("r"), &wide).unwrap();
        assert_eq!(read("virevent.r.h._.synced", &body), Err(Refused::Mismatch));
    }

    #[test]
    fn a_body_that_is_no_envelope_is_refused() {
        let subject = "virevent.r.h._.synced";
        for body in ["", "{}", "[]", "\u{0}", r#"{"specversion":"1.0","id":"r/1/1","data":{}}"#] {
            assert!(matches!(read(subject, body.as_bytes()), Err(Refused::Body(_))), "{body}");
        }
        for id in ["", "r", "r/1", "r/1/x", "r/1/1/1", "r/-1/1", "/1/1", "r/1/18446744073709551616"]
        {
            assert_eq!(EventId::from_str(id), Err(Refused::Id), "{id}");
        }
    }
}
