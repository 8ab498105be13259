//! What every source must do, as tests that any backend can run.
//!
//! Write a [`Rig`]: how to get a source, how to start and stop a domain behind it, and as much more
//! as your hypervisor can do. Then, in a test:
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
//! The expression may `.await`. An attribute before it goes to each test (`#[ignore = "needs libvirtd"]`);
//! `paused,` before it runs them on tokio's paused time. The rest of the host may be busy: each check
//! looks at its own domains only.
//!
//! A check that needs what the rig cannot do fails, unless it is ignored with a reason, which the
//! report then has:
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
//!         "a store knows no pauses":
//!             a_pause_and_a_resume_are_told
//!             a_list_has_paused_domains_as_paused,
//!         "nothing is ever defined": a_definition_and_its_removal_are_told,
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
mod states;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use virevent::{Domain, DomainEvent, EventSource, EventStream, Options};

pub use self::cancel::{
    a_shutdown_ends_the_stream_after_what_was_told, close_returns_once_deregistered,
    dropping_one_of_two_streams_leaves_the_other_alone, dropping_the_stream_deregisters,
    nothing_is_told_after_close,
};
pub use self::lag::a_slow_subscriber_gets_lagged_and_the_final_state;
pub use self::life::{
    a_definition_and_its_removal_are_told, a_domain_filter_passes_only_its_domain,
    a_new_run_has_a_new_id, a_new_stream_tells_what_exists_and_then_synced,
    a_pause_and_a_resume_are_told, a_start_and_a_stop_are_told_in_order_once,
    two_subscribers_get_the_same_events,
};
pub use self::outage::{
    a_first_subscription_to_a_source_out_of_reach_fails_unless_it_asks_to_wait,
    a_restart_in_an_outage_is_a_stop_and_a_start, an_outage_is_a_gap_then_inferred_then_synced,
    subscribing_in_an_outage_opens_with_disconnected, unreachable_is_never_stopped,
};
pub use self::states::{
    a_list_has_paused_domains_as_paused, a_pause_in_an_outage_is_delivered_and_then_listed,
    a_paused_domain_is_the_same_after_an_outage,
};
pub use self::truth::{
    a_definition_persists_until_it_is_removed, a_silent_end_is_corrected_by_verification,
    a_table_folded_from_events_equals_the_list,
    every_lifecycle_event_says_whether_its_domain_persists,
};
use crate::Failure;
use crate::assert::next_within;

/// A source and what is behind it, as the checks need it. Each check gets a fresh one.
///
/// What is not supported is an error made with [`Failure::unsupported`], as the methods with a
/// default body do.
#[async_trait]
pub trait Rig: Send + Sync {
    /// A source, fresh each time: nobody is subscribed to it yet.
    fn source(&self) -> Arc<dyn EventSource>;

    /// Starts the domain of this name; makes it if there is none.
    ///
    /// # Errors
    /// It could not be done.
    async fn start(&self, name: &str) -> Result<(), Failure>;

    /// Ends the domain's run by force.
    ///
    /// # Errors
    /// It could not be done.
    async fn stop(&self, name: &str) -> Result<(), Failure>;

    /// Pauses a running domain.
    ///
    /// # Errors
    /// It could not be done.
    async fn suspend(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("suspend a domain"))
    }

    /// Resumes a paused domain.
    ///
    /// # Errors
    /// It could not be done.
    async fn resume(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("resume a domain"))
    }

    /// Stores the configuration of a domain that there is not.
    ///
    /// # Errors
    /// It could not be done.
    async fn define(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("define a domain"))
    }

    /// Removes the configuration of an inactive domain.
    ///
    /// # Errors
    /// It could not be done.
    async fn undefine(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("undefine a domain"))
    }

    /// Takes the source's connection away and lets it make none until [`heal`](Rig::heal). Domains
    /// can be started and stopped meanwhile.
    ///
    /// # Errors
    /// It could not be done.
    async fn break_connection(&self) -> Result<(), Failure> {
        Err(Failure::unsupported("break the connection"))
    }

    /// Lets connections be made again.
    ///
    /// # Errors
    /// It could not be done.
    async fn heal(&self) -> Result<(), Failure> {
        Err(Failure::unsupported("heal the connection"))
    }

    /// How many registrations for events there are at the hypervisor now.
    ///
    /// # Errors
    /// It cannot be known.
    async fn registrations(&self) -> Result<usize, Failure> {
        Err(Failure::unsupported("count registrations"))
    }

    /// Ends the domain's run, and sees to it that no event announces that: by a daemon that keeps it to
    /// itself, or by an event that is dropped on its way.
    ///
    /// # Errors
    /// It could not be done.
    async fn stop_silently(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("end a run without an event"))
    }

    /// How often the source verifies what it believes. Default: 60 s, as that of the driver.
    fn verification(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Whether the backend looks for silent ends by itself, beside the driver's verification. It then finds
    /// out some of them first and reports them as observed. Default: false, so that each must be inferred.
    fn observes_silent_ends(&self) -> bool {
        false
    }

    /// How long an event may take from its cause to the subscriber. Default: 10 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// After how much silence nothing more is to be expected. Default: 300 ms.
    fn silence(&self) -> Duration {
        Duration::from_millis(300)
    }
}

