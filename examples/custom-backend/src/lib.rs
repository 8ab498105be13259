//! A backend to copy: one Cloud Hypervisor process as an [`EventSource`](virevent::EventSource).
//!
//! ```text
//!   --event-monitor path=FILE ──▶ wire::objects ──▶ decode ──▶ vm ──▶ events ─┐
//!                                                              ▲              ├─▶ the driver
//!   --api-socket path=SOCKET  ──▶ wire::http ────── vm.info ───┴────▶ lists ──┘
//! ```
//!
//! | room | what | I/O |
//! |---|---|---|
//! | `lib.rs` | the source and its configuration | no |
//! | `config.rs` | the URI | no |
//! | `wire/` | bytes to JSON objects and HTTP replies, every length checked | no |
//! | `decode.rs` | what each event means: a table | no |
//! | `vm.rs` | what the events so far say of the VM, and which run it is | no |
//! | `session/` | the file and the socket; implements the driver's `Session` | yes |
//!
//! Reconnecting, merging, verification, fan-out, lag and cancellation are the driver's.

mod config;
pub mod decode;
mod session;
mod vm;
pub mod wire;

use std::time::Duration;

use virevent::Error;
use virevent::driver::{Driver, Settings};

use crate::config::Config;
use crate::session::Connector;

/// How long an answer of the API may take.
// The thread that answers also boots, snapshots and deletes the VM, which may take longer than the
// driver's 10 s. There is no call that it answers meanwhile, so that it cannot be pinged.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One Cloud Hypervisor process, by its API socket and the file of its events.
#[derive(Clone, Debug)]
pub struct Chv {
    config: Config,
    settings: Settings,
}

impl Chv {
    /// Reads `chv:/run/chv/web.sock?events=/run/chv/web.events`. The domain has the name of the
    /// socket's file, here `web`. Without `events` the file is the socket's with the extension
    /// `events`; without `uuid=UUID` the uuid is derived from the host and the socket. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`].
    pub fn new(uri: &str) -> Result<Self, Error> {
        Ok(Self { config: Config::parse(uri)?, settings: Settings::default() })
    }

    /// Applies deadlines, intervals and the like.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Makes the source. Does no I/O, and needs no runtime yet.
    #[must_use]
    pub fn source(self) -> Driver {
        Driver::builder(Connector::new(self.config))
            .call_timeout(CALL_TIMEOUT)
            .settings(&self.settings)
            .build()
    }
}
