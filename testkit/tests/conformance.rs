//! The fake hypervisor passes the conformance suite, and wrong rigs fail it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use virevent::driver::Listed;
use virevent::{EventSource, RunningReason, State};
use virevent_testkit::conformance::{self, Rig};
use virevent_testkit::{Failure, FakeHypervisor, OpError};

/// A rig on the fake hypervisor, with all operations or only some.
struct FakeRig {
    fake: FakeHypervisor,
    supports: Supports,
}

/// The operations that a rig supports.
#[derive(Clone, Copy, PartialEq)]
enum Supports {
    Everything,
    /// Everything but definitions, as a level-triggered hypervisor.
    Runs,
    /// Only what every rig must support.
    Required,
    /// What is required, and silent ends, which the backend observes.
    ObservedEnds {
        declared: bool,
    },
    /// Nothing: starts and stops succeed without doing anything.
    Nothing,
}

impl FakeRig {
    fn new() -> Self {
        Self::with(Supports::Everything)
    }

    fn with(supports: Supports) -> Self {
        Self { fake: FakeHypervisor::new(), supports }
    }

    fn level_triggered() -> Self {
        let fake = FakeHypervisor::builder().level_triggered().build();
        Self { fake, supports: Supports::Runs }
    }

    /// An optional operation: unsupported unless the rig supports one of these.
    fn optional<T>(
        &self,
        supports: &[Supports],
        operation: &str,
        act: impl FnOnce(&FakeHypervisor) -> Result<T, OpError>,
    ) -> Result<(), Failure> {
        match supports.contains(&self.supports) {
            true => done(act(&self.fake)),
            false => Err(Failure::unsupported(operation)),
        }
    }
}

const RUNS: [Supports; 2] = [Supports::Everything, Supports::Runs];
const DEFINITIONS: [Supports; 1] = [Supports::Everything];

fn done<T>(outcome: Result<T, OpError>) -> Result<(), Failure> {
    outcome.map(drop).map_err(Failure::new)
}

#[async_trait]
impl Rig for FakeRig {
    fn source(&self) -> Arc<dyn EventSource> {
        Arc::new(self.fake.clone())
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        match self.fake.domain(name) {
            _ if self.supports == Supports::Nothing => Ok(()),
            Some(_) => done(self.fake.start(name)),
            None => done(self.fake.create(name)),
        }
    }

    async fn stop(&self, name: &str) -> Result<(), Failure> {
        match self.supports {
            Supports::Nothing => Ok(()),
            _ => done(self.fake.stop(name)),
        }
    }

    async fn suspend(&self, name: &str) -> Result<(), Failure> {
        self.optional(&RUNS, "suspend a domain", |fake| fake.suspend(name))
    }

    async fn resume(&self, name: &str) -> Result<(), Failure> {
        self.optional(&RUNS, "resume a domain", |fake| fake.resume(name))
    }

    async fn define(&self, name: &str) -> Result<(), Failure> {
        self.optional(&DEFINITIONS, "define a domain", |fake| fake.define(name))
    }

    async fn undefine(&self, name: &str) -> Result<(), Failure> {
        self.optional(&DEFINITIONS, "undefine a domain", |fake| fake.undefine(name))
    }

    async fn break_connection(&self) -> Result<(), Failure> {
        self.optional(&RUNS, "break the connection", |fake| {
            fake.go_down();
            Ok(())
        })
    }

    async fn heal(&self) -> Result<(), Failure> {
        self.optional(&RUNS, "heal the connection", |fake| {
            fake.restore();
            Ok(())
        })
    }

    async fn registrations(&self) -> Result<usize, Failure> {
        self.optional(&RUNS, "count registrations", |_| Ok(()))?;
        Ok(self.fake.registered().iter().count())
    }

    async fn stop_silently(&self, name: &str) -> Result<(), Failure> {
        // An observed end has its event after all: that of the backend that has found it.
        if let Supports::ObservedEnds { .. } = self.supports {
            return done(self.fake.stop(name));
        }
        let silently = |fake: &FakeHypervisor| fake.silently(|fake| fake.stop(name));
        self.optional(&RUNS, "end a run without an event", silently)
    }

    fn observes_silent_ends(&self) -> bool {
        self.supports == Supports::ObservedEnds { declared: true }
    }
}

virevent_testkit::conformance_tests!(paused, FakeRig::new());

