//! One monitor socket, across the runs of the QEMUs that listen there.
//!
//! The states and their diagram are in [`state`]. A monitor without a run is a healthy host without
//! a domain. **Unreachable is never stopped**: only the end of the process is, or, where the
//! process cannot be watched, that no process listens any more. A process that ends closes its
//! socket some time before, so a closed socket becomes an outage only after [`CLOSE_GRACE`].
//!
//! A monitor is all that its source has, or one of many in a directory ([`Role`]). A member is one
//! file, not one path: whether a process listens there is asked by a [pinned
//! socket](crate::peer::pinned_socket::PinnedSocket).

mod backoff;
mod connected;
mod connecting;
mod deadlines;
mod health;
mod migration;
mod questions;
mod run;
mod state;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use virevent::driver::{Batch, Listed};
use virevent::{Change, Error, StopCause, Uuid};
use virevent_transport::LazyTimer;

use self::backoff::Backoff;
use self::connected::ReadOutcome;
use self::connecting::Attempt;
use self::health::Health;
use self::state::{Reconnect, State};
pub(crate) use self::turn::{Role, SourceContext, Turn};
use crate::config::MonitorConfig;
use crate::link::broken;
use crate::peer::handshake::{Dial, Opened};
use crate::peer::identity::ClaimedUuids;
use crate::uri::Endpoint;

/// How long a closed connection may be the first sign of the end of the process.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// How long a pause waits for the run state that gives its cause.
const PAUSE_CAUSE_WAIT: Duration = Duration::from_millis(250);

/// After how long QEMU is asked again if its answer is older than what it has announced.
const STALE_STATUS_RETRY: Duration = Duration::from_millis(20);

/// How long the connection of a process that has ended is still read, if it does not close.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// A monitor socket, and the run of a QEMU behind it.
pub(crate) struct Monitor {
    config: Arc<MonitorConfig>,
    role: Role,
    dial: Dial,
    state: State,
    health: Health,
    backoff: Backoff,
    /// Whether it is known if there is a QEMU.
    is_settled: bool,
    /// Whether the path does not lead to this socket any more.
    is_unlinked: bool,
    /// Whether the warning that the socket is not QMP was logged.
    is_warned: bool,
    /// How many runs there have been.
    runs: u32,
    timer: LazyTimer,
}

impl Monitor {
    pub(crate) fn new(config: Arc<MonitorConfig>, role: Role) -> Self {
        let now = Instant::now();
        Self {
            config,
            role,
            dial: Opened::dial,
            state: State::Vacant { retry_at: now },
            health: Health::Well,
            backoff: Backoff::new(),
            is_settled: false,
            is_unlinked: false,
            is_warned: false,
            runs: 0,
            timer: LazyTimer::new(),
        }
    }

