//! A directory in which QEMUs' sockets appear and vanish.
//!
//! ```text
//!   inotify ──it is time──▶ watcher ──a scan──▶ members ──a monitor each──▶ session ──▶ driver
//!                     (and at intervals)          └─ ready: which of them are to be polled
//! ```
//!
//! Each notification leads to a scan of the whole directory, which is compared with what is known.
//! So a notification that is late, lost or wrong leads to no wrong event.

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

/// A source of all QEMUs whose sockets are in a directory. Options by value:
/// `QmpDir::new("qmp-dir:/run/qemu")?.greeting_timeout(Duration::from_secs(2)).source()`.
///
/// Sockets are found by the patterns of the URI, `*.sock` and `*.monitor` if it has none, in the
/// directory and one level below it. A directory that does not exist yet is an empty host, and a
/// gap that says so.
#[derive(Clone, Debug)]
#[must_use = "call source()"]
pub struct QmpDir {
    pub(crate) connector: DirectoryConnector,
    reconnect: Reconnect,
    settings: Settings,
}

impl QmpDir {
    /// Makes a source of the QEMUs in a directory, `qmp-dir:/path` or
    /// `qmp-dir:/path?pattern=*.qmp`; `pattern` may be given more than once. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong with it, and what to do.
    pub fn new(uri: &str) -> Result<Self, Error> {
        let pattern = Arc::new(SocketPattern::parse(uri)?);
        let config = MonitorConfig::at(uri, Endpoint::Unix(pattern.directory.clone()));
        let reconnect = Reconnect::local().max(Duration::from_secs(1));
        let settings = Settings::default();
        Ok(Self {
            connector: DirectoryConnector {
                pattern,
                config,
                rescan: Duration::from_secs(30),
                scan_lock: ScanLock::default(),
            },
            reconnect,
            settings,
        })
    }

    /// Makes a source of the QEMUs in the directory at this path, which need not be UTF-8 and needs
    /// no escaping. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: the path is not absolute, too long for a socket in it, or has a NUL.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::new(&format!("qmp-dir:{}", encoded(path.as_ref())))
    }

    /// Adds a pattern of socket names (`*` is any text, `?` one character). The first replaces the
    /// default patterns. It needs no escaping.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: it is no pattern of file names.
    pub fn pattern(mut self, pattern: &str) -> Result<Self, Error> {
        let config = &mut self.connector.config;
        let more = if config.uri.contains('?') { '&' } else { '?' };
        let uri = format!("{}{more}pattern={}", config.uri, encoded(pattern.as_ref()));
        self.connector.pattern = Arc::new(SocketPattern::parse(&uri)?);
        config.uri = uri;
        Ok(self)
    }

    /// Sets how long a QEMU may take to greet us before another client is assumed to hold its
    /// monitor. That is an outage of its domain, which ends when QEMU serves us. Default: 5 s, but
    /// a new stream is synced without those that send nothing for a second. From 1 ms to thirty
    /// years.
    pub fn greeting_timeout(mut self, timeout: Duration) -> Self {
        self.connector.config.greeting = lasting(timeout);
        self
    }

    /// Sets how often each QEMU is asked for its run state, which is its sign of life and is
    /// compared with what was delivered, and how long it may take to answer before it is
    /// unreachable. Default: 5 s and 10 s; from 1 ms to thirty years. An interval of zero disables
    /// the questions.
    pub fn keepalive(mut self, interval: Duration, answer: Duration) -> Self {
        self.connector.config.interval = every(interval);
        self.connector.config.answer = lasting(answer);
        self
    }

    /// Sets how often the directory is scanned while no change of it is notified. Default: 30 s.
    /// Where changes are not notified (no inotify, or its limits for this user are reached) it is
    /// scanned once a second, or at this interval if that is shorter. From 1 ms to thirty years.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.connector.rescan = lasting(interval);
        self
    }

    /// Sets how often a subscription that waits for the directory tries to read it. Default:
    /// [`Reconnect::local`], but at least once a second.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Sets what all backends share. It has precedence over the methods above, and means the same
    /// as for [`Qmp`](crate::Qmp::settings).
    pub fn settings(mut self, settings: Settings) -> Self {
        self.connector.config.settle(&settings);
        self.settings = settings;
        self
    }

    /// Returns the source. It does no I/O before the first subscription.
    #[must_use]
    pub fn source(self) -> Driver {
        let deadline = self.connector.config.deadline();
        driver(self.connector, deadline, self.reconnect, self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_patterns_need_no_escaping() {
        let pattern = |dir: QmpDir| dir.connector.pattern;
        let dir = QmpDir::at("/run/a b?").unwrap();
        assert_eq!(pattern(dir.clone()).directory, Path::new("/run/a b?"));
        assert!(pattern(dir.clone()).takes(b"vm.sock"));
        let dir = dir.pattern("a&?.qmp").unwrap().pattern("x*").unwrap();
        assert_eq!(
            dir.connector.config.uri,
            "qmp-dir:/run/a%20b%3F?pattern=a%26%3F.qmp&pattern=x*"
        );
        let pattern = pattern(dir);
        assert!(pattern.takes(b"a&1.qmp") && pattern.takes(b"xy") && !pattern.takes(b"vm.sock"));
        for wrong in ["", "a/b"] {
            let error = QmpDir::at("/run").unwrap().pattern(wrong).unwrap_err().to_string();
            assert!(error.contains("a pattern is of file names"), "{error}");
        }
        assert!(QmpDir::at("run").unwrap_err().to_string().contains("absolute path"));
    }
}