mod level_triggered {
    use super::*;

    virevent_testkit::conformance_tests!(
        paused,
        ignore = [
            "it has no definitions":
                a_definition_and_its_removal_are_delivered
                a_definition_persists_until_it_is_removed,
        ],
        FakeRig::level_triggered()
    );
}

#[tokio::test(start_paused = true)]
async fn all_runs_every_check() {
    let skipped = conformance::all(async || FakeRig::new()).await.unwrap();
    assert!(skipped.is_empty(), "{skipped:?}");
}

#[tokio::test(start_paused = true)]
async fn all_skips_and_names_unsupported_checks() {
    let skipped = conformance::all(async || FakeRig::with(Supports::Required)).await.unwrap();
    let reason = |check: &str| {
        let skipped = skipped.iter().find(|skipped| skipped.check == check);
        skipped.map(|skipped| skipped.reason.clone())
    };
    let expected = Some("cannot break the connection here".into());
    assert_eq!(reason("unreachable_is_never_stopped"), expected);
    assert_eq!(reason("a_start_and_a_stop_are_delivered_in_order_once"), None);
}

#[test]
fn a_skipped_check_fails_unless_it_is_ignored() {
    let cannot = || Err(Failure::unsupported("suspend a domain"));
    let failure = conformance::must_be_supported(cannot()).unwrap_err();
    assert!(!failure.is_unsupported());
    let expected = "the check was skipped: cannot suspend a domain here. Name it in `ignore = \
        [\"the reason\": ...]`";
    assert_eq!(failure.to_string(), expected);
    conformance::must_be_unsupported(cannot()).unwrap();
    conformance::must_be_unsupported(Ok(())).unwrap_err();
    conformance::must_be_supported(Ok(())).unwrap();
}

/// The checks that fail for a rig whose lists are changed by `falsify`.
async fn failed(falsify: fn(&mut Vec<Listed>)) -> Vec<String> {
    let rig = async || {
        let rig = FakeRig::new();
        rig.fake.falsify_lists(falsify);
        rig
    };
    let failures = conformance::all(rig).await.unwrap_err().to_string();
    let named = |line: &str| Some(line.split_once(": expected ")?.0.to_owned());
    failures.lines().filter_map(named).collect()
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_leaves_paused_domains_out_fails() {
    let failed = failed(|list| list.retain(|entry| !entry.state.is_paused())).await;
    for check in [
        "a_paused_domain_is_listed_as_paused",
        "a_pause_in_an_outage_is_delivered_once_and_listed",
        "an_outage_does_not_change_a_paused_domain",
    ] {
        assert!(failed.iter().any(|failed| failed == check), "{check} is not in {failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_lists_all_as_running_fails() {
    let run = |list: &mut Vec<Listed>| {
        for entry in list.iter_mut().filter(|entry| entry.domain.is_active()) {
            entry.state = State::Running(RunningReason::Unspecified);
        }
    };
    let failed = failed(run).await;
    for check in [
        "a_paused_domain_is_listed_as_paused",
        "a_pause_in_an_outage_is_delivered_once_and_listed",
        "an_outage_does_not_change_a_paused_domain",
    ] {
        assert!(failed.iter().any(|failed| failed == check), "{check} is not in {failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_lists_all_as_persistent_fails() {
    let failed = failed(|list| list.iter_mut().for_each(|entry| entry.persistent = Some(true)));
    let check = "every_lifecycle_event_says_whether_its_domain_persists";
    assert!(failed.await.iter().any(|failed| failed == check));
}

#[tokio::test(start_paused = true)]
async fn an_observed_silent_end_passes_only_where_declared() {
    let check = conformance::a_silent_end_is_corrected_by_verification;
    let rig = |declared| FakeRig::with(Supports::ObservedEnds { declared });
    check(&rig(true)).await.unwrap();
    let failure = check(&rig(false)).await.unwrap_err().to_string();
    assert!(failure.contains("expected web stopped, inferred"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_source_without_events_fails_with_the_expected_event() {
    let failure =
        conformance::all(async || FakeRig::with(Supports::Nothing)).await.unwrap_err().to_string();
    let line = "a_start_and_a_stop_are_delivered_in_order_once: expected web started, but no \
        event came within 10s; no event came before";
    assert!(failure.lines().any(|failed| failed == line), "{failure}");
}