    /// Whether it is known if there is a QEMU.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Whether the driver waits to learn if there is a QEMU.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.is_settled && !matches!(self.state, State::Parked)
    }

    /// Disconnects: the monitor is free for another client.
    pub(crate) fn park(&mut self, shared: &mut SourceContext) {
        // The next connection claims its uuid again, and the driver asks for a first list again.
        shared.uuids = ClaimedUuids::default();
        shared.is_listing = true;
        *self = Self { state: State::Parked, ..self.reset() };
    }

    /// Starts again after [`park`](Self::park).
    pub(crate) fn unpark(&mut self) {
        if matches!(self.state, State::Parked) {
            *self = self.reset();
        }
    }

    fn reset(&self) -> Self {
        let new = Self::new(Arc::clone(&self.config), self.role);
        Self { runs: self.runs, dial: self.dial, ..new }
    }

    /// The domain in a list, if there is one that is reachable.
    pub(crate) fn listed(&mut self, out: &mut Batch) -> Option<Listed> {
        let run = self.state.run_mut().filter(|_| !self.health.is_outage())?;
        // The list contains the pause, and so it is delivered before, even if its cause is not
        // known yet.
        run.deliver_pause(None, out);
        run.delivered = run.tracker.state();
        Some(Listed::new(run.domain(out), run.delivered, Some(false)))
    }

    /// Whether an outage was reported, and lasts.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.health.is_outage()
    }

    /// Whether the QEMU here is this domain.
    pub(crate) fn is_domain(&self, uuid: Uuid) -> bool {
        self.state.run().is_some_and(|run| run.uuid == uuid)
    }

    /// Asks QEMU for its run state, for a list: see [`is_verified`](Self::is_verified).
    pub(crate) fn verify(&mut self) {
        if let State::Connected(connected) = &mut self.state {
            connected.verify();
        }
    }

    /// Whether a list need not wait for this QEMU: it has answered since, there is none, or its
    /// outage was reported. A list waits for one whose connection has just broken until either is
    /// known, and for one that was paused until the cause is known, which has a deadline of its
    /// own.
    pub(crate) fn is_verified(&self) -> bool {
        match &self.state {
            State::Connected(connected) => {
                connected.dialog.is_verified() || self.health.is_outage()
            }
            State::Lost(_) => self.health.is_outage(),
            State::Vacant { .. } | State::Connecting(_) | State::Foreign | State::Parked => true,
        }
    }

    /// Whether there is no run, no attempt to connect and no outage: the monitor may be dropped
    /// once its file is gone.
    pub(crate) fn is_unused(&self) -> bool {
        let is_idle = matches!(self.state, State::Vacant { .. } | State::Foreign);
        is_idle && self.is_settled && !self.health.is_outage()
    }

    /// Connects at once where there is no connection, for the file of the socket has changed.
    pub(crate) fn connect_now(&mut self) {
        self.backoff = Backoff::new();
        // An attempt that is under way is kept: QEMU serves its clients in turn, and a new
        // connection would wait behind the old one.
        if self.state.attempt().is_none() {
            self.state.retry(Instant::now());
        }
    }

    /// Sets the new path of a socket that was moved. The QEMU keeps the name and the uuid that it
    /// had.
    pub(crate) fn set_path(&mut self, endpoint: Endpoint) {
        let config = MonitorConfig { endpoint, ..MonitorConfig::clone(&self.config) };
        self.config = Arc::new(config);
        self.relink();
    }

    /// The path does not lead to this socket any more, so that no other process can come to listen.
    /// A run goes on until its process ends or, where that is not watched, until no process
    /// listens.
    pub(crate) fn unlink(&mut self, turn: &mut Turn<'_>) {
        // The end of a run at this file is still found out, through its process or its pinned
        // socket.
        self.is_unlinked = true;
        self.settle_if_deserted(turn);
    }

    /// The path leads to this socket again.
    pub(crate) fn relink(&mut self) {
        self.is_unlinked = false;
        self.connect_now();
    }

    /// The directory of the socket is readable again.
    pub(crate) fn reopen(&mut self) {
        // What was suspected before is outdated: the socket is tried again.
        if self.state.run().is_none() && !self.health.is_outage() {
            self.health = Health::Well;
        }
        self.connect_now();
    }

    /// Gives up an unlinked socket without a run. A run goes on: its process ends, or its pinned
    /// socket refuses a connection.
    fn settle_if_deserted(&mut self, turn: &mut Turn<'_>) {
        let is_idle = matches!(self.state, State::Vacant { .. } | State::Foreign);
        if self.is_unlinked && is_idle {
            self.is_settled = true;
            self.health.recover(None, turn);
        }
    }

    /// Reports that it is not known if there is a QEMU: the list of the source cannot wait any
    /// longer.
    pub(crate) fn overdue(&mut self, turn: &mut Turn<'_>) {
        if self.is_settled || !self.health.is_well() {
            return;
        }
        let now = Instant::now();
        let error = match self.state.attempt() {
            Some(attempt) => attempt.silence(&self.config, now),
            None => self.config.no_greeting(Duration::ZERO),
        };
        self.health.suspect(now, error.to_fault());
        self.report_outage(now, turn);
    }

    /// Does what is to be done. Ready after each step, even if nothing was delivered.
    ///
    /// # Errors
    /// The first attempt of a source failed: see [`is_settled`](Self::is_settled). After that, and
    /// in a member, nothing is an error.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut Turn<'_>,
    ) -> Poll<Result<(), Error>> {
        if matches!(self.state, State::Parked) {
            return Poll::Pending;
        }
        loop {
            // The connection before the process: QEMU announces the cause of its end there.
            if self.poll_link(cx, turn) || self.poll_process(cx, turn) {
                return Poll::Ready(Ok(()));
            }
            match self.poll_attempt(cx, turn) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.meet_deadlines(Instant::now(), turn)? {
                return Poll::Ready(Ok(()));
            }
            let Some(next) = self.next_deadline(turn.shared) else { return Poll::Pending };
            if self.timer.poll_until(cx, next).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Writes and reads once. True if something was read, or the connection was lost.
    fn poll_link(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> bool {
        let State::Connected(connected) = &mut self.state else { return false };
        match connected.link.poll_io(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => self.read_lines(turn),
            Poll::Ready(Err(error)) => drop(self.lose(&error, turn)),
        }
        true
    }

    /// Processes what was read, and keeps the connection if it is still of use.
    fn read_lines(&mut self, turn: &mut Turn<'_>) {
        let State::Connected(connected) = &mut self.state else { return };
        match connected.read_lines(self.role, &mut self.health, turn) {
            Ok(ReadOutcome::All) => {}
            Ok(ReadOutcome::Greeting) => self.renegotiate(turn),
            Err(error) => drop(self.lose(&error, turn)),
        }
    }

    /// Negotiates again on a connection on which QEMU greets again: its monitor was removed and
    /// made again, and the events in between are lost. The connection is kept, for another client
    /// may wait for its turn; a peer that greets without end is answered no faster than one that
    /// breaks each connection.
    fn renegotiate(&mut self, turn: &mut Turn<'_>) {
        let again = "QEMU greets again: its monitor was removed and made again, and the events in \
                     between are lost";
        let Some((link, retry_at)) = self.lose(&broken(&again), turn) else { return };
        if let State::Lost(lost) = &mut self.state {
            let pinned = lost.run.pinned.clone();
            let attempt = Attempt::renegotiate(&self.config, link, pinned, retry_at);
            lost.reconnect = Reconnect::Trying(attempt);
        }
    }

    /// True if the process has ended, and that was delivered.
    fn poll_process(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> bool {
        let is_connected = matches!(self.state, State::Connected(_));
        let Some(run) = self.state.run_mut() else { return false };
        if run.ended_at.is_none() {
            match &run.process {
                Some(process) if process.poll_ended(cx).is_ready() => {}
                _ => return false,
            }
        }
        let now = Instant::now();
        let ended_at = *run.ended_at.get_or_insert(now);
        // A connection is read until it closes: the last events say why the process ended. A child
        // of QEMU may hold it open.
        let is_drained = !is_connected || now >= ended_at + DRAIN_TIMEOUT;
        if is_drained {
            self.end_run(turn);
        }
        is_drained
    }

    /// Delivers that the run has ended, if there is one.
    fn end_run(&mut self, turn: &mut Turn<'_>) {
        let now = Instant::now();
        let Some((mut run, unheard_from)) = self.state.take_run(now) else { return };
        let is_unheard = unheard_from.is_some_and(|from| now >= from);
        // No answer with the cause comes any more, and a pause cannot follow its end.
        run.deliver_pause(None, turn.out);
        let domain = run.domain(turn.out);
        let unannounced = if is_unheard { StopCause::Unspecified } else { StopCause::Failed };
        let cause = run.tracker.announced_cause().unwrap_or(unannounced);
        tracing::debug!(%domain, ?cause, "QEMU has ended");
        // During a first list an event is applied before the list, but `gone` after it.
        if self.health.is_outage() && !turn.shared.is_listing {
            turn.out.gone(&domain, cause);
        } else {
            let at = turn.out.received();
            run.deliver(Change::Stopped(cause), at, turn.out);
        }
        turn.shared.uuids.release(run.uuid);
        self.backoff = Backoff::new();
        self.health.recover(None, turn);
    }
}
