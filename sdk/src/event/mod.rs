//! What a stream yields.

mod change;
mod codes;
#[cfg(feature = "serde")]
mod json;
mod marker;
mod raw;
mod state;

use std::fmt;
use std::time::SystemTime;

pub use self::change::{
    Change, CrashCause, DefineCause, PmSuspendCause, ResumeCause, ShutdownCause, StartCause,
    StopCause, SuspendCause, UndefineCause,
};
pub(crate) use self::marker::ScopeKey;
pub use self::marker::{Gap, GapKind, Scope, Synced};
pub use self::raw::{EventData, RawEvent};
pub use self::state::{
    CrashedReason, PausedReason, RunningReason, ShutoffReason, ShuttingDownReason, State,
};
use crate::{Domain, Kind};

/// What happened to a domain, or to our knowledge of the domains.
///
/// `size_of::<DomainEvent>()` is at most 64 bytes, and cloning one allocates nothing.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum DomainEvent {
    /// A domain was defined, started, suspended, stopped ...
    Lifecycle(Lifecycle),
    /// The guest rebooted within its run.
    Reboot(Reboot),
    /// An event that this crate has no type for, passed on whole.
    Other(RawEvent),
    /// As of here, what you were told is the whole truth in that scope.
    Synced(Synced),
    /// The truth broke here: events were, or may have been, lost. After `Disconnected` a `Synced` tells
    /// when it is whole again; after `Lagged` it is whole with what follows at once.
    Gap(Gap),
}

impl DomainEvent {
    /// The domain that the event is about. `None` for one that is not about a single domain.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Lifecycle(event) => Some(&event.domain),
            Self::Reboot(event) => Some(&event.domain),
            Self::Other(event) => event.domain.as_ref(),
            Self::Synced(Synced { scope, .. }) | Self::Gap(Gap { scope, .. }) => scope.domain(),
        }
    }

    /// The URI of the source that told it, without secrets.
    pub fn source(&self) -> &str {
        match self {
            Self::Lifecycle(event) => event.domain.source(),
            Self::Reboot(event) => event.domain.source(),
            Self::Other(event) => event.source(),
            Self::Synced(Synced { scope, .. }) | Self::Gap(Gap { scope, .. }) => scope.source(),
        }
    }

    /// The kind that a subscriber asks for to get this event; `None` for the markers, which pass
    /// every filter.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Lifecycle(_) => Some(Kind::Lifecycle),
            Self::Reboot(_) => Some(Kind::Reboot),
            Self::Other(event) => Some(Kind::Named(event.name().clone())),
            Self::Synced(_) | Self::Gap(_) => None,
        }
    }

    /// What happened in the life of the domain, if the event tells of that.
    pub fn lifecycle(&self) -> Option<&Lifecycle> {
        match self {
            Self::Lifecycle(event) => Some(event),
            _ => None,
        }
    }

    /// The change, if the event is a lifecycle event.
    pub fn change(&self) -> Option<Change> {
        self.lifecycle().map(|event| event.change)
    }

    /// Whether this is `Synced` or `Gap`: of the stream rather than of a domain.
    pub fn is_marker(&self) -> bool {
        matches!(self, Self::Synced(_) | Self::Gap(_))
    }

    /// Whether something happened in the hypervisor: neither a marker nor a domain that was there
    /// already. These are the events that a source counts, and that `Lagged` counts as missed.
    pub fn is_happening(&self) -> bool {
        match self {
            Self::Synced(_) | Self::Gap(_) => false,
            Self::Lifecycle(event) => !matches!(event.change, Change::Existing(_)),
            Self::Reboot(_) | Self::Other(_) => true,
        }
    }
}

/// One line for people, without the time.
impl fmt::Display for DomainEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lifecycle(event) => {
                write!(f, "{} {}", event.domain, event.change)?;
                match event.origin {
                    Origin::Observed => Ok(()),
                    origin => write!(f, " [{origin}]"),
                }
            }
            Self::Reboot(event) => write!(f, "{} rebooted", event.domain),
            Self::Other(event) => write!(f, "{event}"),
            Self::Synced(synced) => write!(f, "{synced}"),
            Self::Gap(gap) => write!(f, "{gap}"),
        }
    }
}

/// A step in the life of a domain.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Which domain. In an event that ends a run, with the id of the run that ended.
    pub domain: Domain,
    /// What happened.
    pub change: Change,
    /// How we know.
    pub origin: Origin,
    /// When: the hypervisor's own stamp where it sends one (QMP), else the time of receipt.
    pub at: SystemTime,
    /// Whether, as of after the event, the domain exists when it does not run; `None` where that is
    /// not known. The driver settles it; a backend need not.
    pub persistent: Option<bool>,
}

impl Lifecycle {
    /// A step that was observed.
    pub fn new(domain: Domain, change: Change, at: SystemTime) -> Self {
        Self { domain, change, origin: Origin::Observed, at, persistent: None }
    }

    /// Sets [`persistent`](Lifecycle::persistent), as a test of your own code does.
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    /// Whether the domain exists no more: its definition was removed while it did not run, or it
    /// stopped and had no definition. A table of domains drops it then.
    pub fn is_gone(&self) -> bool {
        match self.change {
            Change::Undefined(cause) => cause != UndefineCause::Renamed && !self.domain.is_active(),
            Change::Stopped(_) => self.persistent == Some(false),
            _ => false,
        }
    }
}

/// The guest rebooted; the run, and its id, go on.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reboot {
    /// Which domain.
    pub domain: Domain,
    /// How we know.
    pub origin: Origin,
    /// When: the hypervisor's own stamp where it sends one, else the time of receipt.
    pub at: SystemTime,
}

impl Reboot {
    /// A reboot that was observed.
    pub fn new(domain: Domain, at: SystemTime) -> Self {
        Self { domain, origin: Origin::Observed, at }
    }
}

/// How an event came to be known.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The hypervisor told it when it happened.
    #[default]
    Observed,
    /// It happened while we could not listen: told from the difference between what was known and
    /// what is.
    Inferred,
    /// It was recorded by a relay and is played back.
    Replayed,
}

impl Origin {
    /// The name in the JSON form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Inferred => "inferred",
            Self::Replayed => "replayed",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! wrap {
    ($($variant:ident($type:ty)),+ $(,)?) => {
        $( impl From<$type> for DomainEvent {
            fn from(event: $type) -> Self {
                Self::$variant(event)
            }
        } )+
    };
}

wrap!(Lifecycle(Lifecycle), Reboot(Reboot), Other(RawEvent), Synced(Synced), Gap(Gap));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_at_most_64_bytes() {
        assert!(size_of::<DomainEvent>() <= 64, "{}", size_of::<DomainEvent>());
    }
}
