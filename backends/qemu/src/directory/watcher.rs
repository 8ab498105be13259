//! When to scan a directory: at first, after a notification, and at intervals without one.
//!
//! A storm of notifications leads to one scan every few milliseconds. A scan runs on a thread of
//! its own, so that a file system that hangs delays no event of a QEMU that is known.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use virevent::Error;
use virevent_transport::LazyTimer;

use super::inotify::{Inotify, ScanWatches};
use super::scan::{Scan, scan};
use super::socket_pattern::SocketPattern;
use crate::ADVICE;

/// The least time between the beginnings of two scans.
const SCAN_PAUSE: Duration = Duration::from_millis(10);

/// The least time between them as a multiple of what the last scan took: a large directory in which
/// much happens would else keep a core busy.
const SCAN_PAUSE_FACTOR: u32 = 5;

/// How often to scan where inotify is not available, or where a scan failed.
const BLIND_RESCAN: Duration = Duration::from_secs(1);

/// How long a scan of an earlier session may delay the first one of the next.
const SCAN_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Lets one scan run at a time: a file system that hangs occupies one thread, however often it is
/// tried.
pub(crate) type ScanLock = Arc<Mutex<()>>;

/// Scans a directory whenever there is reason to.
#[derive(Debug)]
pub(crate) struct DirectoryWatcher {
    pattern: Arc<SocketPattern>,
    /// Held by the scan that is under way, which may be that of an earlier session.
    scan_lock: ScanLock,
    inotify: Option<Arc<Inotify>>,
    scanning: Option<JoinHandle<ScanResult>>,
    /// Whether something has happened since the last scan began.
    is_due: bool,
    /// When the last scan began.
    began: Instant,
    /// How long after that the next may begin.
    pause: Duration,
    /// How often to scan without a notification, as configured.
    configured_rescan: Duration,
    /// The same, as things are.
    rescan: Duration,
    /// Whether changes are not notified.
    is_blind: bool,
    /// Whether the warning that monitors of libvirt's are passed over was logged.
    is_libvirt_warned: bool,
    timer: LazyTimer,
}

#[derive(Debug)]
struct ScanResult {
    outcome: Result<Scan, Error>,
    is_blind: bool,
    took: Duration,
}

impl ScanResult {
    /// A scan that could not be done.
    fn failed(pattern: &SocketPattern, error: io::Error) -> Self {
        let error = pattern.unreadable(&pattern.directory, error);
        Self { outcome: Err(error), is_blind: true, took: Duration::ZERO }
    }
}

impl DirectoryWatcher {
    pub(crate) fn new(pattern: Arc<SocketPattern>, rescan: Duration, scan_lock: ScanLock) -> Self {
        let inotify = Inotify::new().map(Arc::new);
        if let Err(error) = &inotify {
            tracing::debug!(%error, "inotify is not available");
        }
        let now = Instant::now();
        Self {
            pattern,
            scan_lock,
            inotify: inotify.ok(),
            scanning: None,
            is_due: true,
            began: now,
            pause: Duration::ZERO,
            configured_rescan: rescan,
            rescan,
            is_blind: false,
            is_libvirt_warned: false,
            timer: LazyTimer::new(),
        }
    }

    /// Scans soon: something has happened that only the caller knows.
    pub(crate) fn scan_again(&mut self) {
        self.is_due = true;
    }

