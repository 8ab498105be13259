//! The rules for one event: what it changes in the roster, and whether it is delivered.
//!
//! Events arrive in the order in which they happened, so each should follow from what is known. One
//! that does not is late (a list already contains it), or an event before it is missing. The rules:
//!
//! - A late event is dropped: a start of a run that is already known, a stop of a run that has
//!   ended, and, once after a list, the first event that only repeats the list.
//! - A missing event is inferred and delivered before the event: the end of the run before, the
//!   start of a run that another event shows first.
//! - Where that leaves a question, the domain is doubted, and the driver looks at it again.
//!
//! The same rules apply to events as they arrive and to events that were held for a list.

#[cfg(test)]
mod tests;

use super::entry::Entry;
use super::hosts::Key;
use super::inference::Inference;
use super::roster::Roster;
use crate::{
    Change, DefineCause, Domain, DomainEvent, Lifecycle, PausedReason, Reboot, ResumeCause,
    RunningReason, ShutoffReason, StartCause, State, StopCause, UndefineCause,
};

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether to deliver it.
    pub(super) deliver: bool,
    pub(super) trust: Trust,
}

/// How an event changes the trust in what is known of its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Unchanged,
    /// The missing start came.
    Restored,
    /// The driver looks at the domain again.
    Doubted,
}

/// The state of a run of which nothing else is known.
const BEGUN: State = State::Running(RunningReason::Unspecified);

const DELIVER: Verdict = Verdict { deliver: true, trust: Trust::Unchanged };
const DROP: Verdict = Verdict { deliver: false, trust: Trust::Unchanged };

impl Verdict {
    fn doubted(self) -> Self {
        Self { trust: Trust::Doubted, ..self }
    }

    fn doubted_if(self, doubted: bool) -> Self {
        if doubted { self.doubted() } else { self }
    }
}

/// Whether a start is under way, which may still fail without an event.
pub(super) fn is_half_started(state: State) -> bool {
    matches!(state, State::Paused(PausedReason::StartingUp | PausedReason::Migration))
}

/// Applies an event to the roster. Inferred events go into `before`. The event itself gets its
/// domain's persistence and, where the hypervisor left it out, the id of the run that ended.
pub(super) fn observe(
    roster: &mut Roster,
    key: Key,
    event: &mut Lifecycle,
    before: &mut Inference,
) -> Verdict {
    let known = match roster.get_mut(key) {
        // Most events: a known run goes on, and nothing is in doubt. One lookup is enough.
        Some(entry) if goes_on(entry, event) => {
            if let Some(state) = State::after(event.change) {
                entry.state = state;
            }
            event.persistent = entry.persistent;
            return DELIVER;
        }
        // A run that an event showed began before its domain was defined or undefined.
        Some(entry) => {
            let is_definition = matches!(event.change, Change::Defined(_) | Change::Undefined(_));
            if is_definition && std::mem::take(&mut entry.unannounced) {
                before.began(&entry.domain, entry.persistent);
            }
            entry.persistent
        }
        None => None,
    };
    let verdict = match event.change {
        Change::Existing(_) | Change::Unknown { .. } => DELIVER,
        Change::Defined(cause) => define(roster, key, event, cause),
        Change::Undefined(cause) => undefine(roster, key, event, cause, before),
        Change::Stopped(cause) => stop(roster, key, event, cause, before),
        change if change.begins_run() => start(roster, key, event, before),
        _ => run_state(roster, key, event, before),
    };
    let entry = roster.get_mut(key);
    event.persistent = match (&entry, event.change) {
        (Some(entry), _) => entry.persistent,
        (None, Change::Undefined(_)) => Some(false),
        (None, _) => known,
    };
    if let Some(entry) = entry {
        entry.from_list = false;
    }
    verdict
}

/// Whether the event belongs to the known run, and neither begins nor ends it.
fn goes_on(entry: &Entry, event: &Lifecycle) -> bool {
    let is_plain = match event.change {
        Change::Suspended(_)
        | Change::Resumed(_)
        | Change::ShuttingDown(_)
        | Change::PmSuspended(_)
        | Change::Crashed(_) => true,
        change => matches!(change, Change::Started(StartCause::Wakeup)),
    };
    is_plain
        && !entry.from_list
        && !entry.unannounced
        && entry.domain.is_active()
        && entry.domain.id() == event.domain.id()
}

/// A guest's reboot may give the run a new id: LXC's id is the process of the container's init.
pub(super) fn reboot(roster: &mut Roster, key: Key, event: &Reboot) {
    let id = event.domain.id();
    // While a list is awaited this may be another run, whose start was missed.
    if id.is_none() || !roster.is_whole || roster.has_ended(key, id) {
        return;
    }
    if let Some(entry) = roster.get_mut(key) {
        if entry.domain.is_active() && entry.domain.id() != id {
            entry.domain = entry.domain.with_id(id);
        }
    }
}

