//! The configuration of a fake hypervisor.

use std::sync::Arc;
use std::time::Duration;

use virevent::driver::{Driver, Reconnect, Settings};
use virevent::{Kind, Kinds};

use super::FakeHypervisor;
use super::line::Line;
use super::session::FakeConnect;
use crate::host::Host;

/// A builder of a [`FakeHypervisor`]. The defaults are those of a real backend, except that the
/// waits before reconnects are the same in every run.
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
            // Seeded, so that a test sees the same waits in every run.
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
    /// Uses a new host with this name and without domains. Default: `fake`.
    pub fn host(mut self, name: &str) -> Self {
        self.host_name = name.into();
        self.host = None;
        self
    }

    /// Uses an existing host. Its [`source`](Host::source) should equal the [`uri`](Self::uri), so
    /// that the host's domains equal those in events.
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Sets the source's URI. Default: `fake:`.
    pub fn uri(mut self, uri: &str) -> Self {
        self.uri = uri.into();
        self
    }

    /// Makes the hypervisor refuse registrations for this kind. May be called several times.
    pub fn lacking(mut self, kind: Kind) -> Self {
        self.lacking.insert(kind);
        self
    }

    /// Makes the hypervisor level-triggered, as Xen: it reports the states of runs, not changes,
    /// and has no inactive domains. The driver derives the changes.
    pub fn level_triggered(mut self) -> Self {
        self.level_triggered = true;
        self
    }

    /// Sets the waits before reconnects. Default: `Reconnect::local().seed(1)`.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Sets the timeout of a connection attempt. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the timeout of a registration or a list. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Sets how long the connection is kept without a subscriber. Default: 30 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets the silence before a ping, and the number of pings without a reply that end the
    /// connection. Default: 5 s and 5. `None` disables pings.
    pub fn keepalive(mut self, interval: Option<Duration>, count: u32) -> Self {
        self.keepalive = (interval, count);
        self
    }

    /// Sets the interval of verifications, in which the driver compares its roster with a list.
    /// Default: 60 s, with a jitter of a tenth. `None` disables them.
    pub fn verify(mut self, interval: Option<Duration>) -> Self {
        self.settings.verify = Some(interval);
        self
    }

    /// Sets what all backends share. It has precedence over the methods above.
    pub fn settings(mut self, settings: &Settings) -> Self {
        self.settings = settings.clone();
        self
    }

    /// Makes the hypervisor. It needs no runtime yet.
    #[must_use]
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
