//! A backend to copy, for a hypervisor that sends no events: it is asked how things are, at an
//! interval, and the driver derives what changed.
//!
//! ```text
//!   inventory ──the guests───▶ poll ──levels, lists──▶ the driver ──▶ streams
//!   (pid_files, process)        (the timer, and what was there before)
//! ```
//!
//! The hypervisor here is anything that writes a pid file for each guest:
//! `qemu-system-x86_64 -pidfile /run/guests/web.pid`. For another, replace [`pid_files`] by the call
//! that lists its guests; [`poll`] stays as it is.

pub mod pid_files;
pub mod poll;
mod process;

use std::path::PathBuf;
use std::time::Duration;

use virevent::Error;
use virevent::driver::{Driver, Settings};
use virevent_transport::host_name;

use crate::pid_files::PidFiles;
use crate::poll::Poll;

/// The guests of a directory of pid files.
#[derive(Clone, Debug)]
pub struct PidDir {
    uri: String,
    dir: PathBuf,
    interval: Duration,
    settings: Settings,
}

impl PidDir {
    /// Reads `pid-dir:/run/guests`. Does no I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`].
    pub fn new(uri: &str) -> Result<Self, Error> {
        match uri.strip_prefix("pid-dir:") {
            Some(dir) if dir.starts_with('/') => Ok(Self {
                uri: uri.into(),
                dir: dir.into(),
                interval: Duration::from_secs(1),
                settings: Settings::default(),
            }),
            _ => Err(Error::invalid_uri(uri, "write pid-dir:/run/guests")),
        }
    }

    /// How often to look. Default: 1 s; at least 10 ms. What begins and ends between two looks is
    /// never seen.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Applies deadlines, the interval of verification and the like.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Makes the source. Does no I/O, and needs no runtime yet.
    #[must_use]
    pub fn source(self) -> Driver {
        let inventory = PidFiles::new(self.dir, &host_name());
        let poll = Poll::new(self.uri, host_name(), inventory, self.interval);
        Driver::builder(poll).settings(&self.settings).build()
    }
}
