//! How a monitor comes to a connection, and what it makes of the QEMU that it finds there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use virevent::driver::Batch;
use virevent::{Change, Error, Origin, Reboot, Scope};

use super::run::{QemuRun, other};
use super::{GRACE, Monitor, Role, SourceContext};
use crate::ADVICE;
use crate::config::MonitorConfig;
use crate::decode::{Meaning, RunTracker};
use crate::link::{Dial, Opened, Opening, Progress, QmpLink};
use crate::peer::advice::{is_nobody, is_refused};
use crate::peer::identity;
use crate::peer::pinned_socket::PinnedSocket;
use crate::raw_event_filter::RawEventFilter;
use crate::wire::Message;

/// How seldom a part looks whether somebody listens at last.
const SELDOM: Duration = Duration::from_secs(5);

/// How long one that was never known to be a QEMU's, and says nothing, is left alone; and at most.
pub(super) const LONELY: Duration = Duration::from_secs(5);
const LONELIEST: Duration = Duration::from_secs(30);

/// A connection on its way.
pub(super) struct Attempt {
    opening: Opening,
    began: Instant,
    progress: Arc<Progress>,
}

impl Attempt {
    fn new(
        dial: Dial,
        config: &Arc<MonitorConfig>,
        way: Option<Arc<PinnedSocket>>,
        now: Instant,
    ) -> Self {
        let progress = Arc::<Progress>::default();
        let opening = dial(Arc::clone(config), way, Arc::clone(&progress));
        Self { opening, began: now, progress }
    }

    /// On a connection on which QEMU has greeted again: it is answered at `due`.
    pub(super) fn again(
        config: &Arc<MonitorConfig>,
        link: QmpLink,
        way: Option<Arc<PinnedSocket>>,
        due: Instant,
    ) -> Self {
        let progress = Arc::<Progress>::default();
        progress.is_connected.store(true, Ordering::Relaxed);
        // It is QEMU's turn only from then on.
        progress.greeted.get_or_init(|| due);
        let opened = Opened::again(Arc::clone(config), link, way, Arc::clone(&progress));
        let opening = Box::pin(async move {
            sleep_until(due).await;
            opened.await
        });
        Self { opening, began: due, progress }
    }

    pub(super) fn has_greeted(&self) -> bool {
        self.progress.greeted.get().is_some()
    }

    /// Since when it waits for QEMU: for its turn, or for answers.
    pub(super) fn silent_since(&self) -> Instant {
        self.progress.greeted.get().copied().unwrap_or(self.began)
    }

    /// What the silence means.
    pub(super) fn silence(&self, config: &MonitorConfig, now: Instant) -> Error {
        let waited = now - self.silent_since();
        // To the tenth of a second: more says nothing to anybody.
        let waited = Duration::from_millis(waited.as_millis() as u64 / 100 * 100);
        let bytes = self.progress.bytes.load(Ordering::Relaxed);
        match bytes {
            _ if self.has_greeted() => config.mute(waited),
            _ if !self.progress.is_connected.load(Ordering::Relaxed) => config.lost(waited),
            0 => config.held(waited),
            _ => config.endless(waited, bytes),
        }
    }
}

