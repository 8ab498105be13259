//! Notifications of changes in directories, by inotify (Linux).
//!
//! A notification is only a hint that it is time to scan: it may be late, lost (the queue
//! overflows), or of a directory that was moved. The file that it names is only used to connect
//! sooner.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(target_os = "linux")]
pub(crate) use self::linux::Inotify;

/// The watches of one scan: those of directories that it did not see are removed after it.
#[derive(Debug)]
pub(crate) struct ScanWatches {
    inotify: Option<Arc<Inotify>>,
    watches: HashSet<i32>,
    /// Whether a directory could not be watched: it has to be scanned often.
    pub(crate) is_blind: bool,
}

impl ScanWatches {
    pub(crate) fn new(inotify: Option<Arc<Inotify>>) -> Self {
        Self { is_blind: inotify.is_none(), inotify, watches: HashSet::new() }
    }

    /// Watches a directory from now on, if it is there.
    pub(crate) fn add(&mut self, directory: &Path) {
        let Some(inotify) = &self.inotify else { return };
        match inotify.add_watch(directory) {
            Ok(Some(watch)) => drop(self.watches.insert(watch)),
            Ok(None) => {}
            // The directory is unreadable as well, and the scan reports that. It is no lack of
            // inotify.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => {
                let directory = directory.display();
                tracing::debug!(%directory, %error, "cannot be watched by inotify");
                self.is_blind = true;
            }
        }
    }

    /// Ends the watches of all directories that were not added.
    pub(crate) fn remove_others(&mut self) {
        if let Some(inotify) = &self.inotify {
            inotify.keep(&std::mem::take(&mut self.watches));
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{HashMap, HashSet};
    use std::ffi::OsStr;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
    use rustix::io::Errno;
    use tokio::io::unix::AsyncFd;

    use super::{Context, Path, Poll};

    /// The size of the read buffer, in bytes: a notification has at most 16 + 256.
    const BUFFER: usize = 4096;

    /// After how many notifications the task polls its other work.
    const YIELD_EVERY: usize = 1024;

    /// A queue of notifications.
    #[derive(Debug)]
    pub(crate) struct Inotify {
        inotify: AsyncFd<OwnedFd>,
        watches: Mutex<HashMap<i32, PathBuf>>,
    }

    impl Inotify {
        /// # Errors
        /// This user has as many queues as allowed (`fs.inotify.max_user_instances`), or there is
        /// no inotify.
        pub(crate) fn new() -> io::Result<Self> {
            let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            // As for the pidfd of a process: `register`, its replacement, is newer than the oldest
            // tokio that we build with, and an OwnedFd is as safe as it asks for.
            #[allow(deprecated)]
            let inotify = AsyncFd::new(inotify)?;
            Ok(Self { inotify, watches: Mutex::default() })
        }

        /// Watches a directory from now on; `None` if there is none. May block.
        ///
        /// # Errors
        /// It cannot be watched.
        pub(super) fn add_watch(&self, directory: &Path) -> io::Result<Option<i32>> {
            // ATTRIB, for a socket that may be opened now can be connected to. DELETE_SELF and
            // MOVE_SELF, for the directory itself: its watch reports nothing of a directory that
            // takes its path.
            let flags = WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::ATTRIB
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(self.inotify.get_ref(), directory, flags) {
                Ok(watch) => {
                    self.lock().insert(watch, directory.into());
                    Ok(Some(watch))
                }
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        /// Removes all watches but these.
        pub(super) fn keep(&self, watches: &HashSet<i32>) {
            let mut others = Vec::new();
            self.lock().retain(|watch, _| {
                let keep = watches.contains(watch);
                if !keep {
                    others.push(*watch);
                }
                keep
            });
            // Without the lock: the task that reads notifications takes it, too.
            for watch in others {
                // Fails where the kernel removed the watch with its directory.
                let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
            }
        }

        /// Ready once something has happened. `on_change` is called with the files that it
        /// concerns, as far as they are known.
        pub(crate) fn poll(
            &self,
            cx: &mut Context<'_>,
            on_change: &mut dyn FnMut(&Path),
        ) -> Poll<()> {
            let mut count = 0;
            while let Poll::Ready(Ok(mut ready)) = self.inotify.poll_read_ready(cx) {
                let before = count;
                let mut buffer = [MaybeUninit::uninit(); BUFFER];
                let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
                // What is in the buffer is read to its end, for it would be lost.
                while count - before < YIELD_EVERY || !reader.is_buffer_empty() {
                    let Ok(notification) = reader.next() else {
                        ready.clear_ready();
                        break;
                    };
                    count += 1;
                    let Some(name) = notification.file_name() else { continue };
                    // The watch may have been removed since, by a scan on another thread.
                    if let Some(directory) = self.lock().get(&notification.wd()) {
                        on_change(&directory.join(OsStr::from_bytes(name.to_bytes())));
                    }
                }
                if count >= YIELD_EVERY {
                    // The queue is not known to be empty, and its readiness was not cleared:
                    // nothing else wakes the task.
                    cx.waker().wake_by_ref();
                    break;
                }
            }
            if count > 0 { Poll::Ready(()) } else { Poll::Pending }
        }

        fn lock(&self) -> MutexGuard<'_, HashMap<i32, PathBuf>> {
            // A panic while it was held leaves the map whole: each change of it is a single call.
            self.watches.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// No inotify: another system than Linux.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) enum Inotify {}

#[cfg(not(target_os = "linux"))]
impl Inotify {
    pub(crate) fn new() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn add_watch(&self, _directory: &Path) -> std::io::Result<Option<i32>> {
        match *self {}
    }

    fn keep(&self, _watches: &HashSet<i32>) {
        match *self {}
    }

    pub(crate) fn poll(
        &self,
        _cx: &mut Context<'_>,
        _on_change: &mut dyn FnMut(&Path),
    ) -> Poll<()> {
        match *self {}
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn changed(inotify: &Inotify) -> Vec<String> {
        let mut names = Vec::new();
        let mut note = |path: &Path| names.push(path.file_name().unwrap().to_owned());
        poll_fn(|cx| inotify.poll(cx, &mut note)).await;
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    async fn is_silent(inotify: &Inotify) -> bool {
        tokio::time::timeout(Duration::from_millis(50), changed(inotify)).await.is_err()
    }

    fn watching() -> (tempfile::TempDir, Arc<Inotify>, ScanWatches) {
        let home = tempfile::tempdir().unwrap();
        let inotify = Arc::new(Inotify::new().unwrap());
        let mut watches = ScanWatches::new(Some(Arc::clone(&inotify)));
        watches.add(home.path());
        watches.remove_others();
        assert!(!watches.is_blind);
        (home, inotify, watches)
    }

    #[tokio::test]
    async fn a_change_of_a_file_is_notified_with_its_name() {
        let (home, inotify, _) = watching();
        assert!(is_silent(&inotify).await);
        fs::write(home.path().join("a"), "").unwrap();
        fs::rename(home.path().join("a"), home.path().join("b")).unwrap();
        fs::remove_file(home.path().join("b")).unwrap();
        assert_eq!(changed(&inotify).await, ["a", "a", "b", "b"]);
        assert!(is_silent(&inotify).await);
    }

    #[tokio::test]
    async fn a_directory_that_a_scan_left_out_is_silent() {
        let (home, inotify, mut watches) = watching();
        let other = tempfile::tempdir().unwrap();
        watches.add(other.path());
        watches.add(&home.path().join("none"));
        watches.remove_others();
        assert!(!watches.is_blind);
        // The end of a watch is a notification itself.
        changed(&inotify).await;
        fs::write(home.path().join("a"), "").unwrap();
        assert!(is_silent(&inotify).await);
        fs::write(other.path().join("b"), "").unwrap();
        assert_eq!(changed(&inotify).await, ["b"]);
    }

    #[tokio::test]
    async fn an_overflowing_queue_is_notified_and_goes_on() {
        let (home, inotify, _) = watching();
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let directory = home.path().join("a");
        for _ in 0..most / 2 + 10 {
            fs::create_dir(&directory).unwrap();
            fs::remove_dir(&directory).unwrap();
        }
        let mut count = 0;
        while let Ok(names) =
            tokio::time::timeout(Duration::from_millis(50), changed(&inotify)).await
        {
            count += names.len();
        }
        assert!(count <= most, "{count} notifications, and no overflow");
        fs::write(home.path().join("b"), "").unwrap();
        assert_eq!(changed(&inotify).await, ["b"]);
    }
}
