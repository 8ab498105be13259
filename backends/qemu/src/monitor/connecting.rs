//! How a monitor gets a connection, and what it concludes from the QEMU that it finds there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use virevent::{Change, Error, Origin, Scope};

use super::connected::Connected;
use super::health::Health;
use super::run::QemuRun;
use super::state::{Reconnect, State};
use super::turn::{Role, SourceContext, Turn};
use super::{CLOSE_GRACE, Monitor};
use crate::ADVICE;
use crate::config::MonitorConfig;
use crate::decode::{Meaning, RunTracker};
use crate::link::QmpLink;
use crate::peer::advice::{is_absent_or_refused, is_refused};
use crate::peer::handshake::{Dial, Opened, Opening, Progress};
use crate::peer::identity::{self, RunIdentity};
use crate::peer::pinned_socket::PinnedSocket;
use crate::peer::process::Process;
use crate::wire::Message;

/// An attempt to connect that is under way.
pub(super) struct Attempt {
    opening: Opening,
    began: Instant,
    progress: Arc<Progress>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Attempt {
    fn new(
        dial: Dial,
        config: &Arc<MonitorConfig>,
        pinned: Option<Arc<PinnedSocket>>,
        now: Instant,
    ) -> Self {
        let progress = Arc::<Progress>::default();
        let opening = dial(Arc::clone(config), pinned, Arc::clone(&progress));
        Self { opening, began: now, progress }
    }

    /// An attempt on a connection on which QEMU has greeted again: it is negotiated at `due`.
    pub(super) fn renegotiate(
        config: &Arc<MonitorConfig>,
        link: QmpLink,
        pinned: Option<Arc<PinnedSocket>>,
        due: Instant,
    ) -> Self {
        let progress = Arc::<Progress>::default();
        // The connection stands: a silence from here on is QEMU's, not the network's.
        progress.is_connected.store(true, Ordering::Relaxed);
        // QEMU has nothing to answer before, and so its deadline counts from then.
        progress.greeted.get_or_init(|| due);
        let opened = Opened::negotiate(Arc::clone(config), link, pinned, Arc::clone(&progress));
        let opening = Box::pin(async move {
            sleep_until(due).await;
            opened.await
        });
        Self { opening, began: due, progress }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Opened, Error>> {
        self.opening.as_mut().poll(cx)
    }

    /// Whether what answers cannot be QMP.
    fn is_foreign(&self) -> bool {
        self.progress.is_foreign.load(Ordering::Relaxed)
    }

    pub(super) fn has_greeted(&self) -> bool {
        self.progress.greeted.get().is_some()
    }

    /// Since when it waits for QEMU: for the greeting, or for answers.
    pub(super) fn silent_since(&self) -> Instant {
        self.progress.greeted.get().copied().unwrap_or(self.began)
    }

    /// The error that the silence is.
    pub(super) fn silence(&self, config: &MonitorConfig, now: Instant) -> Error {
        let waited = now - self.silent_since();
        // People read it: tenths of a second are enough.
        let waited = Duration::from_millis(waited.as_millis() as u64 / 100 * 100);
        let bytes = self.progress.bytes.load(Ordering::Relaxed);
        match bytes {
            _ if self.has_greeted() => config.no_answer(waited),
            _ if !self.progress.is_connected.load(Ordering::Relaxed) => {
                config.no_connection(waited)
            }
            0 => config.no_greeting(waited),
            _ => config.endless_greeting(waited, bytes),
        }
    }
}

impl Monitor {
    /// Connects when that is due. True if an attempt ended.
    pub(super) fn poll_attempt(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<bool, Error> {
        if matches!(self.state, State::Connected(_)) {
            return Ok(false);
        }
        let now = Instant::now();
        self.begin_attempt(now, turn.shared);
        let Some(attempt) = self.state.attempt_mut() else { return Ok(false) };
        let Poll::Ready(outcome) = attempt.poll(cx) else { return Ok(false) };
        let is_foreign = attempt.is_foreign();
        // Before the outcome is processed: it may set another time, or another state.
        let retry_at = now + self.next_pause();
        self.state.retry(retry_at);
        match outcome {
            Ok(opened) => self.opened(opened, turn),
            Err(error) if !self.is_settled && self.role == Role::Source => return Err(error),
            Err(error) if is_foreign && self.is_strange() => self.ignore_foreign(&error, turn),
            Err(error) => self.failed(&error, now, turn),
        }
        Ok(true)
    }

    fn begin_attempt(&mut self, now: Instant, shared: &SourceContext) {
        let is_due = self.state.retry_at().is_some_and(|retry_at| now >= retry_at);
        if !is_due || !self.may_connect(shared) {
            return;
        }
        let pinned = self.state.run().and_then(|run| run.pinned.clone());
        let attempt = Attempt::new(self.dial, &self.config, pinned, now);
        match &mut self.state {
            State::Lost(lost) => lost.reconnect = Reconnect::Trying(attempt),
            state => *state = State::Connecting(attempt),
        }
    }

    pub(super) fn may_connect(&self, shared: &SourceContext) -> bool {
        let is_pinned = self.state.run().is_some_and(|run| run.pinned.is_some());
        (is_pinned || !self.is_unlinked) && !shared.is_unreadable
    }

    /// Whether the socket of a directory was never known to be a QEMU's, or its QEMU has ended.
    pub(super) fn is_strange(&self) -> bool {
        self.role == Role::Member && self.state.run().is_none()
    }

    /// Leaves a socket alone that is no monitor: it is no domain, and so there is nothing to
    /// deliver.
    fn ignore_foreign(&mut self, error: &Error, turn: &mut Turn<'_>) {
        if !std::mem::replace(&mut self.is_warned, true) {
            tracing::warn!(
                target: ADVICE,
                "{} is ignored until its file changes: give a pattern that matches the sockets of \
                 -qmp only, as in ?pattern=*.qmp ({})",
                self.config.endpoint,
                error.to_line(),
            );
        }
        self.is_settled = true;
        self.state = State::Foreign;
        self.health.recover(None, turn);
    }

    /// Drops an attempt that brought nothing.
    pub(super) fn give_up(&mut self, now: Instant, turn: &mut Turn<'_>) {
        let wait = if self.is_strange() { self.backoff.next_silent() } else { Duration::ZERO };
        self.state.retry(now + wait);
        self.settle_if_deserted(turn);
    }

    /// How long to wait before the next attempt.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.backoff.next_pause(self.role, &self.config)
    }

    fn failed(&mut self, error: &Error, now: Instant, turn: &mut Turn<'_>) {
        let run = self.state.run();
        let is_watched = run.is_some_and(|run| run.process.is_some());
        let is_over = match self.role {
            Role::Source => is_absent_or_refused(error),
            // The path may lead nowhere or to another file while a process listens at the pinned
            // socket.
            Role::Member => is_refused(error) || (run.is_none() && is_absent_or_refused(error)),
        };
        // A watched process reports its end itself, and closes its socket some time before. No
        // process can come to listen at an unlinked file.
        if (is_over && !is_watched) || (self.is_unlinked && run.is_none()) {
            self.is_settled = true;
            self.end_run(turn);
            self.health.recover(None, turn);
            return;
        }
        // The first fault sets the time: further attempts must not postpone the outage.
        let due = match &self.health {
            Health::Suspected { due, .. } => *due,
            Health::Well | Health::Outage(_) => now + CLOSE_GRACE,
        };
        self.health.suspect(due, error.to_fault());
        self.report_outage(now, turn);
    }

    /// A QEMU has answered all questions: it is the run that was lost, or a new one.
    fn opened(&mut self, opened: Opened, turn: &mut Turn<'_>) {
        let Opened { link, identity, process, status, early, pinned } = opened;
        // A watched process needs no pinned socket, and each takes an open file.
        let pinned = pinned.filter(|pinned| process.is_none() && pinned.is_lasting());
        let now = Instant::now();
        // Whether the state is to be reported after all that came before it.
        let mut is_news = false;
        let mut run = match self.state.run() {
            Some(run) if run.identity.is_same_run(&identity) => {
                let Some(mut run) = self.resume(now, turn) else { return };
                run.identity.learn(identity);
                if process.is_some() {
                    run.process = process;
                }
                run.pinned = pinned.filter(|_| run.process.is_none());
                run
            }
            Some(QemuRun { process: Some(old), .. }) => {
                let old = old.pid;
                // The run that is watched goes on. Its socket was bound again by another QEMU, or
                // passed on to it.
                return self.failed(&self.two_listeners(old, &identity), now, turn);
            }
            _ => {
                self.end_run(turn);
                let mut run = self.new_run(identity, process, pinned, &status, turn);
                is_news = self.deliver_start(&mut run, turn);
                run
            }
        };
        self.backoff.reset_silent();
        is_news |= deliver_early(&mut run, &early, turn);
        let mut connected = Connected::new(run, link, now);
        let dialog = &mut connected.dialog;
        dialog.run.tracker.set_status(&status);
        dialog.ask_again_at = dialog.migration.observe_status(&status, now);
        // After the events that led to it.
        if is_news {
            dialog.run.report_state_unless_listing(turn);
        }
        self.is_settled = true;
        self.health.recover(Some(&mut dialog.run), turn);
        self.state = State::Connected(Box::new(connected));
        // Lines that were read together with the last answer: no further read may come for a while.
        self.read_lines(turn);
    }

    /// Takes the run that was lost, now that it answers again. However short the loss was, events
    /// may have been lost in between: it is reported as an outage.
    fn resume(&mut self, now: Instant, turn: &mut Turn<'_>) -> Option<QemuRun> {
        if let Health::Suspected { due, .. } = &mut self.health {
            *due = now;
        }
        self.report_outage(now, turn);
        self.state.take_run(now).map(|(run, _)| run)
    }

    fn two_listeners(&self, old: u32, new: &RunIdentity) -> Error {
        let new = new.id().unwrap_or(0);
        let detail = format!(
            "{} leads to another QEMU (pid {new}) while the one before (pid {old}) still runs: \
             give each a socket of its own",
            self.config.endpoint
        );
        Error::protocol(detail)
    }

    fn new_run(
        &mut self,
        identity: RunIdentity,
        process: Option<Process>,
        pinned: Option<Arc<PinnedSocket>>,
        status: &str,
        turn: &mut Turn<'_>,
    ) -> QemuRun {
        // Before the claim below: the QEMU may claim the uuid of the placeholder.
        if let Health::Outage(Scope::Domain(placeholder)) = &self.health {
            turn.shared.uuids.release(placeholder.uuid());
        }
        // Never 0, which is no id.
        self.runs = self.runs.wrapping_add(1).max(1);
        let host = &self.config.host;
        let endpoint = &self.config.origin;
        let name = identity.name.clone().unwrap_or_else(|| self.config.name.clone());
        let uuid = identity.uuid.unwrap_or_else(|| identity::uuid(None, host, endpoint));
        let uuid = turn.shared.uuids.claim(uuid, host, endpoint);
        let id = identity.id().unwrap_or(self.runs);
        let tracker = RunTracker::new(status);
        let delivered = tracker.state();
        QemuRun {
            identity,
            name,
            uuid,
            id,
            tracker,
            process,
            pinned,
            ended_at: None,
            pause: None,
            delivered,
        }
    }

    /// Delivers the start of a new run, unless a list contains it. True if it did.
    fn deliver_start(&self, run: &mut QemuRun, turn: &mut Turn<'_>) -> bool {
        let origin = match (self.health.is_outage(), self.role) {
            (false, _) => Origin::Observed,
            (true, Role::Member) => Origin::Inferred,
            // The end of the source's outage makes the driver ask for a list.
            (true, Role::Source) => return false,
        };
        if turn.shared.is_listing {
            return false;
        }
        run.deliver_start(origin, turn.out);
        true
    }
}

/// Delivers the events that came before the answer with the run state. True if one of them leaves
/// open whether the guest has survived it.
fn deliver_early(run: &mut QemuRun, lines: &[Box<[u8]>], turn: &mut Turn<'_>) -> bool {
    let mut may_survive = false;
    // QEMU has answered, and so it has not ended, whatever it announced on an earlier connection.
    run.tracker.set_alive();
    for line in lines {
        let Ok(Message::Event(event)) = Message::read(line) else { continue };
        let at = event.at.unwrap_or_else(|| turn.out.received());
        match run.tracker.observe(&event) {
            Meaning::Other => run.deliver_notice(&event, at, turn),
            Meaning::Reboot => run.deliver_reboot(at, turn.out),
            // No run state contains an announced end.
            Meaning::Change(change @ (Change::ShuttingDown(_) | Change::Crashed(_))) => {
                may_survive |= run.tracker.take_needs_status();
                run.deliver(change, at, turn.out);
            }
            // The run state, which was answered later, contains these, but for the notice of a sleep.
            Meaning::Change(Change::PmSuspended(_) | Change::Started(_)) => {
                run.deliver_notice(&event, at, turn);
            }
            Meaning::Change(_) | Meaning::PauseWithoutCause | Meaning::Duplicate => {}
        }
    }
    // The run state that was answered later is what the events ask for.
    run.tracker.take_needs_status();
    may_survive
}
