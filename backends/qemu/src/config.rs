//! What is fixed for as long as a source lives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use virevent::Error;
use virevent::driver::Settings;

use crate::peer::pinned_socket::FileId;
use crate::uri::Endpoint;

/// The least time that is waited for anything: less would be a busy loop.
const LEAST: Duration = Duration::from_millis(1);

/// As good as never, and still a time that a clock can be set to: thirty years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A time that can be waited for.
pub(crate) fn lasting(duration: Duration) -> Duration {
    duration.clamp(LEAST, NEVER)
}

/// The same of what is done again and again: zero is never.
pub(crate) fn every(interval: Duration) -> Duration {
    if interval.is_zero() { NEVER } else { lasting(interval) }
}

#[derive(Clone, Debug)]
pub(crate) struct MonitorConfig {
    pub(crate) uri: String,
    pub(crate) endpoint: Endpoint,
    /// What a QEMU is called that has no name.
    pub(crate) name: String,
    /// Where it was found first, from which the uuid of one without any is derived.
    pub(crate) origin: Endpoint,
    /// The one file that the endpoint's path is to lead to.
    pub(crate) file: Option<FileId>,
    pub(crate) host: Arc<str>,
    /// How long to wait for a greeting.
    pub(crate) greeting: Duration,
    /// How often to ask QEMU for its run state.
    pub(crate) interval: Duration,
    /// How long it may take to answer.
    pub(crate) answer: Duration,
    /// How often to look whether there is a QEMU.
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
            Endpoint::Tcp(host, _) if !is_here(host) => Arc::from(&**host),
            _ => Arc::from(&*rustix::system::uname().nodename().to_string_lossy()),
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

    /// Takes over what all backends share, as far as a monitor has a use for it.
    pub(crate) fn settle(&mut self, settings: &Settings) {
        if let Some((interval, count)) = settings.keepalive {
            self.interval = every(interval.unwrap_or(Duration::ZERO));
            if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
                self.answer = lasting(interval.saturating_mul(count.saturating_add(1)));
            }
        }
        self.greeting = settings.connect_timeout.map_or(self.greeting, lasting);
        self.answer = settings.call_timeout.map_or(self.answer, lasting);
    }

    /// By when a session has done all that it is asked for, or has said why not: a list waits for the
    /// answer of a QEMU that hangs until that is an outage.
    pub(crate) fn deadline(&self) -> Duration {
        self.greeting.saturating_add(self.answer).saturating_add(Duration::from_secs(30))
    }

    /// QEMU greeted, and has not answered a question since.
    pub(crate) fn mute(&self, waited: Duration) -> Error {
        let or_gone = match self.may_be_half_open() {
            true => ". Or its host is gone, or the way there",
            false => "",
        };
        let reason = format!(
            "it greets us, so that it is our turn, but does not answer for {waited:?}: QEMU hangs, or \
             its process is stopped (SIGSTOP); look at what it does{or_gone}"
        );
        self.timed_out(reason)
    }

    /// Somebody listens, and has not greeted for so long.
    pub(crate) fn held(&self, waited: Duration) -> Error {
        let reason = format!(
            "it lets us in but says nothing for {waited:?}: most likely another client holds this monitor \
             (libvirt, a management tool, another watch), for QEMU serves one at a time; give QEMU \
             one more -qmp for us. Or its process is stopped (SIGSTOP), or it is no QMP socket"
        );
        self.timed_out(reason)
    }

    /// Somebody listens, and what it says has no end.
    pub(crate) fn endless(&self, waited: Duration, bytes: usize) -> Error {
        let reason = format!(
            "it has sent {bytes} bytes within {waited:?}, and no QMP greeting: check that it is a \
             socket of -qmp (not of -monitor or -serial)"
        );
        self.timed_out(reason)
    }

    /// It has not become known for so long whether somebody listens.
    pub(crate) fn lost(&self, waited: Duration) -> Error {
        let reason = match &self.endpoint {
            Endpoint::Unix(_) => format!(
                "the file system that it is on does not answer for {waited:?}: look at what it is \
                 mounted from"
            ),
            Endpoint::Tcp(..) => format!(
                "nothing answers to our wish to connect for {waited:?}: the host is down, a firewall \
                 drops it, or too many clients wait; check host and port"
            ),
        };
        self.timed_out(reason)
    }

    /// Whether the other side may be gone without a word: its host, or the way there.
    pub(crate) fn may_be_half_open(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp(..))
    }

    fn timed_out(&self, reason: String) -> Error {
        let source = Arc::new(io::Error::from(io::ErrorKind::TimedOut));
        Error::Unreachable { endpoint: self.endpoint.to_string(), reason, source }
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keepalive_of_all_backends_is_clamped_to_what_can_be_waited() {
        let second = Duration::from_secs(1);
        let answer = Duration::from_secs(10);
        let table = [
            (Some(5 * second), 0, 5 * second, 5 * second),
            (Some(5 * second), 5, 5 * second, 30 * second),
            (Some(Duration::MAX), u32::MAX, NEVER, NEVER),
            (Some(second), u32::MAX, second, NEVER),
            (Some(Duration::ZERO), 5, NEVER, answer),
            (None, 5, NEVER, answer),
        ];
        for (interval, count, expected_interval, expected_answer) in table {
            let mut config = MonitorConfig::new("qmp:/run/web.sock").unwrap();
            config.settle(&Settings::default().keepalive(interval, count));
            assert_eq!(config.interval, expected_interval, "{interval:?} {count}");
            assert_eq!(config.answer, expected_answer, "{interval:?} {count}");
        }
    }
}
