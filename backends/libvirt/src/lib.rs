//! The backend of [`virevent`] for all hypervisors that a libvirt daemon manages: libvirt's own
//! RPC, in pure Rust.
//!
//! ```text
//!   libvirtd ──unix, tls, tcp──▶ wire ──frames──▶ decode ──events──▶ virevent's driver ──▶ streams
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
//! It connects to a daemon: libvirtd, or a modular one such as virtqemud. That holds for
//! `test:///default` as well, which libvirt's own clients run inside their process. The transports
//! are unix, tls (with the feature `tls`) and tcp, which is without encryption and authentication.
//! URIs are libvirt's, with the parameters `socket`, `mode` and `name`, and for tls `pkipath`,
//! `no_verify` and `no_sanity`. Parameters of other transports are refused; all others are passed
//! on to the daemon.
//!
//! The connection is read-only unless [`read_write`](Libvirt::read_write) is called. It is opened
//! with libvirt's flag for that, and on the socket that ends in `-ro` if the URI names none. There
//! is no fallback: as with libvirt's own client, a missing read-only socket is an error. A socket
//! in the URI is taken as it is; one that ends in `-ro` is always read-only.
//!
//! | URI | socket, read-only |
//! |---|---|
//! | `qemu:///system` | `/var/run/libvirt/virtqemud-sock-ro` if it exists, else `libvirt-sock-ro` there |
//! | `qemu:///session` | `$XDG_RUNTIME_DIR/libvirt/virtqemud-sock` if it exists, else `libvirt-sock` there; for root as above |
//! | `test:///default` | `$XDG_RUNTIME_DIR/libvirt/libvirt-sock`; for root `/var/run/libvirt/libvirt-sock-ro` |
//! | `...?socket=PATH` | `PATH` |
//! | `...?mode=legacy`, `mode=direct` | only libvirtd's, only that of the driver's modular daemon |
//! | `test://host[:16514]/default`, `test+tls://host[:16514]/default` | the port, with TLS: `docs/libvirt.md` has the files |
//! | `test+tcp://host[:16509]/default` | the port |
//!
//! # What it reports
//!
//! Every event of libvirt up to 29 has a type: [`Lifecycle`](virevent::Lifecycle),
//! [`Reboot`](virevent::Reboot), and for each other [`Kind`](virevent::Kind) a
//! [`Notice`](virevent::Notice); `docs/libvirt.md` has the table. Only the kinds that someone asks
//! for are registered. A newer event, and a message in a layout that this crate does not know, is
//! delivered as [`DomainEvent::Other`](virevent::DomainEvent::Other): see `decode`.
//! [`Kind::Other`](virevent::Kind::Other) means every number from 30 to 33 that the daemon accepts;
//! each is tried, because no call returns which there are. `other:34` and above can be subscribed
//! to one by one.
//!
//! The session registers reboot and control-error for itself as well, and asks the daemon for the
//! state of a domain after an event that leaves it uncertain; see `docs/libvirt.md`. These kinds
//! are delivered only to subscribers that want them.
//!
//! libvirt's events have no time: `at` is the time of receipt. An event that ends a run has no
//! domain id on the wire, or that of the run; where it has none [`virevent`] adds the id of the
//! run.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod calls;
mod client;
#[cfg(feature = "unstable-codec")]
pub mod decode;
#[cfg(not(feature = "unstable-codec"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part of it is for fakes and tests")]
mod decode;
mod doubts;
mod endpoint;
mod list_request;
mod registrations;
mod session;
mod state_request;
mod uri;
#[cfg(feature = "unstable-codec")]
pub mod wire;
#[cfg(not(feature = "unstable-codec"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part of it is for fakes and tests")]
mod wire;

use std::time::Duration;

use virevent::Error;
use virevent::driver::{Driver, Reconnect, Settings};

use crate::session::Opener;
use crate::uri::LibvirtUri;

/// Options of a source of libvirt's events. By value:
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
    /// The daemon that a libvirt URI means. Does no I/O: environment variables and sockets are
    /// examined when it connects.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: it is no URI, or needs what this version does not support.
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

    /// Opens the connection for reading and writing. Default: read-only, which is enough for
    /// events, and which more users have permission for.
    pub fn read_write(mut self) -> Self {
        self.opener.read_only = false;
        self
    }

    /// Sends a ping after `interval` without a message, and further ones at that interval. After
    /// `count` pings without a reply, `interval * (count + 1)` after the last message, the
    /// connection is closed. Default: 5 s, 5 times. An interval of zero disables pings.
    pub fn keepalive(mut self, interval: Duration, count: u32) -> Self {
        self.keepalive = (interval, count);
        self
    }

    /// How long the daemon may take to answer a call. After that a subscription that waits for the
    /// answer fails, or opens with a gap; the connection stays as long as pings are answered.
    /// Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How long connecting may take, handshake included. Default: 10 s. It may have to be longer
    /// where polkit asks a user for a password.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.opener.timeout = timeout;
        self
    }

    /// How to reconnect. Default: [`Reconnect::local`] for a unix socket, [`Reconnect::remote`] for
    /// tls and tcp.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// The settings that all backends share. They override those of the other methods.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The source. Does no I/O before the first subscription.
    #[must_use]
    pub fn source(mut self) -> Driver {
        if let Some(timeout) = self.settings.connect_timeout.take() {
            self.opener.timeout = timeout;
        }
        // The driver counts the silence; the session only sends the pings.
        let (interval, count) = self.keepalive;
        // The error of the opener's own deadline names the call without a reply, so the driver's
        // deadline is later.
        let driver_timeout = self.opener.timeout.saturating_add(Duration::from_secs(1));
        Driver::builder(self.opener)
            .keepalive(Some(interval), count)
            .call_timeout(self.call_timeout)
            .connect_timeout(driver_timeout)
            .reconnect(self.reconnect)
            .settings(&self.settings)
            .build()
    }
}