fn start(roster: &mut Roster, key: Key, event: &Lifecycle, before: &mut Inference) -> Verdict {
    // Which run began is not known, so the roster cannot follow: the event is delivered, and a look
    // says the rest.
    let Some(id) = event.domain.id() else { return DELIVER.doubted() };
    let state = State::after(event.change).unwrap_or(BEGUN);
    if let Some(entry) = roster.get_mut(key) {
        if entry.domain.id() == Some(id) {
            // libvirt sends resumed (unpaused) before started (seen on 9.0): this is the start that
            // was due.
            if std::mem::take(&mut entry.unannounced) {
                entry.state = state;
                return Verdict { deliver: true, trust: Trust::Restored };
            }
            // Its start was already delivered; its state may differ by now.
            return DROP.doubted_if(!entry.state.is_same(state));
        }
    }
    // A list showed this run as over. Either the start is late, or the id is in use again: ids
    // start over when libvirtd restarts.
    let is_late = roster.has_ended(key, Some(id));
    begin(roster, key, &event.domain, state, before);
    DELIVER.doubted_if(is_late)
}

/// A run begins; the one that was known before has ended.
fn begin(roster: &mut Roster, key: Key, run: &Domain, state: State, before: &mut Inference) {
    let persistent = match roster.get(key) {
        Some(entry) => {
            if entry.domain.is_active() {
                before.ended(entry, StopCause::Unspecified);
            }
            entry.persistent
        }
        // A domain that runs and was neither listed nor defined is transient.
        None => roster.is_whole.then_some(false),
    };
    // Ids are used again, so a mark of an earlier run with this id would make the new one look
    // over.
    roster.begin_run(key);
    roster.insert(key, Entry::seen(run.clone(), state, persistent));
}

fn stop(
    roster: &mut Roster,
    key: Key,
    event: &mut Lifecycle,
    cause: StopCause,
    before: &mut Inference,
) -> Verdict {
    // libvirt gives no id for a run that was destroyed. Right after a list it may mean the run that
    // the list showed as ended.
    let is_ambiguous = event.domain.id().is_none() && roster.has_ended_any(key);
    // A stop that was inferred already, or of a domain that no stream knows.
    let Some(entry) = roster.get_mut(key) else { return DROP };
    let Some(run) = entry.domain.id() else { return DROP };
    // Of an earlier run: it must not end the current one.
    if event.domain.id().is_some_and(|ended| ended != run) {
        return DROP.doubted();
    }
    if entry.unannounced {
        before.began(&entry.domain, entry.persistent);
    }
    let is_ambiguous = is_ambiguous && entry.from_list;
    event.domain = event.domain.with_id(Some(run));
    let persistent = entry.persistent;
    // Without a definition the domain exists no more: an entry would be a ghost in every list of
    // `Existing`.
    if persistent == Some(false) {
        roster.remove(key);
    } else {
        let state = State::after(event.change).unwrap_or(entry.state);
        *entry = Entry::seen(entry.domain.with_id(None), state, persistent);
    }
    // A migration may have removed the definition without an event (VIR_MIGRATE_UNDEFINE_SOURCE).
    let may_be_gone = cause == StopCause::Migrated && persistent != Some(false);
    DELIVER.doubted_if(is_ambiguous || may_be_gone)
}

/// Any other change of a run: it is paused, resumed, wakes up, crashes.
fn run_state(roster: &mut Roster, key: Key, event: &Lifecycle, before: &mut Inference) -> Verdict {
    let after = State::after(event.change);
    let known = roster.get(key).and_then(|entry| entry.domain.id());
    let (run, same_run) = match (event.domain.id(), known) {
        (Some(id), known) => (id, Some(id) == known),
        (None, Some(known)) => (known, true),
        // Neither the event nor the roster names a run.
        (None, None) => return DROP.doubted(),
    };
    if same_run {
        let Some(entry) = roster.get_mut(key) else { return DROP };
        let repeats = |state: State| entry.from_list && state.is_same(entry.state);
        // Once after a list: the event may be older than it. A second one is a new change.
        if after.is_some_and(repeats) {
            return DROP;
        }
        if std::mem::take(&mut entry.unannounced) {
            before.began(&entry.domain, entry.persistent);
        }
        entry.state = after.unwrap_or(entry.state);
        return DELIVER;
    }
    // Late, and of a run that streams know to have ended: delivered, it would bring the run back.
    if roster.has_ended(key, Some(run)) {
        return DROP.doubted();
    }
    let run = event.domain.with_id(Some(run));
    begin(roster, key, &run, after.unwrap_or(BEGUN), before);
    // libvirt sends resumed (unpaused) before started: the start is still to come, or fails without
    // an event. A guest that migrates in is resumed last.
    let is_start =
        matches!(event.change, Change::Resumed(ResumeCause::Unpaused | ResumeCause::Unspecified));
    if let Some(entry) = roster.get_mut(key) {
        entry.unannounced = is_start;
        if !is_start {
            before.began(&run, entry.persistent);
        }
    }
    DELIVER.doubted()
}

