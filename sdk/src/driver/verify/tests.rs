//! Tests of the verifier: doubts, replies and the times of the next calls.

use uuid::Uuid;

use super::*;
use crate::domain::Host;
use crate::driver::roster::Roster;
use crate::{PausedReason, RunningReason, State};

const RUNNING: State = State::Running(RunningReason::Booted);
const PAUSED: State = State::Paused(PausedReason::User);
const INTERVAL: Duration = Duration::from_secs(60);

fn domain(number: u128) -> Domain {
    Domain::new("s:", "h", Uuid::from_u128(number), "web", Some(3))
}

fn key(number: u128) -> Key {
    Roster::new(Host::new("s:".into(), "h".into())).key(&domain(number))
}

fn entry(state: State) -> Entry {
    Entry::seen(domain(1), state, Some(true))
}

/// A verifier of a source that was just listed, and when that was.
fn listed() -> (Verifier, Instant) {
    let mut verifier = Verifier::new(Some(INTERVAL), Some(1));
    let now = Instant::now();
    verifier.listed_all(now);
    (verifier, now)
}

fn doubt(verifier: &mut Verifier, number: u128, now: Instant) {
    verifier.doubt(key(number), &domain(number), now);
}

/// Makes a call, and gets the reply `found` for domain 1, which is believed to run.
fn reply(verifier: &mut Verifier, found: Option<&Entry>, is_open: bool, now: Instant) -> Finding {
    let believed = entry(RUNNING);
    let asked = verifier.ask(now);
    let reply = ReplyOf { believed: Some(&believed), found, asked, is_open };
    let finding = verifier.reply(key(1), &reply, false, now);
    verifier.answered();
    finding
}

fn lists_all(verifier: &mut Verifier, now: Instant, can_look: bool) -> bool {
    match verifier.question(now, can_look) {
        Some(Question::All) => true,
        Some(Question::One(..)) => false,
        None => panic!("nothing is due"),
    }
}

#[test]
fn nothing_is_due_after_a_stop() {
    let (mut verifier, now) = listed();
    doubt(&mut verifier, 1, now);
    verifier.ask(now);
    verifier.touch(key(1));
    verifier.stop();
    assert_eq!(verifier.due(), None);
    assert!(!verifier.is_busy());
    assert!(verifier.question(now + INTERVAL * 2, true).is_none());
    assert!(verifier.touched.is_empty());
}

#[test]
fn a_doubt_of_all_lists_soon_and_never_later() {
    let (mut verifier, now) = listed();
    assert!(verifier.due().unwrap() > now + INTERVAL / 2);
    verifier.doubt_all(now);
    assert_eq!(verifier.due(), Some(now + FIRST_LOOK));
    verifier.doubt_all(now + FIRST_LOOK / 2);
    assert_eq!(verifier.due(), Some(now + FIRST_LOOK));
    let mut never = Verifier::new(None, Some(1));
    never.doubt_all(now);
    doubt(&mut never, 1, now);
    assert_eq!(never.due(), None);
}

#[test]
fn events_are_counted_during_a_call_or_a_doubt() {
    let (mut verifier, now) = listed();
    assert!(!verifier.is_busy());
    verifier.ask(now);
    assert!(verifier.is_busy());
    verifier.answered();
    assert!(!verifier.is_busy());
    doubt(&mut verifier, 1, now);
    assert!(verifier.is_busy());
    verifier.trust(key(1));
    assert!(!verifier.is_busy());
}

#[test]
fn more_than_four_doubts_are_asked_for_at_once() {
    let (mut verifier, now) = listed();
    (0..4).for_each(|number| doubt(&mut verifier, number, now));
    let due = now + FIRST_LOOK;
    assert!(verifier.question(now, true).is_none(), "it is not due yet");
    assert!(!lists_all(&mut verifier, due, true));
    assert!(lists_all(&mut verifier, due, false), "the session cannot look");
    doubt(&mut verifier, 4, now);
    assert!(lists_all(&mut verifier, due, true));
}

#[test]
fn a_doubt_is_part_of_a_list_that_is_due() {
    let (mut verifier, now) = listed();
    doubt(&mut verifier, 1, now);
    assert!(!lists_all(&mut verifier, now + FIRST_LOOK, true));
    assert!(lists_all(&mut verifier, now + INTERVAL * 2, true));
}

