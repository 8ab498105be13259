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
//! The source is a host with one domain, the QEMU that listens on the socket, or with none. QEMUs may
//! come and go: the end of one is stopped, and the next to listen there is started. Only the first
//! subscription needs one to be there, unless it asks to wait
//! ([`Options::wait`](virevent::Options::wait)).
//!
//! | | |
//! |---|---|
//! | name | that of `-name`, else the socket's file name without its extension |
//! | uuid | that of `-uuid`, else one derived from the host and the socket |
//! | id | the process id; where that cannot be had, the first virtual CPU's thread id or a number that counts runs |
//!
//! # A directory of sockets
//!
//! [`QmpDir`] is a host with all QEMUs whose sockets are in a directory, as they come and go. What goes
//! wrong with one of them is a gap of its domain, and holds up no other. Other sockets in the directory
//! are best kept out by a pattern (`?pattern=*.qmp`), for each is connected to, once:
//!
//! | socket | |
//! |---|---|
//! | it says something that is no QMP (a console, `-monitor`, VNC) | left alone until its file changes; no domain, but a warning |
//! | it says nothing, and never was a QEMU's | a gap of its domain; let go after the greeting's deadline, and tried again after 5 s, 10 s ... 30 s |
//! | libvirt's own monitor, `domain-*/monitor.sock` | never connected to, unless `?pattern=monitor.sock` names it; a warning |
//!
//! A sub-directory that cannot be read is a gap of a domain of its name: those in it that are known go
//! on, and whether others have come is not known.
//!
//! # Stopped, or out of reach?
//!
//! The end of the process is stopped, and is told at once, in an outage too; its cause is what QEMU
//! announced before, failed if it announced nothing, and none if it could not: see [`decode`]. A
//! connection that closes while
//! the process lives is a [`Gap`](virevent::Gap), and so is a QEMU that does not answer. Over TCP, and
//! where a manager made the socket for QEMU, the process cannot be watched; then it counts as stopped
//! once nobody listens any more. In a directory that is asked at the very file to which we were
//! connected, wherever it is by then: renamed, removed, or behind a directory that was closed to us. (On
//! Linux, where `/proc` is. Elsewhere a QEMU that lost both its path and its connection stays a gap.)
//!
//! # One client at a time
//!
//! QEMU serves one client a socket and leaves the next one waiting, without a word. Ours waits for its
//! turn and says so. It holds the monitor while there is a subscriber, and lets go of it with the last.

mod config;
pub mod decode;
mod directory;
mod link;
mod monitor;
mod peer;
mod raw_event_filter;
mod session;
mod uri;
pub mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use virevent::Error;
use virevent::driver::{Connect, Driver, Reconnect, Settings};

use crate::config::{MonitorConfig, every, lasting};
pub use crate::directory::QmpDir;
use crate::session::SocketConnector;
use crate::uri::encoded;

/// The target of log records that a user should act upon: a wrong path, a pattern that takes too much.
/// Each is one line that says what to do, said once.
const ADVICE: &str = "virevent::advice";

/// How to reach a QEMU. By value:
/// `Qmp::new("qmp:/run/vm.sock")?.greeting_timeout(Duration::from_secs(2)).source()`.
#[derive(Clone, Debug)]
#[must_use = "call source()"]
pub struct Qmp {
    config: MonitorConfig,
    reconnect: Reconnect,
    settings: Settings,
}

impl Qmp {
    /// The QEMU behind a socket, `qmp:/path` or `qmp+tcp://host:port`. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong with it, and what to do.
    pub fn new(uri: &str) -> Result<Self, Error> {
        Ok(Self {
            config: MonitorConfig::new(uri)?,
            reconnect: Reconnect::local().max(Duration::from_secs(1)),
            settings: Settings::default(),
        })
    }

    /// The QEMU behind the socket of this path, which need be no text, and needs no escaping. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: the path is not whole, too long for a socket, or has a NUL.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::new(&format!("qmp:{}", encoded(path.as_ref())))
    }

    /// How long QEMU may take to greet a client before another client is taken to hold its monitor.
    /// The first subscription then fails; later it is an outage, which ends when it is our turn.
    /// Default: 5 s; from 1 ms to thirty years.
    pub fn greeting_timeout(mut self, timeout: Duration) -> Self {
        self.config.greeting = lasting(timeout);
        self
    }

    /// How often to ask QEMU for its run state, which is also its sign of life and is compared with what
    /// was delivered, and how long it may take to answer before it is out of reach. Default: 5 s, and
    /// 10 s; from 1 ms to thirty years. An interval of zero is never.
    pub fn keepalive(mut self, interval: Duration, answer: Duration) -> Self {
        (self.config.interval, self.config.answer) = (every(interval), lasting(answer));
        self
    }

    /// How often to look whether there is a QEMU at the socket while there is none. Default: 200 ms
    /// for a unix socket, 1 s for tcp; from 1 ms to thirty years.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.config.retry = lasting(interval);
        self
    }

    /// How often a subscription that waits for a first QEMU tries to connect. Default:
    /// [`Reconnect::local`], but at least once a second.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// What all backends share. It has precedence over what the methods above say. The connection's
    /// deadlines become those of the monitor: `connect_timeout` is that of the greeting, `call_timeout` that of
    /// an answer, else `interval * (count + 1)` of `keepalive`; a monitor is let go of with its last subscriber, whatever `idle_timeout` says.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.config.settle(&settings);
        self.settings = settings;
        self
    }

    /// The source. Does no I/O before the first subscription.
    pub fn source(self) -> Driver {
        let deadline = self.config.deadline();
        driver(SocketConnector(Arc::new(self.config)), deadline, self.reconnect, self.settings)
    }
}

/// The driver of a source whose monitors have deadlines of their own: a session that the driver ends for
/// silence could not tell the end of a process.
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
