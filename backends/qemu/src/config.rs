//! The configuration of a monitor, which is fixed as long as its source lives.

use std::sync::Arc;
use std::time::Duration;

use virevent::Error;
use virevent::driver::Settings;
use virevent_transport::host_name;

use crate::peer::pinned_socket::FileId;
use crate::uri::Endpoint;

/// The shortest wait: less would be a busy loop.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// The longest wait, which a clock can still be set to: thirty years.
const MAX_WAIT: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A duration that can be waited for.
pub(crate) fn lasting(duration: Duration) -> Duration {
    duration.clamp(MIN_WAIT, MAX_WAIT)
}

/// A duration for an interval: zero disables.
pub(crate) fn every(interval: Duration) -> Duration {
    if interval.is_zero() { MAX_WAIT } else { lasting(interval) }
}

/// The configuration of a monitor.
#[derive(Clone, Debug)]
pub(crate) struct MonitorConfig {
    pub(crate) uri: String,
    pub(crate) endpoint: Endpoint,
    /// The name of a domain whose QEMU has none.
    pub(crate) name: String,
    /// Where the socket was found first: the uuid of a QEMU without one is derived from it.
    pub(crate) origin: Endpoint,
    /// The one file that the endpoint's path must lead to, in a directory.
    pub(crate) file: Option<FileId>,
    pub(crate) host: Arc<str>,
    /// How long to wait for a greeting.
    pub(crate) greeting: Duration,
    /// How often QEMU is asked for its run state.
    pub(crate) interval: Duration,
    /// How long it may take to answer.
    pub(crate) answer: Duration,
    /// The longest wait between two attempts to connect.
    pub(crate) retry: Duration,
}

impl MonitorConfig {
    /// # Errors
    /// [`Error::InvalidUri`].
    pub(crate) fn new(uri: &str) -> Result<Self, Error> {
        Ok(Self::at(uri, Endpoint::parse(uri)?))
    }

    pub(crate) fn at(uri: &str, endpoint: Endpoint) -> Self {
        let host = match &endpoint {
            // A QEMU on another host is a domain of that host.
            Endpoint::Tcp(host, _) if !is_this_host(host) => Arc::from(&**host),
            _ => host_name().into(),
        };
        let retry = match &endpoint {
            Endpoint::Unix(_) => Duration::from_millis(200),
            Endpoint::Tcp(..) => Duration::from_secs(1),
        };
        Self {
            uri: uri.into(),
            name: endpoint.stem(),
            origin: endpoint.clone(),
            endpoint,
            file: None,
            host,
            greeting: Duration::from_secs(5),
            interval: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            retry,
        }
    }

    /// Applies the settings that all backends share, as far as a monitor uses them.
    pub(crate) fn settle(&mut self, settings: &Settings) {
        if let Some((interval, count)) = settings.keepalive {
            self.interval = every(interval.unwrap_or(Duration::ZERO));
            if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
                // As in libvirt: `count` intervals without an answer are tolerated, the next is the
                // end.
                self.answer = lasting(interval.saturating_mul(count.saturating_add(1)));
            }
        }
        self.greeting = settings.connect_timeout.map_or(self.greeting, lasting);
        self.answer = settings.call_timeout.map_or(self.answer, lasting);
    }

    /// The time within which a session answers the driver, with a result or an error: a list waits
    /// for a QEMU that hangs until that is an outage.
    pub(crate) fn deadline(&self) -> Duration {
        self.greeting.saturating_add(self.answer).saturating_add(Duration::from_secs(30))
    }

    /// Whether the other host, or the network to it, may fail without closing the connection.
    pub(crate) fn may_be_half_open(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp(..))
    }
}

fn is_this_host(host: &str) -> bool {
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_keepalive_is_clamped_to_a_possible_wait() {
        let second = Duration::from_secs(1);
        let answer = Duration::from_secs(10);
        let table = [
            (Some(5 * second), 0, 5 * second, 5 * second),
            (Some(5 * second), 5, 5 * second, 30 * second),
            (Some(Duration::MAX), u32::MAX, MAX_WAIT, MAX_WAIT),
            (Some(second), u32::MAX, second, MAX_WAIT),
            (Some(Duration::ZERO), 5, MAX_WAIT, answer),
            (None, 5, MAX_WAIT, answer),
        ];
        for (interval, count, expected_interval, expected_answer) in table {
            let mut config = MonitorConfig::new("qmp:/run/web.sock").unwrap();
            config.settle(&Settings::default().keepalive(interval, count));
            assert_eq!(config.interval, expected_interval, "{interval:?} {count}");
            assert_eq!(config.answer, expected_answer, "{interval:?} {count}");
        }
    }
}
