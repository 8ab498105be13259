//! What the session answers: registrations, lists, looks at single domains.

use std::time::SystemTime;

use tokio::time::Instant;

use super::{Blocking, Core};
use crate::driver::inference::Inference;
use crate::driver::observe::is_half_started;
use crate::driver::reconcile::{confirmed, merge, merge_late};
use crate::driver::roster::{ByKey, Entry, Key};
use crate::driver::session::Session;
use crate::driver::verify::{Finding, ReplyOf};
use crate::driver::{Listed, answer};
use crate::{End, Error, Kind, Kinds, Origin, Status};

impl Core {
    pub(super) fn interest_done<S: Session>(
        &mut self,
        session: &mut S,
        tag: u64,
        refused: Vec<Kind>,
    ) -> Result<(), Error> {
        // The answer to an earlier question is of no use.
        let Some((_, mut interest)) =
            self.calls.interest.take_if(|(pending, _)| pending.tag == tag)
        else {
            return Ok(());
        };
        if refused.contains(&Kind::Lifecycle) {
            // All that is known of the domains rests on it.
            return Err(self.unsupported(Kind::Lifecycle));
        }
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
        self.facts.update(|capabilities| {
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
        let failed: Vec<_> =
            self.fanout.iter().filter_map(|s| Some((s.id, s.misses(refused)?))).collect();
        for (id, kind) in failed {
            if let Some(subscriber) = self.fanout.remove(id) {
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
        let Some((_, question)) = self
            .calls
            .blocking
            .take_if(|(pending, blocking)| pending.tag == tag && is_answer(blocking))
        else {
            return;
        };
        self.list_answered();
        match question {
            _ if self.calls.is_stale => {}
            Blocking::Verify { asked } if self.synced.is_some() => {
                self.verify(session, list, asked, now);
            }
            // More happened meanwhile than can be told apart from the list: ask again.
            Blocking::Sync if self.buffer.is_stale() => self.buffer.give_up(),
            Blocking::Sync if self.synced.is_none() => self.sync(list, now),
            _ => {}
        }
        self.steer(session);
    }

    /// # Errors
    /// The list was to make the domains known: nothing is without it.
    pub(super) fn list_failed<S: Session>(
        &mut self,
        session: &mut S,
        tag: u64,
        error: Error,
        now: Instant,
    ) -> Result<(), Error> {
        let Some((_, question)) = self.calls.blocking.take_if(|(pending, _)| pending.tag == tag)
        else {
            return Ok(());
        };
        self.list_answered();
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
        let is_known = self.fanout.knows();
        let roster = &mut self.batch.roster;
        let merged = match self.is_overdue {
            true => merge_late(roster, list, &mut self.buffer, &self.scopes, at),
            false => merge(roster, list, &mut self.buffer, &self.scopes, is_known, at),
        };
        self.verifier.answered();
        self.verifier.listed_all(now);
        for (key, domain) in &merged.doubted {
            self.verifier.doubt(*key, domain, now);
        }
        self.synced = Some(now);
        self.is_overdue = false;
        self.calls.list_since = None;
        self.set_verified(at);
        let told = if is_known { merged.difference.len() } else { 0 };
        let seen = if self.fanout.is_empty() { 0 } else { merged.observed.len() };
        self.facts.add(|facts| &facts.events, (told + seen) as u64);
        let missed = self.fanout.synced_with(&merged, &self.batch.roster, &self.scopes, at);
        self.lagged(missed);
        if self.outage.take().is_some() {
            self.facts.add(|facts| &facts.reconnects, 1);
        }
        tracing::info!(source = %self.source, domains = merged.listed.len(), "synced");
        self.set_status(Status::Synced);
        self.admit();
    }

    /// A list to compare with what is believed.
    fn verify<S: Session>(&mut self, session: &S, list: Vec<Listed>, asked: u64, now: Instant) {
        let at = self.batch.received();
        let mut inference = Inference::new(Origin::Inferred, at);
        for (key, listed) in self.compared(list) {
            self.compare(session, key, listed, asked, now, &mut inference);
        }
        let roster = &self.batch.roster;
        self.verifier.compared_all(now, |key| roster.get(key).is_some());
        self.verifier.answered();
        self.set_verified(at);
        self.tell(&mut inference.events);
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
        let Some((_, Blocking::Look { key, asked })) = self
            .calls
            .blocking
            .take_if(|(pending, blocking)| pending.tag == tag && is_answer(blocking))
        else {
            return;
        };
        self.list_answered();
        if self.synced.is_some() && !self.calls.is_stale {
            match found {
                Ok(found) => {
                    let mut inference = Inference::new(Origin::Inferred, self.batch.received());
                    let listed = found.map(Entry::listed);
                    self.compare(session, key, listed, asked, now, &mut inference);
                    self.tell(&mut inference.events);
                }
                Err(()) => self.verifier.failed(key, now),
            }
        }
        self.verifier.answered();
        self.steer(session);
    }

    /// Every domain that is listed or believed to exist, with what the list says of it: first those that it
    /// does not have, then the others, each by name. Of what is out of reach a list says nothing.
    fn compared(&mut self, list: Vec<Listed>) -> Vec<(Key, Option<Entry>)> {
        let roster = &mut self.batch.roster;
        let mut listed: ByKey<Entry> = ByKey::default();
        for entry in list {
            let key = roster.key(&entry.domain);
            listed.entry(key).or_insert_with(|| Entry::listed(entry));
        }
        let unreachable = &self.scopes;
        let mut compared: Vec<(Key, Option<Entry>)> = roster
            .keys()
            .filter(|key| !listed.contains_key(key))
            .filter(|key| roster.get(*key).is_some_and(|e| !unreachable.contains(&e.domain)))
            .map(|key| (key, None))
            .collect();
        compared.sort_by(|(one, _), (other, _)| {
            let name = |key: &Key| roster.get(*key).map(|entry| entry.domain.name());
            name(one).cmp(&name(other))
        });
        let mut entries: Vec<_> = listed.into_iter().collect();
        entries.sort_by(|(_, one), (_, other)| one.domain.name().cmp(other.domain.name()));
        compared.extend(entries.into_iter().map(|(key, entry)| (key, Some(entry))));
        compared
    }

    /// Compares what a reply says of a domain with what is believed, and corrects that when it is wrong for
    /// certain.
    fn compare<S: Session>(
        &mut self,
        session: &S,
        key: Key,
        listed: Option<Entry>,
        asked: u64,
        now: Instant,
        inference: &mut Inference,
    ) {
        let roster = &mut self.batch.roster;
        let believed = roster.get(key);
        let is_open = is_open(listed.as_ref());
        let found = listed.and_then(|listed| confirmed(believed, listed));
        let reply = ReplyOf { believed, found: found.as_ref(), asked, is_open };
        match self.verifier.reply(key, &reply, session.is_ordered(), now) {
            // A list may know what no event said.
            Finding::Nothing => {
                let persistent = found.and_then(|found| found.persistent);
                if let Some(entry) = roster.get_mut(key).filter(|e| e.persistent.is_none()) {
                    entry.persistent = persistent;
                }
            }
            Finding::Wrong => {
                let found = found.map(|found| Entry { from_list: false, ..found });
                inference.correct(roster, key, found);
                self.facts.add(|facts| &facts.corrected, 1);
                tracing::warn!(source = %self.source, "corrected what was believed of a domain");
            }
        }
    }

    fn set_verified(&self, at: SystemTime) {
        self.facts.set_details(|details| details.verified = Some(at));
    }
}

/// Whether the start of a run is under way that may still fail without a word.
fn is_open(listed: Option<&Entry>) -> bool {
    listed.is_some_and(|entry| entry.domain.is_active() && is_half_started(entry.state))
}
