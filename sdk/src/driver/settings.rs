//! The settings that the user of a source may choose, whatever the backend.

use std::time::Duration;

use super::config::Config;
use super::{Gate, Reconnect};

/// What all backends share: deadlines, keepalive, reconnecting, verification. By value:
/// `Settings::default().verify(Some(Duration::from_secs(10)))`. For a setting of `None` the
/// backend's own default counts.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How to reconnect.
    pub reconnect: Option<Reconnect>,
    /// How long connecting may take, the handshake included.
    pub connect_timeout: Option<Duration>,
    /// How long the answer to a call may take.
    pub call_timeout: Option<Duration>,
    /// How long to keep a connection without a subscriber.
    pub idle_timeout: Option<Duration>,
    /// After how much silence to send a keepalive (`None`: never), and how many times.
    pub keepalive: Option<(Option<Duration>, u32)>,
    /// How often to compare what is believed with a list (`None`: never).
    pub verify: Option<Option<Duration>>,
    /// How long a server may do nothing but refuse.
    pub refusal_timeout: Option<Duration>,
    /// What limits how many sources connect at once.
    pub gate: Option<Gate>,
}

impl Settings {
    /// How to reconnect: [`Builder::reconnect`](super::Builder::reconnect).
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// How long connecting may take: [`Builder::connect_timeout`](super::Builder::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// How long the answer to a call may take:
    /// [`Builder::call_timeout`](super::Builder::call_timeout).
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = Some(timeout);
        self
    }

    /// How long to keep a connection without a subscriber:
    /// [`Builder::idle_timeout`](super::Builder::idle_timeout).
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// After how much silence to send a keepalive, and how many times:
    /// [`Builder::keepalive`](super::Builder::keepalive).
    #[must_use]
    pub fn keepalive(mut self, interval: Option<Duration>, count: u32) -> Self {
        self.keepalive = Some((interval, count));
        self
    }

    /// How often to compare what is believed with a list:
    /// [`Builder::verify`](super::Builder::verify).
    #[must_use]
    pub fn verify(mut self, interval: Option<Duration>) -> Self {
        self.verify = Some(interval);
        self
    }

    /// How long a server may do nothing but refuse:
    /// [`Builder::refusal_timeout`](super::Builder::refusal_timeout).
    #[must_use]
    pub fn refusal_timeout(mut self, timeout: Duration) -> Self {
        self.refusal_timeout = Some(timeout);
        self
    }

    /// Connects only as this gate permits, which other sources share. Default: none.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    pub(super) fn apply(&self, config: &mut Config) {
        if let Some(reconnect) = &self.reconnect {
            config.reconnect = reconnect.clone();
        }
        if let Some((interval, count)) = self.keepalive {
            config.set_keepalive(interval, count);
        }
        if let Some(interval) = self.verify {
            config.set_verify(interval);
        }
        if let Some(gate) = &self.gate {
            config.gate = Some(gate.clone());
        }
        config.connect_timeout = self.connect_timeout.unwrap_or(config.connect_timeout);
        config.call_timeout = self.call_timeout.unwrap_or(config.call_timeout);
        config.idle_timeout = self.idle_timeout.unwrap_or(config.idle_timeout);
        config.refusal_timeout = self.refusal_timeout.unwrap_or(config.refusal_timeout);
    }
}