fn define(roster: &mut Roster, key: Key, event: &mut Lifecycle, cause: DefineCause) -> Verdict {
    let name_is_known = roster.get(key).is_some_and(|e| e.domain.name() == event.domain.name());
    let id = event.domain.id();
    let Some(entry) = roster.get_mut(key) else {
        let off = State::Shutoff(ShutoffReason::Unspecified);
        let inactive = event.domain.with_id(None);
        roster.insert(key, Entry::seen(inactive, off, Some(true)));
        // It has a run whose start was missed.
        return DELIVER.doubted_if(id.is_some());
    };
    let repeats = match cause {
        DefineCause::Added => entry.from_list && entry.persistent == Some(true),
        DefineCause::Renamed => entry.persistent == Some(true),
        // Definitions may be updated any number of times, so an update never counts as a
        // repetition.
        _ => false,
    };
    entry.persistent = Some(true);
    let is_other_run = id.is_some() && id != entry.domain.id();
    if !name_is_known {
        // libvirt keeps the uuid and sends undefined (renamed), then defined (renamed); only the
        // second has the new name.
        roster.rename(key, &event.domain);
    }
    let verdict = if repeats && name_is_known { DROP } else { DELIVER };
    verdict.doubted_if(is_other_run)
}

fn undefine(
    roster: &mut Roster,
    key: Key,
    event: &mut Lifecycle,
    cause: UndefineCause,
    before: &mut Inference,
) -> Verdict {
    let id = event.domain.id();
    let Some(entry) = roster.get_mut(key) else { return DROP };
    if cause == UndefineCause::Renamed {
        // The definition lives on under the name in the next event.
        return if entry.domain.name() == event.domain.name() { DELIVER } else { DROP };
    }
    if entry.domain.is_active() {
        // The run lives on until it stops.
        let repeats = entry.from_list && entry.persistent == Some(false);
        let is_other_run = id != entry.domain.id();
        entry.persistent = Some(false);
        // The run that lives on, which `is_gone` looks at: libvirt sends its id, other hypervisors
        // may not.
        event.domain = event.domain.with_id(entry.domain.id());
        return if repeats { DROP } else { DELIVER }.doubted_if(is_other_run);
    }
    // libvirt sends the id of the run with undefined (seen on 9.0): there is a run whose start was
    // missed.
    let missed_run = id.filter(|_| !roster.has_ended(key, id));
    if missed_run.is_some() {
        before.began(&event.domain, Some(true));
        roster.insert(key, Entry::seen(event.domain.clone(), BEGUN, Some(false)));
        return DELIVER.doubted();
    }
    event.domain = event.domain.with_id(None);
    roster.remove(key);
    DELIVER
}

/// Applies the events of a batch to the roster. Leaves in `events` those to deliver, each after the
/// events inferred before it, and reports the trust in each domain.
pub(super) fn observe_all(
    roster: &mut Roster,
    events: &mut Vec<DomainEvent>,
    before: &mut Inference,
    mut note_trust: impl FnMut(Key, &DomainEvent, Trust),
) {
    let mut kept = 0;
    // Where the inferred events belong among the kept ones. Mostly there are none.
    let mut places: Vec<usize> = Vec::new();
    // In place: mostly every event is kept and nothing is inferred, and then nothing is moved.
    events.retain_mut(|event| {
        let is_delivered = observe_one(roster, event, before, &mut note_trust);
        places.resize(before.events.len(), kept);
        kept += usize::from(is_delivered);
        is_delivered
    });
    if places.is_empty() {
        return;
    }
    let observed = std::mem::take(events);
    let mut inferred = places.into_iter().zip(before.events.drain(..)).peekable();
    for (at, event) in observed.into_iter().enumerate() {
        while let Some((_, first)) = inferred.next_if(|(place, _)| *place <= at) {
            events.push(first);
        }
        events.push(event);
    }
    events.extend(inferred.map(|(_, event)| event));
}

/// The same for one event; true if it is to be delivered, after the events in `before`.
pub(super) fn observe_one(
    roster: &mut Roster,
    event: &mut DomainEvent,
    before: &mut Inference,
    note_trust: &mut impl FnMut(Key, &DomainEvent, Trust),
) -> bool {
    let (key, verdict) = match event {
        DomainEvent::Lifecycle(event) => {
            let key = roster.key(&event.domain);
            (key, observe(roster, key, event, before))
        }
        DomainEvent::Reboot(event) => {
            let key = roster.key(&event.domain);
            reboot(roster, key, event);
            // Delivered in any case: a reboot repeats nothing, and nothing has to precede it.
            (key, DELIVER)
        }
        _ => return true,
    };
    note_trust(key, event, verdict.trust);
    verdict.deliver
}
