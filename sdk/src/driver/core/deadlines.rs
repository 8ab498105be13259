//! The deadlines: waiting subscriptions, unanswered calls, the next verification.

use std::time::Duration;

use tokio::time::Instant;

use super::{Core, Stage, Waiting};
use crate::Error;
use crate::command::answer;
use crate::driver::session::Session;

/// How long [`close`](crate::Subscription::close) waits for the server at the most.
// A program closes its streams before it exits, and a dead server must not keep it from that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Core {
    /// When an answer is overdue at the earliest. Where the server answers keepalives, a list
    /// without an answer does not end the connection: only the subscriptions that wait for it have
    /// a deadline.
    pub(in crate::driver) fn answer_due(&self, has_keepalive: bool) -> Option<Instant> {
        let due = |since: Instant| since.checked_add(self.call_timeout);
        // In the order in which they came.
        let waiting = self.waiting.first().and_then(|waiting| due(waiting.since));
        let registration = self.fatal_registration(has_keepalive).and_then(due);
        let list = self.fatal_list(has_keepalive).and_then(due);
        let live = self.list_awaited().and_then(due);
        waiting.into_iter().chain(registration).chain(list).chain(live).min()
    }

    /// When there is something to do without an answer.
    pub(in crate::driver) fn act_due(&self) -> Option<Instant> {
        let closing = self.closing.iter().map(|closing| closing.since + CLOSE_TIMEOUT).min();
        // While a call is under way its answer decides what comes next; a time that is past would
        // only spin the timer.
        let is_free = self.calls.blocking.is_none() && self.calls.interest.is_none();
        let ask = match self.stage {
            Stage::Synced { .. } => self.verifier.due(),
            _ => self.calls.list_since.map(|since| {
                self.list_not_before.map_or(since, |not_before| not_before.max(since))
            }),
        };
        closing.into_iter().chain(ask.filter(|_| is_free)).min()
    }

    /// A registration needs no domain's lock, so one without an answer ends the connection. While a
    /// call hangs on it the driver keeps it: the server would keep a worker for each connection
    /// that a list hangs on.
    fn fatal_registration(&self, has_keepalive: bool) -> Option<Instant> {
        let is_kept = has_keepalive && self.calls.blocking.is_some();
        let (pending, _) = self.calls.interest.as_ref().filter(|_| !is_kept)?;
        Some(pending.since)
    }

    fn fatal_list(&self, has_keepalive: bool) -> Option<Instant> {
        let (pending, _) = self.calls.blocking.as_ref().filter(|_| !has_keepalive)?;
        Some(pending.since)
    }

    /// Since when streams that know the domains wait for a list while events are held back for it.
    fn list_awaited(&self) -> Option<Instant> {
        let is_awaited = !self.stage.delivers() && self.fanout.has_synced();
        self.calls.list_since.filter(|_| is_awaited && self.scopes.whole().is_none())
    }

    /// Does what is due without an answer: confirms `close()`, requests a verification.
    pub(in crate::driver) fn act<S: Session>(&mut self, session: &mut S, now: Instant) {
        let (late, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.closing)
            .into_iter()
            .partition(|closing| closing.since + CLOSE_TIMEOUT <= now);
        self.closing = others;
        for closing in late {
            // The server has the request; nothing is delivered any more, whatever it answers.
            answer(closing.done, ());
        }
        self.steer(session);
    }

    /// Stops waiting for answers that are overdue.
    ///
    /// # Errors
    /// The connection is useless without the answer.
    pub(in crate::driver) fn give_up<S: Session>(
        &mut self,
        session: &mut S,
        has_keepalive: bool,
        now: Instant,
    ) -> Result<(), Error> {
        let after = self.call_timeout;
        let is_due = |since: Instant| since.checked_add(after).is_some_and(|due| due <= now);
        let timeout = |call| Error::timeout(call, after);
        // The calls that end the connection come first: its loss answers all that wait.
        if self.fatal_registration(has_keepalive).is_some_and(is_due) {
            return Err(timeout("the registration"));
        }
        if self.fatal_list(has_keepalive).is_some_and(is_due) {
            return Err(timeout("the list of domains"));
        }
        let call =
            if self.calls.interest.is_some() { "the registration" } else { "the list of domains" };
        let (overdue, others): (Vec<Waiting>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| is_due(w.since));
        self.waiting = others;
        if !overdue.is_empty() {
            self.fail_overdue(overdue, &timeout(call), now);
        }
        if self.list_awaited().is_some_and(is_due) {
            self.go_on_without_list(&timeout(call), now);
        }
        self.steer(session);
        Ok(())
    }

    /// An answer that subscriptions wait for is overdue.
    fn fail_overdue(&mut self, overdue: Vec<Waiting>, error: &Error, now: Instant) {
        if !self.is_synced() {
            return self.fail(overdue, error);
        }
        // The source is reachable, and only a registration is late: subscriptions with `wait` go on
        // waiting.
        for waiting in overdue {
            if waiting.subscriber.options.wait {
                self.waiting.push(Waiting { since: now, ..waiting });
            } else {
                answer(waiting.ready, Err(error.clone()));
            }
        }
    }

    /// The list is overdue: held events and later ones are delivered inside the gap.
    fn go_on_without_list(&mut self, error: &Error, now: Instant) {
        // The gap comes first: what follows is not merged with a list, and may contradict what
        // streams know.
        self.begin_outage(error.to_fault());
        // Taken out before the stage changes: in `Overdue` the buffer collects all events again,
        // for the late merge.
        let (held, missed) = self.buffer.take_events();
        let levels = self.buffer.take_levels();
        self.enter(Stage::Overdue);
        let mut held: Vec<_> = held.into();
        self.observe(&mut held, now);
        for (domain, level) in levels {
            self.level(domain, level, &mut held);
        }
        self.deliver(&mut held);
        let missed = self.fanout.missed(missed);
        self.lagged(missed);
        // The next read is received later.
        self.batch.forget_time();
    }
}
