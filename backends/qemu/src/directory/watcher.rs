//! When to look: at first, after a notice, and once in a while without one.
//!
//! A storm of notices is one look every few milliseconds. A look is done on a thread of its own, so
//! that a file system that hangs holds up no event of a QEMU that is known.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use virevent::Error;

use super::inotify::{Inotify, ScanWatches};
use super::scan::{Scan, look};
use super::socket_pattern::SocketPattern;
use crate::ADVICE;

/// How long there is between the beginnings of two looks at least.
const PAUSE: Duration = Duration::from_millis(10);

/// And how many times as long as the last one took, for a directory may be large, and busy.
const SHARE: u32 = 5;

/// How often to look where notices cannot be had, or where looking failed.
const BLIND: Duration = Duration::from_secs(1);

/// How long a look may keep the next session from its first.
const HANGS: Duration = Duration::from_secs(5);

/// One look at a time: a file system that hangs takes one thread, however often it is tried anew.
pub(crate) type ScanLock = Arc<Mutex<()>>;

/// Looks at a directory whenever there is reason to.
#[derive(Debug)]
pub(crate) struct DirectoryWatcher {
    place: Arc<SocketPattern>,
    /// Held by the look that is under way, be it of a session before.
    busy: ScanLock,
    notices: Option<Arc<Inotify>>,
    looking: Option<JoinHandle<ScanResult>>,
    /// Something has happened since the last look began.
    is_due: bool,
    began: Instant,
    /// How long after that the next may begin.
    pause: Duration,
    /// How often to look without a notice, as it was asked for.
    net: Duration,
    /// The same, as things are.
    every: Duration,
    /// Changes cannot be noticed.
    is_blind: bool,
    /// That monitors of libvirt's are passed over was said.
    is_told_of_libvirt: bool,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug)]
struct ScanResult {
    outcome: Result<Scan, Error>,
    is_blind: bool,
    took: Duration,
}

