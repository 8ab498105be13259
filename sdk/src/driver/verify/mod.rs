//! Verification: compares what is believed with what the hypervisor says, at intervals and after
//! doubts.
//!
//! Hypervisors end runs without an event: a start that fails at its end, a guest that dies while
//! its daemon restarts. Between two outages nothing else would ever show that.
//!
//! ```text
//!            interval                                      agrees
//!  Settled ───────────▶ list of all ──┬──────────────────────────────────▶ Settled
//!     │                               │ differs                    ▲
//!     │ doubt: 2 s, 4 s, 8 s ...      ▼                            │ agrees, or corrected
//!     └─────────▶ look at it ──▶ differs ── 2 s ──▶ look at it again
//! ```
//!
//! A reply and events may overtake each other, so one reply proves nothing. The driver believes
//! what two replies in a row say, if no event of the domain arrived between the first request and
//! the second reply. For an ordered session one reply is enough.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::Entry;
use super::hosts::{ByKey, Key};
use crate::Domain;

/// How long after a doubt, or a reply that differs from what is believed, the driver looks.
// Long enough for the events of a change that is under way: most starts complete in that time, and
// settle the doubt themselves.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// The shortest time between two calls, so that no answer of a session makes them a busy loop.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// The number of domains that are looked at one by one; for more, a list costs less.
const MAX_LOOKS: usize = 4;

/// The number of doubts that are kept one by one; beyond it all domains are listed.
// A doubt holds a domain and a reply, so their number is a bound on memory; a list of all costs the
// server less, too.
const MAX_DOUBTS: usize = 4096;

/// The number of domains of which the time of the last event is kept.
const MAX_TOUCHED: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Verifier {
    interval: Option<Duration>,
    random: fastrand::Rng,
    /// When to list all domains again.
    next: Option<Instant>,
    doubts: ByKey<Doubt>,
    /// Counts events, so that an event is known to be before or after a request.
    clock: u64,
    /// The count at the last event of each domain, while something is to be verified.
    touched: ByKey<u64>,
    /// The upper limit of that count for domains that are not in `touched`.
    floor: u64,
    /// A call is under way.
    is_asking: bool,
    /// The time of the earliest doubt, or before it.
    earliest: Option<Instant>,
    /// The next call waits until then, whatever is due.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Doubt {
    domain: Domain,
    due: Instant,
    /// How long to wait after the next look that resolves nothing.
    wait: Duration,
    /// The last reply, if it differed from what is believed.
    first: Option<Reply>,
}

/// A reply about a domain; `found` is `None` where it does not exist.
#[derive(Clone, Debug)]
struct Reply {
    found: Option<Entry>,
    /// The count of events when the call was made.
    asked: u64,
}

/// The next call.
#[derive(Debug)]
pub(super) enum Question {
    All,
    One(Key, Domain),
}

