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

mod deadlines;
mod guest;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use virevent::driver::{Batch, Listed};
use virevent::{Change, Error, Fault, Lifecycle, Reboot, Scope};

use self::guest::{Guest, other, start};
use crate::config::Config;
use crate::decode::{Said, Story};
use crate::link::{Link, Opened, Status, broken, is_nobody};
use crate::wants::Wants;
use crate::wire::{Event, Message, Reply};

/// How long a closed connection may be the first sign of the end of the process.
const GRACE: Duration = Duration::from_millis(500);

/// How long a pause waits for the run state that tells its cause.
const LOOK: Duration = Duration::from_millis(250);

/// After how long a migration that is about to be completed is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// How long a process that has ended may leave its socket open before that is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// No more is asked of a QEMU that does not take in what was asked, in bytes.
const UNSENT: usize = 4096;

type Attempt = Pin<Box<dyn Future<Output = Result<Opened, Error>> + Send>>;

pub(crate) struct Monitor {
    config: Arc<Config>,
    link: Option<Link>,
    /// The run that is not known to have ended.
    guest: Option<Guest>,
    /// A connection on its way, and since when it waits for its turn.
    attempt: Option<(Attempt, Instant)>,
    retry_at: Instant,
    /// Somebody waits to hear whether there is a QEMU at all.
    is_first: bool,
    is_parked: bool,
    /// The question for the run state that is not answered yet.
    question: Option<(u64, Instant)>,
    /// When to ask again, for the last answer was of a moment that passes.
    look_at: Option<Instant>,
    /// When QEMU last said anything.
    heard: Instant,
    /// When it last let us in.
    opened_at: Instant,
    /// What is wrong, and when it becomes an outage.
    trouble: Option<(Instant, Fault)>,
    /// Whether the outage was told.
    is_out: bool,
    /// Whether the driver waits for a list: an outage is told after it.
    is_listing: bool,
    timer: Pin<Box<Sleep>>,
    /// How many runs there have been.
    runs: u32,
}

