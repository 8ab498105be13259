//! When to look: at first, after a notice, and once in a while without one.
//!
//! A storm of notices is one look every few milliseconds. A look is done on a thread of its own, so
//! that a file system that hangs holds up no event of a QEMU that is known.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Sleep, sleep_until};
use virevent::Error;

use super::look::{Socket, look};
use super::notices::{Notices, Watching};
use super::place::Place;

/// How long there is between the beginnings of two looks at least.
const PAUSE: Duration = Duration::from_millis(10);

/// And how many times as long as the last one took, for a directory may be large, and busy.
const SHARE: u32 = 5;

/// How often to look where notices cannot be had, or where looking failed.
const BLIND: Duration = Duration::from_secs(1);

/// Looks at a directory whenever there is reason to.
#[derive(Debug)]
pub(crate) struct Lookout {
    place: Arc<Place>,
    notices: Option<Arc<Notices>>,
    looking: Option<JoinHandle<Look>>,
    /// Something has happened since the last look began.
    is_due: bool,
    began: Instant,
    /// How long after that the next may begin.
    pause: Duration,
    /// How often to look without a notice, as it was asked for.
    net: Duration,
    /// The same, as things are.
    every: Duration,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug)]
struct Look {
    outcome: Result<Vec<Socket>, Error>,
    is_blind: bool,
    took: Duration,
}

impl Lookout {
    pub(crate) fn new(place: Arc<Place>, net: Duration) -> Self {
        let notices = Notices::new().map(Arc::new);
        if let Err(error) = &notices {
            tracing::debug!(%error, "no inotify");
        }
        let now = Instant::now();
        Self {
            place,
            notices: notices.ok(),
            looking: None,
            is_due: true,
            began: now,
            pause: Duration::ZERO,
            net,
            every: net,
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
    ) -> Poll<Result<Vec<Socket>, Error>> {
        if let Some(notices) = &self.notices {
            self.is_due |= notices.poll(cx, about).is_ready();
        }
        loop {
            if let Some(looking) = &mut self.looking {
                let Poll::Ready(joined) = Pin::new(looking).poll(cx) else { return Poll::Pending };
                self.looking = None;
                return Poll::Ready(self.looked(joined.unwrap_or_else(|error| {
                    let error = std::io::Error::other(error);
                    let error = self.place.unreadable(&self.place.directory, error);
                    Look { outcome: Err(error), is_blind: true, took: Duration::ZERO }
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
        self.looking = Some(spawn_blocking(move || {
            let mut watching = Watching::new(notices);
            let outcome = look(&place, &mut |directory| watching.watch(directory));
            watching.done();
            Look { outcome, is_blind: watching.is_blind, took: began.elapsed() }
        }));
    }

    fn looked(&mut self, look: Look) -> Result<Vec<Socket>, Error> {
        let was_blind = self.every < self.net;
        if look.is_blind && !was_blind {
            tracing::warn!(
                directory = %self.place.directory.display(),
                "cannot be watched by inotify, and is looked at once a second: raise the limits \
                 fs.inotify.max_user_instances and max_user_watches"
            );
        }
        self.pause = PAUSE.max(look.took * SHARE);
        let often = look.is_blind || look.outcome.is_err();
        self.every = if often { self.net.min(BLIND) } else { self.net };
        look.outcome
    }
}
