//! What a monitor does when a time has come, rather than when something was read.

use tokio::time::Instant;
use virevent::{Error, Fault, FaultKind};

use super::connecting::Attempt;
use super::state::State;
use super::turn::{Role, SourceContext, Turn};
use super::{DRAIN_TIMEOUT, Health, Monitor};

impl Monitor {
    /// Does what is due. True if something was.
    ///
    /// # Errors
    /// The first attempt of a source takes too long.
    pub(super) fn meet_deadlines(
        &mut self,
        now: Instant,
        turn: &mut Turn<'_>,
    ) -> Result<bool, Error> {
        let was_due = match &mut self.state {
            State::Connected(connected) => {
                let dialog = &mut connected.dialog;
                // A QEMU that hangs right after STOP must not hide the pause until it answers.
                if dialog.run.pause.is_some_and(|pause| now >= pause.due) {
                    dialog.run.deliver_pause(None, turn.out);
                    return Ok(true);
                }
                match dialog.questions.since() {
                    Some(since) => {
                        self.check_answer(since, now);
                        false
                    }
                    // Only once all is answered: a QEMU that is slow to answer is not asked more.
                    None if now >= dialog.next_question_at(self.config.interval) => {
                        connected.poll_status(now);
                        true
                    }
                    None => false,
                }
            }
            State::Connecting(_) | State::Lost(_) => self.check_attempt(now, turn)?,
            State::Vacant { .. } | State::Foreign | State::Parked => false,
        };
        Ok(was_due || self.report_outage(now, turn))
    }

    /// Suspects a QEMU that has not answered since `since`.
    fn check_answer(&mut self, since: Instant, now: Instant) {
        if now < since + self.config.answer || !self.health.is_well() {
            return;
        }
        let error = self.config.no_answer(self.config.answer);
        self.health.suspect(now, Fault::new(FaultKind::Timeout, &error.to_line()));
        // A local QEMU answers on this connection or ends. Of another host neither may ever be
        // seen.
        if self.config.may_be_half_open() {
            drop(self.state.lose_connection(now, now));
        }
    }

    /// Suspects, or gives up, an attempt that takes too long. True if it was given up.
    fn check_attempt(&mut self, now: Instant, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let Some(attempt) = self.state.attempt() else { return Ok(false) };
        let given_up_at = self.given_up_at(attempt);
        if now >= attempt.silent_since() + self.config.greeting && self.health.is_well() {
            let error = attempt.silence(&self.config, now);
            if !self.is_settled && self.role == Role::Source {
                return Err(error);
            }
            self.health.suspect(now, error.to_fault());
        }
        let is_given_up = given_up_at.is_some_and(|at| now >= at);
        if is_given_up {
            self.give_up(now, turn);
        }
        Ok(is_given_up)
    }

    /// When to connect again, because no event says that the peer is gone. A local QEMU is waited
    /// for on one connection: its end closes that, and a new one would be queued behind other
    /// clients. But a socket that was never known to be a QEMU's may serve one client at a time,
    /// too: another one may wait for it.
    fn given_up_at(&self, attempt: &Attempt) -> Option<Instant> {
        if self.is_strange() && !attempt.has_greeted() {
            return Some(attempt.silent_since() + self.config.greeting);
        }
        let patience = self.config.greeting + self.config.answer;
        self.config.may_be_half_open().then(|| attempt.silent_since() + patience)
    }

    /// When [`meet_deadlines`](Self::meet_deadlines) has something to do next.
    pub(super) fn next_deadline(&self, shared: &SourceContext) -> Option<Instant> {
        let is_well = self.health.is_well();
        let attempt = self.state.attempt();
        let connected = match &self.state {
            State::Connected(connected) => Some(&connected.dialog),
            _ => None,
        };
        let asked_since = connected.and_then(|dialog| dialog.questions.since());
        let deadlines = [
            connected.and_then(|dialog| dialog.run.pause).map(|pause| pause.due),
            connected.and_then(|dialog| dialog.run.ended_at).map(|ended| ended + DRAIN_TIMEOUT),
            asked_since.filter(|_| is_well).map(|since| since + self.config.answer),
            connected
                .filter(|_| asked_since.is_none())
                .map(|dialog| dialog.next_question_at(self.config.interval)),
            attempt
                .filter(|_| is_well)
                .map(|attempt| attempt.silent_since() + self.config.greeting),
            attempt.and_then(|attempt| self.given_up_at(attempt)),
            self.state.retry_at().filter(|_| self.may_connect(shared)),
            match &self.health {
                Health::Suspected { due, .. } if self.may_report_outage(shared) => Some(*due),
                _ => None,
            },
        ];
        deadlines.into_iter().flatten().min()
    }
}
