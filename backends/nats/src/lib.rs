//! NATS JetStream: the backend of [`virevent`] for a fleet that outgrows one process.
//!
//! ```text
//!   source ──▶ Relay ──▶ stream: events ─────────▶ Nats source ──▶ virevent's driver ──▶ streams
//!   (a host)        └──▶ bucket: states, heartbeats ──▶┘
//! ```
//!
//! On each host a [`Relay`] writes the events of any source into a stream, and the state of each
//! domain into a key-value bucket. [`Nats`] reads both, and is a source as any other.
//!
//! ```no_run
//! use virevent_nats::{Nats, Relay};
//!
//! # async fn on_each_host(hypervisor: std::sync::Arc<dyn virevent::EventSource>) -> Result<(), virevent::Error> {
//! Relay::new("web1-libvirt", hypervisor)?.run("nats://broker/virevent").await
//! # }
//! # async fn elsewhere() -> Result<(), virevent::Error> {
//! let fleet = Nats::new("nats://broker/virevent")?.source();
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **Order, and once.** A relay sends its events one by one, each until the broker has stored it,
//!   always under the same id: relay, epoch and sequence. A reader drops what it has seen.
//! - **A late reader gets [`Existing`](virevent::Change::Existing) for each domain**, from the
//!   bucket, then [`Synced`](virevent::DomainEvent::Synced), then the events behind that state.
//! - **The broker is lost**: a gap, then everything that was sent meanwhile, then `Synced`. A relay
//!   keeps events in a bounded mailbox meanwhile; what it must drop, is a gap.
//! - **A relay is lost**: after three heartbeats its hosts are a gap, never stopped. When it runs
//!   again, what changed is inferred.
//! - **A message on another host's subject is refused** and [counted](Nats::refused), so that the
//!   server's permissions by subject keep hosts apart.
//! - Stream and bucket are created, or checked and used as they are; never altered.
//!
//! # What it does not yet
//!
//! A source takes one relay a host: of two relays of one host the first by name is read, events of
//! the other are refused and counted. There is no durable position, and no history.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod broker;
mod envelope;
mod link;
mod relay;
mod source;
mod state;
mod subject;
mod uri;

pub use self::relay::Relay;
pub use self::source::{Nats, Refused};
