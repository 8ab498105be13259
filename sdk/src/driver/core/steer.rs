//! The choice of the next call: a registration, a list, or a look.

use std::time::Duration;

use tokio::time::Instant;

use super::{Blocking, Core, Stage};
use crate::driver::session::{Interest, Session};
use crate::driver::verify::Question;
use crate::{Kind, Kinds};

/// How long the next list waits after a connection was lost twice with a list unanswered. libvirtd
/// keeps a worker for each list that hangs on a locked domain, also when its client has gone.
const LIST_RETRY: Duration = Duration::from_secs(30);

/// The longest such wait.
// libvirtd has 20 workers by default (max_workers): at one abandoned list in five minutes they last
// for more than an hour and a half.
const LIST_RETRY_MOST: Duration = Duration::from_secs(300);

impl Core {
    /// Asks the session for what is still missing to serve the subscribers.
    pub(in crate::driver) fn steer<S: Session>(&mut self, session: &mut S) {
        // One registration at a time. With two under way it would be unknown which kinds the server
        // has confirmed, and since when.
        if self.calls.interest.is_some() {
            return;
        }
        let wanted = self.interest();
        if wanted != self.calls.registered {
            if self.calls.registered.is_empty() {
                // The buffer is of an earlier registration; events between the two are missing in
                // it.
                self.buffer.clear();
            }
            let pending = self.calls.pending();
            // Register first, list later: an event between a list and a later registration would be
            // lost for good.
            session.set_interest(&wanted, pending.tag);
            if wanted.is_empty() {
                self.unsync();
            }
            self.calls.interest = Some((pending, wanted));
            return;
        }
        // What is registered is what is wanted, so nothing of a closed subscription is left at the
        // server.
        self.confirm_closed();
        if wanted.is_empty() {
            return;
        }
        let now = Instant::now();
        if !self.is_synced() && self.scopes.whole().is_none() {
            // Since it is wanted, not since it is requested: a list that has to wait for its turn
            // still has its deadline.
            self.calls.list_since.get_or_insert(now);
            if self.stage == Stage::Idle {
                self.enter(Stage::Syncing);
            }
        }
        // One call that may hang on a domain's lock: libvirtd spends a worker on each, and has 5 to
        // 20.
        if self.calls.blocking.is_some() || self.scopes.whole().is_some() {
            return;
        }
        if self.is_synced() {
            self.ask(session, now);
        } else if self.list_not_before.is_none_or(|not_before| not_before <= now) {
            let pending = self.calls.pending();
            session.request_list(pending.tag);
            self.calls.blocking = Some((pending, Blocking::Sync));
            self.calls.is_stale = false;
        }
    }

    /// Requests the verification that is due.
    fn ask<S: Session>(&mut self, session: &mut S, now: Instant) {
        let Some(question) = self.verifier.question(now, !self.calls.cannot_look) else { return };
        let pending = self.calls.pending();
        if let Question::One(key, domain) = question {
            if session.request_state(&domain, pending.tag) {
                let asked = self.verifier.ask(now);
                self.calls.blocking = Some((pending, Blocking::Look { key, asked }));
                return;
            }
            // The protocol stays as it is while the connection lives: no second try at every doubt.
            self.calls.cannot_look = true;
        }
        session.request_list(pending.tag);
        let asked = self.verifier.ask(now);
        self.calls.blocking = Some((pending, Blocking::Verify { asked }));
    }

    fn interest(&self) -> Interest {
        let possible = self.facts.capabilities().kinds;
        let mut kinds = Kinds::default();
        let waiting = self.waiting.iter().map(|waiting| &waiting.subscriber);
        for subscriber in self.fanout.subscribers.iter().chain(waiting) {
            subscriber.needs(&possible).for_each(|kind| kinds.insert(kind.clone()));
        }
        if self.is_wanted() {
            kinds.insert(Kind::Lifecycle);
        }
        Interest { kinds }
    }
}

/// How long the list waits after so many connections that were lost with a list unanswered. The
/// first of them delays nothing: the cause may have been the connection.
pub(super) fn list_wait(hung: u32) -> Duration {
    match hung.checked_sub(2) {
        None => Duration::ZERO,
        // Eight doublings of 30 s are beyond the limit; an unbounded shift would overflow.
        Some(more) => LIST_RETRY.saturating_mul(1 << more.min(8)).min(LIST_RETRY_MOST),
    }
}