macro_rules! run_all {
    ($make:ident $report:ident $($check:ident)+) => {
        $( $report.push((stringify!($check), $check(&$make().await).await)); )+
    };
}

/// A check that was not made, for its rig cannot do what it needs.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The check.
    pub check: &'static str,
    /// What cannot be done.
    pub reason: String,
}

/// Runs every check, each on a rig of its own; returns those that were skipped.
///
/// # Errors
/// The checks that failed, with what was expected and what came.
///
/// # Cancel safety
/// Dropped midway it leaves the domains of the check under way as they are.
pub async fn all<R: Rig>(make: impl AsyncFn() -> R) -> Result<Vec<Skipped>, Failure> {
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

/// A check that could not be made must not pass for one that succeeded.
#[doc(hidden)]
pub fn must_be_supported(outcome: Result<(), Failure>) -> Result<(), Failure> {
    outcome.map_err(|failure| match failure.is_unsupported() {
        true => Failure::new(format!(
            "the check was not made: {failure}. Name it in `ignore = [\"the reason\": ...]`"
        )),
        false => failure,
    })
}

/// A check that is ignored must be one that cannot be made.
#[doc(hidden)]
pub fn must_be_unsupported(outcome: Result<(), Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.is_unsupported() => Ok(()),
        Err(failure) => Err(failure),
        Ok(()) => Err(Failure::new("the check is ignored, and it can be made: do not ignore it")),
    }
}

/// A stream with the patience of its rig.
struct Told {
    stream: EventStream,
    patience: Duration,
    silence: Duration,
}

impl Told {
    async fn by(
        rig: &dyn Rig,
        source: &dyn EventSource,
        options: Options,
    ) -> Result<Self, Failure> {
        let stream = source
            .subscribe_with(options)
            .await
            .map_err(|error| Failure::new(format!("cannot subscribe: {}", error.to_line())))?;
        Ok(Self { stream, patience: rig.patience(), silence: rig.silence() })
    }

    async fn next(&mut self) -> Result<DomainEvent, Failure> {
        next_within(&mut self.stream, self.patience).await
    }

    /// What comes about the domain of this name, until one is the last that is wanted.
    async fn until(
        &mut self,
        name: &str,
        what: &str,
        mut last: impl FnMut(&DomainEvent) -> bool,
    ) -> Result<Vec<DomainEvent>, Failure> {
        let mut story = Vec::new();
        loop {
            let event = self.next().await.map_err(|failure| {
                Failure::new(format!("expected {what}, but {failure}; {}", came(&story)))
            })?;
            let end = last(&event);
            if end || event.domain().is_some_and(|domain| domain.name() == name) {
                story.push(event);
            }
            if end {
                return Ok(story);
            }
        }
    }

    /// What comes about the domain of this name until Synced, which is the last.
    async fn until_synced(&mut self, name: &str) -> Result<Vec<DomainEvent>, Failure> {
        self.until(name, "synced", |event| matches!(event, DomainEvent::Synced(_))).await
    }

    /// That nothing comes about the domain of this name.
    async fn nothing_about(&mut self, name: &str) -> Result<(), Failure> {
        while let Ok(event) = next_within(&mut self.stream, self.silence).await {
            if event.domain().is_some_and(|domain| domain.name() == name) {
                return Err(Failure::new(format!(
                    "expected nothing about {name}, but got: {event}"
                )));
            }
        }
        Ok(())
    }
}

fn came(story: &[DomainEvent]) -> String {
    match story {
        [] => "nothing came before".into(),
        story => {
            let lines: Vec<_> = story.iter().map(ToString::to_string).collect();
            format!("before came: {}", lines.join("; "))
        }
    }
}

fn expect(holds: bool, expected: &str, story: &[DomainEvent]) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(format!("expected {expected}; {}", came(story)))) }
}

/// The domain of the last event that has one.
fn last_domain(story: &[DomainEvent]) -> Option<&Domain> {
    story.iter().rev().find_map(DomainEvent::domain)
}
