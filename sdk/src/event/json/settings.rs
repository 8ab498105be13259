//! What a subscriber asks for, and what a source says of itself.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::FlatName;
use super::text::Text;
use crate::{Fault, FaultKind, Filter, Kind, Kinds, Options, Selector, Status, Uuid};

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "expected the name of a kind or {\"other\":...}")]
enum FlatKind<'a> {
    Text(Cow<'a, str>),
    /// A named kind that its text would not give back.
    Named {
        other: FlatName<'a>,
    },
}

impl<'a> FlatKind<'a> {
    fn of(kind: &'a Kind) -> Self {
        match kind {
            // A name that is a number, is empty, or is that of an event with a type.
            Kind::Named(name) if kind.to_string().parse().as_ref() != Ok(kind) => {
                Self::Named { other: FlatName::of(name) }
            }
            kind => Self::Text(text(kind).into()),
        }
    }

    fn kind<E: Error>(&self) -> Result<Kind, E> {
        match self {
            Self::Text(text) => text.parse().map_err(E::custom),
            Self::Named { other } => Ok(Kind::Named(other.name())),
        }
    }
}

/// As `kind` in an event, `io_error`; `other`, `other:99` or `other:SPICE_CONNECTED`. A named kind
/// that this text would not give back is `{"other":"99"}`.
impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatKind::of(self).serialize(serializer)
    }
}

/// A name with `-` is read, too.
impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FlatKind::deserialize(deserializer)?.kind()
    }
}

fn text(kind: &Kind) -> String {
    match kind {
        // The hypervisor's own name.
        Kind::Named(_) => kind.to_string(),
        kind => kind.to_string().replace('-', "_"),
    }
}

/// Before a kind that a source may lack.
const OPTIONAL: char = '?';
/// All of [`Kinds::all`], each of which a source may lack.
const ALL: &str = "all";

/// A list of kinds. `"all"` is [`Kinds::all`]; a kind that a source may lack, of a set that began
/// as all, is `"?io_error"`.
impl Serialize for Kinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = Self::all();
        let has_all = all.iter().all(|kind| self.holds(kind));
        let kinds = self.iter().filter_map(|kind| match self.is_optional(kind) {
            true if has_all && all.holds(kind) => None,
            // What may be lacking came with `all`, or as a text.
            true => Some(FlatKind::Text(format!("{OPTIONAL}{}", text(kind)).into())),
            false => Some(FlatKind::of(kind)),
        });
        let all = has_all.then(|| FlatKind::Text(ALL.into()));
        serializer.collect_seq(all.into_iter().chain(kinds))
    }
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut kinds = Self::default();
        for kind in Vec::<FlatKind<'_>>::deserialize(deserializer)? {
            let text = if let FlatKind::Text(text) = &kind { text } else { "" };
            match text.strip_prefix(OPTIONAL) {
                Some(text) => kinds.insert_optional(text.parse().map_err(D::Error::custom)?),
                None if text == ALL => kinds.merge(Self::all()),
                None => kinds.insert(kind.kind()?),
            }
        }
        Ok(kinds)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum FlatSelector<'a> {
    Uuid(Text<Uuid>),
    Name(Cow<'a, str>),
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected a name, a uuid, {\"uuid\":...} or {\"name\":...}")]
enum AnySelector<'a> {
    Text(Cow<'a, str>),
    Flat(FlatSelector<'a>),
}

/// `{"uuid":"…"}` or `{"name":"web"}`.
impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Uuid(uuid) => FlatSelector::Uuid(Text(*uuid)),
            Self::Name(name) => FlatSelector::Name(Cow::Borrowed(name)),
        }
        .serialize(serializer)
    }
}

/// A text is read as by `From<&str>`, too.
impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match AnySelector::deserialize(deserializer)? {
            AnySelector::Text(text) => Self::from(&*text),
            AnySelector::Flat(FlatSelector::Uuid(uuid)) => Self::Uuid(uuid.0),
            AnySelector::Flat(FlatSelector::Name(name)) => Self::Name((&*name).into()),
        })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FlatOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<Kinds>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<Selector>,
    capacity: usize,
    slack: usize,
    existing: bool,
    wait: bool,
}

impl Default for FlatOptions {
    fn default() -> Self {
        Self::of(Options::default())
    }
}

impl FlatOptions {
    fn of(options: Options) -> Self {
        let Options { capacity, slack, filter, existing, wait, resume: _ } = options;
        let Filter { kinds, domains } = filter;
        Self { kinds, domains, capacity, slack, existing, wait }
    }
}

/// `{"kinds":["lifecycle"],"domains":[{"name":"web"}],"capacity":1024,…}`.
impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatOptions::of(self.clone()).serialize(serializer)
    }
}

/// A field that is missing has its default; an unknown one is an error.
impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let FlatOptions { kinds, domains, capacity, slack, existing, wait } =
            FlatOptions::deserialize(deserializer)?;
        let filter = Filter { kinds, domains };
        Ok(Self { capacity, slack, filter, existing, wait, resume: None })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct FlatStatus<'a> {
    status: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultKind>,
}

/// `{"status":"synced"}`; `disconnected` with `error` and `fault`, as in a gap.
impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fault = if let Self::Disconnected(fault) = self { Some(fault) } else { None };
        FlatStatus {
            status: self.as_str().into(),
            error: fault.map(|fault| fault.message().into()),
            fault: fault.map(Fault::kind),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = FlatStatus::deserialize(deserializer)?;
        Ok(match &*flat.status {
            "idle" => Self::Idle,
            "connecting" => Self::Connecting,
            "syncing" => Self::Syncing,
            "synced" => Self::Synced,
            "disconnected" => {
                let Some(error) = flat.error else { return Err(D::Error::missing_field("error")) };
                let kind = flat.fault.unwrap_or(FaultKind::Other);
                Self::Disconnected(Fault::new(kind, &error))
            }
            "shutdown" => Self::Shutdown,
            "ended" => Self::Ended,
            status => return Err(D::Error::custom(format!("unknown status {status:?}"))),
        })
    }
}
