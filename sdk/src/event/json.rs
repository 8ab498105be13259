//! The JSON form of an event (feature `serde`): one flat object, as `docs/json.md` and
//! `docs/domain-event.schema.json` describe it.
//!
//! ```json
//! {"kind":"lifecycle","change":"started","cause":"booted","origin":"observed",
//!  "at":"2026-01-31T12:00:00.000000Z","domain":{"host":"h","uuid":"…","name":"vm1","id":3}}
//! ```
//!
//! Both ways lead over [`Flat`], a struct with every field that any kind has.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Break, Change, CrashCause, CrashedReason, DefineCause, DomainEvent, EventData, Fault,
    FaultKind, Gap, Lifecycle, Origin, PausedReason, PmSuspendCause, RawEvent, Reboot, ResumeCause,
    RunningReason, Scope, ShutdownCause, ShutoffReason, ShuttingDownReason, StartCause, State,
    StopCause, SuspendCause, Synced, UndefineCause,
};
use crate::{Domain, EventName};

/// The form that `docs/json.md` describes. Fails only for an event of kind `other` whose
/// [`EventData::Json`] is no JSON.
impl Serialize for DomainEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Flat::from_event(self).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// The form that `docs/json.md` describes. Fields that are not known are ignored; names that are not
/// known, and fields that are missing, are errors.
impl<'de> Deserialize<'de> for DomainEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Flat::deserialize(deserializer)?.into_event().map_err(D::Error::custom)
    }
}

/// As in an event: `{"host":…,"uuid":…,"name":…,"id":…}`, without `id` when it is inactive.
impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatDomain {
            host: self.host().into(),
            uuid: Text(self.uuid()),
            name: self.name().into(),
            id: self.id(),
        }
        .serialize(serializer)
    }
}

/// As in an event.
impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let FlatDomain { host, uuid, name, id } = FlatDomain::deserialize(deserializer)?;
        Ok(Self::new(&host, uuid.0, &name, id))
    }
}

/// Every field of every kind, in the order in which they are written.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Flat<'a> {
    kind: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<FlatName<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "present")]
    data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<Text<Hex<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domains: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Text<Stamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Domain>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct FlatDomain<'a> {
    host: Cow<'a, str>,
    uuid: Text<Uuid>,
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "an event is a number or a name")]
enum FlatName<'a> {
    Number(u32),
    Name(Cow<'a, str>),
}

/// Writing.
impl<'a> Flat<'a> {
    fn from_event(event: &'a DomainEvent) -> Result<Self, serde_json::Error> {
        Ok(match event {
            DomainEvent::Lifecycle(event) => Self {
                domain: Some(event.domain.clone()),
                origin: Some(event.origin.as_str().into()),
                at: Some(Text(Stamp(event.at))),
                ..Self::from_change(event.change)
            },
            DomainEvent::Reboot(event) => Self {
                kind: "reboot".into(),
                domain: Some(event.domain.clone()),
                origin: Some(event.origin.as_str().into()),
                at: Some(Text(Stamp(event.at))),
                ..Self::default()
            },
            DomainEvent::Other(event) => Self::from_raw(event)?,
            DomainEvent::Synced(synced) => Self {
                kind: "synced".into(),
                domains: Some(synced.domains),
                ..Self::from_scope(&synced.source, &synced.scope)
            },
            DomainEvent::Gap(gap) => Self::from_gap(gap),
        })
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
                raw: change.codes().filter(|_| change.cause() == "unknown").map(|(_, cause)| cause),
                ..flat
            },
        }
    }

    fn from_raw(event: &'a RawEvent) -> Result<Self, serde_json::Error> {
        let (data, hex) = match event.data() {
            EventData::Json(text) => (Some(serde_json::from_str(text)?), None),
            EventData::Bytes(bytes) => (None, Some(Text(Hex(Cow::Borrowed(bytes))))),
        };
        let name = match event.name() {
            EventName::Number(number) => FlatName::Number(*number),
            EventName::Name(name) => FlatName::Name(Cow::Borrowed(name)),
        };
        Ok(Self {
            kind: "other".into(),
            event: Some(name),
            data,
            hex,
            at: Some(Text(Stamp(event.at))),
            domain: event.domain.clone(),
            ..Self::default()
        })
    }

    fn from_gap(gap: &'a Gap) -> Self {
        let flat = Self { kind: "gap".into(), ..Self::from_scope(&gap.source, &gap.scope) };
        match &gap.kind {
            Break::Disconnected { fault } => Self {
                gap: Some("disconnected".into()),
                error: Some(fault.message().into()),
                fault: Some(fault.kind().as_str().into()),
                ..flat
            },
            Break::Lagged { missed } => {
                Self { gap: Some("lagged".into()), missed: Some(*missed), ..flat }
            }
        }
    }

    fn from_scope(source: &'a str, scope: &'a Scope) -> Self {
        let host = match scope {
            Scope::Host(host) => Some(Cow::Borrowed(&**host)),
            Scope::Source | Scope::Domain(_) => None,
        };
        Self {
            source: Some(source.into()),
            host,
            domain: scope.domain().cloned(),
            ..Self::default()
        }
    }
}

