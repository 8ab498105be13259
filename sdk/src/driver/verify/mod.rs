//! What is believed is compared with what the hypervisor says, now and then and wherever there is doubt.
//!
//! Hypervisors end runs without a word: a start that fails at its end, a guest that dies while its daemon
//! restarts. Between two outages nothing else would ever show it.
//!
//! ```text
//!            interval                                      agrees
//!  Settled ───────────▶ list of all ──┬──────────────────────────────────▶ Settled
//!     │                               │ differs                    ▲
//!     │ doubt: 2 s, 4 s, 8 s ...      ▼                            │ agrees, or corrected
//!     └─────────▶ look at it ──▶ differs ── 2 s ──▶ look at it again
//! ```
//!
//! A reply and events may overtake each other, so one reply proves nothing: what two replies in a row say
//! is believed, if no event of the domain came from the sending of the first request to the second reply.
//! Where a session is ordered, one reply is enough.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::Entry;
use super::hosts::{ByKey, Key};
use crate::Domain;

/// How long after a doubt, or after a reply that differs from what is believed, to look.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Between two questions: whatever a session answers, they never come in a loop.
const PAUSE: Duration = Duration::from_millis(100);

/// As many domains are asked for one by one; for more a list costs less.
const FEW: usize = 4;

/// Of more doubts no account is kept one by one: all domains are listed.
const MANY: usize = 4096;

/// Of how many domains it is kept when their last event came.
const TOUCHED: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Verifier {
    interval: Option<Duration>,
    random: fastrand::Rng,
    /// When all domains are to be listed again.
    next: Option<Instant>,
    doubts: ByKey<Doubt>,
    /// Counts events, to say whether one came before or after a request.
    clock: u64,
    /// When the last event of a domain came, since there has been anything to verify.
    touched: ByKey<u64>,
    /// Of domains that are not in `touched`: no event came after this.
    floor: u64,
    /// A question is under way.
    is_asking: bool,
    /// No doubt is due earlier.
    earliest: Option<Instant>,
    /// The next question waits for that, whatever is due.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Doubt {
    domain: Domain,
    due: Instant,
    /// How long to wait after the next look that settles nothing.
    wait: Duration,
    /// What the last reply said that differs from what is believed.
    first: Option<Reply>,
}

/// What a reply said of a domain; `None`: it does not exist.
#[derive(Clone, Debug)]
struct Reply {
    found: Option<Entry>,
    /// When the request was sent.
    asked: u64,
}

/// What to ask next.
#[derive(Debug)]
pub(super) enum Question {
    All,
    One(Key, Domain),
}

/// What a reply means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// What is believed is true, or it is not settled yet.
    Nothing,
    /// What is believed is wrong for certain.
    Wrong,
}

