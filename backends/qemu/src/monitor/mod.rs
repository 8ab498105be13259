//! One monitor socket, through the lives of the QEMUs behind it.
//!
//! ```text
//!              greeting, answers                closed, process alive or unknown
//!   nobody ───────────────────────▶ connected ───────────────────────────────────▶ out of reach
//!    ▲  ▲                              │    ▲                                        │   │
//!    │  └────── process ended ─────────┘    └─────────── the same run greets ────────┘   │
//!    └───────────── process ended; or nobody listens, where the process is unknown ──────┘
//! ```
//!
//! Nobody there is a healthy host without a domain. **Out of reach is never stopped**: only the end of
//! the process says so, or, where the process cannot be watched, that nobody listens any more. A
//! process that is on its way out closes its socket some time before it ends, so a closed socket
//! becomes an outage only after a moment of grace.
//!
//! A monitor is all that its source has, or one of many in a directory ([`Role`]). A part is one file, not
//! one path: where nobody is said to listen, it is asked by a [way](crate::peer::pinned_socket::PinnedSocket) to that file.

mod connecting;
mod deadlines;
mod hearing;
mod migration;
mod questions;
mod run;
#[cfg(test)]
mod tests;
mod trouble;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use virevent::driver::{Batch, Listed};
use virevent::{Change, Error, Fault, Scope, StopCause, Uuid};

use self::connecting::{Attempt, LONELY};
use self::migration::MigrationTracker;
use self::questions::{Questions, Subject};
use self::run::QemuRun;
use crate::config::MonitorConfig;
use crate::link::{Dial, Opened, QmpLink};
use crate::peer::identity::ClaimedUuids;
use crate::raw_event_filter::RawEventFilter;
use crate::uri::Endpoint;

/// How long a closed connection may be the first sign of the end of the process.
const GRACE: Duration = Duration::from_millis(500);

/// How long a pause waits for the run state that tells its cause.
const LOOK: Duration = Duration::from_millis(250);

/// After how long QEMU is asked again when its answer is from before what it has announced.
const AGAIN: Duration = Duration::from_millis(20);

/// How long a process that has ended may leave its socket open before that is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// After how long a part at which nobody is looks again, at first.
const SOON: Duration = Duration::from_millis(10);

/// What a monitor is to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of it: an outage is the source's, and that it cannot be reached at first is an error.
    Source,
    /// One of many: an outage is its domain's, and nothing is an error.
    Part,
}

/// What the monitors of a source have in common.
#[derive(Debug, Default)]
pub(crate) struct SourceContext {
    pub(crate) wants: RawEventFilter,
    pub(crate) uuids: ClaimedUuids,
    /// Whether the driver waits for a first list, after a start or an outage of the source. What it
    /// contains is not told besides, and an outage of the source is told after it. A list that verifies
    /// is another matter: all goes on while it is under way.
    pub(crate) is_listing: bool,
    /// The directory of the sockets cannot be read, and that is the outage: until it can, nobody tries
    /// to connect.
    pub(crate) is_shut: bool,
}

pub(crate) struct Monitor {
    config: Arc<MonitorConfig>,
    role: Role,
    dial: Dial,
    link: Option<QmpLink>,
    /// The run that is not known to have ended.
    guest: Option<QemuRun>,
    /// A connection on its way.
    attempt: Option<Attempt>,
    retry_at: Instant,
    /// How long to wait after the next attempt at which nobody is there.
    pause: Duration,
    /// How long to wait after the next attempt at which nothing is said.
    loneliness: Duration,
    /// What it said is no QMP: it is left alone until its file changes; and that this was said.
    is_foreign: bool,
    is_warned: bool,
    /// Somebody waits to hear whether there is a QEMU at all.
    is_first: bool,
    is_parked: bool,
    /// The path does not lead to this socket any more.
    is_unlinked: bool,
    questions: Questions,
    /// The question whose answer a list waits for.
    verification: Option<u64>,
    /// When to ask again, for the last answer was of a moment that passes.
    look_at: Option<Instant>,
    /// Whether the guest is on its way to another host.
    departure: MigrationTracker,
    /// When QEMU last said anything.
    heard: Instant,
    /// When it last let us in.
    opened_at: Instant,
    /// From when on an end could not announce itself, for there was no connection.
    unheard_from: Option<Instant>,
    /// What is wrong, and when it becomes an outage.
    trouble: Option<(Instant, Fault)>,
    /// The outage that was told.
    outage: Option<Scope>,
    timer: Pin<Box<Sleep>>,
    /// How many runs there have been.
    runs: u32,
}

