//! libvirt's own RPC, in pure Rust: the backend of [`virevent`] for everything that a libvirt daemon
//! manages.
//!
//! ```text
//!   libvirtd ──unix, tcp──▶ wire ──frames──▶ decode ──events──▶ virevent's driver ──▶ streams
//! ```
//!
//! ```no_run
//! use virevent::{EventSource, Options};
//! use virevent_libvirt::Libvirt;
//!
//! # async fn example() -> Result<(), virevent::Error> {
//! use futures::StreamExt;
//!
//! let source = Libvirt::new("qemu:///system")?.source();
//! let mut events = source.subscribe_with(Options::default()).await?;
//! while let Some(event) = events.next().await {
//!     println!("{event}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it connects to
//!
//! A daemon: libvirtd, or the modular virtqemud and its like, also for `test:///default`, which
//! libvirt's own clients run inside their process. The transports are unix and, without encryption
//! or authentication, tcp. URIs are libvirt's, with the parameters `socket`, `mode` and `name`;
//! parameters of transports that are not here are refused, and any other is passed on to the daemon.
//!
//! The connection is read-only unless [`read_write`](Libvirt::read_write) is asked for. It is opened
//! with libvirt's flag for it, and on the socket that ends in `-ro` if the URI names none. No fallback
//! is tried: as with libvirt's own client, a missing read-only socket is an error. A socket that is
//! named is taken as it is; one that ends in `-ro` is read-only whatever is asked for.
//!
//! | URI | socket, read-only |
//! |---|---|
//! | `qemu:///system` | `/var/run/libvirt/virtqemud-sock-ro` if it exists, else `libvirt-sock-ro` there |
//! | `qemu:///session` | `$XDG_RUNTIME_DIR/libvirt/virtqemud-sock` if it exists, else `libvirt-sock` there; for root as above |
//! | `test:///default` | `$XDG_RUNTIME_DIR/libvirt/libvirt-sock`; for root `/var/run/libvirt/libvirt-sock-ro` |
//! | `...?socket=PATH` | `PATH` |
//! | `...?mode=legacy`, `mode=direct` | only libvirtd's, only the driver's own daemon's |
//! | `test+tcp://host[:16509]/default` | the port |
//!
//! # What it reports
//!
//! Lifecycle and reboot have types; every other event of libvirt can be asked for and comes as
//! [`DomainEvent::Other`](virevent::DomainEvent::Other), named by libvirt's number (`virDomainEventID`):
//! see [`decode`]. [`Kind::Other`](virevent::Kind::Other) means every number from 2 to 31 that the
//! daemon accepts; each is tried, since no call tells which there are. `other:32` and above can be
//! asked for one by one. What is asked for is registered as it is: io-error (4) and io-error-reason (6)
//! tell the same thing twice, and so do block-job (8) and block-job-2 (16). Ask for one of each to hear
//! it once.
//!
//! For itself the session registers reboot and control-error as well, and asks for the domain of an event
//! that leaves open how it is; see `docs/libvirt.md`. A kind that it registers for itself is delivered to
//! the subscribers that ask for it.
//!
//! libvirt stamps no events with a time: theirs is that of receipt. An event that ends a run has no
//! domain id on the wire, or has that of the run; [`virevent`] lends the id of the run where it lacks.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod calls;
mod client;
pub mod decode;
mod doubts;
mod endpoint;
mod listing;
mod look;
mod registrations;
mod session;
mod uri;
pub mod wire;

use std::time::Duration;

use virevent::Error;
use virevent::driver::{Driver, Reconnect, Settings};

use crate::session::Opener;
use crate::uri::LibvirtUri;

/// How to reach a libvirt daemon. By value:
/// `Libvirt::new("qemu:///system")?.call_timeout(Duration::from_secs(30)).source()`.
#[derive(Clone, Debug)]
#[must_use = "call source()"]
pub struct Libvirt {
    opener: Opener,
    keepalive: (Duration, u32),
    call_timeout: Duration,
    reconnect: Reconnect,
    settings: Settings,
}

impl Libvirt {
    /// The daemon that a libvirt URI leads to. Does no I/O; the environment and the sockets are
    /// looked at when it connects.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: it is no URI, or needs what this version does not have.
    pub fn new(uri: &str) -> Result<Self, Error> {
        let uri = LibvirtUri::parse(uri)?;
        let reconnect = if uri.is_remote() { Reconnect::remote() } else { Reconnect::local() };
        Ok(Self {
            opener: Opener { uri, read_only: true, timeout: Duration::from_secs(10) },
            keepalive: (Duration::from_secs(5), 5),
            call_timeout: Duration::from_secs(10),
            reconnect,
            settings: Settings::default(),
        })
    }

    /// Opens the connection for reading and writing. Default: read-only, which is enough for events
    /// and what most users may do.
    pub fn read_write(mut self) -> Self {
        self.opener.read_only = false;
        self
    }

    /// After how much silence to ask whether the daemon lives, and how many times in a row, one
    /// interval apart, before the connection is given up: after `interval * (count + 1)` of silence.
    /// Default: 5 s, 5 times. An interval of zero never asks.
    pub fn keepalive(mut self, interval: Duration, count: u32) -> Self {
        self.keepalive = (interval, count);
        self
    }

    /// How long the daemon may take to answer a call. A subscription that waits for the answer then fails,
    /// or opens with a gap; the connection is kept while keepalives are answered. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How long connecting may take, the handshake included. Default: 10 s. A daemon that asks polkit
    /// to ask a user may need more.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.opener.timeout = timeout;
        self
    }

    /// How to reconnect. Default: [`Reconnect::local`] for a unix socket, [`Reconnect::remote`] for
    /// tcp.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// What all backends share. It has precedence over what the methods above say.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The source. Does no I/O before the first subscription.
    pub fn source(mut self) -> Driver {
        if let Some(timeout) = self.settings.connect_timeout.take() {
            self.opener.timeout = timeout;
        }
        let (interval, count) = self.keepalive;
        // The opener's own deadline names the call that had no reply; the driver's must come after it.
        let backstop = self.opener.timeout.saturating_add(Duration::from_secs(1));
        Driver::builder(self.opener)
            .keepalive(Some(interval), count)
            .call_timeout(self.call_timeout)
            .connect_timeout(backstop)
            .reconnect(self.reconnect)
            .settings(&self.settings)
            .build()
    }
}