impl Verifier {
    pub(super) fn new(interval: Option<Duration>, seed: Option<u64>) -> Self {
        let random = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            interval,
            random,
            next: None,
            doubts: HashMap::default(),
            clock: 0,
            touched: HashMap::default(),
            floor: 0,
            is_asking: false,
            earliest: None,
            not_before: None,
        }
    }

    /// All domains were listed just now.
    pub(super) fn listed_all(&mut self, now: Instant) {
        // The watchers of a host do not all ask at once.
        let jitter = 0.9 + 0.2 * self.random.f64();
        self.next = self.interval.and_then(|interval| now.checked_add(interval.mul_f64(jitter)));
    }

    /// There is nothing to verify: no connection, or nothing believed.
    pub(super) fn stop(&mut self) {
        self.next = None;
        self.doubts.clear();
        self.touched.clear();
        self.is_asking = false;
        self.earliest = None;
    }

    /// All domains are doubted: they are listed soon.
    pub(super) fn doubt_all(&mut self, now: Instant) {
        if self.interval.is_some() {
            let soon = now + FIRST_LOOK;
            self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        }
    }

    /// A domain is doubted: it is looked at soon. A domain that is doubted already stays as it is.
    pub(super) fn doubt(&mut self, key: Key, domain: &Domain, now: Instant) {
        if self.interval.is_none() {
            return;
        }
        if self.doubts.len() >= MANY {
            return self.doubt_all(now);
        }
        let due = now + FIRST_LOOK;
        self.doubts.entry(key).or_insert_with(|| Doubt {
            domain: domain.clone(),
            due,
            wait: FIRST_LOOK * 2,
            first: None,
        });
        self.is_due(due);
    }

    /// What was doubted has come true.
    pub(super) fn trust(&mut self, key: Key) {
        self.doubts.remove(&key);
    }

    /// Whether events have to be noted down.
    pub(super) fn is_busy(&self) -> bool {
        self.is_asking || !self.doubts.is_empty()
    }

    /// An event of the domain came.
    pub(super) fn touch(&mut self, key: Key) {
        self.clock += 1;
        if self.touched.len() >= TOUCHED {
            // As if an event of every domain had come: what was asked before proves nothing.
            self.touched.clear();
            self.floor = self.clock;
        }
        self.touched.insert(key, self.clock);
    }

    /// A question is sent now. What comes from now on may or may not be in its reply.
    pub(super) fn ask(&mut self, now: Instant) -> u64 {
        self.is_asking = true;
        self.not_before = now.checked_add(PAUSE);
        self.clock
    }

    /// When to ask next.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.earliest.into_iter().chain(self.next).min()?;
        Some(self.not_before.map_or(due, |not_before| not_before.max(due)))
    }

    /// What to ask now, of a session that can or cannot look at a single domain.
    pub(super) fn question(&mut self, now: Instant, can_look: bool) -> Option<Question> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.earliest = self.doubts.values().map(|doubt| doubt.due).min();
        let all_due = self.next.is_some_and(|next| next <= now);
        let due = self.doubts.iter().filter(|(_, doubt)| doubt.due <= now);
        let mut due = due.take(FEW + 1);
        let Some((key, doubt)) = due.next() else { return all_due.then_some(Question::All) };
        if all_due || !can_look || due.count() >= FEW {
            return Some(Question::All);
        }
        Some(Question::One(*key, doubt.domain.clone()))
    }

    /// A list is compared. Doubts that were due and that it did not answer: of domains that are neither listed
    /// nor believed to exist nothing is left to doubt, others (out of reach now) are looked at later.
    pub(super) fn compared_all(&mut self, now: Instant, exists: impl Fn(Key) -> bool) {
        let unanswered = self.doubts.iter().filter(|(_, doubt)| doubt.due <= now);
        let unanswered: Vec<Key> = unanswered.map(|(key, _)| *key).collect();
        for key in unanswered {
            match exists(key) {
                true => self.put_off(key, now),
                false => self.trust(key),
            }
        }
        self.listed_all(now);
    }

    /// A look failed: the next one comes later.
    pub(super) fn failed(&mut self, key: Key, now: Instant) {
        if let Some(doubt) = self.doubts.get_mut(&key) {
            doubt.first = None;
            self.put_off(key, now);
        }
    }

    /// A list failed: the next one, and the looks that were due, come later.
    pub(super) fn all_failed(&mut self, now: Instant) {
        self.listed_all(now);
        let due = self.doubts.iter().filter(|(_, doubt)| doubt.due <= now);
        let due: Vec<Key> = due.map(|(key, _)| *key).collect();
        due.into_iter().for_each(|key| self.failed(key, now));
    }

    fn put_off(&mut self, key: Key, now: Instant) {
        let most = self.interval.unwrap_or(Duration::MAX);
        if let Some(doubt) = self.doubts.get_mut(&key) {
            let due = now + doubt.wait;
            doubt.due = due;
            doubt.wait = (doubt.wait * 2).min(most.max(FIRST_LOOK));
            self.is_due(due);
        }
    }

    fn is_due(&mut self, due: Instant) {
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
    }

    /// A reply says how a domain is. `is_open` says that its start is still under way.
    pub(super) fn reply(
        &mut self,
        key: Key,
        reply: &ReplyOf<'_>,
        is_ordered: bool,
        now: Instant,
    ) -> Finding {
        let ReplyOf { believed, found, asked, is_open } = *reply;
        let agrees = match (believed, found) {
            (Some(believed), Some(found)) => believed.agrees(found) && !believed.unannounced,
            (None, None) => true,
            _ => false,
        };
        if agrees {
            match is_open {
                true if self.doubts.contains_key(&key) => self.put_off(key, now),
                true => self.open(key, reply, now),
                false => self.trust(key),
            }
            return Finding::Nothing;
        }
        let last_event = self.touched.get(&key).copied().unwrap_or(self.floor);
        let first = self.doubts.get(&key).and_then(|doubt| doubt.first.as_ref());
        let confirms = first
            .is_some_and(|first| last_event <= first.asked && says_the_same(&first.found, found));
        if is_ordered || confirms {
            self.trust(key);
            if is_open {
                self.open(key, reply, now);
            }
            return Finding::Wrong;
        }
        self.open(key, reply, now);
        let is_untouched = last_event <= asked;
        if let Some(doubt) = self.doubts.get_mut(&key) {
            doubt.first = is_untouched.then(|| Reply { found: found.cloned(), asked });
            doubt.due = now + FIRST_LOOK;
            self.is_due(now + FIRST_LOOK);
        }
        if !is_untouched {
            self.put_off(key, now);
        }
        Finding::Nothing
    }

    fn open(&mut self, key: Key, reply: &ReplyOf<'_>, now: Instant) {
        if let Some(entry) = reply.found.or(reply.believed) {
            self.doubt(key, &entry.domain, now);
        }
    }

    /// The question is answered. When nothing is doubted any more, events need not be noted down.
    pub(super) fn answered(&mut self) {
        self.is_asking = false;
        let doubts = &self.doubts;
        self.touched.retain(|key, _| doubts.contains_key(key));
    }
}

/// What a reply says of a domain, beside what is believed of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyOf<'a> {
    pub(super) believed: Option<&'a Entry>,
    pub(super) found: Option<&'a Entry>,
    /// When the question was sent.
    pub(super) asked: u64,
    /// Its start is still under way.
    pub(super) is_open: bool,
}

fn says_the_same(one: &Option<Entry>, other: Option<&Entry>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.agrees(other),
        (None, None) => true,
        _ => false,
    }
}