/// Reading. The error says what is wrong.
impl Flat<'_> {
    fn into_event(self) -> Result<DomainEvent, String> {
        Ok(match &*self.kind {
            "lifecycle" => Lifecycle {
                change: self.change()?,
                origin: self.origin()?,
                at: self.at()?,
                domain: self.needs("domain", self.domain.clone())?,
            }
            .into(),
            "reboot" => Reboot {
                origin: self.origin()?,
                at: self.at()?,
                domain: self.needs("domain", self.domain.clone())?,
            }
            .into(),
            "other" => self.raw_event()?.into(),
            "synced" => Synced {
                source: self.text("source", &self.source)?.into(),
                scope: self.scope(),
                domains: self.needs("domains", self.domains)?,
            }
            .into(),
            "gap" => Gap {
                source: self.text("source", &self.source)?.into(),
                scope: self.scope(),
                kind: self.gap()?,
            }
            .into(),
            kind => {
                return Err(format!(
                    "unknown kind {kind:?}: expected lifecycle, reboot, other, synced or gap"
                ));
            }
        })
    }

    fn change(&self) -> Result<Change, String> {
        macro_rules! cause {
            ($type:ident) => {
                self.code("cause", &self.cause, $type::from_name, $type::from_code)?
            };
        }
        Ok(match self.text("change", &self.change)? {
            "existing" => Change::Existing(self.state()?),
            "defined" => Change::Defined(cause!(DefineCause)),
            "undefined" => Change::Undefined(cause!(UndefineCause)),
            "started" => Change::Started(cause!(StartCause)),
            "suspended" => Change::Suspended(cause!(SuspendCause)),
            "resumed" => Change::Resumed(cause!(ResumeCause)),
            "shutting_down" => Change::ShuttingDown(cause!(ShutdownCause)),
            "stopped" => Change::Stopped(cause!(StopCause)),
            "pm_suspended" => Change::PmSuspended(cause!(PmSuspendCause)),
            "crashed" => Change::Crashed(cause!(CrashCause)),
            "unknown" => {
                Change::from_codes(self.needs("raw", self.raw)?, self.needs("detail", self.detail)?)
            }
            change => return Err(format!("unknown change {change:?}")),
        })
    }

    fn state(&self) -> Result<State, String> {
        macro_rules! reason {
            ($type:ident) => {
                self.code("reason", &self.reason, $type::from_name, $type::from_code)?
            };
        }
        Ok(match self.text("state", &self.state)? {
            "no_state" => State::NoState,
            "running" => State::Running(reason!(RunningReason)),
            "blocked" => State::Blocked,
            "paused" => State::Paused(reason!(PausedReason)),
            "shutting_down" => State::ShuttingDown(reason!(ShuttingDownReason)),
            "shutoff" => State::Shutoff(reason!(ShutoffReason)),
            "crashed" => State::Crashed(reason!(CrashedReason)),
            "pm_suspended" => State::PmSuspended,
            "unknown" => {
                State::from_codes(self.needs("raw", self.raw)?, self.needs("detail", self.detail)?)
            }
            state => return Err(format!("unknown state {state:?}")),
        })
    }

    /// A cause or a reason. A number that was unknown to the writer may be known here.
    fn code<T: Default>(
        &self,
        field: &str,
        name: &Option<Cow<'_, str>>,
        from_name: impl Fn(&str) -> Option<T>,
        from_code: impl Fn(i32) -> T,
    ) -> Result<T, String> {
        match name.as_deref() {
            None => Ok(T::default()),
            Some("unknown") => Ok(from_code(self.needs("raw", self.raw)?)),
            Some(name) => from_name(name).ok_or_else(|| format!("unknown {field} {name:?}")),
        }
    }

    fn raw_event(self) -> Result<RawEvent, String> {
        let at = self.at()?;
        let name = match &self.event {
            None => return Err(self.lacks("event")),
            Some(FlatName::Number(number)) => EventName::Number(*number),
            Some(FlatName::Name(name)) => EventName::Name((&**name).into()),
        };
        let data = match (&self.data, &self.hex) {
            (Some(data), _) => EventData::Json(data.to_string().into()),
            (None, Some(hex)) => EventData::Bytes(hex.0.0.to_vec().into()),
            (None, None) => return Err(self.lacks("data\" or \"hex")),
        };
        Ok(RawEvent::new(self.domain, name, data, at))
    }

    fn gap(&self) -> Result<Break, String> {
        match self.text("gap", &self.gap)? {
            "disconnected" => {
                let kind = self.fault.as_deref().map_or(FaultKind::Other, FaultKind::from_name);
                let fault = Fault::new(kind, self.text("error", &self.error)?);
                Ok(Break::Disconnected { fault })
            }
            "lagged" => Ok(Break::Lagged { missed: self.needs("missed", self.missed)? }),
            gap => Err(format!("unknown gap {gap:?}: expected disconnected or lagged")),
        }
    }

    fn scope(&self) -> Scope {
        match (&self.domain, &self.host) {
            (Some(domain), _) => Scope::Domain(domain.clone()),
            (None, Some(host)) => Scope::Host((&**host).into()),
            (None, None) => Scope::Source,
        }
    }

    fn origin(&self) -> Result<Origin, String> {
        let name = self.text("origin", &self.origin)?;
        [Origin::Observed, Origin::Inferred, Origin::Replayed]
            .into_iter()
            .find(|origin| origin.as_str() == name)
            .ok_or_else(|| {
                format!("unknown origin {name:?}: expected observed, inferred or replayed")
            })
    }

    fn at(&self) -> Result<SystemTime, String> {
        match &self.at {
            Some(Text(Stamp(at))) => Ok(*at),
            None => Err(self.lacks("at")),
        }
    }

    fn text<'b>(&self, field: &str, text: &'b Option<Cow<'_, str>>) -> Result<&'b str, String> {
        self.needs(field, text.as_deref())
    }

    fn needs<T>(&self, field: &str, value: Option<T>) -> Result<T, String> {
        value.ok_or_else(|| self.lacks(field))
    }

    fn lacks(&self, field: &str) -> String {
        format!("this {} event lacks the field \"{field}\"", self.kind)
    }
}

