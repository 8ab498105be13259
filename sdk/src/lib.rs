//! Know when virtual machines start, stop and change: hypervisor domain events as async streams.
//!
//! ```text
//!  hypervisor ══ socket ══▶ driver task ──▶ mailbox ──▶ EventStream ──▶ your select! loop
//!                           one a source     bounded     drop = cancel
//!                           never waits      compacts
//! ```
//!
//! A hypervisor is an [`EventSource`]: `virevent_backends::open("qemu:///system")` gives one, and
//! `virevent_testkit::FakeHypervisor` is one for tests. Subscribing gives a stream of
//! [`DomainEvent`]s:
//!
//! ```
//! use futures::StreamExt;
//! use virevent::{Change, DomainEvent, Error, EventSource, EventSourceExt};
//!
//! async fn watch(source: &dyn EventSource) -> Result<(), Error> {
//!     let mut events = source.subscribe().await?;
//!     while let Some(event) = events.next().await {
//!         match event {
//!             DomainEvent::Lifecycle(event) => match event.change {
//!                 Change::Started(cause) => println!("{} started: {cause}", event.domain),
//!                 Change::Stopped(cause) => println!("{} stopped: {cause}", event.domain),
//!                 _ => {}
//!             },
//!             DomainEvent::Gap(gap) => println!("{gap}"),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! - A new stream delivers [`Existing`](Change::Existing) for each domain, then
//!   [`Synced`](DomainEvent::Synced), then what happens.
//! - An outage is a [`Gap`](DomainEvent::Gap) in the stream. After the reconnect, what changed
//!   meanwhile is delivered as ordinary events of [`Origin::Inferred`], then `Synced`. Unreachable
//!   is never stopped: only a complete list may say that a domain is gone.
//! - A mailbox is bounded. When its reader is too slow it keeps each domain's last ending and final
//!   state, and says exactly how many events were dropped. One subscriber never slows another, or
//!   the hypervisor.
//! - Dropping the stream, or its [`Subscription`], cancels: synchronously, on any thread, without a
//!   runtime. [`close`](Subscription::close) waits for the hypervisor's confirmation.
//! - A stream ends only when it is cancelled, when its source is shut down, or when the hypervisor
//!   refuses for good; [`end`](EventStream::end) says which.
//!
//! # Where to go on
//!
//! [`DomainStore`] is a table of the domains, kept from events. [`Options`] filters by kind and
//! domain. [`DomainEvents`] has combinators for streams,
//! [`EventSourceExt`] questions for sources. [`driver`] is for authors of backends.
//!
//! Feature `serde`: [`DomainEvent`], its parts and [`Options`] read and write a documented JSON form.
//! Feature `metrics`: the metrics of sources, for a registry of prometheus-client.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod command;
mod domain;
pub mod driver;
mod end;
mod error;
mod event;
mod ext;
mod fault;
mod fleet;
mod kind;
mod mailbox;
#[cfg(feature = "metrics")]
pub mod metrics;
mod options;
mod source;
mod statistics;
mod store;
mod stream;

pub use uuid::Uuid;

pub use self::domain::{Domain, Selector};
pub use self::end::End;
pub use self::error::{Error, ServerError};
pub use self::event::{
    AddressFamily, BlockJobStatus, BlockJobType, Change, ChannelReason, ChannelState, CrashCause,
    CrashedReason, DefineCause, DiskChangeReason, DomainEvent, EventData, Gap, GapKind,
    GraphicsAddress, GraphicsIdentity, GraphicsPhase, IoErrorAction, Lifecycle,
    MemoryFailureAction, MemoryFailureRecipient, MetadataType, Notice, NoticeBody, Origin,
    ParamValue, Params, PausedReason, PmSuspendCause, RawEvent, Reboot, ResumeCause, RunningReason,
    Scope, ShutdownCause, ShutoffReason, ShuttingDownReason, StartCause, State, StopCause,
    SuspendCause, Synced, Text, TrayChangeReason, UndefineCause, WatchdogAction,
};
pub use self::ext::{
    DomainEvents, EventSourceExt, Expectation, Lifecycles, Merged, MergedItem, OfDomain, WaitError,
    merge,
};
pub use self::fault::{Fault, FaultKind};
pub use self::fleet::Fleet;
pub use self::kind::{EventName, Kind, Kinds, ParseKindError};
pub use self::options::{Filter, Options};
pub use self::source::{Capabilities, Counters, EventSource, Health, Status, StatusStream};
pub use self::statistics::{CallTimes, Statistics};
pub use self::store::{Changed, DomainStore, Snapshot, StoredDomain, Transition};
pub use self::stream::{EventStream, Events, Subscription};
