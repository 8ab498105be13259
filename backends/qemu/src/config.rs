//! What is fixed for as long as a source lives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use virevent::Error;

use crate::file::FileId;
use crate::uri::Endpoint;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) uri: String,
    pub(crate) endpoint: Endpoint,
    /// The one file that the endpoint's path is to lead to.
    pub(crate) file: Option<FileId>,
    pub(crate) host: Arc<str>,
    /// How long to wait for a greeting.
    pub(crate) greeting: Duration,
    /// After how much silence to ask whether QEMU lives.
    pub(crate) interval: Duration,
    /// How long it may take to answer.
    pub(crate) answer: Duration,
    /// How often to look whether there is a QEMU.
    pub(crate) retry: Duration,
}

impl Config {
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
            endpoint,
            file: None,
            host,
            greeting: Duration::from_secs(5),
            interval: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            retry,
        }
    }

    /// QEMU greeted, and has not answered a question since.
    pub(crate) fn mute(&self, waited: Duration) -> Error {
        let reason = format!(
            "it greets us, so that it is our turn, but does not answer for {waited:?}: QEMU hangs, or \
             its process is stopped (SIGSTOP); look at what it does"
        );
        self.timed_out(reason)
    }

    /// Somebody listens, and has not greeted for so long.
    pub(crate) fn held(&self, waited: Duration) -> Error {
        let reason = format!(
            "it lets us in but says nothing for {waited:?}: most likely another client holds this monitor \
             (libvirt, a management tool, another watch), for QEMU serves one at a time; give QEMU \
             one more -qmp for us. Or its process is stopped (SIGSTOP)"
        );
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
