//! The model check: random operations and faults on a hypervisor in memory, with subscribers that
//! come, read, lag and leave. At the end every subscriber's table must equal the hypervisor's.
//!
//! - The table that a subscriber folds from its events equals the hypervisor's once it is synced.
//! - No impossible history: no stop without a start, no second start without a stop between,
//!   nothing of a domain that is gone ([`history`]).
//! - A slow subscriber gets or misses exactly as many events as the fast one of its pair gets.
//! - What is registered is the union of what subscribers want; nothing is delivered after a
//!   stream was dropped.
//! - `counters().corrected` is 0 where nothing changed without an event.
//!
//! ```text
//! VIREVENT_MODEL_CASES=100000 cargo test --release -p virevent --test model
//! VIREVENT_MODEL_SCRIPT=failed.txt cargo test -p virevent --test model replay
//! ```
//!
//! A failure prints its steps, one a line, behind a line with the variant: this text is a script.

#![allow(clippy::unwrap_used, clippy::panic)]

mod history;
mod run;
mod server;
mod steps;

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::run::{Variant, play};
use crate::steps::{Step, script};

/// The number of cases for each variant in CI. VIREVENT_MODEL_CASES sets another.
const CASES: u32 = 600;

fn check(variant: Variant) {
    let cases = std::env::var("VIREVENT_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    // No file of failures: a failure is printed as a script, which outlives changes of the
    // strategy.
    let config =
        Config { cases: cases.unwrap_or(CASES), failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(Step::any(variant), 1..70);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        play(variant, &steps)
            .map_err(|wrong| TestCaseError::fail(format!("{wrong}\n{}", script(variant, &steps))))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn every_subscriber_converges_without_verification() {
    check(Variant { verify: false, silent: false, level: false, lacking: false });
}

#[test]
fn every_subscriber_converges_with_verification() {
    check(Variant { verify: true, silent: false, level: false, lacking: false });
}

#[test]
fn silent_changes_are_found_and_corrected() {
    check(Variant { verify: true, silent: true, level: false, lacking: false });
}

#[test]
fn a_level_triggered_hypervisor_is_followed() {
    check(Variant { verify: false, silent: false, level: true, lacking: false });
}

#[test]
fn silent_changes_of_a_level_triggered_hypervisor_are_found() {
    check(Variant { verify: true, silent: true, level: true, lacking: false });
}

#[test]
fn a_hypervisor_without_reboots_is_followed() {
    check(Variant { verify: true, silent: false, level: false, lacking: true });
}

#[test]
fn replay() {
    let Ok(file) = std::env::var("VIREVENT_MODEL_SCRIPT") else { return };
    let text = std::fs::read_to_string(file).unwrap();
    let (variant, steps) = steps::read(&text);
    if let Err(wrong) = play(variant, &steps) {
        panic!("{wrong}");
    }
}
