//! The events that a stream yields.

mod change;
mod codes;
#[cfg(feature = "serde")]
pub(crate) mod json;
mod marker;
mod notice;
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
pub use self::notice::{
    AddressFamily, BlockJobStatus, BlockJobType, ChannelReason, ChannelState, DiskChangeReason,
    GraphicsAddress, GraphicsIdentity, GraphicsPhase, IoErrorAction, MemoryFailureAction,
    MemoryFailureRecipient, MetadataType, Notice, NoticeBody, ParamValue, Params, Text,
    TrayChangeReason, WatchdogAction,
};
pub use self::raw::{EventData, RawEvent};
pub use self::state::{
    CrashedReason, PausedReason, RunningReason, ShutoffReason, ShuttingDownReason, State,
};
use crate::{Domain, Kind};

/// What happened to a domain, or to what is known of the domains.
///
/// `size_of::<DomainEvent>()` is at most 64 bytes, and cloning one allocates nothing.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum DomainEvent {
    /// A domain was defined, started, suspended, stopped ...
    Lifecycle(Lifecycle),
    /// The guest rebooted within its run.
    Reboot(Reboot),
    /// Any other event that has a type: what happens to a domain's devices, jobs, memory, guest
    /// agent.
    Notice(Notice),
    /// An event that this crate has no type for, passed on whole.
    Other(RawEvent),
    /// From here on, what the stream delivered is complete and true for a scope.
    Synced(Synced),
    /// From here on, what the stream delivered is incomplete: events were, or may have been, lost.
    /// After `Disconnected` it is complete at the next `Synced`; after `Lagged`, with the events
    /// that follow at once.
    Gap(Gap),
}

impl DomainEvent {
    /// The domain that the event is about; `None` if it is not about a single domain.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Lifecycle(event) => Some(&event.domain),
            Self::Reboot(event) => Some(&event.domain),
            Self::Notice(notice) => Some(&notice.domain),
            Self::Other(event) => event.domain.as_ref(),
            Self::Synced(Synced { scope, .. }) | Self::Gap(Gap { scope, .. }) => scope.domain(),
        }
    }

    /// The URI of the source that reports it, without secrets.
    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Lifecycle(event) => event.domain.source(),
            Self::Reboot(event) => event.domain.source(),
            Self::Notice(notice) => notice.domain.source(),
            Self::Other(event) => event.source(),
            Self::Synced(Synced { scope, .. }) | Self::Gap(Gap { scope, .. }) => scope.source(),
        }
    }

    /// The kind that a subscriber asks for to get this event; `None` for the markers, which pass
    /// every filter.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Lifecycle(_) => Some(Kind::Lifecycle),
            Self::Reboot(_) => Some(Kind::Reboot),
            Self::Notice(notice) => Some(notice.kind()),
            Self::Other(event) => Some(event.kind()),
            Self::Synced(_) | Self::Gap(_) => None,
        }
    }

    /// The lifecycle event, if it is one.
    #[must_use]
    pub fn lifecycle(&self) -> Option<&Lifecycle> {
        match self {
            Self::Lifecycle(event) => Some(event),
            _ => None,
        }
    }

    /// The change, if the event is a lifecycle event.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        self.lifecycle().map(|event| event.change)
    }

    /// Whether this is `Synced` or `Gap`: of the stream rather than of a domain.
    #[must_use]
    pub fn is_marker(&self) -> bool {
        matches!(self, Self::Synced(_) | Self::Gap(_))
    }

    /// How the event came to be known; `None` for a marker.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Self::Lifecycle(event) => Some(event.origin),
            Self::Reboot(event) => Some(event.origin),
            Self::Notice(notice) => Some(notice.origin),
            Self::Other(event) => Some(event.origin),
            Self::Synced(_) | Self::Gap(_) => None,
        }
    }

    /// Whether something happened in the hypervisor: neither a marker nor a domain that existed
    /// already. These are the events that a source counts, and that `Lagged` counts as missed.
    #[must_use]
    pub fn is_happening(&self) -> bool {
        match self {
            Self::Synced(_) | Self::Gap(_) => false,
            Self::Lifecycle(event) => !matches!(event.change, Change::Existing(_)),
            Self::Reboot(_) | Self::Notice(_) | Self::Other(_) => true,
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
            Self::Notice(notice) => write!(f, "{notice}"),
            Self::Other(event) => write!(f, "{event}"),
            Self::Synced(synced) => write!(f, "{synced}"),
            Self::Gap(gap) => write!(f, "{gap}"),
        }
    }
}

/// A change of a domain.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Which domain. In an event that ends a run, with the id of the run that ended.
    pub domain: Domain,
    /// What happened.
    pub change: Change,
    /// How it came to be known.
    pub origin: Origin,
    /// When: the hypervisor's own time stamp where it sends one (QMP), else the time of receipt.
    pub at: SystemTime,
    /// Whether, after the event, the domain exists when it does not run; `None` where that is not
    /// known. The driver fills it in; a backend need not.
    pub persistent: Option<bool>,
}

impl Lifecycle {
    /// An observed change.
    #[must_use]
    pub fn new(domain: Domain, change: Change, at: SystemTime) -> Self {
        Self { domain, change, origin: Origin::Observed, at, persistent: None }
    }

    /// Sets [`persistent`](Lifecycle::persistent), for a test of your own code.
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    /// Whether the domain exists no more: its definition was removed while it did not run, or it
    /// stopped and had no definition. A table of domains drops it then.
    #[must_use]
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
    /// How it came to be known.
    pub origin: Origin,
    /// When: the hypervisor's own time stamp where it sends one, else the time of receipt.
    pub at: SystemTime,
}

impl Reboot {
    /// An observed reboot.
    #[must_use]
    pub fn new(domain: Domain, at: SystemTime) -> Self {
        Self { domain, origin: Origin::Observed, at }
    }
}

/// How an event came to be known.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The hypervisor reported it when it happened.
    #[default]
    Observed,
    /// No event was received: the driver derived it from the difference between what was known and
    /// what is.
    Inferred,
    /// A relay recorded it, and it is played back.
    Replayed,
}

impl Origin {
    /// The name in the JSON form.
    #[must_use]
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

wrap!(
    Lifecycle(Lifecycle),
    Reboot(Reboot),
    Notice(Notice),
    Other(RawEvent),
    Synced(Synced),
    Gap(Gap)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_at_most_64_bytes() {
        assert!(size_of::<DomainEvent>() <= 64, "{}", size_of::<DomainEvent>());
    }
}