    /// Ready with a scan. `on_change` is called with the files that something happened to.
    ///
    /// # Errors
    /// The directory is unreadable. It is scanned again.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        on_change: &mut dyn FnMut(&Path),
    ) -> Poll<Result<Scan, Error>> {
        if let Some(inotify) = &self.inotify {
            // Also while a scan runs: its queue is bounded, and a burst of changes fills it soon.
            self.is_due |= inotify.poll(cx, on_change).is_ready();
        }
        loop {
            if let Some(scanning) = &mut self.scanning {
                let Poll::Ready(joined) = Pin::new(scanning).poll(cx) else { return Poll::Pending };
                self.scanning = None;
                let failed = |error| ScanResult::failed(&self.pattern, io::Error::other(error));
                let result = joined.unwrap_or_else(failed);
                return Poll::Ready(self.finish(result));
            }
            let next = self.began + if self.is_due { self.pause } else { self.rescan };
            if Instant::now() >= next {
                self.begin();
                continue;
            }
            if self.timer.poll_until(cx, next).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn begin(&mut self) {
        // Before the scan: a notification that arrives during the scan leads to the next.
        self.is_due = false;
        self.began = Instant::now();
        let began = self.began;
        let pattern = Arc::clone(&self.pattern);
        let inotify = self.inotify.clone();
        let scan_lock = Arc::clone(&self.scan_lock);
        self.scanning = Some(tokio::spawn(async move {
            let Ok(guard) = timeout(SCAN_LOCK_TIMEOUT, scan_lock.lock_owned()).await else {
                let hangs = "the file system does not answer: the last scan has not ended yet";
                let error = io::Error::new(io::ErrorKind::TimedOut, hangs);
                return ScanResult::failed(&pattern, error);
            };
            let scanned = Arc::clone(&pattern);
            let scanning = spawn_blocking(move || {
                let mut watches = ScanWatches::new(inotify);
                let outcome = scan(&scanned, &mut |directory| watches.add(directory));
                watches.remove_others();
                drop(guard);
                ScanResult { outcome, is_blind: watches.is_blind, took: began.elapsed() }
            });
            let failed = |error| ScanResult::failed(&pattern, io::Error::other(error));
            scanning.await.unwrap_or_else(failed)
        }));
    }

    fn finish(&mut self, result: ScanResult) -> Result<Scan, Error> {
        if self.becomes_blind(&result) {
            tracing::warn!(
                target: ADVICE,
                "{} cannot be watched by inotify, and is scanned once a second: raise the limits \
                 fs.inotify.max_user_instances and max_user_watches",
                self.pattern.directory.display(),
            );
        }
        // By what this scan took, for the next is about as expensive.
        self.pause = SCAN_PAUSE.max(result.took * SCAN_PAUSE_FACTOR);
        if let Ok(scan) = &result.outcome {
            if let Some(path) = scan.of_libvirt.as_ref().filter(|_| !self.is_libvirt_warned) {
                tracing::warn!(
                    target: ADVICE,
                    "{} belongs to libvirt and is ignored, as are all like it: watch \
                     qemu:///system, or give the guest a second -qmp",
                    path.display(),
                );
                self.is_libvirt_warned = true;
            }
        }
        let is_complete = result.outcome.as_ref().is_ok_and(|scan| scan.unread.is_empty());
        // That a directory becomes readable is not always notified.
        let is_blind = result.is_blind || !is_complete;
        let configured = self.configured_rescan;
        self.rescan = if is_blind { configured.min(BLIND_RESCAN) } else { configured };
        result.outcome
    }

    /// Whether a scan is the first to find that changes are not notified. One that failed does not
    /// know.
    fn becomes_blind(&mut self, result: &ScanResult) -> bool {
        if result.outcome.is_err() {
            return false;
        }
        let was_blind = std::mem::replace(&mut self.is_blind, result.is_blind);
        result.is_blind && !was_blind
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn watcher(rescan: Duration, scan_lock: &ScanLock) -> DirectoryWatcher {
        let pattern = Arc::new(SocketPattern::parse("qmp-dir:/nowhere").unwrap());
        DirectoryWatcher::new(pattern, rescan, Arc::clone(scan_lock))
    }

    #[tokio::test]
    async fn a_lack_of_inotify_is_warned_of_once() {
        for rescan in [Duration::from_millis(10), Duration::from_secs(30)] {
            let mut watcher = watcher(rescan, &ScanLock::default());
            let pattern = Arc::clone(&watcher.pattern);
            let mut warns = |is_blind, succeeds: bool| {
                let error = pattern.unreadable(&pattern.directory, io::ErrorKind::Other.into());
                let outcome = if succeeds { Ok(Scan::default()) } else { Err(error) };
                let result = ScanResult { outcome, is_blind, took: Duration::ZERO };
                let becomes_blind = watcher.becomes_blind(&result);
                drop(watcher.finish(result));
                becomes_blind
            };
            assert!(!warns(false, true));
            assert!(!warns(true, false), "a scan that failed does not know");
            assert!(warns(true, true));
            assert!(!warns(true, true));
            assert!(!warns(true, false));
            assert!(!warns(true, true));
            assert!(!warns(false, true));
            assert!(warns(true, true), "it was available in between");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_that_hangs_takes_one_thread_and_is_an_error() {
        let scan_lock = ScanLock::default();
        let hanging = Arc::clone(&scan_lock).lock_owned().await;
        let mut watcher = watcher(Duration::from_secs(30), &scan_lock);
        let outcome = poll_fn(|cx| watcher.poll(cx, &mut |_| {})).await;
        let error = outcome.unwrap_err().to_line();
        assert!(error.contains("/nowhere") && error.contains("does not answer"), "{error}");
        drop(hanging);
        assert!(poll_fn(|cx| watcher.poll(cx, &mut |_| {})).await.is_ok());
    }
}