#[test]
fn an_unknown_domain_that_is_missing_is_settled() {
    let (mut verifier, now) = listed();
    doubt(&mut verifier, 1, now);
    let asked = verifier.ask(now);
    let reply = ReplyOf { believed: None, found: None, asked, is_open: false };
    assert_eq!(verifier.reply(key(1), &reply, false, now), Finding::Nothing);
    assert!(verifier.doubts.is_empty());
}

#[test]
fn a_start_that_is_seen_under_way_is_doubted() {
    let (mut verifier, now) = listed();
    assert_eq!(reply(&mut verifier, Some(&entry(RUNNING)), true, now), Finding::Nothing);
    assert_eq!(verifier.due(), Some(now + FIRST_LOOK));
    // Each look that settles nothing doubles the wait.
    assert_eq!(reply(&mut verifier, Some(&entry(RUNNING)), true, now), Finding::Nothing);
    assert_eq!(verifier.doubts[&key(1)].due, now + FIRST_LOOK * 2);
    assert_eq!(reply(&mut verifier, Some(&entry(RUNNING)), false, now), Finding::Nothing);
    assert!(verifier.doubts.is_empty());
}

#[test]
fn two_replies_that_differ_from_each_other_prove_nothing() {
    let (mut verifier, now) = listed();
    assert_eq!(reply(&mut verifier, Some(&entry(PAUSED)), false, now), Finding::Nothing);
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Nothing);
    let asleep = entry(State::PmSuspended);
    assert_eq!(reply(&mut verifier, Some(&asleep), false, now), Finding::Nothing);
    assert_eq!(reply(&mut verifier, Some(&asleep), false, now), Finding::Wrong);
    assert!(verifier.doubts.is_empty());
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Nothing);
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Wrong);
}

#[test]
fn an_event_between_two_replies_makes_the_second_the_first() {
    let (mut verifier, now) = listed();
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Nothing);
    verifier.touch(key(2));
    verifier.touch(key(3));
    assert_eq!(
        reply(&mut verifier, None, false, now),
        Finding::Wrong,
        "the events were of other domains"
    );
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Nothing);
    verifier.touch(key(1));
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Nothing);
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Wrong);
}

#[test]
fn a_reply_that_differs_is_asked_for_again_two_seconds_later() {
    let (mut verifier, now) = listed();
    doubt(&mut verifier, 1, now);
    let later = now + INTERVAL / 4;
    verifier.failed(key(1), later);
    assert_eq!(verifier.doubts[&key(1)].due, later + FIRST_LOOK * 2);
    assert_eq!(reply(&mut verifier, None, false, later), Finding::Nothing);
    assert_eq!(verifier.doubts[&key(1)].due, later + FIRST_LOOK);
    assert!(verifier.question(later + MIN_PAUSE, true).is_none());
    assert_eq!(verifier.due(), Some(later + FIRST_LOOK));
    verifier.touch(key(1));
    let asked = 0;
    let believed = entry(RUNNING);
    let reply = ReplyOf { believed: Some(&believed), found: None, asked, is_open: false };
    assert_eq!(verifier.reply(key(1), &reply, false, later), Finding::Nothing);
    assert_eq!(verifier.doubts[&key(1)].due, later + FIRST_LOOK * 4, "an event came after it");
}

#[test]
fn too_many_doubts_become_a_list_of_all() {
    let (mut verifier, now) = listed();
    (0..=MAX_DOUBTS as u128).for_each(|number| doubt(&mut verifier, number, now));
    assert_eq!(verifier.doubts.len(), MAX_DOUBTS);
    assert_eq!(verifier.next, Some(now + FIRST_LOOK));
}

#[test]
fn too_many_events_count_for_every_domain() {
    let (mut verifier, now) = listed();
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Nothing);
    (2..=MAX_TOUCHED as u128 + 2).for_each(|number| verifier.touch(key_of(number)));
    assert!(verifier.touched.len() <= MAX_TOUCHED);
    assert_eq!(reply(&mut verifier, None, false, now), Finding::Nothing);
}

/// Many keys at little cost.
fn key_of(number: u128) -> Key {
    thread_local! {
        static ROSTER: std::cell::RefCell<Roster> =
            std::cell::RefCell::new(Roster::new(Host::new("s:".into(), "h".into())));
    }
    let domain = domain(number);
    ROSTER.with_borrow_mut(|roster| roster.key(&domain))
}