/// Absent where the hypervisor gave none.
fn given(name: &'static str) -> Option<Cow<'static, str>> {
    (!name.is_empty()).then_some(Cow::Borrowed(name))
}

/// A field that is there counts, even when it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Written as its `Display` text, without an allocation; read by its `TryFrom<&str>`.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: for<'a> TryFrom<&'a str, Error: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        match T::try_from(&text) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(D::Error::custom(format!("{text:?}: {error}"))),
        }
    }
}

/// A time as RFC 3339, UTC, six digits.
struct Stamp(SystemTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The form has four digits for the year, and none for times before the epoch.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let at = self.0.clamp(SystemTime::UNIX_EPOCH, last);
        humantime::format_rfc3339_micros(at).fmt(f)
    }
}

impl TryFrom<&str> for Stamp {
    type Error = humantime::TimestampError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        humantime::parse_rfc3339(text).map(Self)
    }
}

/// Bytes as pairs of hexadecimal digits.
struct Hex<'a>(Cow<'a, [u8]>);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<&str> for Hex<'_> {
    type Error = &'static str;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let digit = |digit: u8| (digit as char).to_digit(16).ok_or("not hexadecimal");
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Ok((digit(high)? << 4 | digit(low)?) as u8),
            _ => Err("an odd number of hexadecimal digits"),
        };
        text.as_bytes().chunks(2).map(byte).collect::<Result<Vec<u8>, _>>().map(|b| Self(b.into()))
    }
}