impl DirectoryWatcher {
    pub(crate) fn new(place: Arc<SocketPattern>, net: Duration, busy: ScanLock) -> Self {
        let notices = Inotify::new().map(Arc::new);
        if let Err(error) = &notices {
            tracing::debug!(%error, "no inotify");
        }
        let now = Instant::now();
        Self {
            place,
            busy,
            notices: notices.ok(),
            looking: None,
            is_due: true,
            began: now,
            pause: Duration::ZERO,
            net,
            every: net,
            is_blind: false,
            is_told_of_libvirt: false,
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// Something has happened that only the caller knows.
    pub(crate) fn look_again(&mut self) {
        self.is_due = true;
    }

    /// Ready with what is there. `about` is told of files that something happened to.
    ///
    /// # Errors
    /// The directory cannot be read. It is looked at again.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        about: &mut dyn FnMut(&Path),
    ) -> Poll<Result<Scan, Error>> {
        if let Some(notices) = &self.notices {
            self.is_due |= notices.poll(cx, about).is_ready();
        }
        loop {
            if let Some(looking) = &mut self.looking {
                let Poll::Ready(joined) = Pin::new(looking).poll(cx) else { return Poll::Pending };
                self.looking = None;
                return Poll::Ready(self.looked(joined.unwrap_or_else(|error| {
                    let error = io::Error::other(error);
                    let error = self.place.unreadable(&self.place.directory, error);
                    ScanResult { outcome: Err(error), is_blind: true, took: Duration::ZERO }
                })));
            }
            let next = self.began + if self.is_due { self.pause } else { self.every };
            if Instant::now() >= next {
                self.begin();
                continue;
            }
            if next < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn begin(&mut self) {
        (self.is_due, self.began) = (false, Instant::now());
        let (place, notices) = (Arc::clone(&self.place), self.notices.clone());
        let began = self.began;
        let busy = Arc::clone(&self.busy);
        self.looking = Some(tokio::spawn(async move {
            let turn = timeout(HANGS, busy.lock_owned()).await;
            let failed = |error: io::Error| ScanResult {
                outcome: Err(place.unreadable(&place.directory, error)),
                is_blind: true,
                took: Duration::ZERO,
            };
            let Ok(turn) = turn else {
                let hangs = "the file system does not answer: the last look has not ended yet";
                return failed(io::Error::new(io::ErrorKind::TimedOut, hangs));
            };
            let here = Arc::clone(&place);
            let look = spawn_blocking(move || {
                let mut watching = ScanWatches::new(notices);
                let outcome = look(&here, &mut |directory| watching.watch(directory));
                watching.done();
                drop(turn);
                ScanResult { outcome, is_blind: watching.is_blind, took: began.elapsed() }
            });
            look.await.unwrap_or_else(|error| failed(io::Error::other(error)))
        }));
    }

    fn looked(&mut self, look: ScanResult) -> Result<Scan, Error> {
        if self.goes_blind(&look) {
            tracing::warn!(
                target: ADVICE,
                "{} cannot be watched by inotify, and is looked at once a second: raise the limits \
                 fs.inotify.max_user_instances and max_user_watches",
                self.place.directory.display(),
            );
        }
        self.pause = PAUSE.max(look.took * SHARE);
        if let Ok(found) = &look.outcome {
            if let Some(path) = found.of_libvirt.as_ref().filter(|_| !self.is_told_of_libvirt) {
                tracing::warn!(
                    target: ADVICE,
                    "{} is left to libvirt, as all of that kind: watch qemu:///system, or give the \
                     guest a second -qmp",
                    path.display(),
                );
                self.is_told_of_libvirt = true;
            }
        }
        let is_whole = look.outcome.as_ref().is_ok_and(|found| found.unread.is_empty());
        let often = look.is_blind || !is_whole;
        self.every = if often { self.net.min(BLIND) } else { self.net };
        look.outcome
    }

    /// Whether a look is the first that finds that changes cannot be noticed. One that failed says
    /// nothing of that.
    fn goes_blind(&mut self, look: &ScanResult) -> bool {
        if look.outcome.is_err() {
            return false;
        }
        let was_blind = std::mem::replace(&mut self.is_blind, look.is_blind);
        look.is_blind && !was_blind
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn that_changes_cannot_be_noticed_is_said_once_whatever_else_is_wrong() {
        let place = Arc::new(SocketPattern::parse("qmp-dir:/nowhere").unwrap());
        let error = || place.unreadable(&place.directory, io::ErrorKind::Other.into());
        let look = |is_blind, is_well: bool| {
            let outcome = if is_well { Ok(Scan::default()) } else { Err(error()) };
            ScanResult { outcome, is_blind, took: Duration::ZERO }
        };
        for net in [Duration::from_millis(10), Duration::from_secs(30)] {
            let mut lookout = DirectoryWatcher::new(Arc::clone(&place), net, ScanLock::default());
            let looks = [
                look(false, true),
                look(true, false),
                look(true, true),
                look(true, true),
                look(true, false),
                look(true, true),
                look(false, true),
                look(true, true),
            ];
            let said: Vec<_> = looks
                .into_iter()
                .map(|look| {
                    let goes_blind = lookout.goes_blind(&look);
                    drop(lookout.looked(look));
                    goes_blind
                })
                .collect();
            assert_eq!(said, [false, false, true, false, false, false, false, true]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_keeps_no_second_thread_and_is_a_clear_error() {
        let place = Arc::new(SocketPattern::parse("qmp-dir:/nowhere").unwrap());
        let busy = ScanLock::default();
        let hangs = Arc::clone(&busy).lock_owned().await;
        let mut lookout = DirectoryWatcher::new(place, Duration::from_secs(30), Arc::clone(&busy));
        let look = poll_fn(|cx| lookout.poll(cx, &mut |_| {})).await;
        let error = look.unwrap_err().to_line();
        assert!(error.contains("/nowhere") && error.contains("does not answer"), "{error}");
        drop(hangs);
        assert!(poll_fn(|cx| lookout.poll(cx, &mut |_| {})).await.is_ok());
    }
}
