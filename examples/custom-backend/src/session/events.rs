//! The event monitor's file, and inotify on it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use virevent::Error;

use crate::wire::objects::{Frame, Objects};

/// How much one read takes in, in bytes.
const READ: usize = 64 * 1024;

/// The file, and what was read of it.
pub(super) struct EventFile {
    path: String,
    file: File,
    changes: AsyncFd<OwnedFd>,
    wire: Objects,
    bytes: Box<[u8]>,
}

impl EventFile {
    pub(super) fn open(file: &Path) -> Result<Self, Error> {
        let path = file.display().to_string();
        let unreachable = |error: io::Error| {
            let advice = "start cloud-hypervisor with --event-monitor path=FILE";
            Error::unreachable(path.clone(), advice, error)
        };
        // Opening a FIFO would wait for its writer. From one, events would be lost: the event
        // monitor writes without waiting, and what does not fit is dropped in the middle of an
        // object (`set_file_nonblocking` in `event_monitor/src/lib.rs`).
        if !std::fs::metadata(file).map_err(unreachable)?.is_file() {
            let reason = "give --event-monitor path= a regular file: a FIFO loses events";
            return Err(Error::invalid_uri(path, reason));
        }
        // Before the first read: what is written after that read wakes us.
        let watch = || -> io::Result<AsyncFd<OwnedFd>> {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let inotify = inotify::init(flags)?;
            inotify::add_watch(&inotify, file, inotify::WatchFlags::MODIFY)?;
            // `register`, its replacement, is newer than the oldest tokio that we build with.
            #[allow(deprecated)]
            AsyncFd::new(inotify)
        };
        let changes = watch().map_err(unreachable)?;
        let file = File::open(file).map_err(unreachable)?;
        let bytes = vec![0; READ].into();
        Ok(Self { path, file, changes, wire: Objects::default(), bytes })
    }

    /// Reads once; false if there is nothing more. The file is in the page cache, where a read does
    /// not wait.
    pub(super) fn read(&mut self) -> Result<bool, Error> {
        let count = self
            .file
            .read(&mut self.bytes)
            .map_err(|error| Error::closed(&self.path, error.to_string()))?;
        self.wire.push(&self.bytes[..count]);
        Ok(count > 0)
    }

    /// What has been read and not yet taken.
    pub(super) fn next_frame(&mut self) -> Option<Frame<'_>> {
        self.wire.next_frame()
    }

    /// Waits until the file may have more.
    ///
    /// # Cancel safety
    /// Cancel safe: what it takes from inotify says only that a read is due, and the caller reads
    /// before it waits again.
    pub(super) async fn changed(&self) {
        loop {
            // An error means that the runtime shuts down.
            let Ok(mut guard) = self.changes.readable().await else {
                return std::future::pending().await;
            };
            let mut events = [0; 4096];
            let read =
                guard.try_io(|changes| Ok(rustix::io::read(changes.get_ref(), &mut events)?));
            if read.is_ok() {
                return;
            }
        }
    }
}
