//! The events of one subscriber: the table that they fold into, and whether their order is
//! possible.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use virevent::{
    Change, Changed, DomainEvent, DomainStore, Gap, GapKind, Lifecycle, StartCause, State,
    StoredDomain, UndefineCause, Uuid,
};

use crate::server::{Truth, host, uuid};
use crate::steps::SubscriberKind;

/// The table of one subscriber, and what it may conclude from it.
#[derive(Debug)]
pub(crate) struct EventHistory {
    /// By host and uuid.
    domains: BTreeMap<(String, Uuid), Known>,
    /// There was an outage: events during it may lack the domain's persistence.
    had_outage: bool,
    /// The subscriber does not get all domains that exist.
    is_partial: bool,
    /// The subscriber knows every domain: one that is not in the table does not exist.
    is_whole: bool,
    /// The number of events, delivered or missed, without markers and existing domains.
    pub(crate) counted: u64,
    pub(crate) lagged: bool,
    log: Vec<String>,
    store: DomainStore,
    changed: Changed,
    /// The table that the store's transitions lead to.
    mirror: BTreeMap<(String, Uuid), Arc<StoredDomain>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    name: String,
    persistent: Option<bool>,
    run: Option<u32>,
    state: State,
    /// A resume showed the run before its start, which must follow.
    awaits_start: bool,
    /// Events were missed: the next event need not follow from what is known.
    is_uncertain: bool,
}

impl EventHistory {
    pub(crate) fn of(kind: SubscriberKind) -> Self {
        // Compaction may drop an `Existing` without a gap, where a later event says as much.
        let is_partial = matches!(kind, SubscriberKind::Changes | SubscriberKind::Slow);
        let store = DomainStore::new();
        Self {
            domains: BTreeMap::new(),
            had_outage: false,
            is_partial,
            is_whole: false,
            counted: 0,
            lagged: false,
            log: Vec::new(),
            changed: store.changed(),
            store,
            mirror: BTreeMap::new(),
        }
    }