impl Monitor {
    pub(crate) fn new(config: Arc<MonitorConfig>, role: Role) -> Self {
        let now = Instant::now();
        Self {
            config,
            role,
            dial: Opened::dial,
            link: None,
            guest: None,
            attempt: None,
            retry_at: now,
            pause: SOON,
            loneliness: LONELY,
            is_foreign: false,
            is_warned: false,
            is_first: true,
            is_parked: false,
            is_unlinked: false,
            questions: Questions::new(now),
            verification: None,
            look_at: None,
            departure: MigrationTracker::default(),
            heard: now,
            opened_at: now,
            unheard_from: None,
            trouble: None,
            outage: None,
            timer: Box::pin(sleep_until(now)),
            runs: 0,
        }
    }

    /// Whether it is not known yet if there is a QEMU.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether somebody waits to hear whether there is a QEMU.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.is_first && !self.is_parked
    }

    /// Lets go of QEMU: its monitor is free for another client.
    pub(crate) fn park(&mut self, shared: &mut SourceContext) {
        (shared.uuids, shared.is_listing) = (ClaimedUuids::default(), true);
        *self = Self { is_parked: true, ..self.anew() };
    }

    /// Begins anew after [`park`](Self::park).
    pub(crate) fn unpark(&mut self) {
        if self.is_parked {
            *self = self.anew();
        }
    }

    fn anew(&self) -> Self {
        Self { runs: self.runs, dial: self.dial, ..Self::new(Arc::clone(&self.config), self.role) }
    }

    /// The QEMU, if there is one that can be reached.
    pub(crate) fn listed(&mut self, out: &mut Batch) -> Option<Listed> {
        let guest = self.guest.as_mut().filter(|_| self.outage.is_none())?;
        // A list contains it, so that it comes first, even if its cause is not known by then.
        guest.tell_pause(None, out);
        guest.told = guest.tracker.state();
        Some(Listed::new(guest.domain(out), guest.told, Some(false)))
    }

    /// Whether it is out of reach, as was told.
    pub(crate) fn is_out(&self) -> bool {
        self.outage.is_some()
    }

    /// Whether the QEMU here is this domain.
    pub(crate) fn is_domain(&self, uuid: Uuid) -> bool {
        self.guest.as_ref().is_some_and(|guest| guest.uuid == uuid)
    }

    /// Asks QEMU how it is, for a list: see [`is_verified`](Self::is_verified).
    pub(crate) fn verify(&mut self) {
        if let Some(link) = &mut self.link {
            self.questions.ask(Subject::Status, link, Instant::now());
            self.verification = self.questions.newest();
        }
    }

    /// Whether the list need not wait for this QEMU: it has answered since, there is none, or it is out
    /// of reach, as was told. One whose connection has just broken is waited for until either is known,
    /// and one that was paused until its cause is, for that has a deadline of its own.
    pub(crate) fn is_verified(&self) -> bool {
        let Some(guest) = &self.guest else { return true };
        let has_answered = self.link.is_some() && self.verification.is_none();
        (has_answered && guest.pause.is_none()) || self.outage.is_some()
    }

    /// Whether there is no run and no way to one: it may be forgotten once its file is gone.
    pub(crate) fn is_vacant(&self) -> bool {
        !self.is_first && self.guest.is_none() && self.attempt.is_none() && self.outage.is_none()
    }

    /// Something has happened to the file of the socket: looks again at once.
    pub(crate) fn look_now(&mut self) {
        (self.pause, self.loneliness, self.is_foreign) = (SOON, LONELY, false);
        self.retry_at = Instant::now();
    }

    /// The socket has another path by now. It is known by the name and the uuid that it had.
    pub(crate) fn moved(&mut self, endpoint: Endpoint) {
        self.config = Arc::new(MonitorConfig { endpoint, ..MonitorConfig::clone(&self.config) });
        self.relink();
    }

    /// The path does not lead to this socket any more, so that nobody new can come to listen. A run
    /// goes on until its process ends, or where that is not watched, until nobody listens.
    pub(crate) fn unlink(&mut self, shared: &mut SourceContext, out: &mut Batch) {
        self.is_unlinked = true;
        self.desert(shared, out);
    }

    /// The path leads to this socket again.
    pub(crate) fn relink(&mut self) {
        self.is_unlinked = false;
        self.look_now();
    }

    /// The directory of the socket can be read again.
    pub(crate) fn reopen(&mut self) {
        // It is tried anew, and was of no importance until then.
        self.trouble.take_if(|_| self.guest.is_none() && self.outage.is_none());
        self.look_now();
    }

    /// Does what there is to do. Ready after each step, even if nothing is to be told.
    ///
    /// # Errors
    /// There is no QEMU to be had, and somebody waits to hear it: see [`is_first`](Self::is_first).
    /// After that, and in a part, nothing is an error.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> Poll<Result<(), Error>> {
        if self.is_parked {
            return Poll::Pending;
        }
        loop {
            // What QEMU had to say is heard before its end.
            if self.poll_link(cx, shared, out) || self.poll_process(cx, shared, out) {
                return Poll::Ready(Ok(()));
            }
            match self.poll_attempt(cx, shared, out) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.meet_deadlines(Instant::now(), shared, out)? {
                return Poll::Ready(Ok(()));
            }
            let Some(next) = self.next_deadline(shared) else { return Poll::Pending };
            // Setting a timer costs more than letting it ring early once in a while.
            if next < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// True if the process has ended, and that was told.
    fn poll_process(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        if guest.ended.is_none() {
            match &guest.process {
                Some(process) if process.poll_ended(cx).is_ready() => {}
                _ => return false,
            }
        }
        let now = Instant::now();
        let ended = *guest.ended.get_or_insert(now);
        let heard_out = self.link.is_none() || now >= ended + LAST_WORDS;
        if heard_out {
            self.ended(shared, out);
        }
        heard_out
    }

    /// The run is over.
    fn ended(&mut self, shared: &mut SourceContext, out: &mut Batch) {
        let Some(mut guest) = self.guest.take() else { return };
        guest.tell_pause(None, out);
        let domain = guest.domain(out);
        let now = Instant::now();
        let is_unheard = self.unheard_from.is_some_and(|from| now >= from);
        let unannounced = if is_unheard { StopCause::Unspecified } else { StopCause::Failed };
        let cause = guest.tracker.announced_cause().unwrap_or(unannounced);
        tracing::debug!(%domain, ?cause, "QEMU has ended");
        // What is only known to be gone would be applied after a list that is under way.
        if self.outage.is_some() && !shared.is_listing {
            out.gone(&domain, cause);
        } else {
            let at = out.received();
            guest.tell(Change::Stopped(cause), at, out);
        }
        shared.uuids.release(guest.uuid);
        self.link = None;
        self.attempt = None;
        self.unheard_from = None;
        self.forget_questions();
        self.look_now();
        self.recovered(shared, out);
    }

    /// The connection on which QEMU was asked is gone.
    fn forget_questions(&mut self) {
        self.questions = Questions::new(Instant::now());
        self.verification = None;
        self.look_at = None;
        self.departure = MigrationTracker::default();
    }
}
