//! What a reader of a stream believes.

use std::collections::BTreeMap;

use virevent::driver::Listed;
use virevent::{Break, Change, Domain, DomainEvent, Gap, State, Uuid};

use super::Failure;

/// What a reader of a stream believes, folded from its events: to be compared with the truth.
///
/// ```
/// # use virevent_testkit::{FakeHypervisor, assert::{Fold, until_synced}};
/// # use virevent::{EventSource, Options};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let fake = FakeHypervisor::new();
/// # fake.create("web").unwrap();
/// # let mut events = fake.subscribe_with(Options::default()).await.unwrap();
/// let mut fold = Fold::default();
/// fold.extend(&until_synced(&mut events).await.unwrap());
/// fold.check(&fake.domains()).unwrap();
/// # });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    active: BTreeMap<Uuid, Run>,
}

/// A run of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The domain, with the id of the run.
    pub domain: Domain,
    /// The state that the events led to.
    pub state: State,
}

impl Fold {
    /// Takes note of an event.
    pub fn apply(&mut self, event: &DomainEvent) {
        if let DomainEvent::Gap(Gap { kind: Break::Lagged { anew: true, .. }, .. }) = event {
            self.active.clear();
        }
        let Some(lifecycle) = event.lifecycle() else { return };
        let domain = &lifecycle.domain;
        match lifecycle.change {
            Change::Stopped(_) | Change::Existing(State::Shutoff(_)) => {
                self.active.remove(&domain.uuid());
            }
            Change::Existing(_) if !domain.is_active() => {
                self.active.remove(&domain.uuid());
            }
            change => {
                let (Some(state), true) = (State::after(change), domain.is_active()) else {
                    return;
                };
                self.active.insert(domain.uuid(), Run { domain: domain.clone(), state });
            }
        }
    }

    /// Takes note of these events.
    pub fn extend<'a>(&mut self, events: impl IntoIterator<Item = &'a DomainEvent>) {
        events.into_iter().for_each(|event| self.apply(event));
    }

    /// The active domains, by uuid.
    pub fn active(&self) -> &BTreeMap<Uuid, Run> {
        &self.active
    }

    /// Whether the domain of that name is believed to be active.
    pub fn is_active(&self, name: &str) -> bool {
        self.active.values().any(|run| run.domain.name() == name)
    }

    /// That what is believed is the truth: the same domains are active, in the same runs and states.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, truth: &[Listed]) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        let mut believed = self.active.clone();
        for entry in truth.iter().filter(|entry| entry.domain.is_active()) {
            let (domain, state) = (&entry.domain, entry.state);
            match believed.remove(&domain.uuid()) {
                None => wrong.push(format!("{domain} is {state}, and believed to be inactive")),
                Some(run) if run.domain.id() != domain.id() || !run.state.is_same(state) => {
                    let (known, belief) = (run.domain, run.state);
                    wrong
                        .push(format!("{domain} is {state}, and believed to be {known}, {belief}"));
                }
                Some(_) => {}
            }
        }
        for run in believed.values() {
            wrong.push(format!("{} is inactive, and believed to be {}", run.domain, run.state));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::new(wrong.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use virevent::Scope;

    use super::*;
    use crate::Host;

    #[test]
    fn a_fold_of_all_that_was_said_is_the_truth_and_a_missed_event_is_found_out() {
        let host = Host::default();
        let mut observer = host.observe();
        host.define("web").unwrap();
        host.create("db").unwrap();
        host.start("web").unwrap();
        host.suspend("web").unwrap();
        host.stop("db").unwrap();
        let said: Vec<_> =
            std::iter::from_fn(|| observer.try_next()).map(|said| said.event).collect();
        let mut fold = Fold::default();
        fold.extend(&said);
        fold.check(&host.domains()).unwrap();

        let mut hasty = Fold::default();
        hasty.extend(&said[..said.len() - 1]);
        let failure = hasty.check(&host.domains()).unwrap_err().to_string();
        assert_eq!(failure, "db[1] is inactive, and believed to be running (booted)");
    }

    #[test]
    fn what_was_believed_is_forgotten_when_all_is_told_anew() {
        let host = Host::default();
        let mut observer = host.observe();
        host.create("web").unwrap();
        let mut fold = Fold::default();
        fold.apply(&observer.try_next().unwrap().event);
        assert!(fold.is_active("web"));
        for (anew, believed) in [(false, true), (true, false)] {
            let lagged = Break::Lagged { missed: 1, anew };
            fold.apply(&Gap::new(Scope::source_wide("fake:"), lagged).into());
            assert_eq!(fold.is_active("web"), believed);
        }
    }
}
