//! The session's answers: registrations, lists, looks at single domains.

use std::time::SystemTime;

use tokio::time::Instant;

use super::{Blocking, Core, Stage};
use crate::command::answer;
use crate::driver::Listed;
use crate::driver::entry::Entry;
use crate::driver::hosts::Key;
use crate::driver::inference::Inference;
use crate::driver::observe::is_half_started;
use crate::driver::reconcile::{confirmed, merge, merge_late};
use crate::driver::recorder::Call;
use crate::driver::session::Session;
use crate::driver::verify::{Finding, ReplyOf};
use crate::{End, Error, Kind, Kinds, Origin};

impl Core {
    pub(super) fn interest_done<S: Session>(
        &mut self,
        session: &mut S,
        tag: u64,
        refused: Vec<Kind>,
    ) -> Result<(), Error> {
        // The answer to an earlier call is of no use.
        let Some((pending, mut interest)) =
            self.calls.interest.take_if(|(pending, _)| pending.tag == tag)
        else {
            return Ok(());
        };
        self.facts.recorder.answered(Call::Register, pending.since.elapsed());
        if refused.contains(&Kind::Lifecycle) {
            // The driver learns of domains by it.
            return Err(self.unsupported(Kind::Lifecycle));
        }
        // Only what the server has: otherwise `steer` would find the registration incomplete and
        // request the refused kinds for ever.
        refused.iter().for_each(|kind| interest.kinds.remove(kind));
        self.calls.registered = interest;
        if !refused.is_empty() {
            self.refuse(&refused.into_iter().collect());
        }
        self.admit();
        self.steer(session);
        Ok(())
    }

    fn unsupported(&self, kind: Kind) -> Error {
        Error::Unsupported { uri: self.source.to_string(), kind }
    }

