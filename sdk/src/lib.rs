//! Know when virtual machines start, stop and change.
#![doc = ""]

mod domain;
pub mod driver;
mod error;
mod event;
mod ext;
mod kind;
mod mailbox;
mod options;
mod source;
mod stream;

pub use uuid::Uuid;

pub use self::domain::{Domain, Selector};
pub use self::error::Error;
pub use self::event::{
    Break, Change, CrashCause, CrashedReason, DefineCause, DomainEvent, EventData, Fault,
    FaultKind, Gap, Lifecycle, Origin, PausedReason, PmSuspendCause, RawEvent, Reboot, ResumeCause,
    RunningReason, Scope, ShutdownCause, ShutoffReason, ShuttingDownReason, StartCause, State,
    StopCause, SuspendCause, Synced, UndefineCause,
};
pub use self::ext::{DomainEvents, EventSourceExt, Lifecycles, OfDomain, Waited};
pub use self::kind::{EventName, Kind, Kinds};
pub use self::options::{Filter, Options};
pub use self::source::{Capabilities, Counters, EventSource, Health, Status};
pub use self::stream::{End, EventStream, Events, Subscription};
