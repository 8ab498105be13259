//! QEMU without a daemon: the backend of [`virevent`] for a QEMU's own monitor socket (QMP).
//!
//! ```text
//!   QEMU ──unix, tcp──▶ wire ──lines──▶ decode ──▶ monitor ──events──▶ virevent's driver ──▶ streams
//!    └──────────────── pidfd: its end ────────────▶─┘
//! ```
//!
//! ```no_run
//! use virevent::{EventSource, Options};
//! use virevent_qemu::Qmp;
//!
//! # async fn example() -> Result<(), virevent::Error> {
//! use futures::StreamExt;
//!
//! // qemu-system-x86_64 -qmp unix:/run/vm.sock,server=on,wait=off ...
//! let source = Qmp::new("qmp:/run/vm.sock")?.source();
//! let mut events = source.subscribe_with(Options::default()).await?;
//! while let Some(event) = events.next().await {
//!     println!("{event}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The socket is a host
//!
//! The source is a host with one domain, the QEMU that listens on the socket, or with none. When
//! the QEMU ends its domain is stopped, and when another listens there a domain is started. Only
//! the first subscription needs a QEMU to be there, unless it asks to wait
//! ([`Options::wait`](virevent::Options::wait)).
//!
//! | | |
//! |---|---|
//! | name | that of `-name`, else the socket's file name without its extension |
//! | uuid | that of `-uuid`, else one derived from the host and the socket |
//! | id | the process id; where that is not known, the thread id of the first virtual CPU or a number that counts runs |
//!
//! # A directory of sockets
//!
//! [`QmpDir`] is a host with all QEMUs whose sockets are in a directory, as they appear and vanish.
//! A fault of one of them is a gap of its domain, and delays no other. Keep other sockets out by a
//! pattern (`?pattern=*.qmp`), for each that matches is connected to:
//!
//! | socket | what happens |
//! |---|---|
//! | it sends something that is not QMP (a console, `-monitor`, VNC) | it is ignored until its file changes: no domain, but a warning |
//! | it sends nothing, and never was a QEMU's | a gap of its domain; released after the greeting's deadline, and tried again after 5 s, 10 s ... 30 s |
//! | libvirt's own monitor, `domain-*/monitor.sock` | never connected to, unless `?pattern=monitor.sock` names it; a warning |
//!
//! An unreadable sub-directory is a gap of a placeholder domain with its name: known QEMUs in it go
//! on, and whether there are others is not known.
//!
//! # Stopped, or unreachable?
//!
//! The end of the process is stopped, and is delivered at once, in an outage too. Its cause is what
//! QEMU announced before, failed if it announced nothing, and none if there was no connection: see
//! `decode`. A connection that closes while the process lives is a [`Gap`](virevent::Gap), and so
//! is a QEMU that does not answer. Over TCP, and where a manager made the socket for QEMU, the
//! process is not watched; it then counts as stopped once no process listens any more. In a
//! directory that is checked at the very file of the connection, wherever it is: renamed, removed,
//! or in a directory that became unreadable. (On Linux with `/proc`. Elsewhere a QEMU that lost
//! both its path and its connection stays a gap.)
//!
//! # One client at a time
//!
//! QEMU serves one client a socket; the next one may connect, and receives nothing until the first
//! disconnects. This crate waits for that and reports it. It holds the monitor while there is a
//! subscriber, and releases it with the last.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
#[cfg(feature = "unstable-codec")]
pub mod decode;
#[cfg(not(feature = "unstable-codec"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part of it is for fakes and tests")]
mod decode;
mod directory;
mod event_filter;
mod link;
mod monitor;
mod peer;
mod session;
mod uri;
#[cfg(feature = "unstable-codec")]
pub mod wire;
#[cfg(not(feature = "unstable-codec"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part of it is for fakes and tests")]
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use virevent::Error;
use virevent::driver::{Connect, Driver, Reconnect, Settings};

use crate::config::{MonitorConfig, every, lasting};
pub use crate::directory::QmpDir;
use crate::session::SocketConnector;
use crate::uri::encoded;

/// The target of log records that a user should act upon: a wrong path, a pattern that matches too
/// much. Each is one line that says what to do, logged once.
const ADVICE: &str = "virevent::advice";

/// A source of the QEMU behind one socket. Options by value:
/// `Qmp::new("qmp:/run/vm.sock")?.greeting_timeout(Duration::from_secs(2)).source()`.
#[derive(Clone, Debug)]
#[must_use = "call source()"]
pub struct Qmp {
    config: MonitorConfig,
    reconnect: Reconnect,
    settings: Settings,
}

impl Qmp {
    /// Makes a source of the QEMU behind a socket, `qmp:/path` or `qmp+tcp://host:port`. Does no
    /// I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong with the URI, and what to do.
    pub fn new(uri: &str) -> Result<Self, Error> {
        Ok(Self {
            config: MonitorConfig::new(uri)?,
            reconnect: Reconnect::local().max(Duration::from_secs(1)),
            settings: Settings::default(),
        })
    }

    /// Makes a source of the QEMU behind the socket at this path, which need not be UTF-8 and needs
    /// no escaping. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: the path is not absolute, too long for a socket, or has a NUL.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::new(&format!("qmp:{}", encoded(path.as_ref())))
    }

    /// Sets how long QEMU may take to greet us before another client is assumed to hold its
    /// monitor. The first subscription then fails; later it is an outage, which ends when QEMU
    /// serves us. Default: 5 s; from 1 ms to thirty years.
    pub fn greeting_timeout(mut self, timeout: Duration) -> Self {
        self.config.greeting = lasting(timeout);
        self
    }

    /// Sets how often QEMU is asked for its run state, which is its sign of life and is compared
    /// with what was delivered, and how long it may take to answer before it is unreachable.
    /// Default: 5 s and 10 s; from 1 ms to thirty years. An interval of zero disables the
    /// questions.
    pub fn keepalive(mut self, interval: Duration, answer: Duration) -> Self {
        self.config.interval = every(interval);
        self.config.answer = lasting(answer);
        self
    }

    /// Sets how often the source tries to connect while there is no QEMU at the socket. Default:
    /// 200 ms for a unix socket, 1 s for tcp; from 1 ms to thirty years.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.config.retry = lasting(interval);
        self
    }

    /// Sets how often a subscription that waits for a first QEMU tries to connect. Default:
    /// [`Reconnect::local`], but at least once a second.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Sets what all backends share. It has precedence over the methods above. `connect_timeout` is
    /// the deadline of the greeting, `call_timeout` that of an answer, else `interval * (count +
    /// 1)` of `keepalive`. `idle_timeout` has no effect: a monitor is released with its last
    /// subscriber.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.config.settle(&settings);
        self.settings = settings;
        self
    }

    /// Returns the source. It does no I/O before the first subscription.
    #[must_use]
    pub fn source(self) -> Driver {
        let deadline = self.config.deadline();
        driver(SocketConnector(Arc::new(self.config)), deadline, self.reconnect, self.settings)
    }
}

/// The driver of a source whose monitors have deadlines of their own: a session that the driver
/// ends for silence could not report the end of a process.
fn driver(
    connect: impl Connect,
    deadline: Duration,
    reconnect: Reconnect,
    mut settings: Settings,
) -> Driver {
    settings.connect_timeout = None;
    settings.call_timeout = None;
    settings.idle_timeout = None;
    settings.keepalive = None;
    Driver::builder(connect)
        .keepalive(None, 0)
        .connect_timeout(deadline)
        .call_timeout(deadline)
        .idle_timeout(Duration::ZERO)
        .reconnect(reconnect)
        .settings(&settings)
        .build()
}
