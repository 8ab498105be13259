//! A directory in which QEMUs' sockets appear and vanish.
//!
//! ```text
//!   notices ──it is time──▶ lookout ──what is there──▶ members ──a monitor each──▶ session
//!   (inotify)               (a look now and then)        └─ ready: who wants to be polled
//! ```
//!
//! The directory is read anew at every notice, and compared with what is known: so a notice that is
//! late, lost or wrong leads to nothing that is not true.

mod inotify;
mod members;
mod pattern;
mod ready;
mod scan;
mod session;
mod socket_pattern;
mod unreadable;
mod watcher;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use virevent::Error;
use virevent::driver::{Driver, Reconnect, Settings};

pub(crate) use self::session::DirectoryConnector;
use self::socket_pattern::SocketPattern;
use self::watcher::ScanLock;
use crate::config::{MonitorConfig, every, lasting};
use crate::driver;
use crate::uri::{Endpoint, encoded};

/// How to reach all QEMUs whose sockets are in a directory. By value:
/// `QmpDir::new("qmp-dir:/run/qemu")?.greeting_timeout(Duration::from_secs(2)).source()`.
///
/// Sockets are found by the patterns of the URI, `*.sock` and `*.monitor` if it has none, in the
/// directory and one level below it. A directory that is not there, or not yet, is an empty host, and a
/// gap that says so.
#[derive(Clone, Debug)]
#[must_use = "call source()"]
pub struct QmpDir {
    pub(crate) opener: DirectoryConnector,
    reconnect: Reconnect,
    settings: Settings,
}

impl QmpDir {
    /// The QEMUs in a directory, `qmp-dir:/path` or `qmp-dir:/path?pattern=*.qmp`; `pattern` may be
    /// given more than once. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong with it, and what to do.
    pub fn new(uri: &str) -> Result<Self, Error> {
        let place = Arc::new(SocketPattern::parse(uri)?);
        let config = MonitorConfig::at(uri, Endpoint::Unix(place.directory.clone()));
        let (net, busy) = (Duration::from_secs(30), ScanLock::default());
        let reconnect = Reconnect::local().max(Duration::from_secs(1));
        let settings = Settings::default();
        Ok(Self { opener: DirectoryConnector { place, config, net, busy }, reconnect, settings })
    }

    /// The QEMUs in the directory of this path, which need be no text, and needs no escaping. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: the path is not whole, too long for a socket in it, or has a NUL.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::new(&format!("qmp-dir:{}", encoded(path.as_ref())))
    }

    /// Takes sockets by this pattern of names (`*` is any text, `?` one character) too, and no more by
    /// those that hold where none is given. It needs no escaping.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: it is none of file names.
    pub fn pattern(mut self, pattern: &str) -> Result<Self, Error> {
        let config = &mut self.opener.config;
        let more = if config.uri.contains('?') { '&' } else { '?' };
        let uri = format!("{}{more}pattern={}", config.uri, encoded(pattern.as_ref()));
        self.opener.place = Arc::new(SocketPattern::parse(&uri)?);
        config.uri = uri;
        Ok(self)
    }

    /// How long a QEMU may take to greet a client before another client is taken to hold its monitor.
    /// That is then an outage of its domain, which ends when it is our turn. Default: 5 s, but a new
    /// stream is synced without those that say nothing for a second. From 1 ms to thirty years.
    pub fn greeting_timeout(mut self, timeout: Duration) -> Self {
        self.opener.config.greeting = lasting(timeout);
        self
    }

    /// How often to ask each QEMU for its run state, which is also its sign of life and is compared with
    /// what was delivered, and how long it may take to answer before it is out of reach. Default: 5 s,
    /// and 10 s; from 1 ms to thirty years. An interval of zero is never.
    pub fn keepalive(mut self, interval: Duration, answer: Duration) -> Self {
        (self.opener.config.interval, self.opener.config.answer) =
            (every(interval), lasting(answer));
        self
    }

    /// How often to look at the directory while no change of it is noticed. Default: 30 s. Where
    /// changes cannot be noticed (no inotify, or no more of it for this user) it is looked at once a
    /// second, or as often as this says if that is more often. From 1 ms to thirty years.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.opener.net = lasting(interval);
        self
    }

    /// How often a subscription that waits for the directory tries to read it. Default:
    /// [`Reconnect::local`], but at least once a second.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// What all backends share. It has precedence over what the methods above say, and means what it does
    /// for [`Qmp`](crate::Qmp::settings).
    pub fn settings(mut self, settings: Settings) -> Self {
        self.opener.config.settle(&settings);
        self.settings = settings;
        self
    }

    /// The source. Does no I/O before the first subscription.
    pub fn source(self) -> Driver {
        let deadline = self.opener.config.deadline();
        driver(self.opener, deadline, self.reconnect, self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_patterns_are_taken_as_they_are() {
        let place = |dir: QmpDir| dir.opener.place;
        let dir = QmpDir::at("/run/a b?").unwrap();
        assert_eq!(place(dir.clone()).directory, Path::new("/run/a b?"));
        assert!(place(dir.clone()).takes(b"vm.sock"));
        let dir = dir.pattern("a&?.qmp").unwrap().pattern("x*").unwrap();
        assert_eq!(dir.opener.config.uri, "qmp-dir:/run/a%20b%3F?pattern=a%26%3F.qmp&pattern=x*");
        let place = place(dir);
        assert!(place.takes(b"a&1.qmp") && place.takes(b"xy") && !place.takes(b"vm.sock"));
        for wrong in ["", "a/b"] {
            let error = QmpDir::at("/run").unwrap().pattern(wrong).unwrap_err().to_string();
            assert!(error.contains("a pattern is of file names"), "{error}");
        }
        assert!(QmpDir::at("run").unwrap_err().to_string().contains("whole path"));
    }
}