/// What a reply means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// What is believed is right, or not resolved yet.
    Nothing,
    /// What is believed is certainly wrong.
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
        // Jitter, so that the clients of a host do not all list at once.
        let jitter = 0.9 + 0.2 * self.random.f64();
        self.next = self.interval.and_then(|interval| now.checked_add(interval.mul_f64(jitter)));
    }

    /// There is nothing to verify: no connection, or no subscriber.
    pub(super) fn stop(&mut self) {
        self.next = None;
        // The clock goes on: a mark of a former connection must not look newer than an event of
        // this one.
        self.doubts.clear();
        self.touched.clear();
        self.is_asking = false;
        self.earliest = None;
    }

    /// Doubts all domains: the driver lists them soon.
    pub(super) fn doubt_all(&mut self, now: Instant) {
        if self.interval.is_some() {
            let soon = now + FIRST_LOOK;
            self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        }
    }

    /// Doubts a domain: the driver looks at it soon. An earlier doubt stays as it is.
    pub(super) fn doubt(&mut self, key: Key, domain: &Domain, now: Instant) {
        if self.interval.is_none() {
            return;
        }
        if self.doubts.len() >= MAX_DOUBTS {
            return self.doubt_all(now);
        }
        let due = now + FIRST_LOOK;
        // Starting over would ask for a domain every 2 s that each of its events puts in doubt.
        self.doubts.entry(key).or_insert_with(|| Doubt {
            domain: domain.clone(),
            due,
            wait: FIRST_LOOK * 2,
            first: None,
        });
        self.is_due(due);
    }

    /// Ends the doubt about a domain.
    pub(super) fn trust(&mut self, key: Key) {
        self.doubts.remove(&key);
    }

    /// Whether [`touch`](Self::touch) must be called for events.
    pub(super) fn is_busy(&self) -> bool {
        self.is_asking || !self.doubts.is_empty()
    }

    /// An event of the domain arrived.
    pub(super) fn touch(&mut self, key: Key) {
        self.clock += 1;
        if self.touched.len() >= MAX_TOUCHED {
            // As if an event of every domain had arrived: replies to earlier calls prove nothing.
            self.touched.clear();
            self.floor = self.clock;
        }
        self.touched.insert(key, self.clock);
    }

    /// A call is made now. Its reply may or may not contain the events that arrive from now on.
    pub(super) fn ask(&mut self, now: Instant) -> u64 {
        self.is_asking = true;
        self.not_before = now.checked_add(MIN_PAUSE);
        self.clock
    }

    /// When to make the next call.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.earliest.into_iter().chain(self.next).min()?;
        Some(self.not_before.map_or(due, |not_before| not_before.max(due)))
    }

    /// The call to make now. `can_look`: the session can look at a single domain.
    pub(super) fn question(&mut self, now: Instant, can_look: bool) -> Option<Question> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        // `trust` leaves the time of a doubt that it ended, so it is computed again where it
        // matters.
        self.earliest = self.doubts.values().map(|doubt| doubt.due).min();
        let all_due = self.next.is_some_and(|next| next <= now);
        let due = self.doubts.iter().filter(|(_, doubt)| doubt.due <= now);
        let mut due = due.take(MAX_LOOKS + 1);
        let Some((key, doubt)) = due.next() else { return all_due.then_some(Question::All) };
        // A list answers every doubt that is due, with one call.
        if all_due || !can_look || due.count() >= MAX_LOOKS {
            return Some(Question::All);
        }
        Some(Question::One(*key, doubt.domain.clone()))
    }

    /// A list was compared. Of the doubts that were due and that it did not resolve, those about
    /// domains that no longer exist end; the others (the domain is unreachable now) are put off.
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

    /// A look failed; the next one comes later.
    pub(super) fn failed(&mut self, key: Key, now: Instant) {
        if let Some(doubt) = self.doubts.get_mut(&key) {
            doubt.first = None;
            self.put_off(key, now);
        }
    }

    /// A list failed; the next one, and the looks that were due, come later.
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

    /// Compares a reply with what is believed.
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
                // A start that is under way agrees with itself at every look: each look doubles the
                // wait.
                true if self.doubts.contains_key(&key) => self.put_off(key, now),
                true => self.open(key, reply, now),
                false => self.trust(key),
            }
            return Finding::Nothing;
        }
        let last_event = self.touched.get(&key).copied().unwrap_or(self.floor);
        let first = self.doubts.get(&key).and_then(|doubt| doubt.first.as_ref());
        // No event since the first of the two requests: neither reply can be older than what is
        // believed.
        let confirms = first
            .is_some_and(|first| last_event <= first.asked && replies_agree(&first.found, found));
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
            // An event came after the request, so the reply may be older than it: it proves
            // nothing, and does not count as the first of two.
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

    /// The call was answered. Only events of doubted domains matter from now on.
    pub(super) fn answered(&mut self) {
        self.is_asking = false;
        let doubts = &self.doubts;
        self.touched.retain(|key, _| doubts.contains_key(key));
    }
}

/// A reply about a domain, beside what is believed of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyOf<'a> {
    pub(super) believed: Option<&'a Entry>,
    pub(super) found: Option<&'a Entry>,
    /// The count of events when the call was made.
    pub(super) asked: u64,
    /// The start of its run is under way.
    pub(super) is_open: bool,
}

fn replies_agree(one: &Option<Entry>, other: Option<&Entry>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.agrees(other),
        (None, None) => true,
        _ => false,
    }
}