    /// The server lacks these kinds: a subscription that named one of them fails.
    fn refuse(&mut self, refused: &Kinds) {
        // Subscriptions without a filter of kinds ask for what the capabilities name, so these
        // change first.
        self.facts.change_capabilities(|capabilities| {
            for kind in refused.iter() {
                capabilities.lacking.insert(kind.clone());
                capabilities.kinds.remove(kind);
            }
        });
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.subscriber.misses(refused) {
                Some(kind) => {
                    answer(waiting.ready, Err(self.unsupported(kind)));
                }
                None => self.waiting.push(waiting),
            }
        }
        let subscribers = &self.fanout.subscribers;
        // A stream that opened in an outage learns only here that the server lacks its kind.
        let failed: Vec<_> =
            subscribers.iter().filter_map(|s| Some((s.id, s.misses(refused)?))).collect();
        for (id, kind) in failed {
            if let Some(subscriber) = self.fanout.subscribers.remove(id) {
                subscriber.mailbox.end(End::Failed(self.unsupported(kind)));
            }
        }
    }

    pub(super) fn listed<S: Session>(
        &mut self,
        session: &mut S,
        tag: u64,
        list: Vec<Listed>,
        now: Instant,
    ) {
        let is_answer = |blocking: &Blocking| !matches!(blocking, Blocking::Look { .. });
        let Some((pending, question)) = self
            .calls
            .blocking
            .take_if(|(pending, blocking)| pending.tag == tag && is_answer(blocking))
        else {
            return;
        };
        self.facts.recorder.answered(Call::List, pending.since.elapsed());
        // Also for a stale reply: it proves that no lock holds up lists any more.
        self.list_answered();
        match question {
            // Requested before the current registration: what happened between the two is in
            // neither the list nor the buffer.
            _ if self.calls.is_stale => {}
            Blocking::Verify { asked } if self.is_synced() => {
                self.verify(session, list, asked, now);
            }
            // The buffer lost events that the merge needs: request another list.
            Blocking::Sync if self.buffer.is_stale() => self.buffer.drop_all(),
            Blocking::Sync if !self.is_synced() => self.sync(list, now),
            _ => {}
        }
        self.steer(session);
    }

    /// # Errors
    /// It was the list that makes the domains known.
    pub(super) fn list_failed<S: Session>(
        &mut self,
        session: &mut S,
        tag: u64,
        error: Error,
        now: Instant,
    ) -> Result<(), Error> {
        let Some((pending, question)) =
            self.calls.blocking.take_if(|(pending, _)| pending.tag == tag)
        else {
            return Ok(());
        };
        self.facts.recorder.answered(Call::List, pending.since.elapsed());
        self.list_answered();
        // Nothing is known without the first list, so its refusal ends the connection. A
        // verification can wait.
        if matches!(question, Blocking::Sync) && !self.calls.is_stale {
            return Err(error);
        }
        tracing::warn!(source = %self.source, %error, "the server refuses a list to verify with");
        self.verifier.all_failed(now);
        self.verifier.answered();
        self.steer(session);
        Ok(())
    }

    fn list_answered(&mut self) {
        self.hung = 0;
        self.list_not_before = None;
    }

    /// The list that makes the domains known.
    fn sync(&mut self, list: Vec<Listed>, now: Instant) {
        let at = self.batch.received();
        // Read before the delivery, after which every stream knows the domains.
        let is_known = self.fanout.has_synced();
        if !self.scopes.is_empty() {
            for domain in self.roster.missing_from(&list) {
                if !self.scopes.contains(&domain) {
                    self.scopes.hide(&domain, |part| self.roster.knows(part));
                }
            }
            self.publish_scopes();
        }
        let roster = &mut self.roster;
        let merged = match self.stage {
            // Streams have been delivered the held events without the list: they must not get them
            // twice.
            Stage::Overdue => merge_late(roster, list, &mut self.buffer, &self.scopes, at),
            _ => merge(roster, list, &mut self.buffer, &self.scopes, is_known, at),
        };
        self.calls.list_since = None;
        self.verifier.answered();
        // The list that synced is as good as a verification: the next one is due an interval later.
        self.verifier.listed_all(now);
        for (key, domain) in &merged.doubted {
            self.verifier.doubt(*key, domain, now);
        }
        self.set_verified(at);
        // The counters say what was delivered: without a stream nothing was.
        let different: &[_] = if is_known { &merged.difference } else { &[] };
        let observed: &[_] = if self.fanout.is_empty() { &[] } else { &merged.observed };
        self.facts.add(|facts| &facts.events, (different.len() + observed.len()) as u64);
        self.facts.recorder.events(different);
        self.facts.recorder.events(observed);
        for known in self.fanout.resuming(&self.roster) {
            self.remember(&known);
        }
        let (missed, inferred) = self.fanout.synced(&merged, &self.roster, &self.scopes, at);
        self.count(&inferred);
        self.lagged(missed);
        if self.outage.take().is_some() {
            self.facts.add(|facts| &facts.reconnects, 1);
        }
        tracing::info!(source = %self.source, domains = merged.listed.len(), "synced");
        self.enter(Stage::Synced { since: now });
        // After the streams that waited for this list: they get the difference, these get the
        // roster that results from it.
        self.admit();
    }

    /// A list to compare with what is believed.
    fn verify<S: Session>(&mut self, session: &S, list: Vec<Listed>, asked: u64, now: Instant) {
        let at = self.batch.received();
        let shown = self.scopes.unhide(|domain| self.roster.knows(domain));
        let mut inference = Inference::new(Origin::Inferred, at);
        let listed = self.roster.by_key(list);
        for (key, listed) in self.roster.compared_with(listed, &self.scopes) {
            self.compare(session, key, listed, asked, now, &mut inference);
        }
        let roster = &self.roster;
        // After the comparison, which resolves doubts: those that are left are put off.
        self.verifier.compared_all(now, |key| roster.get(key).is_some());
        self.verifier.answered();
        self.set_verified(at);
        self.batch.trim(self.roster.len());
        self.deliver(&mut inference.events);
        for scope in &shown {
            self.facts.add(|facts| &facts.reconnects, 1);
            let missed = self.fanout.restored(scope, &self.roster);
            self.lagged(missed);
        }
        self.publish_scopes();
    }

    /// A look at one domain; an error where the server could not say.
    pub(super) fn looked<S: Session>(
        &mut self,
        session: &mut S,
        tag: u64,
        found: Result<Option<Listed>, ()>,
        now: Instant,
    ) {
        let is_answer = |blocking: &Blocking| matches!(blocking, Blocking::Look { .. });
        let Some((pending, Blocking::Look { key, asked })) = self
            .calls
            .blocking
            .take_if(|(pending, blocking)| pending.tag == tag && is_answer(blocking))
        else {
            return;
        };
        self.facts.recorder.answered(Call::Look, pending.since.elapsed());
        self.list_answered();
        if self.is_synced() && !self.calls.is_stale {
            match found {
                Ok(found) => {
                    let mut inference = Inference::new(Origin::Inferred, self.batch.received());
                    let listed = found.map(Entry::listed);
                    self.compare(session, key, listed, asked, now, &mut inference);
                    self.deliver(&mut inference.events);
                }
                Err(()) => self.verifier.failed(key, now),
            }
        }
        self.verifier.answered();
        self.steer(session);
    }

    /// Compares what a reply says of a domain with what is believed, and corrects what is certainly
    /// wrong.
    fn compare<S: Session>(
        &mut self,
        session: &S,
        key: Key,
        listed: Option<Entry>,
        asked: u64,
        now: Instant,
        inference: &mut Inference,
    ) {
        let roster = &mut self.roster;
        let believed = roster.get(key);
        let is_open = is_open(listed.as_ref());
        // A start that is under way may still fail without an event, so its run is not believed
        // yet.
        let found = listed.and_then(|listed| confirmed(believed, listed));
        let reply = ReplyOf { believed, found: found.as_ref(), asked, is_open };
        match self.verifier.reply(key, &reply, session.is_ordered(), now) {
            // A list may show the persistence of a domain, which no event showed.
            Finding::Nothing => {
                let persistent = found.and_then(|found| found.persistent);
                if let Some(entry) = roster.get_mut(key).filter(|e| e.persistent.is_none()) {
                    entry.persistent = persistent;
                }
            }
            Finding::Wrong => {
                // A verification suppresses nothing: an event that says the same later is
                // delivered.
                let found = found.map(|found| Entry { from_list: false, ..found });
                inference.correct(roster, key, found);
                self.facts.add(|facts| &facts.corrected, 1);
                let source = &self.source;
                tracing::warn!(
                    %source,
                    "the hypervisor changed a domain without an event: corrected"
                );
            }
        }
    }

    fn set_verified(&self, at: SystemTime) {
        self.facts.change_details(|details| details.verified = Some(at));
    }
}

/// Whether the start of a run is under way, which may still fail without an event.
fn is_open(listed: Option<&Entry>) -> bool {
    listed.is_some_and(|entry| entry.domain.is_active() && is_half_started(entry.state))
}
