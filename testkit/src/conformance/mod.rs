//! Checks that every source must pass, as tests that any backend can run.
//!
//! Write a [`Rig`]: how to get a source, how to start and stop a domain behind it, and the other
//! operations that your hypervisor supports. Then, in a test:
//!
//! ```
//! use std::sync::Arc;
//! use virevent::EventSource;
//! use virevent_testkit::conformance::Rig;
//! use virevent_testkit::{Failure, FakeHypervisor};
//!
//! struct MyRig(FakeHypervisor);
//!
//! #[async_trait::async_trait]
//! impl Rig for MyRig {
//!     fn source(&self) -> Arc<dyn EventSource> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     async fn start(&self, name: &str) -> Result<(), Failure> {
//!         self.0.create(name).map(drop).map_err(Failure::new)
//!     }
//!
//!     async fn stop(&self, name: &str) -> Result<(), Failure> {
//!         self.0.stop(name).map(drop).map_err(Failure::new)
//!     }
//! }
//!
//! // One #[test] for each check; each makes a rig of its own.
//! virevent_testkit::conformance_tests!(MyRig(FakeHypervisor::new()));
//! # fn main() {}
//! ```
//!
//! The expression may `.await`. An attribute before it applies to each test (`#[ignore = "needs
//! libvirtd"]`); `paused,` before it runs them on tokio's paused time. The host may have other
//! domains: each check looks at its own only.
//!
//! A check of an operation that the rig does not support fails, unless it is ignored with a reason,
//! which is then in the report:
//!
//! ```
//! # use std::sync::Arc;
//! # use virevent::EventSource;
//! # use virevent_testkit::conformance::Rig;
//! # use virevent_testkit::{Failure, FakeHypervisor};
//! # struct MyRig;
//! # #[async_trait::async_trait]
//! # impl Rig for MyRig {
//! #     fn source(&self) -> Arc<dyn EventSource> { Arc::new(FakeHypervisor::new()) }
//! #     async fn start(&self, _: &str) -> Result<(), Failure> { Ok(()) }
//! #     async fn stop(&self, _: &str) -> Result<(), Failure> { Ok(()) }
//! # }
//! virevent_testkit::conformance_tests!(
//!     ignore = [
//!         "xenstored does not report pauses":
//!             a_pause_and_a_resume_are_delivered
//!             a_paused_domain_is_listed_as_paused,
//!         "there are no definitions": a_definition_and_its_removal_are_delivered,
//!     ],
//!     MyRig
//! );
//! # fn main() {}
//! ```

mod cancel;
mod lag;
mod life;
#[macro_use]
mod macros;
mod outage;
mod rig;
mod states;
mod subscriber;
mod truth;

pub use self::cancel::{
    a_shutdown_ends_the_stream_after_buffered_events, close_returns_once_deregistered,
    dropping_one_stream_keeps_the_other, dropping_the_stream_deregisters,
    nothing_is_delivered_after_close,
};
pub use self::lag::a_slow_subscriber_gets_lagged_and_the_final_state;
pub use self::life::{
    a_definition_and_its_removal_are_delivered, a_domain_filter_passes_only_its_domain,
    a_new_run_has_a_new_id, a_new_stream_lists_the_domains_then_synced,
    a_pause_and_a_resume_are_delivered, a_start_and_a_stop_are_delivered_in_order_once,
    two_subscribers_get_the_same_events,
};
pub use self::outage::{
    a_restart_in_an_outage_is_a_stop_and_a_start,
    an_outage_is_a_gap_then_inferred_events_then_synced,
    first_subscribe_to_an_unreachable_source_fails_without_wait,
    subscribing_in_an_outage_opens_with_disconnected, unreachable_is_never_stopped,
};
pub use self::rig::Rig;
pub use self::states::{
    a_pause_in_an_outage_is_delivered_once_and_listed, a_paused_domain_is_listed_as_paused,
    an_outage_does_not_change_a_paused_domain,
};
use self::subscriber::{Subscriber, expect, last_domain};
pub use self::truth::{
    a_definition_persists_until_it_is_removed, a_silent_end_is_corrected_by_verification,
    a_table_folded_from_events_equals_the_list,
    every_lifecycle_event_says_whether_its_domain_persists,
};
use crate::Failure;

macro_rules! run_all {
    ($make:ident $report:ident $($check:ident)+) => {
        $( $report.push((stringify!($check), $check(&$make().await).await)); )+
    };
}

/// A check that was skipped, since its rig does not support an operation.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The check.
    pub check: &'static str,
    /// The operation that is not supported.
    pub reason: String,
}

/// Runs every check, each on a rig of its own, and returns those that were skipped.
///
/// # Errors
/// The failures of the checks, one a line.
///
/// # Cancel safety
/// Dropping the future leaves the domains of the current check as they are.
pub async fn all<R: Rig>(make: impl AsyncFn() -> R) -> Result<Vec<Skipped>, Failure> {
    // All checks run, also after a failure: the report has every failure at once.
    let mut report: Vec<(&str, Result<(), Failure>)> = Vec::new();
    __conformance_checks!(run_all, make report);
    let mut skipped = Vec::new();
    let mut failed = Vec::new();
    for (check, outcome) in report {
        match outcome {
            Ok(()) => {}
            Err(failure) if failure.is_unsupported() => {
                skipped.push(Skipped { check, reason: failure.to_string() });
            }
            Err(failure) => failed.push(format!("{check}: {failure}")),
        }
    }
    if failed.is_empty() { Ok(skipped) } else { Err(Failure::new(failed.join("\n"))) }
}

/// The outcome of a test: a skipped check fails, since it must not be reported as ok.
#[doc(hidden)]
pub fn must_be_supported(outcome: Result<(), Failure>) -> Result<(), Failure> {
    outcome.map_err(|failure| match failure.is_unsupported() {
        true => Failure::new(format!(
            "the check was skipped: {failure}. Name it in `ignore = [\"the reason\": ...]`"
        )),
        false => failure,
    })
}

/// The outcome of an ignored test that is run: the check must be unsupported.
#[doc(hidden)]
pub fn must_be_unsupported(outcome: Result<(), Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.is_unsupported() => Ok(()),
        Err(failure) => Err(failure),
        Ok(()) => Err(Failure::new("the check is ignored but supported: remove it from `ignore`")),
    }
}
