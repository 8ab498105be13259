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
//! The daemon's socket, as root in domain 0. Where there is none, the kernel's device.
//!
//! | URI | connects to |
//! |---|---|
//! | `xenstore:` | `$XENSTORED_PATH`, else `$XENSTORED_RUNDIR/socket`, else the first that exists of `/run/xenstored/socket`, `/var/run/xenstored/socket`, `/dev/xen/xenbus`, `/proc/xen/xenbus` |
//! | `xenstore:/path` | that socket or device, by what it is |
//! | `...?dom0=1` | the same; domain 0 is reported, too, with the uuid that libvirt has for it: all zero |
//!
//! The device was never tried on Xen: no Xen host was at hand.
//!
//! # What it promises
//!
//! - A domain is **started** once it is introduced and its name and uuid are written, and **stopped** when it is gone:
//!   once each, however often the store announces it. Another domain under the same id is a stop and a start.
//! - **shutting_down (host)** when the host asks the guest to end, and with it
//!   [`DomainEvent::Other`](virevent::DomainEvent::Other) named `control/shutdown`, with the word:
//!   `{"request":"poweroff"}`. The end after it is **stopped (shutdown)**; any other end has no cause, for the store
//!   has none.
//! - **shutting_down (finished)** only where that is no guess. A domain that has shut down is not stopped before it is
//!   gone.
//! - **Nothing is ever written.** The only requests are `READ`, `DIRECTORY`, `DIRECTORY_PART`,
//!   `IS_DOMAIN_INTRODUCED`, `GET_FEATURE`, `WATCH`, `UNWATCH` and `RESET_WATCHES`, which resets only this
//!   connection's watches.
//! - Any number of queued events delays no reply, and takes no memory.
//!
//! A store does not say whether a domain is paused, nor why it ended without being asked. What else it leaves open,
//! what each error means and what it costs is in the guide's page on Xen, `docs/xen.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "unstable-codec")]
pub mod decode;
#[cfg(not(feature = "unstable-codec"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part of it is for fakes and tests")]
mod decode;
mod device;
mod endpoint;
mod observer;
mod pipeline;
mod request;
mod session;
mod socket;
mod uri;
#[cfg(feature = "unstable-codec")]
pub mod wire;
#[cfg(not(feature = "unstable-codec"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part of it is for fakes and tests")]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use virevent::Error;
use virevent::driver::{Driver, Reconnect, Settings};
use virevent_transport::host_name;

use crate::session::StoreConnector;
use crate::uri::StoreUri;

/// How long the first look at all domains may take. A daemon that answers no request has a much shorter deadline; one
/// that answers takes a minute to set the watches of 10,000 domains.
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
    /// The store of a URI, `xenstore:` or `xenstore:/path`. Does no I/O: the environment and the paths are read when it
    /// connects.
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

    /// Whether domain 0 is reported, too, as with `?dom0=1`. Default: no, it is the host itself.
    pub fn dom0(mut self, is_reported: bool) -> Self {
        self.uri.with_dom0 = is_reported;
        self
    }

    /// How long xenstored may take to answer a request before the connection is dropped. Default: 10 s. While it
    /// answers, the first look at all domains may take 5 minutes, or this timeout if it is longer.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The keepalive: after `interval` of silence the session probes xenstored, `count` times in a row, and drops the
    /// connection after `interval * (count + 1)` of silence. Default: 5 s, 5 times. Zero disables it.
    pub fn keepalive(mut self, interval: Duration, count: u32) -> Self {
        self.keepalive = (interval, count);
        self
    }

    /// How to reconnect. Default: [`Reconnect::local`].
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// The settings that all backends share. They have precedence over the methods above.
    pub fn settings(mut self, mut settings: Settings) -> Self {
        // This is the deadline of one request. A look at all domains is many requests.
        if let Some(timeout) = settings.call_timeout {
            self.call_timeout = timeout;
            settings.call_timeout = Some(timeout.max(FIRST_LOOK));
        }
        self.settings = settings;
        self
    }

    /// The source. Does no I/O before the first subscription.
    #[must_use]
    pub fn source(self) -> Driver {
        let host = host_name().into();
        let (interval, count) = self.keepalive;
        let uri = self.uri;
        let timeout = self.call_timeout;
        Driver::builder(StoreConnector { uri, host, timeout, previous: Arc::default() })
            .keepalive(Some(interval), count)
            .call_timeout(self.call_timeout.max(FIRST_LOOK))
            .reconnect(self.reconnect)
            .settings(&self.settings)
            .build()
    }
}
