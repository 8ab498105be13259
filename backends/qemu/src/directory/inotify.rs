//! That something happened in a directory, by inotify (Linux).
//!
//! A notice is only a hint that it is time to look again: it may be late, lost (the queue overflows) or
//! of a directory that has moved. What it names is only used to hurry.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(target_os = "linux")]
pub(crate) use self::linux::Inotify;

/// What a directory is watched by while it is read.
#[derive(Debug)]
pub(crate) struct ScanWatches {
    notices: Option<Arc<Inotify>>,
    round: HashSet<i32>,
    /// A directory could not be watched: it has to be looked at often.
    pub(crate) is_blind: bool,
}

impl ScanWatches {
    pub(crate) fn new(notices: Option<Arc<Inotify>>) -> Self {
        Self { is_blind: notices.is_none(), notices, round: HashSet::new() }
    }

    /// Watches a directory from now on, if it is there.
    pub(crate) fn watch(&mut self, directory: &Path) {
        let Some(notices) = &self.notices else { return };
        match notices.watch(directory) {
            Ok(Some(watch)) => drop(self.round.insert(watch)),
            Ok(None) => {}
            // Then it cannot be read either, and that is told. It is no lack of inotify.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => {
                let directory = directory.display();
                tracing::debug!(%directory, %error, "cannot be watched by inotify");
                self.is_blind = true;
            }
        }
    }

    /// All were watched that are to be: others no more.
    pub(crate) fn done(&mut self) {
        if let Some(notices) = &self.notices {
            notices.keep(&std::mem::take(&mut self.round));
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

    /// Room for what one read brings: a notice has at most 16 + 256 bytes.
    const ROOM: usize = 4096;

    /// After so many notices the others of the task have their turn.
    const POLITE: usize = 1024;

    /// A queue of notices.
    #[derive(Debug)]
    pub(crate) struct Inotify {
        inotify: AsyncFd<OwnedFd>,
        watches: Mutex<HashMap<i32, PathBuf>>,
    }

    impl Inotify {
        /// # Errors
        /// This user has as many queues as it may (`fs.inotify.max_user_instances`), or no inotify.
        pub(crate) fn new() -> io::Result<Self> {
            let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            // As for the pidfd of a process: an OwnedFd is all the safety that `register` asks for.
            #[allow(deprecated)]
            let inotify = AsyncFd::new(inotify)?;
            Ok(Self { inotify, watches: Mutex::default() })
        }

        /// Watches a directory from now on; `None` if there is none. May block.
        ///
        /// # Errors
        /// It cannot be watched.
        pub(super) fn watch(&self, directory: &Path) -> io::Result<Option<i32>> {
            let what = WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::ATTRIB
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(self.inotify.get_ref(), directory, what) {
                Ok(watch) => {
                    self.lock().insert(watch, directory.into());
                    Ok(Some(watch))
                }
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        /// Watches none but these any more.
        pub(super) fn keep(&self, watches: &HashSet<i32>) {
            let mut others = Vec::new();
            self.lock().retain(|watch, _| {
                let keep = watches.contains(watch);
                if !keep {
                    others.push(*watch);
                }
                keep
            });
            // Whoever reads the notices need not wait for it.
            for watch in others {
                // One that went with its directory is as good.
                let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
            }
        }

        /// Ready once something happened. `about` is told which files it was about, as far as that is
        /// known.
        pub(crate) fn poll(&self, cx: &mut Context<'_>, about: &mut dyn FnMut(&Path)) -> Poll<()> {
            let mut count = 0;
            while let Poll::Ready(Ok(mut ready)) = self.inotify.poll_read_ready(cx) {
                let before = count;
                let mut buffer = [MaybeUninit::uninit(); ROOM];
                let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
                while count - before < POLITE || !reader.is_buffer_empty() {
                    let Ok(notice) = reader.next() else {
                        ready.clear_ready();
                        break;
                    };
                    count += 1;
                    let Some(name) = notice.file_name() else { continue };
                    if let Some(directory) = self.lock().get(&notice.wd()) {
                        about(&directory.join(OsStr::from_bytes(name.to_bytes())));
                    }
                }
                if count >= POLITE {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
            if count > 0 { Poll::Ready(()) } else { Poll::Pending }
        }

        fn lock(&self) -> MutexGuard<'_, HashMap<i32, PathBuf>> {
            self.watches.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// Where there is no inotify.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) enum Inotify {}

#[cfg(not(target_os = "linux"))]
impl Inotify {
    pub(crate) fn new() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn watch(&self, _directory: &Path) -> std::io::Result<Option<i32>> {
        match *self {}
    }

    fn keep(&self, _watches: &HashSet<i32>) {
        match *self {}
    }

    pub(crate) fn poll(&self, _cx: &mut Context<'_>, _about: &mut dyn FnMut(&Path)) -> Poll<()> {
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

    async fn told(notices: &Inotify) -> Vec<String> {
        let mut about = Vec::new();
        let mut note = |path: &Path| about.push(path.file_name().unwrap().to_owned());
        poll_fn(|cx| notices.poll(cx, &mut note)).await;
        about.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    async fn is_silent(notices: &Inotify) -> bool {
        tokio::time::timeout(Duration::from_millis(50), told(notices)).await.is_err()
    }

    fn watching() -> (tempfile::TempDir, Arc<Inotify>, ScanWatches) {
        let home = tempfile::tempdir().unwrap();
        let notices = Arc::new(Inotify::new().unwrap());
        let mut watching = ScanWatches::new(Some(Arc::clone(&notices)));
        watching.watch(home.path());
        watching.done();
        assert!(!watching.is_blind);
        (home, notices, watching)
    }

    #[tokio::test]
    async fn what_happens_to_a_name_is_noticed() {
        let (home, notices, _) = watching();
        assert!(is_silent(&notices).await);
        fs::write(home.path().join("a"), "").unwrap();
        fs::rename(home.path().join("a"), home.path().join("b")).unwrap();
        fs::remove_file(home.path().join("b")).unwrap();
        assert_eq!(told(&notices).await, ["a", "a", "b", "b"]);
        assert!(is_silent(&notices).await);
    }

    #[tokio::test]
    async fn a_directory_that_is_not_to_be_watched_any_more_is_silent() {
        let (home, notices, mut watching) = watching();
        let other = tempfile::tempdir().unwrap();
        watching.watch(other.path());
        watching.watch(&home.path().join("none"));
        watching.done();
        assert!(!watching.is_blind);
        // The end of a watch is a notice itself.
        told(&notices).await;
        fs::write(home.path().join("a"), "").unwrap();
        assert!(is_silent(&notices).await);
        fs::write(other.path().join("b"), "").unwrap();
        assert_eq!(told(&notices).await, ["b"]);
    }

    #[tokio::test]
    async fn a_queue_that_overflows_is_noticed_and_works_on() {
        let (home, notices, _) = watching();
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let directory = home.path().join("a");
        for _ in 0..most / 2 + 10 {
            fs::create_dir(&directory).unwrap();
            fs::remove_dir(&directory).unwrap();
        }
        let mut count = 0;
        while let Ok(told) = tokio::time::timeout(Duration::from_millis(50), told(&notices)).await {
            count += told.len();
        }
        assert!(count <= most, "{count} notices, and no overflow");
        fs::write(home.path().join("b"), "").unwrap();
        assert_eq!(told(&notices).await, ["b"]);
    }
}