impl Monitor {
    /// Connects, where there is reason to. True if something came of it.
    pub(super) fn poll_attempt(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> Result<bool, Error> {
        let now = Instant::now();
        if self.link.is_some() {
            return Ok(false);
        }
        if self.attempt.is_none() {
            if !self.may_connect(shared) || now < self.retry_at {
                return Ok(false);
            }
            let way = self.guest.as_ref().and_then(|guest| guest.way.clone());
            self.attempt = Some(Attempt::new(self.dial, &self.config, way, now));
        }
        let Some(attempt) = &mut self.attempt else { return Ok(false) };
        let Poll::Ready(outcome) = attempt.opening.as_mut().poll(cx) else { return Ok(false) };
        let is_foreign = attempt.progress.is_foreign.load(Ordering::Relaxed);
        self.attempt = None;
        self.retry_at = now + self.patience();
        match outcome {
            Ok(opened) => self.opened(opened, shared, out),
            Err(error) if self.is_first && self.role == Role::Source => return Err(error),
            Err(error) if is_foreign && self.role == Role::Part && self.guest.is_none() => {
                self.pass_over(&error, shared, out);
            }
            Err(error) => self.failed(&error, now, shared, out),
        }
        Ok(true)
    }

    pub(super) fn may_connect(&self, shared: &SourceContext) -> bool {
        let has_way = self.guest.as_ref().is_some_and(|guest| guest.way.is_some());
        (has_way || !self.is_unlinked) && !shared.is_shut && !self.is_foreign
    }

    /// It is no monitor, and no QEMU is behind it: nothing is to be told of it.
    fn pass_over(&mut self, error: &Error, shared: &mut SourceContext, out: &mut Batch) {
        if !std::mem::replace(&mut self.is_warned, true) {
            tracing::warn!(
                target: ADVICE,
                "{} is passed over, as long as its file does not change: give a pattern that only the \
                 sockets of -qmp match, as in ?pattern=*.qmp ({})",
                self.config.endpoint,
                error.to_line(),
            );
        }
        (self.is_first, self.is_foreign) = (false, true);
        self.recovered(shared, out);
    }

    /// Lets go of an attempt that nothing has come of.
    pub(super) fn give_up(&mut self, now: Instant, shared: &mut SourceContext, out: &mut Batch) {
        self.attempt = None;
        self.retry_at = now;
        if self.role == Role::Part && self.guest.is_none() {
            self.retry_at += self.loneliness;
            self.loneliness = (self.loneliness * 2).min(LONELIEST);
        }
        self.desert(shared, out);
    }

    /// How long to wait before the next attempt.
    pub(super) fn patience(&mut self) -> Duration {
        let most = match self.role {
            Role::Source => self.config.retry,
            // There may be many of them, and of most it is told when something happens.
            Role::Part => SELDOM,
        };
        let next = (self.pause * 2).min(most);
        std::mem::replace(&mut self.pause, next).min(most)
    }

    fn failed(&mut self, error: &Error, now: Instant, shared: &mut SourceContext, out: &mut Batch) {
        let watched = self.guest.as_ref().is_some_and(|guest| guest.process.is_some());
        let is_over = match self.role {
            Role::Source => is_nobody(error),
            // Where the path leads to nothing, or to another file, somebody may listen at this one still.
            Role::Part => is_refused(error) || (self.guest.is_none() && is_nobody(error)),
        };
        if (is_over && !watched) || (self.is_unlinked && self.guest.is_none()) {
            self.is_first = false;
            self.ended(shared, out);
            self.recovered(shared, out);
            return;
        }
        let due = self.trouble.take().map_or(now + GRACE, |(due, _)| due);
        self.trouble = Some((due, error.to_fault()));
        self.tell_trouble(now, shared, out);
        self.desert(shared, out);
    }

    fn opened(&mut self, opened: Opened, shared: &mut SourceContext, out: &mut Batch) {
        let Opened { link, identity, process, status, early, way } = opened;
        let way = way.filter(|way| process.is_none() && way.is_lasting());
        let now = Instant::now();
        // Whether the state is to be told when all that came before it is.
        let mut is_told = false;
        match &mut self.guest {
            Some(guest) if guest.identity.is_same_run(&identity) => {
                // What happened in between is lost, however short it was.
                if let Some((due, _)) = &mut self.trouble {
                    *due = now;
                }
                guest.identity.learn(identity);
                if process.is_some() {
                    guest.process = process;
                }
                guest.way = way.filter(|_| guest.process.is_none());
                self.tell_trouble(now, shared, out);
            }
            Some(QemuRun { process: Some(old), .. }) => {
                let (old, new) = (old.pid, identity.id().unwrap_or(0));
                let detail = format!(
                    "{} leads to another QEMU (pid {new}) while the one before (pid {old}) still \
                     runs: give each a socket of its own",
                    self.config.endpoint
                );
                return self.failed(&Error::Protocol { detail }, now, shared, out);
            }
            _ => {
                self.ended(shared, out);
                if let Some(Scope::Domain(unknown)) = &self.outage {
                    shared.uuids.release(unknown.uuid());
                }
                self.runs = self.runs.wrapping_add(1).max(1);
                let (host, endpoint) = (&self.config.host, &self.config.origin);
                let name = identity.name.clone().unwrap_or_else(|| self.config.name.clone());
                let uuid = identity.uuid.unwrap_or_else(|| identity::uuid(None, host, endpoint));
                let uuid = shared.uuids.claim(uuid, host, endpoint);
                let tracker = RunTracker::new(&status);
                let id = identity.id().unwrap_or(self.runs);
                let told = tracker.state();
                let mut guest = QemuRun {
                    identity,
                    name,
                    uuid,
                    id,
                    tracker,
                    process,
                    way,
                    ended: None,
                    pause: None,
                    told,
                };
                let origin = match (&self.outage, self.role) {
                    (None, _) => Some(Origin::Observed),
                    (Some(_), Role::Part) => Some(Origin::Inferred),
                    (Some(_), Role::Source) => None,
                };
                // Otherwise a list tells it.
                if let Some(origin) = origin.filter(|_| !shared.is_listing) {
                    guest.tell_start(origin, out);
                    is_told = true;
                }
                self.guest = Some(guest);
            }
        }
        self.heard = now;
        self.opened_at = now;
        self.unheard_from = None;
        self.forget_questions();
        self.loneliness = LONELY;
        is_told |= self.hear_early(&early, &shared.wants, out);
        if let Some(guest) = &mut self.guest {
            guest.tracker.set_status(&status);
            self.look_at = self.departure.see_status(&status, now);
        }
        // After what led to it.
        if is_told {
            self.tell_state(shared, out);
        }
        self.is_first = false;
        self.recovered(shared, out);
        // What was read together with the last answer waits for no further word.
        self.take_in(link, shared, out);
    }

    /// Takes in the events that came before the run state did. True if only that tells whether the
    /// guest has survived one of them.
    fn hear_early(&mut self, lines: &[Box<[u8]>], wants: &RawEventFilter, out: &mut Batch) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        let mut may_survive = false;
        guest.tracker.set_alive();
        for line in lines {
            let Ok(Message::Event(event)) = Message::read(line) else { continue };
            let at = event.at.unwrap_or_else(|| out.received());
            // Changes are contained in the run state, which was told later.
            match guest.tracker.observe(&event) {
                Meaning::Other => other(guest, &event, at, wants, out),
                Meaning::Reboot => {
                    let domain = guest.domain(out);
                    out.event(Reboot::new(domain, at));
                }
                // The end that it announced is in no run state.
                Meaning::Change(change @ (Change::ShuttingDown(_) | Change::Crashed(_))) => {
                    may_survive |= guest.tracker.take_needs_status();
                    guest.tell(change, at, out);
                }
                Meaning::Change(_) | Meaning::PauseWithoutCause | Meaning::Duplicate => {}
            }
        }
        // The run state that was told later is the answer.
        guest.tracker.take_needs_status();
        may_survive
    }
}
