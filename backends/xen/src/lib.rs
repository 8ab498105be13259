//! XenStore: the backend of [`virevent`] for a Xen host, without libvirt and without Xen's libraries.
//!
//! ```text
//!   xenstored ──socket, device──▶ wire ──packets──▶ observer ──differences──▶ virevent's driver ──▶ streams
//!        ▲                                             │
//!        └────────── reads, watches, no writes ────────┘
//! ```
//!
//! ```no_run
//! use virevent::{EventSource, Options};
//! use virevent_xen::XenStore;
//!
//! # async fn example() -> Result<(), virevent::Error> {
//! use futures::StreamExt;
//!
//! let source = XenStore::new("xenstore:")?.source();
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
//! The daemon's socket, as root in domain 0, or where there is none the kernel's device.
//!
//! | URI | connects to |
//! |---|---|
//! | `xenstore:` | `$XENSTORED_PATH`, else `$XENSTORED_RUNDIR/socket`, else the first there is of `/run/xenstored/socket`, `/var/run/xenstored/socket`, `/dev/xen/xenbus`, `/proc/xen/xenbus` |
//! | `xenstore:/path` | that socket or device, by what it is |
//! | `...?dom0=1` | the same; domain 0 is told of, too, with the uuid that libvirt has for it: all zero |
//!
//! The device was never tried on Xen, for want of one.
//!
//! # What it promises
//!
//! - A domain is **started** once it is introduced and written down, and **stopped** when it is gone: once each,
//!   however often the store says it. A domain id that another domain has got is a stop and a start.
//! - **shutting_down (host)** when the host asks the guest to go, and with it
//!   [`DomainEvent::Other`](virevent::DomainEvent::Other) named `control/shutdown`, with the word:
//!   `{"request":"poweroff"}`. The end after it is **stopped (shutdown)**; any other has no cause, for the store
//!   knows none.
//! - **shutting_down (finished)** only where that is no guess. What has shut down is not stopped before it is gone.
//! - **Nothing is ever written.** All that can be sent is `READ`, `DIRECTORY`, `DIRECTORY_PART`,
//!   `IS_DOMAIN_INTRODUCED`, `GET_FEATURE`, `WATCH`, `UNWATCH` and `RESET_WATCHES`, the last of our own
//!   connection's.
//! - However many events are queued, requests are answered, and memory does not grow.
//!
//! Whether a domain is paused, or why it ended without being asked, no store knows. What else it cannot tell,
//! what each error means and what it costs is in the guide's page on Xen, `docs/xen.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
pub mod decode;
mod device;
mod endpoint;
mod ledger;
mod listing;
mod observer;
mod request;
mod session;
mod slot;
mod socket;
mod uri;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use virevent::Error;
use virevent::driver::{Driver, Reconnect, Settings};

use crate::session::Opener;
use crate::uri::StoreUri;

/// How long the first look at all domains may take. A daemon that answers nothing is given up long before;
/// one that answers all the time takes a minute to set the watches of 10,000 domains.
const FIRST_LOOK: Duration = Duration::from_secs(300);

/// How to reach a XenStore. By value:
/// `XenStore::new("xenstore:")?.call_timeout(Duration::from_secs(30)).source()`.
#[derive(Clone, Debug)]
#[must_use = "call source()"]
pub struct XenStore {
    uri: StoreUri,
    call_timeout: Duration,
    keepalive: (Duration, u32),
    reconnect: Reconnect,
    settings: Settings,
}

impl XenStore {
    /// The store behind a URI, `xenstore:` or `xenstore:/path`. Does no I/O; the environment and the
    /// paths are looked at when it connects.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong with it, and what to do.
    pub fn new(uri: &str) -> Result<Self, Error> {
        Ok(Self {
            uri: StoreUri::parse(uri)?,
            call_timeout: Duration::from_secs(10),
            keepalive: (Duration::from_secs(5), 5),
            reconnect: Reconnect::local(),
            settings: Settings::default(),
        })
    }

    /// Whether domain 0 is told of, too, as with `?dom0=1`. Default: no, it is the host itself.
    pub fn dom0(mut self, is_told: bool) -> Self {
        self.uri.with_dom0 = is_told;
        self
    }

    /// How long xenstored may take to answer a request before the connection is given up. Default:
    /// 10 s. While it answers, the first look at all domains may take 5 minutes, or as long as this if
    /// that is longer.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// After how much silence to ask whether xenstored lives, and how many times in a row, one interval
    /// apart, before the connection is given up: after `interval * (count + 1)` of silence. Default: 5 s,
    /// 5 times. An interval of zero never asks.
    pub fn keepalive(mut self, interval: Duration, count: u32) -> Self {
        self.keepalive = (interval, count);
        self
    }

    /// How to reconnect. Default: [`Reconnect::local`].
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// What all backends share. It has precedence over what the methods above say.
    pub fn settings(mut self, mut settings: Settings) -> Self {
        // One request has this deadline; a look at all domains is many.
        if let Some(timeout) = settings.call_timeout {
            self.call_timeout = timeout;
            settings.call_timeout = Some(timeout.max(FIRST_LOOK));
        }
        self.settings = settings;
        self
    }

    /// The source. Does no I/O before the first subscription.
    pub fn source(self) -> Driver {
        let host = Arc::from(&*rustix::system::uname().nodename().to_string_lossy());
        let (interval, count) = self.keepalive;
        let (uri, timeout, past) = (self.uri, self.call_timeout, Arc::default());
        Driver::builder(Opener { uri, host, timeout, past })
            .keepalive(Some(interval), count)
            .call_timeout(self.call_timeout.max(FIRST_LOOK))
            .reconnect(self.reconnect)
            .settings(&self.settings)
            .build()
    }
}
