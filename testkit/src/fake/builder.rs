//! How to make a fake hypervisor.

use std::sync::Arc;
use std::time::Duration;

use virevent::driver::{Driver, Reconnect, Settings};
use virevent::{Kind, Kinds};

use super::FakeHypervisor;
use super::line::Line;
use super::session::FakeConnect;
use crate::host::Host;

/// Configures a [`FakeHypervisor`]. What is not set is as in a real backend, except that the waits
/// before reconnects are the same in every run.
#[derive(Clone, Debug)]
#[must_use = "call build()"]
pub struct Builder {
    uri: String,
    host_name: String,
    host: Option<Host>,
    lacking: Kinds,
    level_triggered: bool,
    reconnect: Reconnect,
    connect_timeout: Duration,
    call_timeout: Duration,
    idle_timeout: Duration,
    keepalive: (Option<Duration>, u32),
    settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            uri: "fake:".into(),
            host_name: "fake".into(),
            host: None,
            lacking: Kinds::default(),
            level_triggered: false,
            reconnect: Reconnect::local().seed(1),
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            keepalive: (Some(Duration::from_secs(5)), 5),
            settings: Settings::default(),
        }
    }
}

impl Builder {
    /// What the host calls itself. Default: `fake`. The host is a new one, without domains.
    pub fn host(mut self, name: &str) -> Self {
        self.host_name = name.into();
        self.host = None;
        self
    }

    /// Serves a host that there is already. Its [`source`](Host::source) should be the
    /// [`uri`](Self::uri), so that domains of one equal those of the other.
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// The source's URI. Default: `fake:`.
    pub fn uri(mut self, uri: &str) -> Self {
        self.uri = uri.into();
        self
    }

    /// The hypervisor refuses to report events of this kind. May be given several times.
    pub fn lacking(mut self, kind: Kind) -> Self {
        self.lacking.insert(kind);
        self
    }

    /// The hypervisor says how its runs are and not what happened, and knows nothing of inactive
    /// domains, as Xen does: the driver has to derive the changes.
    pub fn level_triggered(mut self) -> Self {
        self.level_triggered = true;
        self
    }

    /// How to reconnect. Default: `Reconnect::local().seed(1)`.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// How long connecting may take. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a registration or a list may take. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How long the connection is kept when nobody is subscribed. Default: 30 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// After how much silence to ping, and how many times before the connection is given up.
    /// Default: 5 s, 5 times. `None` never pings.
    pub fn keepalive(mut self, interval: Option<Duration>, count: u32) -> Self {
        self.keepalive = (interval, count);
        self
    }

    /// How often the driver compares what it believes with a list. Default: every 60 s, with a jitter of a
    /// tenth. `None` never does.
    pub fn verify(mut self, interval: Option<Duration>) -> Self {
        self.settings.verify = Some(interval);
        self
    }

    /// What all backends share. It has precedence over what the methods above say.
    pub fn settings(mut self, settings: &Settings) -> Self {
        self.settings = settings.clone();
        self
    }

    /// The hypervisor. Needs no runtime yet.
    pub fn build(self) -> FakeHypervisor {
        let host = self.host.unwrap_or_else(|| Host::of_source(&self.uri, &self.host_name));
        let line = Arc::new(Line::new(host, self.level_triggered, self.lacking));
        let connect = FakeConnect { uri: self.uri.into(), line: Arc::clone(&line) };
        let driver = Driver::builder(connect)
            .reconnect(self.reconnect)
            .connect_timeout(self.connect_timeout)
            .call_timeout(self.call_timeout)
            .idle_timeout(self.idle_timeout)
            .keepalive(self.keepalive.0, self.keepalive.1)
            .settings(&self.settings)
            .build();
        FakeHypervisor { line, driver }
    }
}
