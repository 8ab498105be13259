//! What one subscriber was delivered: what it believes, and whether the story is possible.

use std::collections::BTreeMap;

use virevent::{
    Change, DomainEvent, Gap, GapKind, Lifecycle, StartCause, State, UndefineCause, Uuid,
};

use crate::server::{Truth, host, uuid};
use crate::steps::Sort;

/// What a subscriber believes.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// By host and uuid.
    domains: BTreeMap<(String, Uuid), Known>,
    /// There was an outage: events during it may not know whether their domain persists.
    had_gap: bool,
    /// It is not delivered all that exists.
    is_partial: bool,
    /// It was delivered of everything, so that a domain that it does not know does not exist.
    is_whole: bool,
    /// Events, markers and existing domains not counted, and those that it missed.
    pub(crate) counted: u64,
    pub(crate) lagged: bool,
    tail: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    name: String,
    persistent: Option<bool>,
    run: Option<u32>,
    state: State,
    /// A run was resumed whose start was not delivered: it must follow.
    unannounced: bool,
    /// Events were missed: what is next need not follow from what is known.
    vague: bool,
}

impl Story {
    pub(crate) fn of(sort: Sort) -> Self {
        // A full mailbox drops what exists without a gap, where what follows says as much.
        let is_partial = matches!(sort, Sort::Changes | Sort::Slow);
        Self { is_partial, ..Self::default() }
    }

    /// Takes in an event.
    ///
    /// # Errors
    /// The event cannot follow what came before.
    pub(crate) fn hear(&mut self, event: &DomainEvent) -> Result<(), String> {
        self.tail.push(event.to_string());
        self.counted += u64::from(event.is_happening());
        match event {
            DomainEvent::Lifecycle(event) => {
                self.lifecycle(event).map_err(|wrong| format!("{wrong}: {:#?}", self.tail))
            }
            DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, reset, .. }, .. }) => {
                self.counted += missed;
                self.lagged = true;
                self.domains.values_mut().for_each(|known| known.vague = true);
                self.is_whole = false;
                if *reset {
                    self.domains.clear();
                }
                Ok(())
            }
            DomainEvent::Gap(_) => {
                self.had_gap = true;
                Ok(())
            }
            DomainEvent::Synced(_) => {
                self.is_whole = !self.lagged && !self.is_partial;
                let open = self.domains.values().any(|known| known.unannounced && !known.vague);
                match open {
                    true => Err(format!("synced in the midst of a start: {:#?}", self.tail)),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn lifecycle(&mut self, event: &Lifecycle) -> Result<(), String> {
        let id = event.domain.id();
        let key = (event.domain.host().to_owned(), event.domain.uuid());
        let known = self.domains.get(&key).cloned();
        let is_vague = known.as_ref().map_or(!self.is_whole, |known| known.vague);
        let run = known.as_ref().and_then(|known| known.run);
        let unannounced = known.as_ref().is_some_and(|known| known.unannounced);
        let wrong = |what: &str| if is_vague { Ok(()) } else { Err(format!("{what}: {event:?}")) };
        let begins = matches!(event.change, Change::Started(cause) if cause != StartCause::Wakeup);
        if unannounced && !begins {
            wrong("something else than the start that is due")?;
        }
        let mut next = known.clone().unwrap_or(Known {
            name: String::new(),
            persistent: None,
            run: None,
            state: State::NoState,
            unannounced: false,
            vague: false,
        });
        next.name = event.domain.name().to_owned();
        next.persistent = event.persistent.or(next.persistent);
        next.unannounced = false;
        next.vague = false;
        match event.change {
            Change::Existing(state) => {
                next.run = id;
                next.state = state;
            }
            Change::Defined(_) => {
                if event.persistent != Some(true) {
                    return Err(format!("defined and not persistent: {event:?}"));
                }
                next.vague = is_vague;
            }
            Change::Undefined(cause) => {
                if known.is_none() {
                    wrong("undefined, and unknown")?;
                }
                if cause != UndefineCause::Renamed && id != run {
                    wrong("undefined in another run than it is in")?;
                }
                next.vague = is_vague;
            }
            Change::Stopped(_) => {
                if run.is_none() || run != id {
                    wrong("stopped, and not running")?;
                }
                next.run = None;
                next.state = State::after(event.change).unwrap();
            }
            change => {
                if begins && run.is_some() && !unannounced {
                    wrong("started twice")?;
                }
                let is_first = matches!(change, Change::Resumed(_)) && run.is_none();
                if !begins && !is_first && (run.is_none() || run != id) {
                    wrong("of a run that is not there")?;
                }
                next.unannounced = is_first && !is_vague;
                // A start may follow, or not: who knows.
                next.vague = is_first && is_vague;
                next.run = id;
                next.state = State::after(change).unwrap_or(next.state);
            }
        }
        if event.is_gone() {
            self.domains.remove(&key);
        } else {
            self.domains.insert(key, next);
        }
        Ok(())
    }

    /// That what is believed is true.
    ///
    /// # Errors
    /// What is believed wrongly.
    pub(crate) fn check(&self, truth: &[Truth]) -> Result<(), String> {
        let mut believed = self.domains.clone();
        for domain in truth.iter().filter(|truth| truth.exists()) {
            let Some(known) =
                believed.remove(&(host(domain.number).to_owned(), uuid(domain.number)))
            else {
                return Err(format!("{domain:?} is not known: {:#?}", self.tail));
            };
            let agrees = known.run == domain.run
                && (domain.run.is_none() || known.state.is_same(domain.state))
                && known.persistent.map_or(self.had_gap, |known| known == domain.persistent)
                && known.name == domain.name;
            if !agrees {
                return Err(format!("{domain:?} is believed to be {known:?}: {:#?}", self.tail));
            }
        }
        match believed.values().next() {
            Some(ghost) => Err(format!("{ghost:?} does not exist: {:#?}", self.tail)),
            None => Ok(()),
        }
    }

    /// The same for one domain.
    ///
    /// # Errors
    /// What is believed wrongly.
    pub(crate) fn check_one(&self, truth: &Truth) -> Result<(), String> {
        self.check(std::slice::from_ref(truth))
    }
}