    /// Applies an event to the table.
    ///
    /// # Errors
    /// The event cannot follow what came before.
    pub(crate) fn apply(&mut self, event: &DomainEvent) -> Result<(), String> {
        self.log.push(event.to_string());
        self.counted += u64::from(event.is_happening());
        self.store.apply(event);
        match event {
            DomainEvent::Lifecycle(event) => {
                self.lifecycle(event).map_err(|wrong| format!("{wrong}: {:#?}", self.log))
            }
            DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, reset, .. }, .. }) => {
                self.counted += missed;
                self.lagged = true;
                // The missed events may have changed any domain.
                self.domains.values_mut().for_each(|known| known.is_uncertain = true);
                self.is_whole = false;
                // Everything that exists follows, so what was known is dropped.
                if *reset {
                    self.domains.clear();
                }
                Ok(())
            }
            DomainEvent::Gap(_) => {
                self.had_outage = true;
                Ok(())
            }
            DomainEvent::Synced(_) => {
                self.is_whole = !self.lagged && !self.is_partial;
                let open =
                    self.domains.values().any(|known| known.awaits_start && !known.is_uncertain);
                match open {
                    true => Err(format!("synced between a resume and its start: {:#?}", self.log)),
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
        let was_uncertain = known.as_ref().map_or(!self.is_whole, |known| known.is_uncertain);
        let run = known.as_ref().and_then(|known| known.run);
        let awaits_start = known.as_ref().is_some_and(|known| known.awaits_start);
        let wrong =
            |what: &str| if was_uncertain { Ok(()) } else { Err(format!("{what}: {event:?}")) };
        // A wakeup goes on with a run.
        let begins = matches!(event.change, Change::Started(cause) if cause != StartCause::Wakeup);
        if awaits_start && !begins {
            wrong("another event than the start that is due")?;
        }
        let mut next = known.clone().unwrap_or(Known {
            name: String::new(),
            persistent: None,
            run: None,
            state: State::NoState,
            awaits_start: false,
            is_uncertain: false,
        });
        next.name = event.domain.name().to_owned();
        next.persistent = event.persistent.or(next.persistent);
        next.awaits_start = false;
        next.is_uncertain = false;
        match event.change {
            Change::Existing(state) => {
                next.run = id;
                next.state = state;
            }
            Change::Defined(_) => {
                if event.persistent != Some(true) {
                    return Err(format!("defined and not persistent: {event:?}"));
                }
                next.is_uncertain = was_uncertain;
            }
            Change::Undefined(cause) => {
                if known.is_none() {
                    wrong("undefined, and unknown")?;
                }
                if cause != UndefineCause::Renamed && id != run {
                    wrong("undefined in another run than the known one")?;
                }
                next.is_uncertain = was_uncertain;
            }
            Change::Stopped(_) => {
                if run.is_none() || run != id {
                    wrong("stopped, and not running")?;
                }
                next.run = None;
                next.state = State::after(event.change).unwrap();
            }
            change => {
                if begins && run.is_some() && !awaits_start {
                    wrong("started twice")?;
                }
                let is_first = matches!(change, Change::Resumed(_)) && run.is_none();
                if !begins && !is_first && (run.is_none() || run != id) {
                    wrong("an event of an unknown run")?;
                }
                next.awaits_start = is_first && !was_uncertain;
                // The start may have been missed, so it may follow or not.
                next.is_uncertain = is_first && was_uncertain;
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

    /// Checks that the store, and the table that its transitions lead to, equal this table.
    fn check_store(&mut self) -> Result<(), String> {
        let key = |stored: &StoredDomain| (stored.domain.host().to_owned(), stored.domain.uuid());
        while let Some(Some(step)) = self.changed.next().now_or_never() {
            let known = match &step.before {
                Some(before) => self.mirror.remove(&key(before)),
                None => None,
            };
            if known != step.before {
                return Err(format!("{step:?} does not follow {known:?}: {:#?}", self.log));
            }
            if let Some(after) = step.after {
                self.mirror.insert(key(&after), after);
            }
        }
        let now = self.store.snapshot();
        let stored: BTreeMap<_, _> =
            now.iter().map(|stored| (key(stored), Arc::clone(stored))).collect();
        if stored != self.mirror {
            let mirror = &self.mirror;
            return Err(format!("{stored:?} by the store, {mirror:?} by its transitions"));
        }
        if !stored.keys().eq(self.domains.keys()) {
            return Err(format!("{stored:?} by the store: {:#?}", self.log));
        }
        for (key, known) in &self.domains {
            let stored = &stored[key];
            let is_same = stored.domain.name() == known.name
                && stored.domain.id() == known.run
                && (known.run.is_none() || stored.state.is_same(known.state))
                && (stored.persistent == known.persistent || known.persistent.is_none());
            if !is_same {
                return Err(format!("{stored:?} by the store, not {known:?}: {:#?}", self.log));
            }
        }
        Ok(())
    }

    /// Compares the table with the hypervisor's domains.
    ///
    /// # Errors
    /// The first difference.
    pub(crate) fn check(&mut self, truth: &[Truth]) -> Result<(), String> {
        self.check_store()?;
        let mut believed = self.domains.clone();
        for domain in truth.iter().filter(|truth| truth.exists()) {
            let Some(known) =
                believed.remove(&(host(domain.number).to_owned(), uuid(domain.number)))
            else {
                return Err(format!("{domain:?} is not known: {:#?}", self.log));
            };
            let agrees = known.run == domain.run
                && (domain.run.is_none() || known.state.is_same(domain.state))
                && known.persistent.map_or(self.had_outage, |known| known == domain.persistent)
                && known.name == domain.name;
            if !agrees {
                return Err(format!("{domain:?} is believed to be {known:?}: {:#?}", self.log));
            }
        }
        match believed.values().next() {
            Some(ghost) => Err(format!("{ghost:?} does not exist: {:#?}", self.log)),
            None => Ok(()),
        }
    }

    /// The same for one domain.
    ///
    /// # Errors
    /// The difference.
    pub(crate) fn check_one(&mut self, truth: &Truth) -> Result<(), String> {
        self.check(std::slice::from_ref(truth))
    }
}