impl Monitor {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let now = Instant::now();
        Self {
            config,
            link: None,
            guest: None,
            attempt: None,
            retry_at: now,
            is_first: true,
            is_parked: false,
            question: None,
            look_at: None,
            heard: now,
            opened_at: now,
            trouble: None,
            is_out: false,
            is_listing: true,
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
    pub(crate) fn park(&mut self) {
        *self = Self { runs: self.runs, is_parked: true, ..Self::new(Arc::clone(&self.config)) };
    }

    /// Begins anew after [`park`](Self::park).
    pub(crate) fn unpark(&mut self) {
        if self.is_parked {
            *self = Self { runs: self.runs, ..Self::new(Arc::clone(&self.config)) };
        }
    }

    /// Answers a request for the list.
    pub(crate) fn list(&mut self, tag: u64, out: &mut Batch) {
        let entry = self
            .guest
            .as_ref()
            .map(|guest| Listed::new(guest.domain(out), guest.story.state(), Some(false)));
        out.listed(tag, entry.into_iter().collect());
        self.is_listing = false;
        self.tell_trouble(Instant::now(), out);
    }

    /// Does what there is to do. Ready after each step, even if nothing is to be told.
    ///
    /// # Errors
    /// There is no QEMU to be had, and somebody waits to hear it: see [`is_first`](Self::is_first).
    /// After that nothing is an error.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wants: &Wants,
        out: &mut Batch,
    ) -> Poll<Result<(), Error>> {
        if self.is_parked {
            return Poll::Pending;
        }
        loop {
            // What QEMU had to say is heard before its end.
            if self.poll_link(cx, wants, out) || self.poll_process(cx, out) {
                return Poll::Ready(Ok(()));
            }
            match self.poll_attempt(cx, wants, out) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.meet_deadlines(Instant::now(), out)? {
                return Poll::Ready(Ok(()));
            }
            let Some(next) = self.next_deadline() else { return Poll::Pending };
            // Setting a timer costs more than letting it ring early once in a while.
            if next < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>, wants: &Wants, out: &mut Batch) -> bool {
        let Some(mut link) = self.link.take() else { return false };
        let outcome = match link.poll_io(cx) {
            Poll::Pending => {
                self.link = Some(link);
                return false;
            }
            Poll::Ready(Ok(())) => self.hear_all(&mut link, wants, out),
            Poll::Ready(Err(error)) => Err(error),
        };
        match outcome {
            Ok(()) => self.link = Some(link),
            Err(error) => self.lost(&error, out),
        }
        true
    }

    fn hear_all(&mut self, link: &mut Link, wants: &Wants, out: &mut Batch) -> Result<(), Error> {
        self.heard = Instant::now();
        let mut ask = false;
        while let Some(line) = link.next_line()? {
            match Message::read(line).map_err(|error| broken(&error))? {
                Message::Event(event) => ask |= self.hear(&event, wants, out),
                Message::Reply(Some(id), reply)
                    if self.question.is_some_and(|(asked, _)| asked == id) =>
                {
                    self.answered(&reply, out);
                }
                other => tracing::debug!(?other, "passed over what is no answer to us"),
            }
        }
        if ask && link.unsent.len() < UNSENT {
            // An answer that is under way may be older than the pause.
            self.question = Some((link.send("query-status"), self.heard));
        }
        Ok(())
    }

    /// Takes in an event. True if the run state is to be asked for.
    #[inline]
    fn hear(&mut self, event: &Event<'_>, wants: &Wants, out: &mut Batch) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        let at = event.at.unwrap_or_else(|| out.received());
        let said = guest.story.hear(event);
        match said {
            Said::Change(change) => {
                guest.tell_pause(None, out);
                let domain = guest.domain(out);
                out.event(Lifecycle::new(domain, change, at));
            }
            Said::Reboot | Said::RebootAndAsk => {
                guest.tell_pause(None, out);
                let domain = guest.domain(out);
                out.event(Reboot::new(domain, at));
                guest.is_reborn = said == Said::RebootAndAsk;
                return guest.is_reborn;
            }
            Said::Ask => {
                guest.tell_pause(None, out);
                guest.pause = Some((at, self.heard + LOOK));
                return true;
            }
            Said::Nothing => {}
            Said::Other => other(guest, event, at, wants, out),
        }
        false
    }

    fn answered(&mut self, reply: &Reply<'_>, out: &mut Batch) {
        self.question = None;
        let status = match reply {
            Reply::Return(value) => serde_json::from_str::<Status>(value.get()).ok(),
            Reply::Error(_) => None,
        };
        let status = status.as_ref().map(|answer| &*answer.status);
        if let Some(guest) = &mut self.guest {
            guest.tell_pause(status, out);
            if let Some(status) = status.filter(|_| std::mem::take(&mut guest.is_reborn)) {
                guest.story.look(status);
                let domain = guest.domain(out);
                out.state(domain, guest.story.state());
            }
            if let Some(status) = status.filter(|status| self.is_out || *status == "postmigrate") {
                guest.story.look(status);
            }
            // Without the event of it, only the run state says that the guest has left.
            self.look_at = (status == Some("finish-migrate")).then(|| self.heard + AGAIN);
        }
        self.recovered(out);
    }

    /// The connection is gone, or of no use.
    fn lost(&mut self, error: &Error, out: &mut Batch) {
        let now = Instant::now();
        tracing::debug!(endpoint = %self.config.endpoint, %error, "lost the monitor");
        if let Some(guest) = &mut self.guest {
            guest.tell_pause(None, out);
        }
        self.question = None;
        // At once, but not in a tight circle with one that breaks each connection.
        self.retry_at = now.max(self.opened_at + self.config.retry);
        // A broken protocol is no sign of an end.
        let grace = if matches!(error, Error::Protocol { .. }) { Duration::ZERO } else { GRACE };
        self.trouble = Some((now + grace, error.to_fault()));
        self.tell_trouble(now, out);
    }

    /// True if the process has ended, and that was told.
    fn poll_process(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> bool {
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
            self.ended(out);
        }
        heard_out
    }

    /// The run is over.
    fn ended(&mut self, out: &mut Batch) {
        let Some(mut guest) = self.guest.take() else { return };
        guest.tell_pause(None, out);
        let (domain, cause) = (guest.domain(out), guest.story.stop_cause());
        tracing::debug!(%domain, ?cause, "QEMU has ended");
        if self.is_out {
            out.gone(&domain, cause);
        } else {
            let at = out.received();
            out.event(Lifecycle::new(domain, Change::Stopped(cause), at));
        }
        (self.link, self.attempt, self.question) = (None, None, None);
        self.retry_at = Instant::now();
        self.recovered(out);
    }

    /// Connects, where there is reason to. True if something came of it.
    fn poll_attempt(
        &mut self,
        cx: &mut Context<'_>,
        wants: &Wants,
        out: &mut Batch,
    ) -> Result<bool, Error> {
        let now = Instant::now();
        if self.link.is_some() {
            return Ok(false);
        }
        if self.attempt.is_none() {
            if now < self.retry_at {
                return Ok(false);
            }
            let config = &self.config;
            let opened = Opened::at(config.endpoint.clone(), Arc::clone(&config.host));
            self.attempt = Some((Box::pin(opened), now));
        }
        let Some((attempt, _)) = &mut self.attempt else { return Ok(false) };
        let Poll::Ready(outcome) = attempt.as_mut().poll(cx) else { return Ok(false) };
        self.attempt = None;
        self.retry_at = now + self.config.retry;
        match outcome {
            Ok(opened) => self.opened(opened, wants, out),
            Err(error) if self.is_first => return Err(error),
            Err(error) => self.failed(&error, now, out),
        }
        Ok(true)
    }

    fn failed(&mut self, error: &Error, now: Instant, out: &mut Batch) {
        let watched = self.guest.as_ref().is_some_and(|guest| guest.process.is_some());
        if is_nobody(error) && !watched {
            self.ended(out);
            self.recovered(out);
            return;
        }
        let due = self.trouble.take().map_or(now + GRACE, |(due, _)| due);
        self.trouble = Some((due, error.to_fault()));
        self.tell_trouble(now, out);
    }

    fn opened(&mut self, opened: Opened, wants: &Wants, out: &mut Batch) {
        let Opened { link, identity, process, status, early } = opened;
        let now = Instant::now();
        match &mut self.guest {
            Some(guest) if guest.identity == identity => {
                // What happened in between is lost, however short it was.
                if let Some((due, _)) = &mut self.trouble {
                    *due = now;
                }
                guest.process = process;
                self.tell_trouble(now, out);
            }
            Some(Guest { process: Some(old), .. }) => {
                let (old, new) = (old.pid, identity.id.unwrap_or(0));
                let detail = format!(
                    "{} leads to another QEMU (pid {new}) while the one before (pid {old}) still \
                     runs: give each a socket of its own",
                    self.config.endpoint
                );
                return self.failed(&Error::Protocol { detail }, now, out);
            }
            _ => {
                self.ended(out);
                self.runs = self.runs.wrapping_add(1).max(1);
                let (story, id) = (Story::new(&status), identity.id.unwrap_or(self.runs));
                let (ended, pause, is_reborn) = (None, None, false);
                let guest = Guest { identity, id, story, process, ended, pause, is_reborn };
                if !self.is_listing && !self.is_out {
                    start(&guest, out);
                }
                self.guest = Some(guest);
            }
        }
        self.link = Some(link);
        (self.heard, self.opened_at) = (now, now);
        if let Some(guest) = &mut self.guest {
            guest.story.lives();
            for line in &early {
                if let Ok(Message::Event(event)) = Message::read(line) {
                    let at = event.at.unwrap_or_else(|| out.received());
                    // Changes are contained in the run state, which was told later.
                    match guest.story.hear(&event) {
                        Said::Other => other(guest, &event, at, wants, out),
                        Said::Reboot => {
                            let domain = guest.domain(out);
                            out.event(Reboot::new(domain, at));
                        }
                        // The end that it announced is in no run state.
                        Said::Change(change @ (Change::ShuttingDown(_) | Change::Crashed(_))) => {
                            let domain = guest.domain(out);
                            out.event(Lifecycle::new(domain, change, at));
                        }
                        _ => {}
                    }
                }
            }
            guest.story.look(&status);
        }
        self.is_first = false;
        self.recovered(out);
        // What was read together with the last answer waits for no further word.
        if let Some(mut link) = self.link.take() {
            match self.hear_all(&mut link, wants, out) {
                Ok(()) => self.link = Some(link),
                Err(error) => self.lost(&error, out),
            }
        }
    }

    /// All is well: the source is whole again if it was not.
    fn recovered(&mut self, out: &mut Batch) {
        self.trouble = None;
        if std::mem::take(&mut self.is_out) {
            out.restored(Scope::Source);
            // The driver asks for a list, and tells from it what happened.
            self.is_listing = true;
        }
    }
}
